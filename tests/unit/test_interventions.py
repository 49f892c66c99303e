"""Interventions: what is kept of a long computation, and that nothing kept is mistaken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import build
from random_pairs import random_capability

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import exchange_answers, exchange_prompts, halves, take
from forgetguard.discovery.store import Store
from forgetguard.errors import AnatomyError
from forgetguard.measures import interventions
from forgetguard.measures.ablation import ablation
from forgetguard.measures.interventions import (
    FloatArray,
    Intervened,
    Intervention,
    Passes,
    intervene,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _parts_of_32(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that 70 sets make several parts."""
    monkeypatch.setattr(interventions, "_SAVED_RUNS", 32)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return locate(build("gpt2"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open("test", tmp_path)


def sets(anatomy: Anatomy) -> list[tuple[Member, ...]]:
    """70 sets: three parts of what is saved at once, the last of them not full."""
    heads = anatomy.heads
    pairs = [(one, other) for one in heads for other in heads if one < other]
    return [(), *pairs, *((member,) for member in anatomy.members(mlps=True))][:70]


def read(
    anatomy: Anatomy,
    capability: EncodedCapability,
    chosen: Sequence[tuple[Member, ...]],
    kind: str = "counterfactual",
    **more: Any,
) -> Intervened:
    sources = ablation(anatomy, capability, anatomy.members(mlps=True), kind)
    plan = [Intervention(members, kind) for members in chosen]
    return intervene(anatomy, capability, plan, sources, **more)


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each call of the engine patches."""
    seen: list[int] = []
    engine = interventions.wavefront

    def counted(passed: Any, runs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(len(runs))
        return engine(passed, runs, *args, **kwargs)

    monkeypatch.setattr(interventions, "wavefront", counted)
    return seen


def same(one: Intervened, other: Intervened) -> None:
    np.testing.assert_allclose(one.readout, other.readout, rtol=0, atol=2e-5)
    assert np.array_equal(one.clean.readout, other.clean.readout)
    assert np.array_equal(one.clean.correct, other.clean.correct)


def test_what_is_kept_equals_what_is_not(anatomy: Anatomy, store: Store, waves: list[int]) -> None:
    """The engine is called in parts where they are kept; what it reads does not depend on it."""
    capability, chosen = random_capability(5), sets(anatomy)
    without = read(anatomy, capability, chosen)
    assert waves == [69, 69]  # two lengths; the clean run is not patched
    waves.clear()
    first = read(anatomy, capability, chosen, saved=store)
    same(first, without)
    assert sum(waves) == 2 * 69
    waves.clear()
    again = read(anatomy, capability, chosen, saved=store)
    assert waves == []
    assert np.array_equal(again.readout, first.readout)


class Interrupted(Store):
    """A store in which the user presses Ctrl-C while the part after `after` others is saved."""

    __slots__ = ("after", "done")

    @classmethod
    def at(cls, folder: Path, after: int) -> Interrupted:
        store = cls(folder)
        object.__setattr__(store, "after", after)
        object.__setattr__(store, "done", 0)
        return store

    def save(self, key: str, values: FloatArray) -> None:
        if self.done == self.after:
            raise KeyboardInterrupt
        Store.save(self, key, values)
        object.__setattr__(self, "done", self.done + 1)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5])
def test_an_interrupted_run_goes_on_where_it_stopped(
    anatomy: Anatomy, store: Store, waves: list[int], after: int
) -> None:
    capability, chosen = random_capability(5), sets(anatomy)
    without = read(anatomy, capability, chosen)
    waves.clear()
    with pytest.raises(KeyboardInterrupt):
        read(anatomy, capability, chosen, saved=Interrupted.at(store.folder, after))
    assert len(waves) == after + 1  # two lengths, three parts each
    kept = list(store.folder.glob("*")) if store.folder.exists() else []
    assert [path.suffix for path in kept] == [".npy"] * after
    waves.clear()
    same(read(anatomy, capability, chosen, saved=store), without)
    assert len(waves) == 6 - after, "only what was not kept is computed"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00garbage" * 40)


def zipped(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + b"\x00" * 60)


def of_another_shape(path: Path) -> None:
    np.save(path, np.zeros((1, 1)))


def of_no_numbers(path: Path) -> None:
    np.save(path, np.array([["a"]]))


DAMAGES = [cut, empty, garbage, zipped, of_another_shape, of_no_numbers]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_computed_again_and_kept(
    anatomy: Anatomy, store: Store, waves: list[int], damage: Callable[[Path], None]
) -> None:
    capability, chosen = random_capability(5), sets(anatomy)
    before = read(anatomy, capability, chosen, saved=store)
    parts = sorted(store.folder.glob("*.npy"))
    assert len(parts) == 6
    damage(parts[2])
    waves.clear()
    assert np.array_equal(read(anatomy, capability, chosen, saved=store).readout, before.readout)
    assert len(waves) == 1
    waves.clear()
    read(anatomy, capability, chosen, saved=store)
    assert waves == []


def test_two_halves_of_the_pairs_are_told_apart(anatomy: Anatomy, store: Store) -> None:
    """Ranking and curve run on halves whose pairs have the same indices, in one store."""
    for half in halves(random_capability(16, lengths=(6,))):
        assert half.batches[0].pairs == tuple(range(8))
        kept = read(anatomy, half, [(Head(0, 1),)], saved=store)
        same(kept, read(anatomy, half, [(Head(0, 1),)]))
    assert len(list(store.folder.glob("*.npy"))) == 2


def test_whatever_is_asked_otherwise_is_told_apart(anatomy: Anatomy, store: Store) -> None:
    """One store, many questions: each is answered as without the store."""
    whole = random_capability(6, lengths=(6,))
    logprob = random_capability(6, lengths=(6,), readout="logprob")
    one: list[tuple[Member, ...]] = [(Head(0, 1),)]
    asked: list[tuple[EncodedCapability, list[tuple[Member, ...]], str]] = [
        (whole, one, "counterfactual"),
        (whole, one, "mean"),
        (whole, one, "zero"),
        (whole, [(Head(0, 2),)], "counterfactual"),
        (whole, [(Head(0, 1), Head(0, 2))], "counterfactual"),
        (whole, [(Head(0, 1),), (Head(0, 2),)], "counterfactual"),
        (whole, [(Head(0, 2),), (Head(0, 1),)], "counterfactual"),
        (exchange_prompts(whole), one, "counterfactual"),
        (exchange_answers(whole), one, "counterfactual"),
        (take(whole, [0, 1, 2]), one, "mean"),
        (take(whole, [0, 1, 3]), one, "mean"),
        (take(whole, [5, 4, 3, 2, 1, 0]), one, "counterfactual"),
        (logprob, one, "counterfactual"),
        (replace(logprob, vocabulary=97), one, "counterfactual"),
        (replace(logprob, vocabulary=96), one, "counterfactual"),
        (random_capability(6, lengths=(6,), batch_tokens=12), one, "counterfactual"),
    ]
    for capability, chosen, kind in asked:
        kept = read(anatomy, capability, chosen, kind, saved=store)
        same(kept, read(anatomy, capability, chosen, kind))
    batches = sum(len(capability.batches) for capability, *_ in asked)
    assert len(list(store.folder.glob("*.npy"))) == batches


def test_equal_batches_with_another_mean_are_told_apart(anatomy: Anatomy, store: Store) -> None:
    """The mean is over all pairs of a length, so a batch alone does not name it."""
    whole = random_capability(6, lengths=(6,), batch_tokens=12)
    first, second = (
        EncodedCapability(
            capability=(part := take(whole, chosen)).capability,
            encoded=part.encoded,
            batches=random_batches(part),
        )
        for chosen in ([0, 1, 2, 3], [0, 1, 4, 5])
    )
    assert torch.equal(first.batches[0].clean, second.batches[0].clean)
    for part in (first, second):
        kept = read(anatomy, part, [(Head(0, 1),)], "mean", saved=store)
        same(kept, read(anatomy, part, [(Head(0, 1),)], "mean"))


def random_batches(part: EncodedCapability) -> Any:
    from forgetguard.capabilities.batches import make_batches

    return make_batches(part.encoded.pairs, tokens=12)


@pytest.mark.parametrize("kept", [False, True])
def test_progress_counts_patched_prompts_up_to_all(
    anatomy: Anatomy, store: Store, kept: bool
) -> None:
    seen: list[tuple[int, int]] = []
    for _ in range(2):  # the second time all of it is there already
        seen.clear()
        read(
            anatomy,
            random_capability(5),
            sets(anatomy),
            progress=lambda done, total: seen.append((done, total)),
            saved=store if kept else None,
        )
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})
        assert {total for _, total in seen} == {350}
        assert seen[-1] == (350, 350)


def test_no_members_is_the_clean_run_exactly(anatomy: Anatomy) -> None:
    found = read(anatomy, random_capability(5), [(), (Head(1, 1),), ()])
    for number in (0, 2):
        assert np.array_equal(found.readout[number], found.clean.readout)
    assert not np.array_equal(found.readout[1], found.clean.readout)


def test_no_interventions_still_read_the_clean_run(anatomy: Anatomy) -> None:
    found = read(anatomy, random_capability(5), [])
    assert found.readout.shape == (0, 5)
    assert np.isfinite(found.clean.readout).all()


def test_a_member_that_is_not_in_the_model_is_named(anatomy: Anatomy) -> None:
    capability = random_capability(5)
    sources = ablation(anatomy, capability, anatomy.heads)
    with pytest.raises(AnatomyError, match="layer 9 is not in this model"):
        intervene(anatomy, capability, [Intervention((Head(9, 0),))], sources)


def test_what_is_kept_of_earlier_calls_changes_no_number(
    anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    capability, chosen = random_capability(6), sets(anatomy)
    expected = read(anatomy, capability, chosen)
    clean_pass, calls = interventions.clean_and_prefix, []

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(args)
        return clean_pass(*args, **more)

    monkeypatch.setattr(interventions, "clean_and_prefix", counted)
    passes = Passes(anatomy.members(mlps=True))
    read(anatomy, capability, chosen[:9], passes=passes)
    assert len(calls) == len(capability.batches)
    found = read(anatomy, capability, chosen, passes=passes)
    assert len(calls) == len(capability.batches), "no clean pass was run again"
    same(found, expected)


def test_a_set_that_begins_where_it_leaves_a_member_in_place_reads_the_same(
    anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All members but those of the last layers; one set leaves a member of layer 0 in place."""
    capability, every = random_capability(6), anatomy.members(mlps=True)
    last = [one for one in every if one.layer == anatomy.n_layers - 1]
    kept = [(), last[:1], last, [*last[1:], *every[:1]], [Head(anatomy.n_layers - 2, 1)]]
    chosen = [tuple(one for one in every if one not in left) for left in kept]
    expected = read(anatomy, capability, chosen)
    first_layers: list[list[int]] = []
    wavefront = interventions.wavefront

    def watched(passed: Any, runs: Any, *args: Any, **more: Any) -> Any:
        first_layers.append([run.first_layer for run in runs])
        return wavefront(passed, runs, *args, **more)

    monkeypatch.setattr(interventions, "wavefront", watched)
    passes = Passes(every, nested=True)
    read(anatomy, capability, chosen[:1], passes=passes)
    same(read(anatomy, capability, chosen, passes=passes), expected)
    n = anatomy.n_layers
    assert first_layers[-1] == [0, n - 1, n - 1, 0, n - 2]


def test_without_room_nothing_is_kept(anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interventions, "_KEPT_BYTES", 10)
    passes = Passes(anatomy.members(mlps=True))
    read(anatomy, random_capability(6), sets(anatomy)[:9], passes=passes)
    assert passes.get(0) is None

"""What depends on the base alone is kept between runs, changes no number, and serves no other base;
and what a run costs, counted in forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_copies import BASE, copy_of_base, output_slice_zeroed

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head
from forgetguard.checkpoints.fingerprint import Fingerprint
from forgetguard.checkpoints.placement import Checkpoint, ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate import kept
from forgetguard.gate.declaration import FilePairs, InlinePairs
from forgetguard.gate.schema import GateSpec, Limit, load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.samples import IMPORTANCE, OWN_DAMAGE, Samples

pytestmark = pytest.mark.usefixtures("one_thread")

CIRCUITS = Path(__file__).parents[2] / "circuits"
SPEC = load_gate_file(CIRCUITS / "tiny-ioi.circuit.yaml")
CIRCUIT = Limit("dcv.circuit", 0.10)
HEAD = Limit("dcv.head", 0.25)


def pair_of(base: Path, tuned: str | Path) -> ModelPair:
    given = {"base": base, "tuned": tuned}
    specs = {role: resolve(str(where), role) for role, where in given.items()}
    return ModelPair(specs, placement="resident")


def run(
    cache: Path | None, base: Path = BASE, tuned: str | Path = "tiny:sft"
) -> tuple[list[Verdict], Samples]:
    """Both limits, and everything that was read; `cache`: where to keep, if anywhere."""
    spec = replace(SPEC, fits=None)
    session = GateSession(pair_of(base, tuned), [spec], cache=cache, keep=cache is not None)
    return [session.judge(spec, limit) for limit in (CIRCUIT, HEAD)], session.measurement(spec)


def same(one: Samples, other: Samples) -> bool:
    assert one.arrays.keys() == other.arrays.keys()
    return all(np.array_equal(values, other.arrays[key]) for key, values in one.arrays.items())


# Its first head is in layer 1, so that there are layers below it.
UPPER = replace(
    SPEC,
    fits=None,
    members=tuple(one for one in SPEC.members if one.layer),
    one_by_one=(Head(1, 4), Head(2, 2)),
)


def embedding_scaled(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.embed_tokens.weight"] *= 1.01


def test_the_layers_below_a_circuit_are_run_once_and_no_bit_depends_on_it(tmp_path: Path) -> None:
    """Of the clean prompts layer 0 of the base then sees one, by which what was kept is known."""
    spec, found = UPPER, []
    for cache in (None, tmp_path, tmp_path):
        pair = pair_of(BASE, "tiny:sft")
        ran: list[int] = []
        with pair.base.open() as model:
            part = model.get_submodule("model.layers.0.self_attn")
            part.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        session = GateSession(pair, [spec], cache=cache, keep=cache is not None)
        verdicts = [session.judge(spec, limit) for limit in (CIRCUIT, HEAD)]
        found.append((verdicts, session.measurement(spec), len(ran)))
    (verdicts, samples, plain), (cold, first, computed), (warm, again, saved) = found
    assert verdicts == cold == warm
    assert same(samples, first)
    assert same(samples, again)
    batches = session._plans[spec.name].whole.pairs
    assert batches is not None
    assert saved <= plain - len(batches.batches) < computed


def test_what_lies_below_is_not_served_to_a_base_that_differs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where its files could not be told apart."""
    other = copy_of_base(tmp_path, embedding_scaled)
    equal = Fingerprint("0" * 64, "0" * 64, "0" * 64)
    monkeypatch.setattr(Checkpoint, "fingerprint", property(lambda _: equal))
    cache = tmp_path / "cache"

    def measured(base: Path, cache: Path | None) -> Samples:
        keep = cache is not None
        session = GateSession(pair_of(base, "tiny:sft"), [UPPER], cache=cache, keep=keep)
        return session.measurement(UPPER)

    measured(BASE, cache)
    assert same(measured(other, cache), measured(other, None))


def test_another_number_of_threads_is_another_base(tmp_path: Path) -> None:
    """It may round otherwise."""
    with pair_of(BASE, "tiny:sft") as pair, pair.base.open() as model:
        anatomy = locate(model)
        names = set()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found = kept.Kept.of(pair.base, anatomy, tmp_path)
            assert found is not None
            names.add(found.name)
    assert len(names) == 2


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "base").iterdir())


def test_numbers_are_the_same_bit_for_bit_with_and_without_what_was_kept(tmp_path: Path) -> None:
    verdicts, samples = run(None)
    for _ in range(2):  # nothing is there yet, and then all of it
        again, found = run(tmp_path)
        assert again == verdicts
        assert same(found, samples)
    assert entries(tmp_path)


def test_another_base_is_never_served_what_was_kept_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where its files could not be told apart."""
    other = copy_of_base(tmp_path, output_slice_zeroed(Head(0, 4)))
    _, mine = run(None)
    _, theirs = run(None, base=other)
    equal = Fingerprint("0" * 64, "0" * 64, "0" * 64)
    monkeypatch.setattr(Checkpoint, "fingerprint", property(lambda _: equal))
    cache = tmp_path / "cache"
    assert same(run(cache)[1], mine)
    before = len(entries(cache))
    assert same(run(cache, base=other)[1], theirs)
    assert len(entries(cache)) == 2 * before - 1  # what a base reads on clean prompts: overwritten
    assert not same(theirs, mine)


@pytest.mark.parametrize(
    "harm", [lambda old: old[:-9], lambda old: old[:-1] + bytes([old[-1] ^ 1]), lambda _: b""]
)
def test_a_damaged_entry_is_measured_again(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    _, samples = run(tmp_path)
    whole = {place: place.read_bytes() for place in entries(tmp_path)}
    for place, content in whole.items():
        place.write_bytes(harm(content))
    assert same(run(tmp_path)[1], samples)
    assert {place: place.read_bytes() for place in entries(tmp_path)} == whole


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file in its place")
    assert run(tmp_path)[0] == run(None)[0]


def test_the_folder_stays_within_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    listed = entries(tmp_path)
    total = sum(one.stat().st_size for one in listed)
    monkeypatch.setattr(kept, "MOST_BYTES", total)
    kept.make_room(tmp_path)
    assert entries(tmp_path) == listed
    monkeypatch.setattr(kept, "MOST_BYTES", total - 1)
    kept.make_room(tmp_path)
    assert 0 < sum(one.stat().st_size for one in entries(tmp_path)) <= total // 2


# --- what it costs -------------------------------------------------------------------------------


def passes(
    cache: Path | None, spec: GateSpec, *limits: Limit, tuned: str | Path = "tiny:sft"
) -> tuple[dict[str, int], int]:
    """Forward passes of each model until `limits` are judged, and the batches of its prompts."""
    pair = pair_of(BASE, tuned)
    counted: dict[str, int] = {}
    for checkpoint in pair.checkpoints:
        with checkpoint.open() as model:

            def count(*_: object, role: str = checkpoint.role) -> None:
                counted[role] = counted.get(role, 0) + 1

            model.register_forward_pre_hook(count)
    pairs = [(spec, limit) for limit in limits]
    keep = cache is not None
    session = GateSession(
        pair, [spec], cache=cache, keep=keep, family=max(1, len(pairs)), limits=pairs
    )
    for limit in limits:
        session.judge(spec, limit)
    batches = session._plans[spec.name].whole.pairs
    assert batches is not None
    return counted, len(batches.batches)


def test_what_is_kept_saves_three_of_five_passes_over_the_base(tmp_path: Path) -> None:
    """Clean, counterfactual, its prefix, and a wavefront each of importance and damage a batch; the
    clean one and that of the damage stay. The tuned model is read once."""
    cold, batches = passes(tmp_path, SPEC, CIRCUIT, HEAD)
    warm, _ = passes(tmp_path, SPEC, CIRCUIT, HEAD)
    assert cold["base"] - warm["base"] == 3 * batches
    assert cold["tuned"] == warm["tuned"] == batches + 1  # and the check of its sums


def test_the_run_s_family_costs_no_pass(tmp_path: Path) -> None:
    """Whether the base can do what a file asks is read off what is measured anyway."""
    one, _ = passes(None, SPEC, CIRCUIT)
    several, _ = passes(None, SPEC, CIRCUIT, HEAD)
    assert one == several


INDUCTION = load_gate_file(CIRCUITS / "tiny-induction.circuit.yaml")


def swapped(spec: GateSpec) -> GateSpec:
    """The file with each pair's answer and distractor in each other's place: no base does that."""
    assert isinstance(spec.pairs, FilePairs)
    pairs = [replace(one, answer=one.distractor, distractor=one.answer) for one in spec.pairs.pairs]
    return replace(spec, name="swapped", pairs=InlinePairs(tuple(pairs)))


def family_of(
    cache: Path | None, measured: Sequence[GateSpec], run_s: Sequence[GateSpec], base: Path = BASE
) -> tuple[int, int]:
    """Of a run over all of `run_s` of which only `measured` are selected: the family, and the
    forward passes of the base until a limit of the first is judged."""
    pair, counted = pair_of(base, "tiny:sft"), []
    with pair.base.open() as model:
        model.register_forward_pre_hook(lambda *_: counted.append(1))
    limits = [(spec, limit) for spec in run_s for limit in (CIRCUIT, HEAD)]
    keep = cache is not None
    session = GateSession(pair, measured, cache=cache, keep=keep, family=len(limits), limits=limits)
    verdict = session.judge(measured[0], CIRCUIT)
    return verdict.family, len(counted)


def test_a_selection_has_the_family_of_the_run_and_reads_one_batch_of_each_other_file(
    tmp_path: Path,
) -> None:
    files = [replace(one, fits=None) for one in (SPEC, INDUCTION, swapped(INDUCTION))]
    alone, bare = family_of(None, files[:1], files[:1])
    unkept, costly = family_of(None, files[:1], files)
    whole, _ = family_of(tmp_path, files, files)
    part, cheap = family_of(tmp_path, files[:1], files)
    assert (alone, unkept, whole, part) == (2, 4, 4, 4)
    assert costly > bare + 2
    assert cheap == family_of(tmp_path, files[:1], files[:1])[1] + 2


def test_what_another_base_can_do_is_not_taken_for_this_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [replace(one, fits=None) for one in (SPEC, INDUCTION)]

    def silent(weights: dict[str, torch.Tensor]) -> None:
        for name, weight in weights.items():
            if name.endswith("o_proj.weight"):
                weight.zero_()

    other = copy_of_base(tmp_path, silent)
    unable, _ = family_of(None, files[:1], files, base=other)
    equal = Fingerprint("0" * 64, "0" * 64, "0" * 64)
    monkeypatch.setattr(Checkpoint, "fingerprint", property(lambda _: equal))
    cache = tmp_path / "cache"
    assert family_of(cache, files, files)[0] == 4
    assert family_of(cache, files[:1], files, base=other)[0] == unable == 1


def test_only_a_limit_that_does_not_pass_has_every_member_patched_alone(tmp_path: Path) -> None:
    spec = replace(SPEC, fits=None)
    broken = copy_of_base(tmp_path, output_slice_zeroed(Head(0, 4)))
    for tuned, outcome in (("tiny:sft", Outcome.PASS), (broken, Outcome.FAIL)):
        session = GateSession(pair_of(BASE, tuned), [spec])
        verdict = session.judge(spec, CIRCUIT)
        measured = session.measured(spec)
        assert measured is not None
        subjects = {*measured[1].subjects(IMPORTANCE, "base")}
        everyone, alone = map(str, spec.members), {*map(str, spec.judged_alone)}
        assert verdict.outcome is outcome
        if outcome is Outcome.PASS:
            assert subjects == alone | {"circuit"}
            assert {one.subject for one in verdict.subjects} == alone
            assert not measured[1].subjects(OWN_DAMAGE)
        else:
            assert subjects == {*everyone, "circuit"}
            assert {*measured[1].subjects(OWN_DAMAGE)} == subjects - {"circuit"}
            assert verdict.subjects[0].subject == "L0H4"
            assert len(verdict.subjects) == len(spec.members)


def test_a_verdict_does_not_depend_on_what_other_limits_came_to(tmp_path: Path) -> None:
    spec = replace(SPEC, fits=None)
    broken = copy_of_base(tmp_path, output_slice_zeroed(Head(0, 4)))
    passing, failing = Limit("dcv.circuit", 0.99), Limit("dcv.circuit", 0.01)
    first = GateSession(pair_of(BASE, broken), [spec]).judge(spec, passing)
    session = GateSession(pair_of(BASE, broken), [spec])
    assert session.judge(spec, failing).outcome is Outcome.FAIL
    assert first.outcome is Outcome.PASS
    assert session.judge(spec, passing) == first

"""Discovery on a checkpoint goes on where it was stopped, and is not repeated when it is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_copies import BASE, copy_of_base, output_slice_zeroed

import forgetguard as fg
from forgetguard.anatomy.members import Head
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.encoding import EncodedPair
from forgetguard.capabilities.variants import halves
from forgetguard.checkpoints.placement import Checkpoint
from forgetguard.discovery import on_checkpoint
from forgetguard.discovery.circuit import Found
from forgetguard.discovery.on_checkpoint import Search, discover_on
from forgetguard.discovery.store import Store
from forgetguard.errors import BaseCannotError, CapabilityError, MeasurementError
from forgetguard.gate import session as gate_session
from forgetguard.gate.provenance import describe
from forgetguard.gate.schema import FilePairs, GateSpec, InlinePairs, Limit, TaskPairs
from forgetguard.gate.session import GateSession, discovery_pairs
from forgetguard.gate.stages import as_capability
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures import interventions
from forgetguard.measures.interventions import FloatArray
from forgetguard.measures.samples import Note

pytestmark = pytest.mark.usefixtures("one_thread")

IOI = fg.capability("ioi", pairs=20, seed=7)
SEARCH = Search("activation_patching", faithful=0.7)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, never the real one."""
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def base(folder: Path = BASE) -> Checkpoint:
    return fg.load(base=str(folder)).base


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each call of the engine patches, the self-checks' apart."""
    seen: list[int] = []
    engine = interventions.wavefront

    def counted(passed: Any, runs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(runs))
        return engine(passed, runs, *args, **kwargs)

    monkeypatch.setattr(interventions, "wavefront", counted)
    return seen


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save, done = Store.save, [0]

    def interrupted(self: Store, key: str, values: FloatArray) -> None:
        if done[0] == parts:
            raise KeyboardInterrupt
        save(self, key, values)
        done[0] += 1

    monkeypatch.setattr(Store, "save", interrupted)


def folders(cache: Path) -> list[Path]:
    return sorted((cache / "discovery").iterdir())


def not_again(*_: Any, **__: Any) -> Found:
    raise AssertionError("discovered again")


@pytest.fixture(scope="module")
def plain() -> Found:
    """Found without keeping anything."""
    return discover_on(base(), IOI, SEARCH, keep=False)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_interrupted_discovery_computes_nothing_twice(
    share: float, plain: Found, cache: Path, waves: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranking and curve run on two halves of the pairs whose indices are the same."""
    assert not cache.exists()
    halves_of = halves(IOI.encoded(base().tokenizer))
    parts = sum(len(half.batches) for half in halves_of)  # at most 32 runs: one part a batch
    after = max(1, round(share * parts))
    assert after < parts
    with monkeypatch.context() as patched:
        stop_after(after, patched)
        with pytest.raises(KeyboardInterrupt):
            discover_on(base(), IOI, SEARCH)
    assert len(waves) == after + 1
    (folder,) = folders(cache)
    assert len(list(folder.glob("*.npy"))) == after
    waves.clear()
    resumed = discover_on(base(), IOI, SEARCH)
    assert len(waves) == parts - after
    assert resumed.circuit == plain.circuit
    assert resumed.ranking.order == plain.ranking.order
    assert resumed.curve.faithfulness == pytest.approx(plain.curve.faithfulness, abs=1e-5)
    assert list(resumed.ranking.scores.values()) == pytest.approx(
        list(plain.ranking.scores.values()), abs=1e-4
    )
    assert [path.name for path in folder.iterdir()] == ["found.json"]


def test_a_finished_discovery_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = discover_on(base(), IOI, SEARCH)
    monkeypatch.setattr(on_checkpoint, "find_circuit", not_again)
    assert discover_on(base(), IOI, SEARCH) == first
    assert describe(discover_on(base(), IOI, SEARCH)) == describe(first)
    with pytest.raises(AssertionError, match="discovered again"):
        discover_on(base(), IOI, SEARCH, keep=False)


OTHERWISE: dict[str, tuple[Capability, Search]] = {
    "pairs": (fg.capability("ioi", pairs=24, seed=8), SEARCH),
    "readout": (fg.capability("ioi", pairs=24, seed=7, readout="logprob"), SEARCH),
    "faithful": (IOI, Search("activation_patching", faithful=0.6)),
    "ablation": (IOI, Search("activation_patching", faithful=0.7, ablation="mean")),
    "mlps": (IOI, Search("activation_patching", faithful=0.7, mlps=True)),
    "seed": (IOI, Search("activation_patching", faithful=0.7, seed=1)),
    "method": (IOI, Search("random", faithful=0.7)),
    "setting": (
        IOI,
        Search("activation_patching", faithful=0.7, settings={"direction": "denoising"}),
    ),
}


def test_whatever_is_asked_otherwise_is_discovered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def stop(*_: Any, saved: Store, **__: Any) -> Found:
        asked.append(saved.folder.name)
        raise CapabilityError("stop")

    monkeypatch.setattr(on_checkpoint, "find_circuit", stop)
    monkeypatch.setattr(on_checkpoint, "check", lambda *_: None)
    for capability, search in [(IOI, SEARCH), *OTHERWISE.values(), (IOI, SEARCH)]:
        with pytest.raises(CapabilityError):
            discover_on(base(), capability, search)
    assert asked[0] == asked[-1]
    assert len(set(asked)) == len(OTHERWISE) + 1


def test_a_short_name_and_auto_find_what_the_method_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model so small is patched exactly by default."""
    found = discover_on(base(), IOI, Search("activation", faithful=0.7))
    chosen = discover_on(base(), IOI, Search(faithful=0.7))
    assert chosen.chosen is not None
    assert replace(chosen, chosen=None) == found
    screened = Search(faithful=0.6, exact_within=0.0)
    assert discover_on(base(), IOI, screened).ranking.method == "attribution_patching"
    monkeypatch.setattr(on_checkpoint, "find_circuit", not_again)
    assert discover_on(base(), IOI, SEARCH) == found
    # Whatever the time that is given now: what was found by a slower machine's choice stays.
    assert discover_on(base(), IOI, Search(faithful=0.7, exact_within=0.0)) == chosen


def test_other_weights_are_discovered_anew_and_moved_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    discover_on(base(), IOI, SEARCH)
    moved = tmp_path / "moved"
    shutil.copytree(BASE, moved)
    damaged = copy_of_base(tmp_path, output_slice_zeroed(Head(1, 0)))
    monkeypatch.setattr(on_checkpoint, "find_circuit", not_again)
    discover_on(base(moved), IOI, SEARCH)
    with pytest.raises(AssertionError, match="discovered again"):
        discover_on(base(damaged), IOI, SEARCH)


def test_a_cache_that_cannot_be_written_stops_with_the_way_out(cache: Path) -> None:
    cache.mkdir()
    (cache / "discovery").write_text("")
    with pytest.raises(MeasurementError, match="set FORGETGUARD_CACHE"):
        discover_on(base(), IOI, SEARCH)


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_the_ablation_is_named_in_what_is_found(ablation: str) -> None:
    found = discover_on(base(), IOI, Search("activation", faithful=0.5, ablation=ablation))
    assert found.curve.ablation == ablation
    assert found.faithfulness >= 0.5
    assert describe(found)["ablation"] == ablation
    assert found.curve.faithfulness[-1] == 1.0


# --- circuit: auto --------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pairs to discover with, for speed."""
    monkeypatch.setattr(gate_session, "_DISCOVERY_PAIRS", 16)


LIMITS = (Limit("dcv.circuit", 0.2), Limit("dcv.head", 0.4), Limit("accuracy.drop", 0.2))


def auto(pairs: TaskPairs | InlinePairs = TaskPairs("ioi", 16, 3)) -> GateSpec:  # noqa: B008
    return GateSpec("ioi-auto", "ioi", pairs, "logit_diff", (), LIMITS, auto=True)


def session(first: Path = BASE, tuned: str = "tiny:sft") -> Callable[[GateSpec], GateSession]:
    return lambda spec: GateSession(fg.load(base=str(first), tuned=tuned, allow_same=True), [spec])


@pytest.mark.usefixtures("few")
def test_an_automatic_circuit_is_found_once_and_then_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = auto()
    calls = []
    find = on_checkpoint.find_circuit

    def counted(*args: Any, **kwargs: Any) -> Found:
        calls.append(args)
        return find(*args, **kwargs)

    monkeypatch.setattr(on_checkpoint, "find_circuit", counted)
    first = session()(spec)
    before = [first.judge(spec, limit) for limit in LIMITS]
    assert len(calls) == 1, "once for all limits"
    assert len(folders(cache)) == 1
    monkeypatch.setattr(on_checkpoint, "find_circuit", not_again)
    second = session()(spec)
    assert [second.judge(spec, limit) for limit in LIMITS] == before
    assert before[0].estimate is not None
    (note,) = [note for note in before[0].notes if note.code == "auto"]
    assert note.facts["found_on"] == {
        "kind": "task", "task": "ioi", "seed": 1_000_006, "pairs": 16
    }  # fmt: skip
    assert (note.facts["method"], note.facts["of"]) == ("activation_patching", 24)
    names = set(note.facts["members"])
    # Beside a pass, those that carry a tenth of the effect as it was found.
    assert set() < {one.subject for one in before[1].subjects} < names
    assert {"circuit", *names} == set(first.measurement(spec).subjects("damage"))


@pytest.mark.usefixtures("few")
def test_looking_for_several_circuits_checks_the_model_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[int] = []
    monkeypatch.setattr(on_checkpoint, "check_patching", lambda *_, **__: checked.append(1))
    one = auto()
    other = replace(one, name="other", pairs=TaskPairs("ioi", 16, 4))
    both = GateSession(fg.load(base=str(BASE), tuned="tiny:sft"), [one, other])
    assert all("circuit" in both.measurement(spec).subjects("damage") for spec in (one, other))
    assert len(checked) == 1


@pytest.mark.usefixtures("few")
def test_an_automatic_circuit_belongs_to_the_weights_of_the_base(
    tmp_path: Path, cache: Path
) -> None:
    spec = auto()
    session()(spec).measurement(spec)
    other = copy_of_base(tmp_path, output_slice_zeroed(Head(1, 0)))
    session(other)(spec).measurement(spec)
    session(tuned=str(other))(spec).measurement(spec)  # another tuned model: the base's circuit
    assert len(folders(cache)) == 2


@pytest.mark.usefixtures("few")
def test_an_automatic_circuit_on_a_byte_copy_reads_zero(tmp_path: Path) -> None:
    spec = auto()
    verdict = session(tuned=str(copy_of_base(tmp_path)))(spec).judge(spec, LIMITS[0])
    assert verdict.outcome is Outcome.PASS
    assert verdict.estimate is not None
    assert (verdict.estimate.value, *verdict.estimate.interval) == (0.0, 0.0, 0.0)


def texts(pairs: tuple[EncodedPair, ...]) -> set[tuple[str, str]]:
    return {(one.pair.clean, one.pair.counterfactual) for one in pairs}


@pytest.mark.parametrize("seed", [None, 7])
def test_a_circuit_is_found_on_other_pairs_than_it_is_gated_on(seed: int | None) -> None:
    spec, tokenizer = replace(auto(), prompt_seed=seed), base().tokenizer
    judged = as_capability(spec).encoded(tokenizer).encoded.pairs
    capability, on = discovery_pairs(spec, [one.pair for one in judged])
    assert on == {"kind": "task", "task": "ioi", "seed": capability.seed}
    # The circuit belongs to the base: it is found on public words, whatever the prompt seed.
    found = (capability.count, capability.task, capability.seed, capability.held_out)
    assert found == (64, "ioi", 1_000_006, False)
    assert not texts(judged) & texts(capability.encoded(tokenizer).encoded.pairs)


def test_a_pair_that_is_judged_is_not_drawn_to_find_the_circuit_on() -> None:
    spec, tokenizer = auto(), base().tokenizer
    first = discovery_pairs(spec, ())[0].encoded(tokenizer).encoded.pairs
    taken = [one.pair for one in first[:5]]
    again = discovery_pairs(spec, taken)[0].encoded(tokenizer).encoded.pairs
    assert texts(again[:59]) == texts(first[5:])
    assert not texts(again) & texts(first[:5])


@pytest.mark.parametrize(("held", "kind"), [(31, "judged"), (32, "file"), (200, "file")])
@pytest.mark.parametrize("seed", [None, 7])
def test_of_a_file_a_circuit_is_found_on_what_is_not_judged(
    held: int, kind: str, seed: int | None
) -> None:
    pairs = tuple(fg.PromptPair(f"clean {i}", f"counter {i}", " y", " n") for i in range(held))
    spec = replace(auto(), pairs=FilePairs(Path("/p.jsonl"), 16, pairs), prompt_seed=seed)
    judged = as_capability(spec).pairs
    capability, on = discovery_pairs(spec, judged)
    assert on == {"kind": kind}
    assert len(capability.pairs) == (16 if kind == "judged" else min(held - 16, 64))
    assert not ({*judged} & {*capability.pairs}) or kind == "judged"


def inline(exchanged: bool) -> InlinePairs:
    pairs = fg.capability("ioi", pairs=24, seed=9).encoded(base().tokenizer).encoded.pairs
    given = [one.pair for one in pairs]
    return InlinePairs(
        tuple(
            fg.PromptPair(one.clean, one.counterfactual, one.distractor, one.answer)
            if exchanged and one.distractor is not None
            else one
            for one in given
        )
    )


def test_given_pairs_serve_for_both_and_the_verdict_says_so() -> None:
    spec = auto(inline(exchanged=False))
    verdict = session()(spec).judge(spec, LIMITS[0])
    assert Note("found_on_gated_pairs") in verdict.notes
    assert verdict.estimate is not None


def test_what_the_base_cannot_do_abstains_loudly(cache: Path) -> None:
    spec = auto(inline(exchanged=True))
    measured = session()(spec)
    for limit in LIMITS:
        verdict = measured.judge(spec, limit)
        assert verdict.outcome is Outcome.ABSTAIN
        assert verdict.code in (Code.BASE_WRONG, Code.BASE_READOUT)
        assert "not_looked_for" in {note.code for note in verdict.notes}
    assert not cache.exists(), "nothing was found, so nothing is kept"
    with pytest.raises(BaseCannotError, match="THE BASE CANNOT DO 'ioi'"):
        discover_on(base(), as_capability(spec), Search())


def test_a_base_that_fails_on_the_discovery_pairs_alone_abstains_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other pairs were drawn to find the circuit with; near the edge the two may disagree."""

    def cannot(*_: Any, **__: Any) -> Found:
        raise BaseCannotError("THE BASE CANNOT DO 'ioi': it is right on 49% of 128 pairs")

    monkeypatch.setattr(on_checkpoint, "find_circuit", cannot)
    spec = auto()
    measured = session()(spec)
    for limit in LIMITS[:2]:
        verdict = measured.judge(spec, limit)
        assert verdict.outcome is Outcome.ABSTAIN
        assert verdict.code is Code.NO_CIRCUIT
        assert "not_looked_for" in {note.code for note in verdict.notes}

"""Pairs drawn stage by stage on the tiny family: clear cases stop early, and no verdict depends on
how the work was cut up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from known_samples import remarks

import forgetguard as fg
from forgetguard.checkpoints import placement
from forgetguard.gate.rule import judge
from forgetguard.gate.schema import FilePairs, GateSpec, Limit, TaskPairs, load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.samples import Note
from forgetguard.report.recheck import judged_again

pytestmark = pytest.mark.usefixtures("one_thread")

CIRCUITS = Path(__file__).parents[2] / "circuits"
LIMITS = (Limit("dcv.circuit", 0.10), Limit("dcv.head", 0.25), Limit("accuracy.drop", 0.10))


def spec(task: str, count: int, most: int | None = None) -> GateSpec:
    found = load_gate_file(CIRCUITS / f"tiny-{task}.circuit.yaml")
    pairs = TaskPairs(task, count, 11, most=most)
    return replace(found, pairs=pairs, limits=LIMITS)


def session(circuits: Sequence[GateSpec], tuned: str = "tiny:sft", **more: Any) -> GateSession:
    return GateSession(fg.load(base="tiny:base", tuned=tuned), circuits, **more)


def said(verdict: Verdict) -> tuple[object, ...]:
    """What a verdict says but for its numbers, whose last bits depend on how rows were batched."""
    decided = verdict.outcome, verdict.code, verdict.subject
    return *decided, remarks(verdict), verdict.budget, verdict.family


def shown(verdict: Verdict) -> list[float]:
    """Its numbers."""
    estimate = verdict.estimate
    controls = [one.dcv.value for one in verdict.controls if one.dcv is not None]
    return controls + ([] if estimate is None else [estimate.value, *estimate.interval])


def same(one: Verdict, other: Verdict) -> bool:
    return said(one) == said(other) and shown(one) == pytest.approx(shown(other), abs=1e-5)


@pytest.mark.parametrize(
    ("tuned", "task", "maximum", "outcome"),
    [
        ("tiny:lora", "ioi", 0.15, Outcome.PASS),
        ("tiny:sft", "induction", 0.05, Outcome.FAIL),
    ],
)
def test_a_clear_case_stops_at_the_first_stage(
    tuned: str, task: str, maximum: float, outcome: Outcome
) -> None:
    circuit = spec(task, 32, 128)
    gate = session([circuit], tuned)
    found = gate.judge(circuit, Limit("dcv.circuit", maximum))
    assert found.outcome is outcome, found.code
    assert found.estimate is not None
    assert (found.estimate.n, found.budget) == (32, 128)
    drawn = Note("drawn", {"units": 32, "most": 128, "stage": 1, "stages": 3})
    told = [note for note in remarks(found) if note.code != "fixed_prompts"]
    assert told == [drawn]  # and not that fewer exist than were asked for
    measured = gate.measured(circuit)
    assert measured is not None
    assert len(measured[1].units) == 32


def test_a_borderline_case_goes_on_and_abstains_with_all_pairs() -> None:
    circuit = spec("ioi", 16, 64)
    gate = session([circuit])
    value = gate.judge(circuit, Limit("dcv.circuit", 0.5)).estimate
    assert value is not None
    assert value.n == 16
    middle = session([replace(circuit, pairs=TaskPairs("ioi", 64, 11))]).judge(
        replace(circuit, pairs=TaskPairs("ioi", 64, 11)), Limit("dcv.circuit", 0.5)
    )
    assert middle.estimate is not None
    found = gate.judge(circuit, Limit("dcv.circuit", middle.estimate.value))
    assert found.outcome is Outcome.ABSTAIN
    assert found.estimate is not None
    assert (found.estimate.n, found.budget) == (64, 64)
    assert found.estimate.value == pytest.approx(middle.estimate.value, abs=1e-6)
    # What was already decided stays as it was.
    assert gate.judge(circuit, Limit("dcv.circuit", 0.5)).estimate == value


def test_every_stage_reads_what_a_fixed_count_of_as_many_pairs_reads() -> None:
    circuit = spec("induction", 16, 64)
    fixed = replace(circuit, pairs=TaskPairs("induction", 64, 11))
    at_once = session([fixed]).measurement(fixed)
    value = judge(fixed, LIMITS[0], at_once).estimate
    assert value is not None
    near = Limit("dcv.circuit", value.value)  # undecided to the last
    circuit = replace(circuit, limits=(near,))
    gate = session([circuit])
    gate.judge(circuit, near)
    kept = gate.measured(circuit)
    assert kept is not None
    whole = kept[1]
    assert len(whole.units) == 64
    assert at_once.units == whole.units
    assert {key.quantity for key in whole.arrays} >= {"readout", "damage", "importance"}
    for key, values in whole.arrays.items():
        assert values == pytest.approx(at_once.arrays[key], abs=1e-4), key
    same = judge(fixed, LIMITS[0], replace(whole, stages=()))
    assert same.outcome is judge(fixed, LIMITS[0], at_once).outcome


def test_a_prompt_file_is_drawn_look_by_look_too() -> None:
    found = load_gate_file(CIRCUITS / "tiny-ioi.circuit.yaml")
    assert isinstance(found.pairs, FilePairs)
    circuit = replace(found, pairs=replace(found.pairs, count=16, most=48))
    verdict = session([circuit], "tiny:lora").judge(circuit, Limit("dcv.circuit", 0.2))
    assert verdict.outcome is Outcome.PASS
    assert verdict.estimate is not None
    assert verdict.estimate.n == 16
    assert verdict.budget == 48


def test_verdicts_depend_on_no_order_of_circuits_or_limits_and_on_no_worker() -> None:
    circuits = [spec("ioi", 16, 32), spec("induction", 24), spec("greater_than", 16, 32)]
    together = session(circuits, family=9, controls=2)
    expected = {
        (circuit.name, limit.key): together.judge(circuit, limit)
        for circuit in circuits
        for limit in circuit.limits
    }
    backwards = session(circuits[::-1], family=9, controls=2)
    for circuit in circuits[::-1]:
        for limit in circuit.limits[::-1]:
            assert backwards.judge(circuit, limit) == expected[circuit.name, limit.key]
    # Under xdist every worker plans all circuits and judges its share of the limits.
    for circuit in circuits:
        alone = session(circuits, family=9, controls=2)
        limit = circuit.limits[1]
        assert alone.judge(circuit, limit) == expected[circuit.name, limit.key]


@pytest.mark.parametrize("tokens", [40, 200])
def test_verdicts_do_not_depend_on_how_many_rows_fit_into_memory(
    tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = spec("ioi", 16, 32)
    roomy = session([circuit])
    expected = [roomy.judge(circuit, limit) for limit in LIMITS]
    monkeypatch.setattr("forgetguard.patching.wavefront.default_budget", lambda *_: tokens)
    gate = session([circuit])
    for limit, before in zip(LIMITS, expected, strict=True):
        assert same(gate.judge(circuit, limit), before)


def test_no_more_pairs_are_drawn_for_a_file_that_has_failed_in_whatever_order() -> None:
    undecided, failed = Limit("accuracy.drop", 0.05), Limit("dcv.circuit", 0.0)
    undeclared = Limit("accuracy.drop", 0.06)  # a Python gate's
    found = {}
    for limits in [(undecided,), (undecided, failed), (failed, undecided)]:
        circuit = replace(spec("induction", 32, 64), limits=limits)
        gate = session([circuit], family=2)
        verdicts = {limit.key: gate.judge(circuit, limit) for limit in limits}
        estimate = verdicts["accuracy.drop"].estimate
        assert estimate is not None
        found[limits] = estimate.n, verdicts["accuracy.drop"].outcome
        if failed in limits:
            assert verdicts["dcv.circuit"].outcome is Outcome.FAIL
            of_python = gate.judge(circuit, undeclared)
            assert of_python.outcome is Outcome.ABSTAIN
            assert of_python.estimate is not None
            assert of_python.estimate.n == 32
            facts = {"units": 32, "most": 64, "stage": 1, "stages": 2, "stopped": True}
            assert Note("drawn", facts) in verdicts["accuracy.drop"].notes
            kept = gate.measured(circuit)
            assert kept is not None
            for limit in limits:  # as `forgetguard verify` does it
                assert judged_again(kept[0], limit, kept[1], 0, 2) == verdicts[limit.key]
    assert found[(undecided,)][0] == 64
    assert found[(undecided, failed)] == found[(failed, undecided)] == (32, Outcome.ABSTAIN)


def test_tuned_is_opened_once_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    circuits = [
        replace(spec(task, 16, 64), limits=(Limit("accuracy.drop", 0.05),))
        for task in ("ioi", "induction", "greater_than")
    ]
    loaded: list[str] = []
    real = placement.load_model

    def told(*given: Any, **more: Any) -> Any:
        loaded.append(str(given[0]))
        return real(*given, **more)

    monkeypatch.setattr(placement, "load_model", told)
    gate = session(circuits, limits=[(one, one.limits[0]) for one in circuits], family=3)
    verdicts = [gate.judge(one, one.limits[0]) for one in circuits]
    drawn = [one.estimate.n for one in verdicts if one.estimate is not None]
    assert sorted(drawn)[1:] == [64, 64]  # two files at least share the openings
    assert sum("sft" in one for one in loaded) == 3

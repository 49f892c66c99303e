"""A results file holds what its verdicts were decided on: every stage, worker and measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gated import PROMPTS

import forgetguard as fg
from forgetguard.cli.recompute import _measured_again
from forgetguard.errors import CapabilityError, MeasurementError, SpecificationError
from forgetguard.gate.declaration import GateSpec, Limit, TaskPairs
from forgetguard.gate.rule import judge
from forgetguard.gate.runner import sets_of
from forgetguard.gate.schema import load_gate_file, parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.measures import registry
from forgetguard.measures.dcv_circuit import MEASURE as DCV
from forgetguard.measures.measure import NATS, Measure, Sampled
from forgetguard.measures.samples import Key, Samples
from pytest_forgetguard.state import Run

pytestmark = pytest.mark.usefixtures("one_thread")

CIRCUITS = Path(__file__).parents[2] / "circuits"
WEIGHTS = Key("drift.weights", "", "tuned")
PAIRS = "capability: i\nreadout: logit_diff\npairs: {task: induction, count: 16}\n"


def session(*specs: GateSpec, **more: Any) -> GateSession:
    return GateSession(fg.load(base="tiny:base", tuned="tiny:sft"), specs, **more)


def gate(limits: str, source: str = PROMPTS) -> GateSpec:
    return parse_gate(f"forgetguard: 2\n{source}limits: {limits}\n", "a.gate.yaml")


def drawn(count: int, most: int, *limits: Limit) -> GateSpec:
    found = load_gate_file(CIRCUITS / "tiny-ioi.circuit.yaml")
    return replace(found, pairs=TaskPairs("ioi", count, 11, most=most), limits=limits)


def test_an_exact_limit_judged_after_later_stages_were_drawn_is_in_the_file() -> None:
    undecided, exact = Limit("dcv.circuit", 0.0), Limit("drift.weights", 0.5)
    spec = drawn(16, 32, undecided, exact)
    gated = session(spec)
    assert gated.judge(spec, undecided).budget == 32
    verdict = gated.judge(spec, exact)
    found = gated.measured(spec)
    assert found is not None
    assert verdict.estimate is not None
    assert (found[1].count, found[1].exact[WEIGHTS]) == (32, verdict.estimate.value)
    assert judge(found[0], exact, found[1]).estimate == verdict.estimate


def test_a_measure_that_fails_on_the_first_stage_stops_no_other_limit() -> None:
    fails, other = Limit("cka.layer", 0.9), Limit("dcv.circuit", 0.9)
    spec = drawn(4, 32, fails, other)  # CKA needs 5
    gated = session(spec)
    with pytest.raises(MeasurementError, match="CKA of 4 prompts"):
        gated.judge(spec, fails)
    verdict = gated.judge(spec, other)
    assert verdict
    assert verdict.estimate is not None
    assert verdict.estimate.n > 4


def test_what_is_of_all_pairs_together_is_not_drawn_stage_by_stage() -> None:
    with pytest.raises(
        SpecificationError, match=r"a.gate.yaml:5: limits.cka.layer .*leave out most"
    ):
        gate("{cka.layer: {max: 0.5}}", PAIRS.replace("16}", "16, most: 32}"))
    assert gate("{cka.layer: {max: 0.5}}", PAIRS).limits


def test_recording_what_a_measure_could_not_read_is_an_error() -> None:
    few = "prompts: [The capital of France is, Two and, Look at, List fish]\n"
    spec = gate("{cka.layer.over_baseline: {max: 0.5}}", few)
    with pytest.raises(MeasurementError, match="CKA of 4 prompts"):
        session(spec, recording=True).measurement(spec)


def test_a_prompt_longer_than_the_models_positions_is_refused() -> None:
    spec = gate("{kl.forward: {max: 50}}", f"{PROMPTS}  - {'bag ' * 128}bag\n")
    with pytest.raises(CapabilityError, match="and the model 128 positions"):
        session(spec).judge(spec, spec.limits[0])
    fits = gate("{kl.forward: {max: 50}}", f"{PROMPTS}  - {'bag ' * 100}bag\n")
    assert session(fits).judge(fits, fits.limits[0])


@pytest.mark.parametrize("key", ["accuracy.drop", "dcv.circuit", "kl.reverse"])
def test_a_python_gate_on_what_its_file_does_not_read_is_told_to_declare_it(key: str) -> None:
    spec = gate("{kl.forward: {max: 50}}", PAIRS)
    with pytest.raises(SpecificationError, match=f"{key} is not among its limits"):
        session(spec).judge(spec, Limit(key, 0.5))


def test_numbers_of_all_units_and_of_files_are_measured_again_whole() -> None:
    spec = gate("{cka.layer: {max: 0.9}}")
    gated = session(spec)
    gated.judge(spec, Limit("drift.weights", 0.5))  # a gate in Python: the file has no such limit
    measured = gated.measured(spec)
    assert measured is not None
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    found = _measured_again(pair, spec, measured[1], lambda *_: None, count=8, seed=0)
    assert found.exact[WEIGHTS] == measured[1].exact[WEIGHTS]
    order = [found.units.index(unit) for unit in measured[1].units]
    for key, values in measured[1].arrays.items():
        assert found.arrays[key][order] == pytest.approx(values, abs=1e-6)


def test_what_workers_read_of_the_files_is_put_together_role_by_role() -> None:
    def sent(exact: dict[str, Any]) -> dict[str, Any]:
        return {"digest": "d", "name": "a", "measured": {"units": [], "arrays": {}, "exact": exact}}

    run = Run(None, None, None, worker=False)  # type: ignore[arg-type]
    run.add_circuit(sent({"drift.weights": {"baseline": {"": 0.1}, "tuned": {"": 0.2}}}))
    run.add_circuit(
        sent({"drift.weights": {"baseline": {"": 0.1}}, "rotation": {"tuned": {"q": 1.0}}})
    )
    assert run.measured["d"]["measured"]["exact"] == {
        "drift.weights": {"baseline": {"": 0.1}, "tuned": {"": 0.2}},
        "rotation": {"tuned": {"q": 1.0}},
    }


def test_a_measure_that_no_limit_asked_for_when_the_baseline_was_recorded() -> None:
    spec = gate("{kl.forward: {max: 0.5}, drift.weights: {max: 0.5}}")
    assert not isinstance(spec.pairs, TaskPairs | None)
    units = spec.pairs.prompts  # type: ignore[union-attr]
    values = np.linspace(0.1, 0.2, len(units))
    arrays = {Key("kl.forward", "", "tuned"): values, Key("kl.reverse", "", "baseline"): values}
    data = Samples(units, arrays, {WEIGHTS: 0.1})
    assert judge(spec, Limit("kl.forward", 0.5), data).notes == ()
    for key in ("kl.forward", "drift.weights"):
        with pytest.raises(SpecificationError, match=f"{key} is not in what the baseline recorded"):
            judge(spec, Limit(f"{key}.over_baseline", 0.5), data)


def test_a_foreign_measure_may_not_stand_in_for_what_others_are_judged_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = Measure("readout", "x", NATS, Sampled.PROMPTS, compare=lambda *_: {"": np.zeros(1)})
    point = SimpleNamespace(load=lambda: taken, dist=SimpleNamespace(name="toys"), value="toys")
    monkeypatch.setattr(registry, "_entry_points", lambda: {"readout": (point,)})
    registry._load.cache_clear()
    found = registry.find("readout")
    registry._load.cache_clear()
    assert found is not taken
    assert found.on_disk is not None
    with pytest.raises(MeasurementError, match="'readout' of toys"):
        found.on_disk(None, None, None)  # type: ignore[arg-type]

    spec = load_gate_file(CIRCUITS / "tiny-ioi.circuit.yaml")
    other = replace(DCV, key="toy", source="toys", patched=lambda ours, _: {"circuit": ours[:1]})
    with pytest.raises(MeasurementError, match="'toy' of toys patches other members as 'circuit'"):
        sets_of(spec, (DCV, other), ())
    same = replace(other, patched=lambda ours, _: {"circuit": ours[::-1]})
    assert {*sets_of(spec, (DCV, same), ())["circuit"]} == {*spec.members}

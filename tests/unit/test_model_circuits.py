"""The bundled circuits of a real model: the page says what the files say, and they fit by shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.studies.model_circuits import CORE, TASKS, fill
from forgetguard.gate.bundled import divided
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import load_gate_file

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "circuits").glob("smollm2-135m-instruct-*.circuit.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.name.partition(".")[0])
def spec(request: pytest.FixtureRequest) -> GateSpec:
    return load_gate_file(request.param)


def test_the_page_says_what_the_files_say() -> None:
    page = (ROOT / "docs" / "circuits.md").read_text("utf-8")
    assert fill(page, ROOT / "circuits") == page
    assert all(f"| {load_gate_file(path).capability} |" in page for path in FILES)


def test_they_serve_any_weights_of_that_shape(spec: GateSpec) -> None:
    assert spec.fits is not None
    assert spec.fits.weights is None
    assert (spec.fits.architecture, spec.fits.layers, spec.fits.heads) == (
        "LlamaForCausalLM",
        30,
        9,
    )
    assert spec.found is not None
    assert "Q4_1" in spec.found["base"]


def test_every_head_was_patched_and_the_circuit_is_faithful_with_confidence(
    spec: GateSpec,
) -> None:
    found = spec.found
    assert found is not None
    assert (found["method"], found["members"]) == ("activation_patching", 270)
    assert found["lower_bound"] >= found["faithful"]
    assert {*found["scores"]} == {str(one) for one in spec.members}
    assert {"halves_of", "circuit"} < {*found["stability"]}


def test_every_default_limit_is_held(spec: GateSpec) -> None:
    assert {limit.key for limit in spec.limits} == {
        "dcv.circuit",
        "dcv.head",
        "readout.drop",
        "accuracy.drop",
    }


def test_a_run_that_names_no_circuits_judges_the_core_of_them() -> None:
    found = [(path, load_gate_file(path)) for path in FILES]
    judged, left = divided(found, core=True)
    assert [load_gate_file(path).capability for path in judged] == sorted(CORE)
    assert len(left) == len(TASKS) - len(CORE) == 4
    assert divided(found, core=False) == (FILES, [])

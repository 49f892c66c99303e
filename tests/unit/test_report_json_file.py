"""The results file: every verdict comes back as it went in, and writing is all or nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetguard.errors import SpecificationError
from forgetguard.gate.verdict import Estimate, HeadEvidence, Outcome, PairEvidence, Verdict
from forgetguard.report import json_file

ESTIMATE = Estimate(0.3, 0.2, 0.4, confidence=0.9, n=64)
VERDICT = Verdict(
    circuit="ioi",
    capability="indirect objects",
    limit="dcv.circuit",
    bound=0.1,
    outcome=Outcome.FAIL,
    estimate=ESTIMATE,
    reason="beyond the limit",
    worst_heads=(HeadEvidence("L2H2", ESTIMATE, None, note="abstains"),),
    worst_pairs=(PairEvidence("x", "x'", " y", None, 4.0, 1.0, 0.5),),
    file="ioi.circuit.yaml",
    line=9,
    notes=("2 pairs dropped",),
)
numbers = st.floats(allow_nan=False)
estimates = st.builds(Estimate, numbers, numbers, numbers, numbers, st.integers(0, 10**6))
verdicts = st.builds(
    Verdict,
    circuit=st.text(),
    capability=st.text(),
    limit=st.sampled_from(["dcv.circuit", "accuracy.drop"]),
    bound=numbers,
    outcome=st.sampled_from(Outcome),
    estimate=st.none() | estimates,
    reason=st.text(),
    worst_heads=st.lists(
        st.builds(HeadEvidence, st.text(), estimates, st.none() | estimates, st.text()), max_size=2
    ).map(tuple),
    worst_pairs=st.lists(
        st.builds(
            PairEvidence,
            st.text(),
            st.text(),
            st.text(),
            st.none() | st.text(),
            numbers,
            numbers,
            numbers,
        ),
        max_size=2,
    ).map(tuple),
    notes=st.lists(st.text(), max_size=2).map(tuple),
)


@given(verdicts)
def test_a_verdict_survives_json(verdict: Verdict) -> None:
    text = json.dumps(json_file.verdict_to_dict(verdict), allow_nan=False)
    assert json_file.verdict_from_dict(json.loads(text)) == verdict


def test_not_a_number_survives_json() -> None:
    verdict = dataclasses.replace(VERDICT, bound=math.nan)
    text = json.dumps(json_file.verdict_to_dict(verdict), allow_nan=False)
    assert math.isnan(json_file.verdict_from_dict(json.loads(text)).bound)


def test_numpy_numbers_become_plain() -> None:
    estimate = Estimate(*(np.float64(x) for x in (0.3, 0.2, 0.4, 0.9)), n=np.int64(64))
    data = json_file.verdict_to_dict(dataclasses.replace(VERDICT, estimate=estimate))
    assert {type(value) for value in data["estimate"].values()} == {float, int}


@pytest.mark.parametrize("damage", [{"outcome": "passed"}, {"bound": "much"}, {"estimate": {}}])
def test_a_damaged_verdict_is_refused(damage: dict) -> None:
    data = json_file.verdict_to_dict(VERDICT) | damage
    with pytest.raises(SpecificationError, match="not a verdict"):
        json_file.verdict_from_dict(data)


def test_a_file_is_read_back_with_its_schema(tmp_path: Path) -> None:
    json_file.write(tmp_path / "out.json", {"results": [], "id": "caf\u00e9 \udc80"})
    content = json_file.read(tmp_path / "out.json")
    assert content["schema"] == "forgetguard.results"
    assert content["id"] == "caf\u00e9 \udc80"


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    json_file.write(path, {"run": 1})
    with pytest.raises(ValueError, match="JSON"):
        json_file.write(path, {"run": math.nan})
    with pytest.raises(TypeError):
        json_file.write(path, {"run": object()})
    assert json_file.read(path)["run"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "forgetguard.results", "schema_version": 99}']
)
def test_what_is_no_results_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "out.json"
    path.write_text(content)
    with pytest.raises(SpecificationError, match=r"out\.json"):
        json_file.read(path)


def test_targets_are_checked_before_writing(tmp_path: Path) -> None:
    json_file.check_target(tmp_path / "out.json")
    with pytest.raises(SpecificationError, match="no folder"):
        json_file.check_target(tmp_path / "gone" / "out.json")
    with pytest.raises(SpecificationError, match="not a regular file"):
        json_file.check_target(tmp_path)


def test_versions_are_told_without_importing() -> None:
    assert {"python", "forgetguard"} <= json_file.versions().keys()

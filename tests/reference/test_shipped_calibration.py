"""The shipped calibration: its page says what its file says, and tiny:sft still reads it."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.studies import calibration as calibration_page
from forgetguard.api.checkpoints import load
from forgetguard.errors import SpecificationError
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.session import GateSession

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "calibration.md"


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    file = ROOT / "docs" / "calibration" / "calibration.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def rows(text: str, block: str) -> list[list[str]]:
    """The cells of a block's table, without its head."""
    (found,) = re.findall(rf"<!-- calibration: {block} -->\n(.*?)\n\n<!-- end -->", text, re.DOTALL)
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in found.strip().splitlines()[2:]
    ]


def test_the_page_says_what_the_file_says(shipped: dict[str, Any]) -> None:
    text = PAGE.read_text("utf-8")
    assert calibration_page.fill(text, shipped) == text
    for row, circuit in zip(rows(text, "readings"), shipped["circuits"], strict=True):
        matched = [one["circuit_dcv"] for one in circuit["nulls"] if one["kind"] == "matched"]
        median, low, high = map(float, re.findall(r"[\d.]+", row[3]))
        assert len(matched) == shipped["draws"]
        assert median == pytest.approx(np.median(matched), abs=5e-4)
        assert (low, high) == pytest.approx((min(matched), max(matched)), abs=5e-4)
    limits = rows(text, "limits")
    assert len(limits) == sum(len(one["limits"]) for one in shipped["circuits"])
    assert [float(row[6]) for row in limits] == pytest.approx(
        [limit["suggested"] for one in shipped["circuits"] for limit in one["limits"]]
    )


def test_a_changed_number_changes_the_page(shipped: dict[str, Any]) -> None:
    text, other = PAGE.read_text("utf-8"), deepcopy(shipped)
    other["circuits"][0]["tuned"]["circuit_dcv"] += 0.01
    assert calibration_page.fill(text, other) != text


def test_a_page_without_a_place_is_refused_and_left_alone(
    tmp_path: Path, shipped: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "calibration.json").write_text(json.dumps(shipped), "utf-8")
    page = tmp_path / "calibration.md"
    page.write_text("# No place\n", "utf-8")
    assert calibration_page.main(["--docs", str(tmp_path)]) == 2
    assert "<!-- calibration: NAME -->" in capsys.readouterr().err
    assert page.read_text("utf-8") == "# No place\n"
    with pytest.raises(SpecificationError, match="other"):
        calibration_page.fill("<!-- calibration: other -->\n<!-- end -->", shipped)


def test_the_bundled_fine_tune_still_reads_what_the_file_says(shipped: dict[str, Any]) -> None:
    named = {one["circuit"]: one for one in shipped["circuits"]}
    spec = load_gate_file(ROOT / "circuits" / "tiny-fact_recall.circuit.yaml")
    with load("tiny:base", "tiny:sft") as pair:
        found = GateSession(pair, [spec]).measurement(spec)
    worth = found.need("importance", "circuit", "base").mean()
    dcv = found.need("damage", "circuit").mean() / worth
    assert dcv == pytest.approx(named[spec.name]["tuned"]["circuit_dcv"], abs=1e-4)

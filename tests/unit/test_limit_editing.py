"""Writing other maxima into a circuit file: the numbers change, every other byte stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetguard.calibration.editing import edit_limits
from forgetguard.errors import SpecificationError
from forgetguard.gate.schema import load_gate_file

CIRCUITS = Path(__file__).parents[2] / "circuits"
WRITTEN = """\
# A comment before everything: max: 0.1 stays, for it is no number of ours
forgetguard: 1
capability: ioi   # max: 0.1
pairs: {task: ioi, count: 16, seed: 0}
readout: logit_diff
circuit: [L0H3,
          L0H4]   # two heads
limits:
  dcv.head: {max: 0.250}      # reviewed by the release team
  # the next one was argued about
  dcv.circuit:
    max:    1.0e-1   # ten percent
  accuracy.drop: {   max: 0.1   }
found: {note: 'dcv.circuit: {max: 0.1}'}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ioi.circuit.yaml"
    path.write_text(WRITTEN, encoding="utf-8")
    return path


def test_only_the_numbers_change(file: Path) -> None:
    edit = edit_limits(file, {"dcv.circuit": 0.07, "dcv.head": 0.3, "accuracy.drop": 0.05})
    expected = (
        WRITTEN.replace("{max: 0.250}", "{max: 0.30}")
        .replace("max:    1.0e-1 ", "max:    0.07 ")
        .replace("{   max: 0.1   }", "{   max: 0.05   }")
    )
    assert edit.after == expected
    assert edit.before == WRITTEN
    assert file.read_text() == WRITTEN, "an edit is a proposal: nothing is written"


def test_a_number_that_stays_keeps_its_writing(file: Path) -> None:
    edit = edit_limits(file, {"dcv.circuit": 0.1, "dcv.head": 0.25, "accuracy.drop": 0.1})
    assert not edit.changed
    assert edit.diff() == ""


def test_the_diff_shows_the_lines_that_change_and_no_others(file: Path) -> None:
    lines = edit_limits(file, {"dcv.head": 0.3}).diff().splitlines()
    assert [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-  dcv.head: {max: 0.250}      # reviewed by the release team",
        "+  dcv.head: {max: 0.30}      # reviewed by the release team",
    ]
    assert str(file) in lines[0]


@pytest.mark.parametrize("ends", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_stay(tmp_path: Path, ends: str, mark: str) -> None:
    raw = (mark + WRITTEN.replace("\n", ends)).encode()
    path = tmp_path / "ioi.circuit.yaml"
    path.write_bytes(raw)
    edit = edit_limits(path, {"dcv.head": 0.3})
    assert edit.after.encode() == raw.replace(b"{max: 0.250}", b"{max: 0.30}")
    assert edit.before.encode() == raw


def test_a_floor_beside_the_maximum_stays(tmp_path: Path) -> None:
    path = tmp_path / "ioi.circuit.yaml"
    path.write_text(WRITTEN.replace("{max: 0.250}", "{floor: 0.05, max: 0.25}"))
    edit = edit_limits(path, {"dcv.head": 0.3})
    assert "{floor: 0.05, max: 0.30}" in edit.after


def test_a_number_given_by_an_alias_is_refused_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "ioi.circuit.yaml"
    path.write_text(WRITTEN.replace("{max: 0.250}", "{max: &one 0.25}").replace("1.0e-1", "*one"))
    with pytest.raises(SpecificationError, match="cannot be changed in place"):
        edit_limits(path, {"dcv.circuit": 0.07})


def test_a_limit_that_is_not_declared_is_an_error(file: Path) -> None:
    with pytest.raises(SpecificationError, match=r"declares no limit readout\.drop"):
        edit_limits(file, {"readout.drop": 0.1})


@pytest.mark.parametrize("path", sorted(CIRCUITS.glob("*.circuit.yaml")), ids=lambda p: p.name)
def test_every_bundled_file_can_be_edited(path: Path) -> None:
    spec = load_gate_file(path)
    edit = edit_limits(path, {limit.key: 0.77 for limit in spec.limits})
    gone = [one for one in edit.before.splitlines() if one not in edit.after.splitlines()]
    assert len(gone) == len(spec.limits)
    assert all("max" in line for line in gone)


@settings(max_examples=40, deadline=None)
@given(value=st.integers(0, 99).map(lambda steps: steps / 100))
def test_what_is_written_reads_back_as_the_same_number(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    path = tmp_path_factory.mktemp("edit") / "ioi.circuit.yaml"
    path.write_text(WRITTEN)
    edit = edit_limits(path, {"accuracy.drop": value})
    path.write_text(edit.after)
    limits = {limit.key: limit.maximum for limit in load_gate_file(path).limits}
    assert limits == {"dcv.head": 0.25, "dcv.circuit": 0.1, "accuracy.drop": value}

"""The results file is written whole or not at all, and read back with its schema."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from forgetguard.errors import SpecificationError
from forgetguard.report import json_file


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

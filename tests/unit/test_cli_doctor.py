"""`forgetguard doctor`: it finds what would stop a run, and nothing where nothing would."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from forgetguard.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_here_nothing_would_stop_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cache").mkdir()
    (folder / "cache" / "some").write_bytes(bytes(2_000_000))
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one for one in found["problems"] if one["stops"]] == []
    assert found["pytest_plugin"] is True
    assert found["forgetguard"] == metadata.version("forgetguard")
    assert found["packages"]["torch"] == metadata.version("torch")
    assert (found["cache"]["folder"], found["cache"]["size"]) == (str(folder / "cache"), "2.0 MB")


def test_a_plugin_that_is_switched_off_is_the_first_thing_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:forgetguard\n")
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("PROBLEM: pytest does not load the plugin")
    assert told.splitlines()[1].startswith("  next: ")


def test_a_package_that_is_missing_or_too_old_is_told_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["torch>=99", "no-such-package>=1", "tqdm<1,>=0.1; extra == 'lm-eval'",
              "no-such-extra>=1; extra == 'recipes'"]  # fmt: skip
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    assert main(["doctor", "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(one["next"], one["stops"]) for one in problems] == [
        ("pip install 'torch>=99'", True),
        ("pip install 'no-such-package>=1'", True),
        ("pip install 'tqdm<1,>=0.1'", False),
    ]


def test_a_cache_that_cannot_be_written_is_told_and_stops_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").touch()
    for place in ("/proc/none", str(folder / "file" / "cache")):
        monkeypatch.setenv("FORGETGUARD_CACHE", place)
        assert main(["doctor", "--json"]) == 0
        problems = json.loads(capsys.readouterr().out)["problems"]
        assert any(place in one["what"] and not one["stops"] for one in problems), place


def test_without_a_cache_a_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORGETGUARD_CACHE", "off")
    assert main(["doctor", "--json"]) == 0
    assert "nothing is kept" in json.loads(capsys.readouterr().out)["cache"]["folder"]


def test_it_takes_no_arguments() -> None:
    assert main(["doctor", "now"]) == 2

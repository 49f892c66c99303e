"""`forgetguard init`: what it writes can be run as it stands, and nothing is ever overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from forgetguard.cli import init, main
from forgetguard.errors import CapabilityError
from forgetguard.gate.bundled import bundled_files
from forgetguard.gate.schema import GateSpec, load_gate_file
from forgetguard.gate.suitability import check_names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gates(folder: Path) -> dict[str, GateSpec]:
    """Every gate file under it, as the gate reads them; they can be run together."""
    files = [*folder.rglob("*.circuit.yaml"), *folder.rglob("*.gate.yaml")]
    found = {str(file.relative_to(folder)): load_gate_file(file) for file in files}
    check_names(found.values())
    return found


def test_without_a_base_the_starter_is_for_any(folder: Path) -> None:
    assert main(["init"]) == 0
    found = gates(folder / "gate")
    assert {name.partition("/")[0] for name in found} == {"behaviour.gate.yaml", "circuits"}
    circuits = [one for name, one in found.items() if name.startswith("circuits/")]
    any_base = [
        one for one in map(load_gate_file, bundled_files()) if one.fits and one.fits.any_base
    ]
    assert {one.name for one in circuits} == {one.name for one in any_base}
    assert all(one.auto for one in circuits)
    assert [limit.key for limit in found["behaviour.gate.yaml"].limits] == ["kl.forward"]


def test_for_a_base_of_its_own_circuits_these_are_copied_with_their_prompts(folder: Path) -> None:
    assert main(["init", "mine", "base=tiny:base"]) == 0
    circuits = [one for name, one in gates(folder / "mine").items() if "/" in name]
    assert {one.name for one in circuits} == {
        f"tiny-{name}" for name in ("fact_recall", "greater_than", "induction", "ioi", "key_value")
    }
    of_package = {one.name: one for one in map(load_gate_file, bundled_files())}
    assert all(one.limits == of_package[one.name].limits for one in circuits)
    assert all(one.pairs.path.is_relative_to(folder) for one in circuits)


def test_the_workflow_runs_the_gate_on_the_folder(folder: Path) -> None:
    main(["init", "mine", "base=tiny:base"])
    job = yaml.safe_load((folder / "mine" / "forgetguard.yml").read_text())["jobs"]["gate"]
    assert job["env"]["BASE"] == "tiny:base"
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert any('pytest --forgetguard base="$BASE" tuned="$TUNED" "mine"' in one for one in runs)


def test_what_is_there_stays_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = folder / "gate" / "behaviour.gate.yaml"
    mine.parent.mkdir()
    mine.write_text("mine\n")
    assert main(["init", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert mine.read_text() == "mine\n"
    assert done["left"] == [str(mine.relative_to(folder))]
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert main(["init", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["written"], len(done["left"])) == ([], len(before))
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_that_cannot_be_written_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    assert main(["init", "file"]) == 2
    assert "file/behaviour.gate.yaml cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("a", "b"), ("tuned=tiny:sft",), ("base=./gone",)])
def test_misuse_writes_nothing(arguments: tuple[str, ...], folder: Path) -> None:
    assert main(["init", *arguments]) == 2
    assert not list(folder.iterdir())


def test_for_another_base_circuits_are_looked_for_and_what_it_cannot_do_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked_for = []

    def prepare(asked):
        looked_for.append((asked.tokens, asked.task, asked.dtype))

        def job() -> int:
            if asked.task == "ioi":
                raise CapabilityError("not had")
            Path(asked.output).write_text("")
            return 0

        return job

    command = init.discover.COMMAND
    monkeypatch.setattr(init.discover, "COMMAND", type(command)("", "", command.options, prepare))
    assert main(["init", "mine", "base=tiny:sft", "--dtype", "bfloat16", "--json"]) == 0
    tasks = ["agreement", "fact_recall", "in_context_mapping", "ioi", "repetition"]
    assert looked_for == [(["base=tiny:sft"], task, "bfloat16") for task in tasks]
    done = json.loads(capsys.readouterr().out)
    assert done["not_had"] == ["ioi: not had"]
    assert sum("circuits/" in one for one in done["written"]) == 4

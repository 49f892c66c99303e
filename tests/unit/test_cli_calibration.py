"""`forgetguard calibrate` and the study of sensitivity: misuse, and what they leave behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import examples.studies.sensitivity.__main__ as sensitivity
from examples.studies.sensitivity import dose_response, planting
from forgetguard.calibration import calibrating, limits
from forgetguard.cli import calibrate, main
from forgetguard.cli.checkpoints import split_tokens
from forgetguard.gate.schema import load_gate_file, save

ROOT = Path(__file__).parents[2]
CIRCUITS = ROOT / "circuits"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder with a circuit of its own, on 16 pairs."""
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    (work / "prompts").mkdir(parents=True)
    shutil.copy(CIRCUITS / "prompts" / "tiny-ioi.jsonl", work / "prompts")
    text = (CIRCUITS / "tiny-ioi.circuit.yaml").read_text()
    text = text.replace("tiny-ioi.jsonl}", "tiny-ioi.jsonl, count: 16}")
    (work / "ioi.circuit.yaml").write_text(f"# reviewed\n{text}")
    monkeypatch.chdir(work)
    return work


def status(*arguments: str) -> int:
    """`calibrate` is a command of the package, `sensitivity` a study."""
    try:
        if arguments[0] == "sensitivity":
            return sensitivity.main(arguments[1:])
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


BOTH = {
    "no base": (("ioi.circuit.yaml",), "base missing"),
    "no such file": (("base=tiny:base", "gone.circuit.yaml"), "gone.circuit.yaml"),
    "no circuits in a folder": (("base=tiny:base", "prompts"), "prompts *.circuit.yaml"),
    "no circuit file": (("base=tiny:base", "prompts/tiny-ioi.jsonl"), "does not end in"),
    "no such checkpoint": (("base=./nowhere", "ioi.circuit.yaml"), "no such directory"),
    "no draws": (("base=tiny:base", "--draws", "0"), "--draws 0 1"),
    "draws no number": (("base=tiny:base", "--draws", "many"), "--draws 'many'"),
    "bad seed": (("base=tiny:base", "--seed", "-1"), "--seed '-1'"),
    "unknown option": (("base=tiny:base", "--fast"), "--fast"),
    "unknown dtype": (("base=tiny:base", "--dtype", "int8"), "--dtype 'int8'"),
}
CALIBRATE = {
    "tuned is the base": (
        ("base=tiny:base", "tuned=tiny:base", "ioi.circuit.yaml"),
        "they are the same directory",
    ),
    "rate of 0": (("base=tiny:base", "--alarm", "0"), "--alarm 0"),
    "rate of 1": (("base=tiny:base", "--alarm", "1"), "--alarm 1"),
    "bundled circuits written": (
        ("base=tiny:base", "tuned=tiny:sft", "--write"),
        "bundled",
    ),
    "json is there": (
        ("base=tiny:base", "ioi.circuit.yaml", "--out", "ioi.circuit.yaml"),
        "--out ioi.circuit.yaml --force",
    ),
    "force without a file": (("base=tiny:base", "--force"), "--force --out FILE"),
    "a reference": (("base=tiny:base", "reference=tiny:sft"), "'reference'"),
}
SENSITIVITY = {
    "a tuned model": (("base=tiny:base", "tuned=tiny:sft"), "'tuned'"),
    "unknown plant": (
        ("base=tiny:base", "--plant", "poison"),
        "--plant 'poison' rank-one",
    ),
    "dose beyond 1": (("base=tiny:base", "--doses", "0.1,1.5"), "--doses '1.5' 0"),
    "negative dose": (("base=tiny:base", "--doses", "-0.5"), "--doses '-0.5' 0"),
    "dose no number": (("base=tiny:base", "--doses", "some"), "--doses 'some' 0"),
    "not a number": (("base=tiny:base", "--doses", "nan"), "--doses 'nan' 0"),
    "nothing planted": (("base=tiny:base", "--doses", "0"), "0 alone plants nothing"),
    "no head": (("base=tiny:base", "--heads", "L0MLP"), "--heads 'L0MLP'"),
    "out is a file": (("base=tiny:base", "--out", "ioi.circuit.yaml"), "is a file; name a folder"),
    "out is nowhere": (("base=tiny:base", "--out", "a/b"), "--out"),
    "figures of nothing": (("base=tiny:base", "--no-figures"), "--out DIR"),
}
CASES = [
    *(("calibrate", name, *case) for name, case in {**BOTH, **CALIBRATE}.items()),
    *(("sensitivity", name, *case) for name, case in {**BOTH, **SENSITIVITY}.items()),
]


@pytest.mark.parametrize(
    ("command", "name", "arguments", "message"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES]
)
@pytest.mark.usefixtures("nothing_computed")
def test_misuse_is_said_before_a_model_is_loaded(
    command: str,
    name: str,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status(command, *arguments) == 2
    said = capsys.readouterr()
    assert all(word in said.err for word in message.split())
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.usefixtures("nothing_computed")
def test_a_base_for_which_nothing_is_bundled_wants_circuit_files(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetguard.cli.checkpoints.bundled_for", lambda *_: ())
    assert status("calibrate", "base=tiny:base") == 2
    assert "no circuits: no circuit file was given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("forgetguard.cli", ["calibrate"]), ("examples.studies.sensitivity.__main__", [])],
)
def test_help_needs_no_torch(module: str, arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom {module} import main\n"
        f"try:\n    main([*{arguments!r}, '--help'])\nexcept SystemExit as end:\n    pass\n"
        "heavy = [name for name in ('torch', 'transformers', 'matplotlib') "
        "if name in sys.modules]\nsys.exit(99 if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "circuits: files that end in .circuit.yaml" in done.stdout


def test_what_the_commands_write_down_is_what_the_package_does() -> None:
    assert calibrate.DRAWS == calibrating.DRAWS
    assert calibrate.ALARM == limits.ALARM
    assert tuple(planting.PLANTS) == sensitivity.PLANTS
    assert sensitivity.DRAWS == dose_response.DRAWS
    assert tuple(map(float, sensitivity.DOSES.split(","))) == dose_response.DOSES


def test_files_and_checkpoints_are_told_apart(folder: Path) -> None:
    (folder / "a=b").mkdir()
    tokens = ["base=tiny:base", "ioi.circuit.yaml", "a=b", "tuned=x"]
    assert split_tokens(tokens) == (["base=tiny:base", "tuned=x"], ["ioi.circuit.yaml", "a=b"])


# --- one small run of each ------------------------------------------------------------------------

RUN = ("calibrate", "base=tiny:base", "tuned=tiny:sft", "ioi.circuit.yaml", "--draws", "2")


@pytest.fixture(scope="module")
def memory() -> dict[str, calibrating.Calibration]:
    return {}


@pytest.fixture
def measured_once(
    memory: dict[str, calibrating.Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What RUN measures is measured in one of the tests only; the circuits are of this test."""
    measure = calibrating.calibrate

    def once(pair: Any, circuits: Any, **asked: Any) -> calibrating.Calibration:
        if not memory:
            memory["found"] = measure(pair, circuits, **asked)
        found = memory["found"]
        (one,), (spec,) = found.circuits, circuits
        return replace(found, circuits=(replace(one, spec=spec),))

    monkeypatch.setattr(calibrating, "calibrate", once)


@pytest.mark.slow
@pytest.mark.usefixtures("measured_once")
def test_a_calibration_proposes_writes_and_is_atomic(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "ioi.circuit.yaml"
    file.chmod(0o640)
    before = file.read_text()
    assert status(*RUN, "--out", "c.json") == 0
    first = capsys.readouterr()
    assert file.read_text() == before, "without --write nothing is"
    assert "+++ ioi.circuit.yaml (suggested)" in first.out
    assert first.err.rstrip().endswith(
        "forgetguard calibrate base=tiny:base tuned=tiny:sft ioi.circuit.yaml --draws=2 "
        "--alarm=0.05 --seed=0 --write"
    )
    document = json.loads((folder / "c.json").read_text())
    assert document["schema"] == "forgetguard.calibration"
    assert document["options"]["loading"]["dtype"] == "float32"

    def fail(path: Path, text: str) -> None:
        path.with_name("half").write_text(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(calibrate, "write_text", fail)
        assert status(*RUN, "--write") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert file.read_text() == before

    link = folder / "link.circuit.yaml"
    link.symlink_to(file)
    assert status(*(link.name if one == file.name else one for one in RUN), "--write") == 0
    after = file.read_text()
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]
    assert changed
    assert all("max:" in old and "max:" in new for old, new in changed)
    assert after.startswith("# reviewed\n")
    written = {one.key: one.maximum for one in load_gate_file(file).limits}
    advised = {one["limit"]: one for one in document["circuits"][0]["limits"]}
    for key, maximum in written.items():
        if advised[key]["judgement"] != "too noisy":
            assert maximum == advised[key]["suggested"]
    assert not list(folder.glob(".*tmp"))


@pytest.mark.slow
@pytest.mark.usefixtures("measured_once")
def test_a_file_that_changed_meanwhile_is_not_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "ioi.circuit.yaml"
    measure = calibrate._edits

    def somebody_else(found: calibrating.Calibration) -> list[object]:
        edits = measure(found)
        file.write_text(file.read_text() + "# meanwhile\n")
        return list(edits)

    monkeypatch.setattr(calibrate, "_edits", somebody_else)
    assert status(*RUN, "--write") == 2
    assert "was changed while it was calibrated" in capsys.readouterr().err
    assert file.read_text().endswith("# meanwhile\n")


def test_a_sensitivity_leaves_a_table_json_and_a_figure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("sensitivity", "base=tiny:base", "ioi.circuit.yaml", "--doses", "0.1,1")
    assert status(*command, "--draws", "4", "--out", "out") == 0
    said = capsys.readouterr()
    assert "tiny-ioi: mixture in L0H4, 16 pairs" in said.out
    assert "dcv.circuit <= 0.1: fails in 80 % of draws from dose 1 on (reads 0." in said.out
    document = json.loads((folder / "out" / "sensitivity.json").read_text())
    (curve,) = document["curves"]
    assert [point["dose"] for point in curve["points"]] == [0.0, 0.1, 1.0]
    assert curve["points"][-1]["planted_dcv"]["value"] == pytest.approx(1.0, abs=1e-6)
    tree = ElementTree.parse(folder / "out" / "tiny-ioi.svg")
    text = " ".join(one.text or "" for one in tree.iter() if one.tag.endswith("text"))
    assert "mixture in L0H4" in text


def test_a_circuit_that_is_found_first_can_be_calibrated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load_gate_file(folder / "ioi.circuit.yaml")
    auto = replace(spec, name="auto", members=(), auto=True, found=None, fits=None, path=None)
    save(auto, folder / "auto.circuit.yaml")
    assert status("sensitivity", "base=tiny:base", "auto.circuit.yaml", "--doses", "1",
                  "--draws", "1") == 0  # fmt: skip
    assert "auto: mixture in L" in capsys.readouterr().out

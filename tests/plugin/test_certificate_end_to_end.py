"""Record, gate, verify and recompute, on the embedded checkpoints, as a release engineer would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forgetguard.cli import main
from forgetguard.gate.checksum import with_checksum

CIRCUITS = Path(__file__).parents[2] / "circuits"
OVER = "  dcv.circuit.over_baseline: {max: 0.05}\n"
PAIRS = 40  # of the 64, for speed
CONFIRMED, NOT_CONFIRMED, UNUSABLE = 0, 1, 2


def gate(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a gate run in `folder`."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--forgetguard"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [*command, "base=tiny:base", *arguments],
        cwd=folder,
        env=environment,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two circuits, a baseline of tiny:lora and the results of tiny:sft, in one
    process and in two."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "prompts").mkdir()
    for task in ("ioi", "induction"):
        prompts = (CIRCUITS / "prompts" / f"tiny-{task}.jsonl").read_text().splitlines()
        (folder / "prompts" / f"tiny-{task}.jsonl").write_text("\n".join(prompts[:PAIRS]))
        text = (CIRCUITS / f"tiny-{task}.circuit.yaml").read_text()
        head, _, found = text.partition("found:")
        (folder / f"tiny-{task}.circuit.yaml").write_text(f"{head}{OVER}found:{found}")
    accepted = "--forgetguard-baseline=accepted.json"
    status, output = gate(folder, "tuned=tiny:lora", accepted, "--forgetguard-update")
    assert status == 1, output  # limits over the baseline were recorded, not judged
    assert "RECORDED" in output
    for name, more in (("one", ()), ("two", ("-n", "2"))):
        report = f"--forgetguard-json={name}.json"
        status, output = gate(folder, "tuned=tiny:sft", accepted, report, *more)
        assert status == 1, output
        assert "beside the baseline" in output
    return folder


def results(release: Path, name: str = "one.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((release / name).read_text())
    return content


def outcomes(content: dict[str, Any]) -> dict[str, str]:
    found = [verdict for result in content["results"] for verdict in result["verdicts"]]
    return {f"{one['circuit']} {one['limit']}": one["outcome"] for one in found}


def test_what_was_lost_since_the_accepted_checkpoint_fails_and_the_rest_passes(
    release: Path,
) -> None:
    found = outcomes(results(release))
    assert found["tiny-induction dcv.circuit.over_baseline"] == "fail"
    assert found["tiny-ioi dcv.circuit.over_baseline"] == "pass"


def test_two_workers_write_the_same_certificate(release: Path) -> None:
    one, two = results(release, "one.json"), results(release, "two.json")
    for changing in ("started", "seconds", "options", "checksum"):
        one.pop(changing)
        two.pop(changing)
    assert one == two


def test_the_certificate_names_its_inputs_and_its_environment(release: Path) -> None:
    content = results(release)
    assert content["schema_version"] == 4
    assert content["fingerprints"].keys() == {"base", "tuned"}
    for circuit in content["circuits"]:
        assert len(circuit["declared"]["file_sha256"]) == 64
        assert len(circuit["declared"]["pairs"]["sha256"]) == 64
        assert circuit["environment"]["device"] == "cpu"
        assert circuit["environment"]["threads"] == 1
        measured = circuit["measured"]
        arrays = measured["arrays"]
        assert len(arrays["damage"]["tuned"]["circuit"]) == len(measured["units"]) == PAIRS
        members = set(circuit["declared"]["members"])
        assert arrays["damage"]["baseline"].keys() == {"circuit", *members}
        assert arrays["correct"].keys() == {"base", "tuned", "baseline"}
    assert (release / "one.json").stat().st_size < 300_000


@pytest.mark.parametrize("more", [[], ["--recompute", "8"]], ids=["alone", "measured again"])
def test_it_is_confirmed(release: Path, more: list[str], capsys: Any) -> None:
    assert main(["verify", str(release / "one.json"), *more]) == CONFIRMED
    output = capsys.readouterr().out
    assert "NOT A PASS" in output
    assert "file        CONFIRMED" in output


def test_a_forged_pass_is_found(release: Path, tmp_path: Path) -> None:
    content = results(release)
    for result in content["results"]:
        result["outcome"] = "pass"
        for verdict in result["verdicts"]:
            verdict["outcome"] = "pass"
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(content))
    assert main(["verify", str(path)]) == NOT_CONFIRMED
    path.write_text(json.dumps(with_checksum(content)))  # a checksum is no signature
    assert main(["verify", str(path)]) == NOT_CONFIRMED


def test_forged_measurements_need_the_models_to_be_found(
    release: Path, tmp_path: Path, capsys: Any
) -> None:
    content = results(release)
    located = [one["measured"]["arrays"].get("own_damage") for one in content["circuits"]]
    assert any(located)  # read of circuits with a limit that does not pass
    for own in filter(None, located):
        damage = own["tuned"]["L0H1"]
        damage[:] = [value + 0.01 for value in damage]
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(with_checksum(content)))
    assert main(["verify", str(path), "--recompute", "8"]) == NOT_CONFIRMED
    assert "own_damage of L0H1 (tuned): 8 of 8 " in capsys.readouterr().out


def test_another_checkpoint_is_refused(release: Path, capsys: Any) -> None:
    arguments = [str(release / "one.json"), "--recompute", "8", "tuned=tiny:lora"]
    assert main(["verify", *arguments]) == UNUSABLE
    assert "tuned=tiny:lora is not the tuned of the file" in capsys.readouterr().err


CRASH = """
import forgetguard.gate.runner as runner
def capture(anatomy, capability, *rest, plain=runner.capture_heads, **more):
    if capability.capability.name == "induction":
        raise RuntimeError("a defect")
    return plain(anatomy, capability, *rest, **more)
runner.capture_heads = capture
"""


def test_a_crash_in_one_capability_leaves_the_others_their_verdicts(
    release: Path, tmp_path: Path
) -> None:
    shutil.copytree(release / "prompts", tmp_path / "prompts")
    for task in ("ioi", "induction"):
        shutil.copy(CIRCUITS / f"tiny-{task}.circuit.yaml", tmp_path)
    (tmp_path / "conftest.py").write_text(CRASH)
    status, output = gate(tmp_path, "tuned=tiny:lora", "--forgetguard-json=out.json")
    assert status == 1, output
    assert "RuntimeError: a defect" in output
    content = results(tmp_path, "out.json")
    assert len(outcomes(content)) == 4
    assert [result["outcome"] for result in content["results"]].count("error") == 4
    assert [one["name"] for one in content["circuits"] if one["measured"]] == ["tiny-ioi"]

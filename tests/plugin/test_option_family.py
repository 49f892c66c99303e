"""`--forgetguard-family`, and which limits share a run's false-alarm rate: all that were collected,
but for those that cannot be measured; so a limit is decided alike in the run and alone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import forgetguard as fg

CIRCUIT = """\
forgetguard: 1
capability: indirect objects
pairs: {task: ioi, count: 16, seed: 1}
readout: logit_diff
circuit: [L2H2, L0H2]
limits:
  dcv.circuit: {max: 0.0001}
  dcv.head: {max: 0.9}
"""
ABLE = "able.circuit.yaml::able::dcv.circuit"


def gate(folder: Path, *arguments: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Output of a gate run in `folder`, and its verdicts by gate."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [*command, *arguments, "--forgetguard-json=out.json"], cwd=folder, env=environment,
        check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    document = json.loads((folder / "out.json").read_text())
    assert document["complete"], done.stdout
    return done.stdout, {one["id"]: one["verdicts"][0] for one in document["results"]}


FLAGS = ("--forgetguard", "base=tiny:base", "tuned=tiny:sft")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A circuit that the base can do, one that it gets wrong throughout, and a file whose prompts
    suit no tokenizer here."""
    made = tmp_path_factory.mktemp("run")
    (made / "able.circuit.yaml").write_text(CIRCUIT)
    tokenizer = fg.load(base="tiny:base", tuned="tiny:sft").base.tokenizer
    encoded = fg.capability("ioi", pairs=16, seed=1).encoded(tokenizer).encoded
    drawn = [one.pair for one in encoded.pairs]
    lines = [
        {
            "clean": pair.clean,
            "counterfactual": pair.counterfactual,
            "answer": pair.distractor,
            "distractor": pair.answer,
        }
        for pair in drawn
    ]
    (made / "wrong.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    unable = CIRCUIT.replace("{task: ioi, count: 16, seed: 1}", "{file: wrong.jsonl}")
    (made / "unable.circuit.yaml").write_text(unable)
    return made


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    return gate(folder, *FLAGS)


def test_limits_that_cannot_be_measured_leave_the_family(whole) -> None:
    _, verdicts = whole
    assert len(verdicts) == 4
    unable = [one for name, one in verdicts.items() if name.startswith("unable")]
    assert {one["outcome"] for one in unable} == {"abstain"}
    assert {one["family"] for one in verdicts.values()} == {2}


@pytest.mark.parametrize(
    "selection",
    [("-k", "able and dcv.circuit and not unable"), ("--deselect", "unable.circuit.yaml")],
)
def test_what_is_deselected_changes_no_verdict(folder: Path, whole, selection) -> None:
    _, verdicts = whole
    _, chosen = gate(folder, *FLAGS, *selection)
    assert chosen[ABLE] == verdicts[ABLE]


def test_workers_count_the_same_family(folder: Path, whole) -> None:
    assert gate(folder, *FLAGS, "-n", "2")[1] == whole[1]


def test_the_printed_command_decides_as_the_run_did(folder: Path, whole) -> None:
    output, verdicts = whole
    line = next(one for one in output.splitlines() if one.endswith(ABLE) and "run only" in one)
    words = shlex.split(line.partition("run only this: pytest ")[2])
    assert "--forgetguard-family=2" in words
    _, alone = gate(folder, *words)
    assert alone == {ABLE: verdicts[ABLE]}
    without = [word for word in words if "family" not in word]
    assert gate(folder, *without)[1][ABLE]["family"] == 1


@pytest.mark.parametrize("value", ["0", "some", "-1", "100001", "1" + 400 * "0"])
def test_no_family_is_refused(project, value: str) -> None:
    project.circuit("good.circuit.yaml")
    result = project.gate(f"--forgetguard-family={value}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--forgetguard-family: *"])

"""The commands of examples/ci_gate, as they stand there, on the bundled checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "ci_gate"
CIRCUIT = ROOT / "circuits" / "tiny-induction.circuit.yaml"
GIVEN = {"BASE": "tiny:base", "TUNED": "tiny:sft", "PATHS": str(CIRCUIT), "OPTIONS": "-q"}


def loaded(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text("utf-8"))


def run(folder: Path, script: str, **environment: str) -> int:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {**os.environ, **GIVEN, "PATH": path, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=own, check=False).returncode


@pytest.mark.slow
def test_the_action_gates_and_comments_once(tmp_path: Path) -> None:
    steps = {step["name"]: step for step in loaded("action.yml")["runs"]["steps"] if "name" in step}
    summary = tmp_path / "summary.md"
    summary.touch()
    host = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    assert run(tmp_path, steps["gate"]["run"], **host) == 1
    assert {path.name for path in tmp_path.glob("forgetguard.*")} == {
        f"forgetguard.{kind}" for kind in ("xml", "json", "html")
    }
    assert summary.read_text("utf-8").startswith("### ❌ FAIL: ")
    # Stands for GitHub's own command: shows what it is asked, and knows of no comment, then of one.
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text('#!/bin/sh\necho "$@" >> asked\ncase "$*" in *paginate*) cat known;; esac\n')
    gh.chmod(0o755)
    path = f"{gh.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for known, method in (("", "api repos/o/r/issues/3/comments"), ("77\n", "api -X PATCH")):
        (tmp_path / "known").write_text(known)
        (tmp_path / "asked").unlink(missing_ok=True)
        asked = {"PATH": path, "PULL": "3", "GITHUB_REPOSITORY": "o/r"}
        assert run(tmp_path, steps["comment"]["run"], **asked) == 0
        assert (tmp_path / "asked").read_text().splitlines()[1].startswith(method)
    told = (tmp_path / "comment.md").read_text("utf-8")
    assert told.startswith("<!-- forgetguard: comment -->\n### ❌ FAIL: ")


def test_the_action_installs_its_own_revision_or_what_is_asked_for(tmp_path: Path) -> None:
    steps = loaded("action.yml")["runs"]["steps"]
    (install,) = [step["run"] for step in steps if step.get("name") == "install"]
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor last; do :; done\necho "$last" > installed\n')
    python.chmod(0o755)
    where = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_ACTION_PATH": str(EXAMPLES)}
    for asked, installed in (("", ROOT), ("own.whl", tmp_path / "own.whl")):
        assert run(tmp_path, install, INSTALL=asked, **where) == 0
        told = (tmp_path / "installed").read_text().strip()
        assert tmp_path.joinpath(told).resolve() == installed


@pytest.mark.slow
def test_the_job_of_gitlab_writes_what_its_artifacts_name(tmp_path: Path) -> None:
    job = loaded("gitlab.yml")["forgetguard"]
    (tmp_path / "gates").mkdir()
    text = CIRCUIT.read_text("utf-8").replace("prompts/", f"{CIRCUIT.parent}/prompts/")
    (tmp_path / "gates" / "own.circuit.yaml").write_text(text, "utf-8")
    assert run(tmp_path, "\n".join(job["script"]), PATHS="gates") == 1
    assert run(tmp_path, "\n".join(job["after_script"])) == 0
    artifacts = job["artifacts"]
    for name in (*artifacts["paths"], *artifacts["reports"].values()):
        assert (tmp_path / name).stat().st_size > 100, name
    (finding,) = json.loads((tmp_path / artifacts["reports"]["codequality"]).read_text("utf-8"))
    assert finding["location"]["path"] == "gates/own.circuit.yaml"


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    inputs = loaded("action.yml")["inputs"]
    (step,) = [
        one for one in loaded("github.yml")["jobs"]["gate"]["steps"] if "OWNER" in one["uses"]
    ]
    assert step["with"].keys() <= inputs.keys()
    assert {name for name, one in inputs.items() if one.get("required")} <= step["with"].keys()

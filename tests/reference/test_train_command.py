"""`forgetguard train`, alone and as two processes: the same run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from warm_python import warm_python

from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.spec import resolve
from forgetguard.recipes.training.logs import LOSSES, read_records, read_rollouts

EXAMPLES = Path(__file__).parents[2] / "examples" / "training"
SHORT = ("--data", "tiny:substances", "--count", "64", "device=cpu", "warmup=0", "log_every=1")
ALONE: tuple[str, ...] = ()
# A port of its own choosing, so that tests side by side do not meet.
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def train(launcher: tuple[str, ...], recipe: str, folder: Path, *more: str) -> Path:
    command = (
        warm_python(), *launcher, "-m", "forgetguard", "train", str(EXAMPLES / f"{recipe}.yaml"),
        *SHORT, "output=run", *more,
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "trained: " in done.stderr
    return folder / "run"


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    asked = ("steps=4", "save_every=2")
    one = train(ALONE, "sft", tmp_path / "one", *asked)
    two = train(TWO, "sft", tmp_path / "two", *asked)
    losses = [[line["loss"] for line in read_records(run / LOSSES)] for run in (one, two)]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    card = json.loads((two / "final" / "run_card.json").read_text())
    assert (card["steps"], card["settings"]["batch"]) == (4, 16)
    assert fingerprint(resolve(str(two / "final"), "tuned")).weights == card["final"]["weights"]


def test_two_processes_sample_for_one_log(tmp_path: Path) -> None:
    asked = ("steps=2", "save_every=2", "prompts=8", "group=4")
    run = train(TWO, "rl", tmp_path / "two", *asked)
    rollouts = read_rollouts(run)
    assert [line.step for line in rollouts] == [1, 2]
    first, second = rollouts
    assert first.kl_forward == first.kl_reverse == 0  # still the base
    assert second.kl_forward > 0
    assert (run / "final" / "model.safetensors").is_file()

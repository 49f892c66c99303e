"""The command `python -m examples.studies.statistics.copies MODEL OUT`: changed copies of a
pretrained model, for `examples.studies.statistics.collect`: its attention under noise, and steps of
the way to a fine-tune on narrow text (examples/studies/narrow_text.py)."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.studies import narrow_text
from examples.studies.command import Say, carry_out

NOISES = (0.1, 0.2, 0.3)  # of the standard deviation of each attention matrix
SHARES = (0.15, 0.3, 0.5, 0.75)  # of the way to the fine-tune
STEPS, RATE = 40, 3e-5  # further than docs/real.md goes, so that half of the way costs something
SEED = 0
WEIGHTS = "model.safetensors"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the copies that are not there."""
    parser = argparse.ArgumentParser(prog="python -m examples.studies.statistics.copies")
    parser.add_argument("model", type=Path, help="a model folder with one file of weights")
    parser.add_argument("out", type=Path, help="where the copies go")
    asked = parser.parse_args(arguments)
    return carry_out(lambda say: make(asked.model, asked.out, say))


def make(model: Path, out: Path, say: Say) -> None:
    """Write `attn0.3`, ..., `sft0.15`, ... and the fine-tune `sft` itself."""
    weights = load_file(model / WEIGHTS)
    whole = out / "sft"
    if not whole.exists():
        narrow_text.tune(model, whole, say, steps=STEPS, rate=RATE)
    tuned = load_file(whole / WEIGHTS)
    copies = {f"sft{share:g}": partial(_towards, weights, tuned, share) for share in SHARES}
    copies |= {f"attn{size:g}": partial(_noised, weights, size) for size in NOISES}
    for name, changed in copies.items():
        folder = out / name
        if not folder.exists():
            shutil.copytree(model, folder, ignore=shutil.ignore_patterns(WEIGHTS))
            save_file(changed(), folder / WEIGHTS, metadata={"format": "pt"})
            say(f"written: {folder}")


def _towards(
    weights: dict[str, Tensor], tuned: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    return {name: torch.lerp(one, tuned[name], share) for name, one in weights.items()}


def _noised(weights: dict[str, Tensor], size: float) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(SEED)
    found = dict(weights)
    for name in sorted(weights):
        if ".self_attn." in name and weights[name].ndim == 2:
            draw = torch.randn(weights[name].shape, generator=random)
            found[name] = weights[name] + size * weights[name].std() * draw
    return found


if __name__ == "__main__":
    sys.exit(main())

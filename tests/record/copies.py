"""Copies of a real Llama with known changes: a head zeroed, noise, a LoRA adapter.

Nothing is trained, and what is random comes from numpy, so that a copy is the same to the bit on
every machine.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LAYER, HEAD = 18, 6  # the strongest induction head of SmolLM2-135M-Instruct
NOISE = 0.01  # of each matrix's own standard deviation
RANK, ALPHA = 4, 8
LORA_SIZE = 0.05  # of each matrix's own norm
_HEAD_DIM = 64


def byte_copy(base: Path, target: Path) -> Path:
    """The same files under another path; linked where the disk allows."""
    target.mkdir(parents=True)
    for file in base.resolve().iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copy(file, target / file.name)
    return target


def without_head(base: Path, target: Path) -> Path:
    """One head writes nothing: its columns of the output projection are 0."""

    def edit(tensors: dict[str, Tensor]) -> None:
        weight = tensors[f"model.layers.{LAYER}.self_attn.o_proj.weight"]
        weight[:, HEAD * _HEAD_DIM : (HEAD + 1) * _HEAD_DIM] = 0

    return _edited(base, target, edit)


def with_noise(base: Path, target: Path) -> Path:
    """Every matrix, the embeddings too, plus normal noise of `NOISE` standard deviations of its."""

    def edit(tensors: dict[str, Tensor]) -> None:
        generator = np.random.default_rng(0)
        for name in sorted(tensors):
            weight = tensors[name]
            if weight.ndim == 2:
                spread = float(weight.double().std())
                weight += torch.from_numpy(NOISE * spread * _normal(generator, weight.shape))

    return _edited(base, target, edit)


def with_lora(base: Path, target: Path) -> Path:
    """An adapter directory: a fixed random change of rank `RANK` to every query and value matrix,
    each of `LORA_SIZE` of the matrix's norm."""
    tensors = load_file(base / "model.safetensors")
    generator, adapter = np.random.default_rng(0), {}
    for name in sorted(tensors):
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            weight = tensors[name]
            left = _normal(generator, (weight.shape[0], RANK))
            right = _normal(generator, (RANK, weight.shape[1]))
            norm = float(np.linalg.norm(left.astype(np.float64) @ right)) * ALPHA / RANK
            left *= np.float32(LORA_SIZE * float(weight.double().norm()) / norm)
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            adapter[f"{stem}.lora_A.weight"] = torch.from_numpy(right)
            adapter[f"{stem}.lora_B.weight"] = torch.from_numpy(left)
    target.mkdir(parents=True)
    save_file(adapter, target / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.resolve()),
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["q_proj", "v_proj"],
    }
    (target / "adapter_config.json").write_text(json.dumps(settings))
    return target


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return generator.standard_normal(shape, dtype=np.float32)


def _edited(base: Path, target: Path, edit: Callable[[dict[str, Tensor]], None]) -> Path:
    """A full checkpoint with changed weights; all other files are the base's."""
    byte_copy(base, target)
    tensors = load_file(base / "model.safetensors")
    edit(tensors)
    (target / "model.safetensors").unlink()
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target

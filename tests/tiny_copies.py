"""Copies of tiny:base, whole or with planted damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from forgetguard.anatomy.members import Head
from forgetguard.checkpoints.spec import resolve

BASE = Path(resolve("tiny:base", "base").location)
HEAD_DIM, GROUP = 16, 2  # of tiny:base: 6 query heads share 3 key-value heads

Damage = Callable[[dict[str, Tensor]], None]


def copy_of_base(directory: Path, damage: Damage | None = None) -> Path:
    """A copy of tiny:base in `directory`, its tensors changed in place by `damage`."""
    target = directory / "copy"
    shutil.copytree(BASE, target)
    if damage is not None:
        file = target / "model.safetensors"
        tensors = load_file(file)
        damage(tensors)
        save_file(tensors, file, metadata={"format": "pt"})
    return target


def _name(head: Head, matrix: str) -> str:
    return f"model.layers.{head.layer}.self_attn.{matrix}.weight"


def _noise(shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def query_rows_noised(head: Head) -> Damage:
    """The head's own query rows replaced by noise of their size."""

    def damage(tensors: dict[str, Tensor]) -> None:
        rows = slice(head.index * HEAD_DIM, (head.index + 1) * HEAD_DIM)
        weight = tensors[_name(head, "q_proj")]
        weight[rows] = _noise(weight[rows].shape) * weight[rows].std()

    return damage


def output_slice_zeroed(head: Head) -> Damage:
    """The head's own slice of the output projection zeroed: z does not show it."""

    def damage(tensors: dict[str, Tensor]) -> None:
        columns = slice(head.index * HEAD_DIM, (head.index + 1) * HEAD_DIM)
        tensors[_name(head, "o_proj")][:, columns] = 0.0

    return damage


def group_values_zeroed(head: Head) -> Damage:
    """The value rows of the head's key-value group zeroed: every head of the group loses them."""

    def damage(tensors: dict[str, Tensor]) -> None:
        group = head.index // GROUP
        rows = slice(group * HEAD_DIM, (group + 1) * HEAD_DIM)
        tensors[_name(head, "v_proj")][rows] = 0.0

    return damage


def group_of(head: Head) -> set[str]:
    """The heads that share the head's keys and values."""
    first = head.index // GROUP * GROUP
    return {str(Head(head.layer, index)) for index in range(first, first + GROUP)}

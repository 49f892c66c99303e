"""Copies of a Llama or a Qwen 3 that compute the same function and whose parts have other names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Of a model: layers, query heads, key-value heads, head and model width."""

    layers: int
    heads: int
    groups: int
    head_dim: int
    width: int


Edit = Callable[[Tensors, Shape], Mapping[str, Any]]  # changes tensors; what changes in the config


def renamed_copy(base: Path, target: Path, *edits: Edit) -> Path:
    """A copy of `base` in `target`, changed by `edits` one after another."""
    shutil.copytree(base, target)
    config = json.loads((base / "config.json").read_text())
    shape = Shape(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
        config["hidden_size"],
    )
    tensors = load_file(base / "model.safetensors")
    for edit in edits:
        config |= edit(tensors, shape)
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    (target / "model.safetensors").unlink()
    save_file(contiguous, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config))
    return target


def heads_permuted(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
    """In every layer and group head i + 1 takes the place of head i, the first that of the last."""
    each = shape.heads // shape.groups
    order = [g * each + (i + 1) % each for g in range(shape.groups) for i in range(each)]
    _reordered(tensors, shape, order, range(shape.groups))
    return {}


def groups_rotated(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
    """In every layer group g + 1 takes the place of group g, the first that of the last."""
    each = shape.heads // shape.groups
    order = [(place + each) % shape.heads for place in range(shape.heads)]
    _reordered(tensors, shape, order, [(g + 1) % shape.groups for g in range(shape.groups)])
    return {}


def stream_permuted(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
    """The directions of the residual stream in another order, in all that reads and writes it."""
    order = torch.randperm(shape.width, generator=torch.Generator().manual_seed(0))
    for name, value in tensors.items():
        if name.endswith(_WRITING):
            tensors[name] = value[order]
        elif value.dim() == 2:
            tensors[name] = value[:, order]
        elif len(value) == shape.width:
            tensors[name] = value[order]
    return {}


def stream_scaled(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
    """What is written to the residual stream doubled, which its norms take away again."""
    for name, value in tensors.items():
        if name.endswith((*_WRITING, "embed_tokens.weight")):
            tensors[name] = value * 2.0
    tensors["model.norm.weight"] = tensors["model.norm.weight"] / 2.0  # of the tied unembedding
    return {}


def norms_folded(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
    """Every norm's scale moved into the matrices that read it; the unembedding is untied."""
    read_by = {"input_layernorm": ("q_proj", "k_proj", "v_proj")}
    read_by["post_attention_layernorm"] = ("gate_proj", "up_proj")
    for layer in range(shape.layers):
        stem = f"model.layers.{layer}."
        for norm, matrices in read_by.items():
            scale = tensors[f"{stem}{norm}.weight"]
            for name in [name for name in tensors if name.startswith(stem)]:
                if any(f".{one}.weight" in name for one in matrices):
                    tensors[name] = tensors[name] * scale
            tensors[f"{stem}{norm}.weight"] = torch.ones_like(scale)
    scale = tensors["model.norm.weight"]
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * scale
    tensors["model.norm.weight"] = torch.ones_like(scale)
    return {"tie_word_embeddings": False}


def head_silenced(layer: int, head: int) -> Edit:
    """What a head writes set to zero: real damage."""

    def edit(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
        columns = slice(head * shape.head_dim, (head + 1) * shape.head_dim)
        tensors[f"model.layers.{layer}.self_attn.o_proj.weight"][:, columns] = 0.0
        return {}

    return edit


def final_norm_scaled(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
    """All logits times 0.3: no token overtakes another."""
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 0.3
    return {}


def unembedding_noised(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
    """The unembedding plus normal noise of half its standard deviation: behind all heads."""
    weight = tensors["model.embed_tokens.weight"]
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    tensors["lm_head.weight"] = weight + 0.5 * weight.std() * noise
    return {"tie_word_embeddings": False}


_WRITING = ("o_proj.weight", "down_proj.weight")


def _reordered(tensors: Tensors, shape: Shape, heads: Sequence[int], groups: Sequence[int]) -> None:
    """In every layer, in place i the query head heads[i] and the key-value head groups[i]."""
    for layer in range(shape.layers):
        stem = f"model.layers.{layer}.self_attn."
        for matrix, order in (("q", heads), ("k", groups), ("v", groups)):
            name = f"{stem}{matrix}_proj.weight"
            parts = tensors[name].unflatten(0, (-1, shape.head_dim))
            tensors[name] = parts[list(order)].flatten(0, 1)
        name = f"{stem}o_proj.weight"
        parts = tensors[name].unflatten(1, (-1, shape.head_dim))
        tensors[name] = parts[:, list(heads)].flatten(1, 2)

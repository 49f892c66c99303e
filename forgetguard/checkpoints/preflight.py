"""Whether checkpoints belong together: everything that can be known without loading weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.adapters import (
    adapter_config,
    check_fit,
    full_checkpoint_under,
    is_idle,
    named_base,
)
from forgetguard.checkpoints.files import (
    TensorEntry,
    WeightFiles,
    check_index,
    find_weights,
    read_headers,
    read_json,
)
from forgetguard.checkpoints.fingerprint import (
    ABSENT,
    VOLATILE_CONFIG,
    digest_files,
    same_tensors,
    tokenizer_fingerprint,
)
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CONFIG, CheckpointSpec
from forgetguard.errors import CheckpointError

# What has to be equal for "head (l, j)" to mean the same thing in two models, under the names
# that configurations of different architectures give it.
_GEOMETRY = {
    "model_type": ("model_type",),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "query heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "key-value heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim", "kv_channels"),
    "hidden size": ("hidden_size", "n_embd", "d_model"),
}
_INPUT_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
_OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight", "lm_head.bias")
_SHOWN = 4


@dataclass(frozen=True)
class _Described:
    """One checkpoint on this disk, as its files tell it. `full` is itself unless an adapter."""

    spec: CheckpointSpec
    config: dict[str, Any]
    weights: WeightFiles
    tensors: dict[str, TensorEntry]

    @property
    def is_adapter(self) -> bool:
        return self.spec.kind == "adapter"


def check(
    base: CheckpointSpec,
    tuned: CheckpointSpec,
    reference: CheckpointSpec | None = None,
    *,
    allow_same: bool = False,
    options: LoadOptions | None = None,
) -> tuple[str, ...]:
    """Refuse checkpoints that cannot be compared; return what is worth knowing of the others.

    Reads JSON files and safetensors headers; weights are read only to tell a copy from a
    fine-tune, up to the first difference. Hub ids are fetched into the local cache: their
    configurations first, so that a pair that cannot be compared costs no large download.

    Raises:
        CheckpointError: a checkpoint is incomplete, corrupt or not safe to read; two are of
            different architecture or geometry; an adapter is for another base; two are the same
            (unless `allow_same`).
    """
    options = options or LoadOptions()
    others = [tuned] + ([reference] if reference is not None else [])
    specs = [localise(spec, options, weights=False) for spec in (base, *others)]
    if not allow_same:
        _refuse_same_place(specs)
    full = [full_checkpoint_under(spec, specs[0]) for spec in specs]
    full = [localise(spec, options, weights=False) for spec in full]
    configs = [_read_config(spec) for spec in full]
    for spec, config in zip(specs[1:], configs[1:], strict=True):
        _refuse_other_geometry(specs[0], configs[0], spec, config)

    described = _describe_all([localise(spec, options) for spec in (base, *others)], full, options)
    notes: list[str] = []
    first, *rest = described
    for other in rest:
        notes += _compare(first, other, options)
    if not allow_same:
        _refuse_same_weights(described)
    notes += _tokenizer_notes(described)
    return tuple(notes)


def _describe_all(
    specs: list[CheckpointSpec], full: list[CheckpointSpec], options: LoadOptions
) -> list[_Pair]:
    return [
        _Pair(_describe(spec, options), _describe(localise(under, options), options))
        for spec, under in zip(specs, full, strict=True)
    ]

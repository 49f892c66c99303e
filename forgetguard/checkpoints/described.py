"""One checkpoint on this disk as its files describe it, its configuration and tensor headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.adapters import adapter_config
from forgetguard.checkpoints.files import (
    TensorEntry,
    WeightFiles,
    check_index,
    find_weights,
    read_headers,
    read_json,
)
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CONFIG, CheckpointSpec
from forgetguard.errors import CheckpointError

TEXT_TYPE = "text_model_type"  # ours: the model_type of the text part
# Names that configurations of different architectures give to the same thing.
_GEOMETRY = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "query heads": (
        "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads",
        "num_query_heads",
    ),
    "key-value heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim", "kv_channels"),
    "hidden size": ("hidden_size", "n_embd", "d_model"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Described:
    """The files of one checkpoint.

    Attributes:
        spec: a directory or an adapter, never a hub id.
        config: config.json, or adapter_config.json of an adapter.
        weights: the files that hold the weights.
        tensors: their tensors by name; empty for pickled weights, which have no headers.
    """

    spec: CheckpointSpec
    config: Mapping[str, Any]
    weights: WeightFiles
    tensors: Mapping[str, TensorEntry]

    @property
    def directory(self) -> Path:
        return self.spec.directory

    @property
    def is_adapter(self) -> bool:
        return self.spec.kind == "adapter"


def describe(spec: CheckpointSpec, options: LoadOptions) -> Described:
    """Read a local checkpoint's configuration and headers, and check that they are whole.

    Raises:
        CheckpointError: incomplete, truncated, corrupt, quantised, or pickled without leave.
    """
    directory = spec.directory
    adapter = spec.kind == "adapter"
    config = adapter_config(directory) if adapter else full_config(spec)
    try:
        weights = find_weights(directory, adapter=adapter, allow_pickle=options.allow_pickle)
        tensors = {} if weights.pickled else read_headers(weights.files)
        if not adapter:
            check_index(directory, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{spec}: {error}") from error
    return Described(spec, config, weights, tensors)


def full_config(spec: CheckpointSpec) -> dict[str, Any]:
    """config.json of a full checkpoint; of one that holds text and images, the text part.

    Raises:
        CheckpointError: unreadable, no model_type, or quantised weights.
    """
    path = spec.directory / CONFIG
    config = read_json(path)
    text = config.get("text_config")
    if isinstance(text, dict):
        # A text-only fine-tune says `gemma3_text`, its multimodal base `gemma3`.
        outer = config.get("model_type", text.get("model_type"))
        config = {
            **text,
            "architectures": config.get("architectures") or text.get("architectures"),
            "model_type": outer,
            TEXT_TYPE: text.get("model_type", outer),
        }
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"{spec}: {path} has no model_type, so its architecture is unknown: copy config.json "
            f"from the model it was made from"
        )
    quantisation = config.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
        raise CheckpointError(
            f"{spec}: its weights are quantised ({method or quantisation}); forgetguard needs the "
            f"output projections as plain matrices: give the checkpoint before quantisation"
        )
    return config


def geometry(config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture, numbers and sizes of heads, as far as a configuration says them."""
    found: dict[str, Any] = {"model_type": config.get(TEXT_TYPE, config.get("model_type"))}
    for meaning, names in _GEOMETRY.items():
        found[meaning] = next((config[n] for n in names if config.get(n) is not None), None)
    return found

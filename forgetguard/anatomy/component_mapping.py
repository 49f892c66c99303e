"""Asks TransformerLens' architecture adapters where a model keeps its parts.

The adapters' component mapping is read without wrapping the model: a wrapped model is changed for
good, and a gate must measure the model as it is.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from forgetguard.anatomy.structure import LayerParts, Parts
from forgetguard.errors import AnatomyError, first_line

_SAID = 120  # characters of another library's message


def ask_transformer_lens(model: nn.Module) -> Parts:
    """The parts of a Hugging Face causal language model, as TransformerLens names them.

    Raises:
        AnatomyError: TransformerLens has no adapter for the architecture, the adapter names no
            attention heads, or the model does not have the modules that it names.
    """
    mapping, n_heads = _component_mapping(model)
    architecture = type(model).__name__
    blocks, unembedding = mapping.get("blocks"), mapping.get("unembed")
    if blocks is None or unembedding is None:
        raise AnatomyError(
            f"{architecture} is not a decoder-only language model with attention heads"
        )
    layers = tuple(_submodule(model, blocks.name).children())
    attention = blocks.submodules.get("attn")
    projection = (getattr(attention, "submodules", None) or {}).get("o")
    if attention is None or projection is None:
        raise AnatomyError(
            f"{architecture} has no attention output projection that is known, so its heads cannot "
            "be told apart; forgetguard cannot measure it"
        )
    parts = tuple(
        _layer_parts(layer, attention.name, projection.name, blocks.submodules.get("mlp"))
        for layer in layers
    )
    if all(part.attention is None for part in parts):
        raise AnatomyError(
            f"no layer of {architecture} has {attention.name}.{projection.name}, where "
            "TransformerLens' adapter expects the attention; forgetguard cannot measure it"
        )
    return Parts(layers, parts, _submodule(model, unembedding.name), n_heads)


def _component_mapping(model: nn.Module) -> tuple[dict[str, Any], int]:
    # Imported here: transformer_lens takes seconds to import.
    from transformer_lens.factories.architecture_adapter_factory import (
        SUPPORTED_ARCHITECTURES,
        ArchitectureAdapterFactory,
    )
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf
    from transformer_lens.model_bridge.sources._hf_format import (
        determine_architecture_from_hf_config,
    )

    name = type(model).__name__
    try:
        hf_config: Any = model.config
        if name not in SUPPORTED_ARCHITECTURES:
            name = determine_architecture_from_hf_config(hf_config)
        dtype = next(model.parameters()).dtype
        config = build_bridge_config_from_hf(hf_config, name, name, dtype)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
        return dict(adapter.component_mapping or {}), int(config.n_heads)
    except Exception as error:  # what an adapter trips over is its own
        raise AnatomyError(
            f"the attention heads of {type(model).__name__} cannot be found: forgetguard does not "
            "know its modules' names, and TransformerLens has no adapter that fits "
            f"({type(error).__name__}: {first_line(error)[:_SAID]}); the architectures it knows: "
            "transformer_lens.supported_models"
        ) from error


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise AnatomyError(
            f"{type(model).__name__} has no module {name!r}, where TransformerLens' adapter "
            "expects it; pass the causal language model itself, not a wrapper"
        ) from error


def _layer_parts(
    layer: nn.Module, attention_name: str, projection_name: str, mlp: Any
) -> LayerParts:
    try:
        attention = layer.get_submodule(attention_name)
        projection = attention.get_submodule(projection_name)
    except AttributeError:  # a hybrid model: this layer mixes tokens by other means
        return LayerParts(None, None, _mlp(layer, mlp))
    return LayerParts(attention, projection, _mlp(layer, mlp))


def _mlp(layer: nn.Module, named: Any) -> nn.Module | None:
    """The last projection where the adapter names one, else the whole block."""
    if named is None:
        return None
    last = (getattr(named, "submodules", None) or {}).get("out")
    block = named.name or ""  # OPT keeps its projections in the decoder layer itself
    for name in (f"{block}.{last.name}".strip(".") if last is not None else "", block):
        try:
            if name:
                return layer.get_submodule(name)
        except AttributeError:
            continue
    return None

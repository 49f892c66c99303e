"""Finds a model's decoder layers and their parts by shape and name.

Sure or silent: where anything could be read in two ways there is no answer, and another source must
be asked. So nothing of a layer may be left over: each weight matrix belongs to its one attention or
its one MLP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

_ATTENTION = re.compile(r"(self_)?(attn|attention)")
_PROJECTION = re.compile(r"o_proj|out_proj|c_proj|dense|[wW]o")
_MLP = re.compile(r"mlp|ffn|feed_forward|block_sparse_moe")
_MLP_OUT = re.compile(r"down_proj|c_proj|dense_4h_to_h|fc2|fc_out|w2|[wW]o")
_EXPERTS = re.compile(r"experts|router|gate")  # of a mixture: its output is no one matrix's


@dataclass(frozen=True, slots=True, eq=False)
class LayerParts:
    """One decoder layer: its attention and the output projection in it, and the module whose output
    is what its MLP adds to the residual stream. None: the layer has no such part."""

    attention: nn.Module | None
    projection: nn.Module | None
    mlp: nn.Module | None


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Where a causal language model keeps its layers (with their parts, in order) and its
    unembedding; `n_heads` are the query heads of a layer that does not say itself."""

    layers: tuple[nn.Module, ...]
    parts: tuple[LayerParts, ...]
    unembedding: nn.Module
    n_heads: int


def find_parts(model: nn.Module) -> Parts | None:
    """The parts of a Hugging Face causal language model, or None where they are not beyond doubt:
    an encoder, two lists of layers, a layer with a second mixer, an unknown name, ..."""
    config = _decoder_config(model)
    unembedding = model.get_output_embeddings() if config is not None else None  # type: ignore[operator]
    layers = None if config is None else _layers(model, config.num_hidden_layers)
    if config is None or layers is None or unembedding is None:
        return None
    parts = [
        _layer_parts(layer, config.hidden_size, config.num_attention_heads) for layer in layers
    ]
    found = tuple(part for part in parts if part is not None)
    if len(found) < len(parts):
        return None
    return Parts(layers, found, unembedding, config.num_attention_heads)


def widths(projection: nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a module that multiplies by one matrix, however it is stored: Linear,
    transformers' Conv1D, a quantised Linear, any of them under an adapter; None for another."""
    base: Any = getattr(projection, "base_layer", projection)
    shape = getattr(base, "in_features", None), getattr(base, "out_features", None)
    if isinstance(shape[0], int) and isinstance(shape[1], int):
        return shape[0], shape[1]
    if type(base).__name__ == "Conv1D":  # keeps [inputs, outputs]
        return int(base.weight.shape[0]), int(base.weight.shape[1])
    return None


def _decoder_config(model: nn.Module) -> Any:
    """The configuration of the text decoder, if the model is one and says how large."""
    config: Any = getattr(model, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", False):
        return None
    text = config.get_text_config(decoder=True)
    sizes = ("hidden_size", "num_attention_heads", "num_hidden_layers")
    return text if all(isinstance(getattr(text, size, None), int) for size in sizes) else None


def _layers(model: nn.Module, count: int) -> tuple[nn.Module, ...] | None:
    """The one list of `count` modules that is in no other such list."""
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        nested = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == count and not nested:
            found[name] = module
    return tuple(next(iter(found.values()))) if len(found) == 1 else None


def _layer_parts(layer: nn.Module, width: int, n_heads: int) -> LayerParts | None:
    weighty = {
        name: child
        for name, child in layer.named_children()
        if any(parameter.dim() > 1 for parameter in child.parameters())
    }
    loose = any(parameter.dim() > 1 for parameter in layer.parameters(recurse=False))
    attention = [name for name in weighty if _ATTENTION.fullmatch(name)]
    if loose or len(attention) != 1:
        return None
    site = _attention(weighty.pop(attention[0]), width, n_heads)
    mlp = _mlp(weighty, width)
    return None if site is None or mlp is None else LayerParts(*site, mlp)


def _attention(block: nn.Module, width: int, n_heads: int) -> tuple[nn.Module, nn.Module] | None:
    """(the attention, its output projection): the one matrix of that name and shape."""
    projections = _matrices(block, _PROJECTION, width)
    if len(projections) != 1:
        return None
    (path,) = projections
    attention = block.get_submodule(path.rpartition(".")[0])
    # One number a head may be an attention sink; anything else changes what a head is (the
    # differences of DiffLlama's pairs of heads).
    own = attention.parameters(recurse=False)
    if any(parameter.numel() != n_heads for parameter in own):
        return None
    return attention, projections[path]


def _mlp(weighty: dict[str, nn.Module], width: int) -> nn.Module | None:
    """The last matrix of the MLP, since some MLPs add the residual stream themselves (Bloom); the
    whole block of a mixture of experts."""
    if len(weighty) == 1:
        ((name, block),) = weighty.items()
        if not _MLP.fullmatch(name):
            return None
        if any(_EXPERTS.fullmatch(part) for part, _ in block.named_children()):
            return block
        found = _matrices(block, _MLP_OUT, width)
    elif all(widths(child) is not None for child in weighty.values()):
        found = {name: one for name, one in weighty.items() if _MLP_OUT.fullmatch(name)}  # OPT
    else:
        return None
    return next(iter(found.values())) if len(found) == 1 else None


def _matrices(block: nn.Module, name: re.Pattern[str], width: int) -> dict[str, nn.Module]:
    """The matrices in `block` whose name matches and that map to `width`, by their path in it."""
    return {
        path: module
        for path, module in block.named_modules()
        if name.fullmatch(path.rpartition(".")[2])
        and (shape := widths(module)) is not None
        and shape[1] == width
    }

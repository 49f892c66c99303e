"""Finds the decoder layers, their attention and MLPs, and the unembedding of a Hugging Face model.

The names come from TransformerLens' architecture adapters (their component mapping), read without
wrapping the model: a wrapped model is changed for good, and a gate must measure the model as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.errors import AnatomyError


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """The attention of one decoder layer.

    `output_projection` maps the concatenated head activations z, [batch, pos, n_heads * head_dim],
    to the attention output, [batch, pos, d_model].
    """

    attention: nn.Module
    output_projection: nn.Module
    n_heads: int
    head_dim: int

    def slice(self, head: Head) -> slice:
        """Where `head` lies in the input of the output projection."""
        return slice(head.index * self.head_dim, (head.index + 1) * self.head_dim)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a causal language model that measuring its heads and MLPs needs.

    `sites` has one entry a decoder layer: None where a layer of a hybrid model has no heads. `mlps`
    likewise: the module whose output is what the layer's MLP adds to the residual stream (its last
    projection; the whole block of a mixture of experts).
    """

    model: nn.Module
    layers: tuple[nn.Module, ...]
    sites: tuple[AttentionSite | None, ...]
    mlps: tuple[nn.Module | None, ...]
    unembedding: nn.Module

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every query head of the model, in order."""
        return tuple(
            Head(layer, index)
            for layer, site in enumerate(self.sites)
            if site is not None
            for index in range(site.n_heads)
        )

    def members(self, *, mlps: bool = False) -> tuple[Member, ...]:
        """Every query head of the model and, where asked for, every MLP layer, in order."""
        if not mlps:
            return self.heads
        layers = [Mlp(layer) for layer, mlp in enumerate(self.mlps) if mlp is not None]
        return tuple(sorted([*self.heads, *layers]))

    def site(self, layer: int) -> AttentionSite:
        """The attention of `layer`.

        Raises:
            AnatomyError: there is no such layer, or it has no attention heads.
        """
        self._check_layer(layer)
        site = self.sites[layer]
        if site is None:
            raise AnatomyError(f"layer {layer} of this model has no attention heads")
        return site

    def mlp(self, layer: int) -> nn.Module:
        """The module whose output is what the MLP of `layer` adds to the residual stream.

        Raises:
            AnatomyError: there is no such layer, or no MLP is known in it.
        """
        self._check_layer(layer)
        mlp = self.mlps[layer]
        if mlp is None:
            raise AnatomyError(f"layer {layer} of this model has no MLP that can be patched")
        return mlp

    def check(self, members: Iterable[Member]) -> None:
        """Raises AnatomyError if one of `members` is not a head or an MLP of this model."""
        for member in members:
            if isinstance(member, Mlp):
                self.mlp(member.layer)
                continue
            site = self.site(member.layer)
            if member.index >= site.n_heads:
                raise AnatomyError(
                    f"{member} is not in this model: layer {member.layer} has heads 0 to "
                    f"{site.n_heads - 1}"
                )

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < self.n_layers:
            raise AnatomyError(
                f"layer {layer} is not in this model: it has layers 0 to {self.n_layers - 1}"
            )


def locate(model: nn.Module) -> Anatomy:
    """Find the attention heads of a Hugging Face causal language model.

    A model with injected LoRA layers is found like the plain one: pass what peft's
    `get_base_model()` returns.

    Raises:
        AnatomyError: TransformerLens has no adapter for the architecture, or the model does not
            have the modules that the adapter names.
    """
    mapping, n_heads = _component_mapping(model)
    blocks = mapping.get("blocks")
    unembedding = mapping.get("unembed")
    if blocks is None or unembedding is None:
        raise AnatomyError(
            f"{type(model).__name__} is not a decoder-only language model with attention heads"
        )
    layers = tuple(_submodule(model, blocks.name).children())
    attention = blocks.submodules.get("attn")
    projection = (getattr(attention, "submodules", None) or {}).get("o")
    if attention is None or projection is None:
        raise AnatomyError(
            f"TransformerLens' adapter for {type(model).__name__} names no attention output "
            "projection, so its heads cannot be told apart"
        )
    sites = tuple(
        _site(layer, index, attention.name, projection.name, n_heads)
        for index, layer in enumerate(layers)
    )
    if not any(sites):
        raise AnatomyError(
            f"no layer of {type(model).__name__} has {attention.name}.{projection.name}"
        )
    mlps = tuple(_mlp(layer, blocks.submodules.get("mlp")) for layer in layers)
    return Anatomy(model, layers, sites, mlps, _submodule(model, unembedding.name))


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

    hf_config: Any = model.config
    name = type(model).__name__
    try:
        if name not in SUPPORTED_ARCHITECTURES:
            name = determine_architecture_from_hf_config(hf_config)
        dtype = next(model.parameters()).dtype
        config = build_bridge_config_from_hf(hf_config, name, name, dtype)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
    except (ValueError, NotImplementedError) as error:
        raise AnatomyError(
            f"TransformerLens has no adapter for {type(model).__name__}, so its attention heads "
            "cannot be found; the architectures it knows: transformer_lens.supported_models"
        ) from error
    return dict(adapter.component_mapping or {}), int(config.n_heads)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise AnatomyError(
            f"{type(model).__name__} has no module {name!r}, where TransformerLens' adapter "
            "expects it; pass the causal language model itself, not a wrapper"
        ) from error


def _site(
    layer: nn.Module, index: int, attention_name: str, projection_name: str, n_heads: int
) -> AttentionSite | None:
    try:
        attention = layer.get_submodule(attention_name)
        projection = attention.get_submodule(projection_name)
    except AttributeError:
        return None  # a hybrid model: this layer mixes tokens by other means
    width = _input_width(projection)
    # Heads may differ from layer to layer; where the module says, it knows better than the config.
    own = getattr(attention, "num_heads", None) or getattr(attention, "num_attention_heads", None)
    heads = own if isinstance(own, int) and width % own == 0 else n_heads
    if width % heads:
        raise AnatomyError(
            f"layer {index}: the output projection takes {width} inputs, which {heads} heads do "
            "not divide"
        )
    return AttentionSite(attention, projection, heads, width // heads)


def _mlp(layer: nn.Module, named: Any) -> nn.Module | None:
    """The last projection of the layer's MLP, since some MLPs add the residual stream themselves
    (Bloom); the whole block where there is no single one (a mixture of experts)."""
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


def _input_width(projection: nn.Module) -> int:
    base = projection.base_layer if hasattr(projection, "base_layer") else projection
    if isinstance(base, Conv1D):
        return int(base.weight.shape[0])
    width = getattr(base, "in_features", None)
    if not isinstance(width, int):
        raise AnatomyError(f"a {type(base).__name__} is not an output projection we can read")
    return width

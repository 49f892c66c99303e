"""Finds the layers, their attention and MLPs, and the unembedding of a Hugging Face model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from forgetguard.anatomy.bridge import is_bridge, unwrapped
from forgetguard.anatomy.component_mapping import ask_transformer_lens
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.anatomy.structure import LayerParts, find_parts, widths
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
    projection; the whole block of a mixture of experts). `plain_layers`: each layer is known to
    consist of one attention and one MLP, so that positions meet in its attention only.
    """

    model: nn.Module
    layers: tuple[nn.Module, ...]
    sites: tuple[AttentionSite | None, ...]
    mlps: tuple[nn.Module | None, ...]
    unembedding: nn.Module
    plain_layers: bool = False

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

    By shape and name; where that gives no sure answer, by TransformerLens' adapter for the
    architecture. A model with injected LoRA layers is found like the plain one: pass what peft's
    `get_base_model()` returns. Of a TransformerBridge the anatomy is that of the plain model in it.

    Raises:
        AnatomyError: neither finds them, or the heads do not divide the output projection's input.
    """
    model = unwrapped(model) if is_bridge(model) else model
    plain = find_parts(model)
    found = plain or ask_transformer_lens(model)
    sites = tuple(_site(part, index, found.n_heads) for index, part in enumerate(found.parts))
    mlps = tuple(part.mlp for part in found.parts)
    return Anatomy(model, found.layers, sites, mlps, found.unembedding, plain is not None)


def _site(part: LayerParts, layer: int, n_heads: int) -> AttentionSite | None:
    """The heads of one layer, where it has any. Where its attention says how many they are, or how
    wide, it knows better than the model's configuration."""
    if part.attention is None or part.projection is None:
        return None
    shape = widths(part.projection)
    if shape is None:
        kind = type(getattr(part.projection, "base_layer", part.projection)).__name__
        raise AnatomyError(f"layer {layer}: a {kind} is not an output projection we can read")
    width = shape[0]
    own = getattr(part.attention, "num_heads", None) or getattr(
        part.attention, "num_attention_heads", None
    )
    heads = own if isinstance(own, int) and width % own == 0 else n_heads
    stated: Any = getattr(part.attention, "v_head_dim", None) or getattr(
        part.attention, "head_dim", width / heads
    )
    if stated * heads != width or width % heads:
        raise AnatomyError(
            f"layer {layer}: the output projection takes {width} inputs, which are not those of "
            f"{heads} heads of {stated:g}; forgetguard cannot tell its heads apart"
        )
    return AttentionSite(part.attention, part.projection, heads, width // heads)

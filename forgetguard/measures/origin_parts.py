"""The parts of a checkpoint that a loss is shared among: which entries of which tensors each is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from forgetguard.anatomy.locate import Anatomy, AttentionSite
from forgetguard.anatomy.members import Head
from forgetguard.measures.origin_weights import Entries, Slices

_KINDS = {"q": r"(q|query)(_proj|_lin)?", "k": r"(k|key)(_proj|_lin)?", "v": r"(v|value)(_proj)?"}
ATTENTION = ("q", "k", "v", "o", "qkv")  # qkv: fused, or of a module that is none of the four
BANDS = {"attention": ATTENTION, "mlp": ("mlp",)}
EMBEDDINGS = ("embedding", "unembedding", "tied_embedding")


@dataclass(frozen=True, slots=True)
class Part:
    """A part's name, as data. `kind`: embedding, unembedding, tied_embedding (one weight that is
    both), rows (of an embedding: `tokens`), final_norm, norms, attention, mlp, q, k, v, o, qkv,
    other; `layers`: the first and the last, where it lies in layers; `index`: of a head (q, o) or
    of a key-value group (k, v)."""

    kind: str
    layers: tuple[int, int] | None = None
    index: int | None = None
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """A part and its entries; `inside` are the groups that it may be refined to."""

    part: Part
    slices: Slices
    inside: tuple[Group, ...] = field(default=())


def groups(
    anatomy: Anatomy, parameters: Mapping[str, nn.Parameter], most: int
) -> tuple[Group, ...]:
    """The parts of the changed `parameters` (by name), at most `most` of them: each embedding, the
    final norm, all other norms, what else lies outside layers, and attention and MLPs by bands of
    neighbouring layers, as many bands as there is room for. No two share an entry.

    Args:
        most: at least 7, so that each kind has a place.
    """
    placed = _placed(anatomy, parameters)
    alone: dict[str, list[str]] = {}
    layered: dict[str, dict[tuple[int, str], list[str]]] = {kind: {} for kind in BANDS}
    for name, (kind, layer) in placed.items():
        band = next((one for one, kinds in BANDS.items() if kind in kinds), None)
        if band is None or layer is None:
            alone.setdefault(kind, []).append(name)
        else:
            layered[band].setdefault((layer, kind), []).append(name)
    found = [Group(Part(kind), _whole(names)) for kind, names in sorted(alone.items())]
    used = [band for band in BANDS if layered[band]]
    room = (most - len(found)) // max(1, len(used))
    for band in used:
        inner = layered[band]
        layers = sorted({layer for layer, _ in inner})
        for some in np.array_split(layers, min(room, len(layers))):
            ends = int(some[0]), int(some[-1])
            parts = [
                _matrix(anatomy, Part(kind, (layer, layer)), names, parameters)
                for (layer, kind), names in sorted(inner.items())
                if ends[0] <= layer <= ends[1]
            ]
            if len(parts) == 1:
                found.append(parts[0])
            else:
                names = [name for one in parts for name in one.slices]
                found.append(Group(Part(band, ends), _whole(names), tuple(parts)))
    return tuple(found)


def rows_of(group: Group, tokens: Sequence[int]) -> Group:
    """Some tokens' rows of an embedding."""
    chosen = tuple(sorted(tokens))
    name = next(iter(group.slices))
    return Group(Part("rows", tokens=chosen), {name: Entries(rows=torch.tensor(chosen))})


def head_slices(
    anatomy: Anatomy, parameters: Mapping[str, nn.Parameter]
) -> dict[Head, dict[str, Entries]]:
    """Of each head, its slices of the query and output projections, as far as their shapes tell
    heads apart."""
    found: dict[Head, dict[str, Entries]] = {}
    for group in groups(anatomy, parameters, len(parameters) + len(BANDS)):
        for one in (group, *group.inside):
            for inner in one.inside if one.part.kind in ("q", "o") else ():
                assert inner.part.layers is not None
                assert inner.part.index is not None
                head = Head(inner.part.layers[0], inner.part.index)
                found.setdefault(head, {}).update(inner.slices)
    return found


def _whole(names: Iterable[str]) -> dict[str, Entries]:
    return dict.fromkeys(names, Entries())


def _placed(
    anatomy: Anatomy, parameters: Mapping[str, nn.Parameter]
) -> dict[str, tuple[str, int | None]]:
    """Kind and layer of each parameter."""
    kinds: dict[int, tuple[str, int | None]] = {}
    for layer, (block, site) in enumerate(zip(anatomy.layers, anatomy.sites, strict=True)):
        inner = set() if site is None else {id(one) for one in site.attention.modules()}
        for path, module in block.named_modules():
            for parameter in module.parameters(recurse=False):
                kind = "norms" if _is_norm(module) else "mlp"
                if kind == "mlp" and id(module) in inner:
                    assert site is not None
                    kind = _projection(path, module, site)
                kinds[id(parameter)] = kind, layer
    model = anatomy.model
    ends = [one() for one in (model.get_input_embeddings, model.get_output_embeddings)]  # type: ignore[operator]
    tied = getattr(ends[0], "base_layer", ends[0]).weight
    first, last = ({id(one) for one in end.parameters()} for end in ends)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            key = id(parameter)
            if key in first or key in last:
                both = parameter is tied and key in first and key in last
                kind = "tied_embedding" if both else EMBEDDINGS[key in last]
                kinds[key] = kind, None
            elif key not in kinds:
                kinds[key] = ("final_norm" if _is_norm(module) else "other"), None
    return {name: kinds[id(parameter)] for name, parameter in parameters.items()}


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _projection(path: str, module: nn.Module, site: AttentionSite) -> str:
    if module in (site.output_projection, getattr(site.output_projection, "base_layer", None)):
        return "o"
    name = path.removesuffix(".base_layer").rpartition(".")[2]
    return next((kind for kind, form in _KINDS.items() if re.fullmatch(form, name)), "qkv")


def _matrix(
    anatomy: Anatomy, part: Part, names: Sequence[str], parameters: Mapping[str, nn.Parameter]
) -> Group:
    """One projection of a layer, with its heads where its shape tells them."""
    assert part.layers is not None
    site, tensors = anatomy.sites[part.layers[0]], {name: parameters[name] for name in names}
    whole = Group(part, _whole(names))
    if site is None or part.kind not in ("q", "k", "v", "o"):
        return whole
    width, heads = site.head_dim, site.n_heads * site.head_dim
    turned = type(getattr(site.output_projection, "base_layer", site.output_projection))
    inputs = 0 if turned.__name__ == "Conv1D" else 1  # the dimension of a head's inputs to o
    if part.kind == "o":
        tensors = {name: one for name, one in tensors.items() if one.dim() == 2}
        fits = all(one.shape[inputs] == heads for one in tensors.values())
        count = site.n_heads
    else:
        outputs = {one.shape[0] if one.dim() else 0 for one in tensors.values()}
        count = next(iter(outputs)) // width if len(outputs) == 1 else 0
        fits = count > 0 and outputs == {count * width} and site.n_heads % count == 0
        fits = fits and (part.kind != "q" or count == site.n_heads) and inputs == 1
    if not tensors or not fits or count < 2:
        return whole
    inside = []
    for index in range(count):
        where = slice(index * width, (index + 1) * width)
        rows = Entries(rows=torch.arange(where.start, where.stop))
        entries = Entries(columns=where) if part.kind == "o" and inputs == 1 else rows
        inside.append(Group(Part(part.kind, part.layers, index), dict.fromkeys(tensors, entries)))
    return Group(part, whole.slices, tuple(inside))

"""Changes to the weights of a Llama checkpoint: damage to one head, harmless changes, and damage
that no attention head shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Weights = dict[str, Tensor]
Edit = Callable[[Weights], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a Llama's config.json says where its heads are."""

    layers: int
    heads: int
    groups: int
    width: int  # of a head

    @classmethod
    def of(cls, config: Mapping[str, int]) -> Shape:
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        return cls(config["num_hidden_layers"], heads, config["num_key_value_heads"], width)

    def group(self, head: int) -> int:
        """The key-value group of a query head."""
        return head // (self.heads // self.groups)

    def rows(self, index: int) -> slice:
        return slice(index * self.width, (index + 1) * self.width)


@dataclass(frozen=True, slots=True)
class Change:
    """A named edit. `head`: the one that is damaged, (layer, head). `untied`: the unembedding gets
    weights of its own first. `lora`: the size of an adapter's change, in place of an edit."""

    name: str
    kind: str  # "head", "harmless", "outside"
    edit: Edit | None
    head: tuple[int, int] | None = None
    capability: str = ""
    untied: bool = False
    lora: float = 0.0


# --- one head ------------------------------------------------------------------------------------

PARTS = ("q", "k", "v", "o")


def slice_of(weights: Weights, shape: Shape, layer: int, part: str, head: int) -> Tensor:
    """A view of a head's part: its rows of q, its group's rows of k and v, its columns of o."""
    weight = weights[f"model.layers.{layer}.self_attn.{part}_proj.weight"]
    if part == "o":
        return weight[:, shape.rows(head)]
    return weight[shape.rows(head if part == "q" else shape.group(head))]


def damaged(shape: Shape, layer: int, head: int, part: str, way: str) -> Edit:
    """A head's part is zeroed, replaced by noise of its spread, or exchanged with that of the
    layer's head farthest away. (Noise that is added leaves what the part computes in place.)"""

    def edit(weights: Weights) -> None:
        mine = slice_of(weights, shape, layer, part, head)
        if way == "zeroed":
            mine.zero_()
        elif way == "noised":
            mine.copy_(mine.std() * noise(mine.shape, seed=layer * 100 + head))
        else:
            away = (head + shape.heads // 2) % shape.heads
            other = slice_of(weights, shape, layer, part, away)
            kept = mine.clone()
            mine.copy_(other)
            other.copy_(kept)

    return edit


def noise(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal float32, the same on every machine."""
    drawn = np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(drawn)


WAYS = ("zeroed", "noised", "swapped")


def plant(shape: Shape, capability: str, head: tuple[int, int], part: str, way: str) -> Change:
    """One part of one head damaged in one way."""
    name = f"{capability}: {part} of L{head[0]}H{head[1]} {way}"
    return Change(name, "head", damaged(shape, *head, part, way), head, capability)


def head_plants(shape: Shape, capability: str, heads: Sequence[tuple[int, int]]) -> list[Change]:
    """Ten of one capability: the four parts of its important heads in three ways, the heads by
    turns, the most important one first."""
    plan = [
        ("o", "zeroed"), ("q", "zeroed"), ("v", "zeroed"), ("k", "zeroed"), ("o", "noised"),
        ("q", "noised"), ("v", "noised"), ("k", "noised"), ("o", "swapped"), ("q", "swapped"),
    ]  # fmt: skip
    return [
        plant(shape, capability, heads[number % len(heads)], part, way)
        for number, (part, way) in enumerate(plan)
    ]


def all_plants(shape: Shape, capability: str, heads: Sequence[tuple[int, int]]) -> list[Change]:
    """Every part of every head in every way."""
    return [
        plant(shape, capability, head, part, way)
        for head in heads
        for part in PARTS
        for way in WAYS
    ]


# --- no harm -------------------------------------------------------------------------------------


def noised(size: float, seed: int) -> Edit:
    """Every matrix plus normal noise of `size` of its own standard deviation."""

    def edit(weights: Weights) -> None:
        for number, name in enumerate(sorted(weights)):
            weight = weights[name]
            if weight.ndim == 2:
                weight += size * weight.std() * noise(weight.shape, seed * 1000 + number)

    return edit


def rounded(dtype: torch.dtype) -> Edit:
    """Every weight through another number format and back."""

    def edit(weights: Weights) -> None:
        for name, weight in weights.items():
            weights[name] = weight.to(dtype).float()

    return edit


def heads_permuted(shape: Shape, seed: int) -> Edit:
    """In every layer the groups, and in each group the query heads, in another order: the same
    function."""

    def edit(weights: Weights) -> None:
        generator = np.random.default_rng(seed)
        each = shape.heads // shape.groups
        for layer in range(shape.layers):
            groups = generator.permutation(shape.groups)
            heads = [int(g) * each + int(h) for g in groups for h in generator.permutation(each)]
            for part, order in (("q", heads), ("k", groups), ("v", groups), ("o", heads)):
                name = f"model.layers.{layer}.self_attn.{part}_proj.weight"
                blocks = [shape.rows(int(one)) for one in order]
                weight = weights[name]
                columns = part == "o"
                parts = [weight[:, one] if columns else weight[one] for one in blocks]
                weights[name] = torch.cat(parts, dim=int(columns)).contiguous()

    return edit


def norms_folded(shape: Shape) -> Edit:
    """Every input norm's weight moved into the matrices that read it: the same function."""

    def edit(weights: Weights) -> None:
        for layer in range(shape.layers):
            stem = f"model.layers.{layer}"
            readers = {
                "input_layernorm": [f"self_attn.{part}_proj" for part in "qkv"],
                "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
            }
            for norm, names in readers.items():
                scale = weights[f"{stem}.{norm}.weight"]
                for name in names:
                    weights[f"{stem}.{name}.weight"] *= scale
                weights[f"{stem}.{norm}.weight"] = torch.ones_like(scale)

    return edit


def residual_permuted(seed: int) -> Edit:
    """The dimensions of the residual stream in another order: the same function."""

    def edit(weights: Weights) -> None:
        width = weights["model.norm.weight"].shape[0]
        order = torch.from_numpy(np.random.default_rng(seed).permutation(width))
        for name, weight in weights.items():
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            weights[name] = weight[order] if writes or weight.ndim == 1 else weight[:, order]
            weights[name] = weights[name].contiguous()

    return edit


def harmless(shape: Shape) -> list[Change]:
    """Twenty copies that have lost nothing."""
    edits: list[tuple[str, Edit | None, float]] = [
        *((f"1 % noise, seed {seed}", noised(0.01, seed), 0.0) for seed in range(5)),
        ("0.3 % noise", noised(0.003, 5), 0.0),
        ("bfloat16 and back", rounded(torch.bfloat16), 0.0),
        ("float16 and back", rounded(torch.float16), 0.0),
        *((f"a step of LoRA, seed {seed}", None, 0.005 + 0.001 * seed) for seed in range(4)),
        *((f"heads permuted, seed {seed}", heads_permuted(shape, seed), 0.0) for seed in range(4)),
        ("norms folded", norms_folded(shape), 0.0),
        ("residual stream permuted, seed 0", residual_permuted(0), 0.0),
        ("residual stream permuted, seed 1", residual_permuted(1), 0.0),
        (
            "heads permuted and norms folded",
            _both(heads_permuted(shape, 9), norms_folded(shape)),
            0,
        ),
    ]
    return [Change(name, "harmless", edit, lora=lora) for name, edit, lora in edits]


def _both(*edits: Edit) -> Edit:
    def edit(weights: Weights) -> None:
        for one in edits:
            one(weights)

    return edit


# --- outside attention ---------------------------------------------------------------------------

_DOWN = "model.layers.{}.mlp.down_proj.weight"
_NORM = "model.layers.{}.post_attention_layernorm.weight"
_FINAL = "model.norm.weight"


def added(name: str, size: float, seed: int) -> Edit:
    """A weight plus normal noise of `size` of its own standard deviation."""

    def edit(weights: Weights) -> None:
        weight = weights[name]
        weight += size * weight.std() * noise(weight.shape, seed)

    return edit


def stronger(shape: Shape) -> list[Change]:
    """The mildest three of `outside`, as strong as costs SmolLM2 more than ten points."""
    last = shape.layers - 1
    edits = {
        "final MLP, noise 4": added(_DOWN.format(last), 4.0, 4),
        "norm before the final MLP, noise 16": added(_NORM.format(last), 16.0, 5),
        "final norm, noise 8": added(_FINAL, 8.0, 6),
    }
    return [Change(name, "outside", edit, untied=True) for name, edit in edits.items()]


def outside(shape: Shape, words: Sequence[int]) -> list[Change]:
    """Damage that no head's contribution shows. `words`: ids whose embedding rows are shuffled."""
    last = shape.layers - 1

    def zeroed(name: str) -> Edit:
        def edit(weights: Weights) -> None:
            weights[name].zero_()

        return edit

    def shuffled(name: str) -> Edit:
        def edit(weights: Weights) -> None:
            order = np.random.default_rng(3).permutation(len(words))
            rows = torch.tensor(words)
            weights[name][rows] = weights[name][rows[torch.from_numpy(order)]]

        return edit

    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    edits: list[tuple[str, Edit]] = [
        ("lm_head, noise 0.5", added(head, 0.5, 1)),
        ("lm_head, noise 1", added(head, 1.0, 2)),
        ("lm_head, rows of names shuffled", shuffled(head)),
        ("embedding, rows of names shuffled", shuffled(embedding)),
        ("embedding, noise 1", added(embedding, 1.0, 3)),
        ("final MLP zeroed", zeroed(_DOWN.format(last))),
        ("final MLP, noise 2", added(_DOWN.format(last), 2.0, 4)),
        ("MLP 0 zeroed", zeroed(_DOWN.format(0))),
        ("norm before the final MLP, noise 4", added(_NORM.format(last), 4.0, 5)),
        ("final norm, noise 2", added(_FINAL, 2.0, 6)),
    ]
    return [Change(name, "outside", edit, untied=True) for name, edit in edits]

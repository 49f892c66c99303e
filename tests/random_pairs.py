"""Prompt pairs of random tokens, and what a model does on them one pair at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import literal
import numpy as np
import torch
from architectures import VOCAB
from placement import tolerance
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import Encoded, EncodedPair
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.measures.interventions import FloatArray

# What replaces which members on one pair, each [1, pos, width].
Patch = Callable[[EncodedPair], Mapping[Member, Tensor]]


def random_capability(
    count: int = 6,
    *,
    readout: str = "logit_diff",
    lengths: Sequence[int] = (6, 7),
    answer: int = 1,
    seed: int = 2,
    batch_tokens: int = 4096,
) -> EncodedCapability:
    """Pairs that differ from their third position on, lengths in turn."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB - 7, (n,), generator=generator).tolist())

    pairs = []
    for number in range(count):
        prefix, rest = draw(2), lengths[number % len(lengths)] - 2
        first, second = draw(rest), draw(rest)
        while second[0] == first[0]:
            second = draw(rest)
        text = PromptPair(f"x {number}", f"x' {number}", "y", "y'")
        pairs.append(EncodedPair(text, prefix + first, prefix + second, draw(answer), draw(answer)))
    found = tuple(pairs)
    return EncodedCapability(
        Capability("random", readout), Encoded(found, {}), make_batches(found, batch_tokens)
    )


def ids(prompt: tuple[int, ...], pair: EncodedPair) -> Tensor:
    """The prompt with what of the answer comes before its last token, [1, pos]."""
    return torch.tensor([prompt + pair.answer[:-1]])


def readouts(
    anatomy: Anatomy,
    capability: EncodedCapability,
    patch: Patch = lambda _: {},
    other: Anatomy | None = None,
) -> FloatArray:
    """F of every pair, each by an ordinary forward pass of its own, float64 [pair]."""
    values = []
    for pair in capability.encoded.pairs:
        tokens = ids(pair.clean, pair)
        logits = literal.logits(anatomy, tokens, patch(pair), other)[
            0, len(pair.clean) - 1 :
        ].double()
        if capability.capability.readout == "logit_diff":
            value = logits[0, pair.answer[0]] - logits[0, pair.distractor[0]]
        else:
            steps = [
                (step.exp() / step.exp().sum())[token].log()
                for step, token in zip(logits, pair.answer, strict=True)
            ]
            value = torch.stack(steps).mean()
        values.append(value.item())
    return np.array(values)


def from_counterfactual(anatomy: Anatomy, members: Sequence[Member]) -> Patch:
    """`members` as they are on the counterfactual prompt."""

    def patch(pair: EncodedPair) -> dict[Member, Tensor]:
        z = literal.activations(anatomy, ids(pair.counterfactual, pair))
        return {member: z[member] for member in members}

    return patch


def close(actual: FloatArray, expected: FloatArray, float32: float = 2e-5) -> None:
    """Equal up to rounding at the size of the values; `float32` is the tolerance in that format."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=slack(expected, float32))


def slack(values: FloatArray, float32: float) -> float:
    """What rounding may move numbers of the size of `values` by; `float32` is its relative size in
    that format."""
    return tolerance(float32) * max(1.0, float(np.abs(values).max()))

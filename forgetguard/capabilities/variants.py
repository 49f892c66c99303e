"""Other views of an encoded capability: a part of its pairs, prompts or answers exchanged."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.encoding import FEWEST_PAIRS, EncodedPair
from forgetguard.errors import CapabilityError


def take(capability: EncodedCapability, indices: Sequence[int]) -> EncodedCapability:
    """The capability on some of its pairs, in the given order."""
    pairs = tuple(capability.encoded.pairs[i] for i in indices)
    encoded = replace(capability.encoded, pairs=pairs)
    return replace(capability, encoded=encoded, batches=make_batches(pairs))


def halves(
    capability: EncodedCapability, seed: int = 0
) -> tuple[EncodedCapability, EncodedCapability]:
    """Two disjoint halves of the pairs, drawn with `seed`.

    Raises:
        CapabilityError: a half would have fewer than 8 pairs.
    """
    n = capability.n_pairs
    if n // 2 < FEWEST_PAIRS:
        raise CapabilityError(
            f"capability {capability.capability.name}: {n} prompt pairs make halves of {n // 2}, "
            f"and each needs at least {FEWEST_PAIRS}; give {2 * FEWEST_PAIRS} pairs or more"
        )
    order = list(range(n))
    random.Random(f"halves {seed}").shuffle(order)
    return take(capability, sorted(order[: n // 2])), take(capability, sorted(order[n // 2 :]))


def exchange_prompts(capability: EncodedCapability) -> EncodedCapability:
    """Clean and counterfactual prompt exchanged; answer and distractor stay those of the clean
    prompt. Patching it from its counterfactual is denoising."""
    return _each(
        capability,
        lambda pair: replace(pair, clean=pair.counterfactual, counterfactual=pair.clean),
    )


def exchange_answers(capability: EncodedCapability) -> EncodedCapability:
    """Answer and distractor exchanged: what a model says that has taken in the counterfactual.

    Raises:
        CapabilityError: pairs have no distractor.
    """
    if not all(pair.distractor for pair in capability.encoded.pairs):
        raise CapabilityError(
            f"capability {capability.capability.name}: the answer to the counterfactual is needed, "
            "and some pairs have no distractor; give every pair one"
        )
    return _each(
        capability,
        lambda pair: replace(
            pair,
            answer=pair.distractor,
            distractor=pair.answer,
            answers=pair.distractors,
            distractors=pair.answers,
        ),
    )


def _each(
    capability: EncodedCapability, change: Callable[[EncodedPair], EncodedPair]
) -> EncodedCapability:
    pairs = tuple(change(pair) for pair in capability.encoded.pairs)
    encoded = replace(capability.encoded, pairs=pairs)
    return replace(capability, encoded=encoded, batches=make_batches(pairs))

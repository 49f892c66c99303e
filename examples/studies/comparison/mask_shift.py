"""What fine-tuning moves in learned masks: mask shift, and the vulnerable set of arXiv 2605.28860.

A mask gives each member m in [0, 1], 1 where it is replaced by the counterfactual's contribution:
masks are learned to change the answer with few replacements, so 1 says that the member carries the
capability. A model's circuit is its members with m > 0.5.

    mask shift  m(M) - m(base)
    C_vuln    = { h : m_h(tuned) < m_h(reference) - delta }

The paper's set compares shifts of two models from one base (SFT and RL), but the base's mask stands
on both sides and cancels, so that the functions here need two masks.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TypeAlias

from examples.studies.comparison.overlap import named
from forgetguard.anatomy.members import Member
from forgetguard.errors import MeasurementError

Mask: TypeAlias = Mapping[Member, float]

DELTA = 0.5
"""How far a mask must fall for a head to count as vulnerable. The paper's own value is not
published; this one is ours. It is the least at which every vulnerable member is surely in the
reference's circuit (m > 0.5) and surely not in the tuned model's; and masks annealed to binary
differ by about 0 or about 1, from which it is equally far (for masks of 0 and 1 alone, any delta
names the same members)."""


@dataclass(frozen=True, slots=True)
class VulnerableHeads:
    """C_vuln over several seeds of the mask's training.

    Attributes:
        members: C_vuln of the masks averaged over seeds, in order.
        drop: every member's mean m(reference) - mean m(tuned), in [-1, 1].
        share: every member's share of (tuned seed, reference seed) pairs, all of them, in which it
            is vulnerable. Seeds are not paired by number: nothing but a number links them.
        share_within: the same share among ordered pairs of different seeds of ONE model, the
            tuned's and the reference's pairs together: what the choice of seed alone makes
            vulnerable, to hold `share` against. None where both models have one seed.
        delta: the fall that counts.
        tuned_seeds, reference_seeds: numbers of masks.
    """

    members: tuple[Member, ...]
    drop: Mapping[Member, float]
    share: Mapping[Member, float]
    share_within: Mapping[Member, float] | None
    delta: float
    tuned_seeds: int
    reference_seeds: int


def mask_shift(mask: Mask, base: Mask) -> dict[Member, float]:
    """m(M) - m(base) of every member, in their order; above 0 where the member gained.

    Raises:
        MeasurementError: a mask is empty, a value is not in [0, 1], or the members differ.
    """
    check_masks({"the mask": mask, "the base's mask": base})
    return {member: float(mask[member]) - float(base[member]) for member in sorted(base)}


def vulnerable(mask_tuned: Mask, mask_reference: Mask, delta: float = DELTA) -> tuple[Member, ...]:
    """C_vuln = {h : m_h(tuned) < m_h(reference) - delta}, in order (strictly less).

    Args:
        delta: in [0, 1). Below 0 a model would be vulnerable against itself; from 1 on nothing
            ever is.

    Raises:
        MeasurementError: a mask is empty, a value is not in [0, 1], the members differ, or delta
            is out of range.
    """
    check_masks({"the tuned mask": mask_tuned, "the reference's mask": mask_reference})
    _check_delta(delta)
    return _fallen(mask_tuned, mask_reference, delta)


def vulnerable_over_seeds(
    masks_tuned: Sequence[Mask], masks_reference: Sequence[Mask], delta: float = DELTA
) -> VulnerableHeads:
    """C_vuln of seed-averaged masks, and in how many seeds each member belongs to it.

    The numbers of seeds may differ; one of each is legal, and then no `share_within` is known.

    Raises:
        MeasurementError: as `vulnerable`, or a model has no mask.
    """
    _check_delta(delta)
    tuned, reference = mean_mask(masks_tuned), mean_mask(masks_reference)
    check_masks({"the tuned masks": tuned, "the reference's masks": reference})
    members = sorted(reference)
    within = [*permutations(masks_tuned, 2), *permutations(masks_reference, 2)]
    return VulnerableHeads(
        members=_fallen(tuned, reference, delta),
        drop={member: reference[member] - tuned[member] for member in members},
        share=_shares(members, list(product(masks_tuned, masks_reference)), delta),
        share_within=_shares(members, within, delta) if within else None,
        delta=delta,
        tuned_seeds=len(masks_tuned),
        reference_seeds=len(masks_reference),
    )


def mean_mask(masks: Sequence[Mask]) -> dict[Member, float]:
    """The mean over seeds of one model's masks, member by member, in order.

    Raises:
        MeasurementError: there is no mask, one is empty, a value is not in [0, 1], or the members
            differ.
    """
    if not masks:
        raise MeasurementError("mask shift: a model has no mask: give one mask for each seed")
    check_masks({f"the mask of seed {number}": mask for number, mask in enumerate(masks)})
    # Exact until its last rounding: the order of seeds changes nothing, and equal masks give
    # their own value, which a rounded sum divided by its length misses by a last bit.
    return {
        member: statistics.mean(float(mask[member]) for mask in masks)
        for member in sorted(masks[0])
    }


def check_masks(masks: Mapping[str, Mask]) -> None:
    """See that masks, by what to call them, are legal and over the same members.

    Raises:
        MeasurementError: a mask is empty, a value is not in [0, 1], or the members differ.
    """
    for what, mask in masks.items():
        if not mask:
            raise MeasurementError(f"mask shift: {what} is empty: give a value for every member")
        # NaN is in no range.
        outside = {member: value for member, value in mask.items() if not 0 <= value <= 1}
        if outside:
            worst = min(outside)
            raise MeasurementError(
                f"mask shift: {what} has values out of [0, 1] or not finite at {named(outside)} "
                f"({worst}: {outside[worst]!r}): a mask is a share between clean (0) and "
                "counterfactual (1); apply the sigmoid before comparing"
            )
    first, *others = masks.items()
    for other in others:
        _check_same_members(first, other)


def _check_same_members(first: tuple[str, Mask], second: tuple[str, Mask]) -> None:
    for (what, mask), (other, fuller) in ((first, second), (second, first)):
        missing = fuller.keys() - mask.keys()
        if missing:
            raise MeasurementError(
                f"mask shift: {what} lacks {named(missing)}, which {other} has: compare masks over "
                "the same members of one architecture"
            )


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise MeasurementError(
            f"mask shift: delta is {delta!r}: it must be at least 0 (below it, a model would be "
            "vulnerable against itself) and below 1 (from there on nothing ever is)"
        )


def _fallen(tuned: Mask, reference: Mask, delta: float) -> tuple[Member, ...]:
    return tuple(m for m in sorted(reference) if _falls(tuned[m], reference[m], delta))


def _shares(
    members: Iterable[Member], pairs: Sequence[tuple[Mask, Mask]], delta: float
) -> dict[Member, float]:
    """Each member's share of `pairs` (tuned, reference) in which it is vulnerable."""
    return {
        m: sum(_falls(tuned[m], reference[m], delta) for tuned, reference in pairs) / len(pairs)
        for m in members
    }


def _falls(tuned: float, reference: float, delta: float) -> bool:
    # As Python floats: in float32 the subtraction would round the threshold.
    return float(tuned) < float(reference) - delta

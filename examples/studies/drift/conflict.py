"""`python -m examples.studies.drift.conflict MODEL --prior TASK --new TASK`: how often the interval
of gradient.conflict misses, and how far two halves of one task seem apart.

The loss gradients of `--count` prompts of the prior task are taken for the whole: their cosine with
the new task's mean gradient is the truth. Draws of n of them, with repetition, are given the gate's
interval as `gradient.conflict*` has it, for all weights, every matrix and every head. Only inner
products of gradients matter, so they are computed once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from examples.studies.drift.scored import from_generator
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate import studentised
from forgetguard.gate.estimate import FEWEST_EFFECTIVE, effective
from forgetguard.measures.divergence import Passage
from forgetguard.measures.interference import influence, mean_gradient, parts_of, products
from forgetguard.measures.loss_gradients import differentiated
from forgetguard.measures.samples import FloatArray

HELD = 6  # gradients in memory at once
EFFECTIVE = (0, 4, 8, 12, 16, 20, 24, 32, 64)  # edges of the second table


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """within: [part, prompt, prompt], inner products of the prior task's gradients; along: [part,
    prompt], with the new task's mean; size: [part], of the latter with itself; kinds: [part]."""

    within: FloatArray
    along: FloatArray
    size: FloatArray
    kinds: tuple[str, ...]

    def able(self) -> Gradients:
        """Of the parts that have a cosine."""
        on = np.flatnonzero((self.size > 0) & (self.within.mean((1, 2)) > 0))
        kinds = tuple(self.kinds[at] for at in on)
        return Gradients(self.within[on], self.along[on], self.size[on], kinds)

    def truth(self) -> FloatArray:
        """Minus the cosine over all prompts, [part]."""
        found: FloatArray = -self.along.mean(1) / np.sqrt(self.within.mean((1, 2)) * self.size)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Of every draw and part, [draw, part]: to how many prompts of equal weight those drawn come,
    and whether the upper bound is below the truth (a false pass) or the lower above it."""

    effective: FloatArray
    passed: FloatArray
    failed: FloatArray


def gradients(anatomy: Anatomy, prior: Sequence[Passage], new: Sequence[Passage]) -> Gradients:
    """One backward pass for each pair of prompts over `HELD`."""
    with differentiated(anatomy, (*prior, *new), copies=HELD + 3) as loss:
        parts = parts_of(anatomy, loss)
        theirs = mean_gradient(loss, new)
        size = products(loss, theirs, theirs, parts)
        along = np.zeros((len(parts), len(prior)))
        within = np.zeros((len(parts), len(prior), len(prior)))
        for start in range(0, len(prior), HELD):
            held = [loss.gradient(one) for one in prior[start : start + HELD]]
            for at, mine in enumerate(held, start):
                along[:, at] = products(loss, mine, theirs, parts)
            for other in range(start, len(prior)):
                inside = other < start + len(held)
                own = held[other - start] if inside else loss.gradient(prior[other])
                for at, mine in enumerate(held, start):
                    within[:, at, other] = within[:, other, at] = products(loss, mine, own, parts)
    return Gradients(within, along, size, tuple(kind for kind, _ in parts))


def drawn(found: Gradients, count: int, draws: int, seed: int) -> Draws:
    """`draws` times `count` prompts with repetition."""
    rng, truth = np.random.default_rng(seed), found.truth()
    made = []
    for draw in range(draws):
        of = rng.integers(found.along.shape[1], size=count)
        within = found.within[:, of][:, :, of].mean(2)
        rows = [
            influence(np.stack(each), size)
            for *each, size in zip(found.along[:, of], within, found.size, strict=True)
        ]
        values = np.stack([-one.values if one is not None else np.ones(count) for one in rows])
        estimates = studentised.means(values, seed=draw)
        bounds = np.array([(one.low, one.high) for one in estimates]).T
        # A mean gradient of length 0 has no cosine, and is no draw.
        there = np.array([one is not None for one in rows])
        of_equal = [0.0 if one is None else effective(one.shares) for one in rows]
        made.append((of_equal, there & (bounds[1] < truth), there & (bounds[0] > truth)))
    return Draws(*(np.array(one, dtype=np.float64) for one in zip(*made, strict=True)))


def halves(found: Gradients, count: int, draws: int, seed: int) -> float:
    """Minus the cosine, of all weights, of `count` prompts with as many others, mean over draws."""
    rng, within = np.random.default_rng(seed), found.within[0]
    values = []
    for _ in range(draws):
        order = rng.permutation(len(within))
        one, other = order[:count], order[count : 2 * count]
        mean = [within[np.ix_(*both)].mean() for both in ((one, other), (one, one), (other, other))]
        values.append(-mean[0] / np.sqrt(mean[1] * mean[2]))
    return float(np.mean(values))


def tables(found: Gradients, counts: Sequence[int], draws: int) -> str:
    """Misses by prompts and kind of part, all and of those that are judged; and by weight."""
    lines = [
        "| of | prompts | false passes | false fails | abstains | false passes | false fails |",
        "|---|---|---|---|---|---|---|",
    ]
    every = {count: drawn(found, count, draws, count) for count in counts}
    kinds = np.array(found.kinds)
    for kind in dict.fromkeys(found.kinds):
        for count, one in every.items():
            on = kinds == kind
            judged = one.effective[:, on] >= FEWEST_EFFECTIVE
            rates = [one.passed[:, on].mean(), one.failed[:, on].mean(), 1 - judged.mean()]
            rates += [float((each[:, on] * judged).sum()) / max(1, judged.sum())
                      for each in (one.passed, one.failed)]  # fmt: skip
            shown = [f"{100 * rate:.1f} %" for rate in rates]
            if not judged.any():
                shown[3:] = ["", ""]
            lines.append(f"| {kind or 'all weights'} | {count} | {' | '.join(shown)} |")
    lines += ["", "| of equal weight | parts drawn | false passes | false fails |"]
    lines.append("|---|---|---|---|")
    weight, passed, failed = (
        np.concatenate([getattr(one, name).ravel() for one in every.values()])
        for name in ("effective", "passed", "failed")
    )
    for low, high in pairwise(EFFECTIVE):
        on = (weight >= low) & (weight < high)
        if on.any():
            told = " | ".join(f"{100 * each[on].mean():.1f} %" for each in (passed, failed))
            lines.append(f"| {low} to {high} | {on.sum()} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prior", required=True, help="a task of forgetguard")
    parser.add_argument("--new", required=True, help="another")
    parser.add_argument("--count", type=int, default=200, help="prompts that are the whole")
    parser.add_argument("--prompts", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--keep", type=Path, help="a .npz of the inner products, read if there")
    given = parser.parse_args()
    if given.keep is not None and given.keep.exists():
        with np.load(given.keep) as kept:
            kinds = tuple(map(str, kept["kinds"]))
            found = Gradients(kept["within"], kept["along"], kept["size"], kinds)
    else:
        with ModelPair([resolve(given.model, role) for role in ("base", "tuned")]) as pair:
            tasks = [
                from_generator(name, pair.base, count, 11).prompts
                for name, count in ((given.prior, given.count), (given.new, 16))
            ]
            with pair.base.open() as model:
                found = gradients(locate(model), *tasks)
        if given.keep is not None:
            np.savez(given.keep, within=found.within, along=found.along, size=found.size,
                     kinds=np.array(found.kinds))  # fmt: skip
    print(tables(found.able(), given.prompts, given.draws), flush=True)
    for count in given.prompts:
        if 2 * count <= found.along.shape[1]:
            print(f"{count} against {count} others: {halves(found, count, given.draws, 0):.2f}")


if __name__ == "__main__":
    main()

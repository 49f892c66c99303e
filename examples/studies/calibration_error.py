"""`python -m examples.studies.calibration_error`: how often the bounds of lm_eval.calibration miss
in simulation, and those of the expected calibration error, the mean of |gap|, in its place.

Documents are answered by models of four kinds, whose confidence c is right with a probability p:
calibrated (p = c), over (c - .2), sharp (.7 c + .05, most c near 1) and hot (c + .15, c below a
half). Base and tuned answer the same documents, alike on seven in ten. The truth is that of
half a million documents.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from forgetguard.gate import studentised
from forgetguard.measures.lm_eval_calibration import BINS, contributions
from forgetguard.measures.samples import FloatArray

Answered = tuple[FloatArray, FloatArray]  # confidence, and whether right, [document]
# Of a number from 0 to 1 spread evenly: the confidence, and how often it is right.
KINDS: Mapping[str, Callable[[FloatArray], Answered]] = {
    "calibrated": lambda u: (0.25 + 0.75 * u, 0.25 + 0.75 * u),
    "over": lambda u: (0.5 + 0.5 * u, 0.3 + 0.5 * u),
    "sharp": lambda u: (1 - 0.75 * (1 - u) ** 3, 0.75 - 0.525 * (1 - u) ** 3),
    "hot": lambda u: (0.25 + 0.25 * u, 0.4 + 0.25 * u),
}
ALIKE = 0.7


@dataclass(frozen=True, slots=True)
class Row:
    """One base, tuned and number of documents: how often an upper bound is below the truth, and a
    lower one above it, of the squared error and of the absolute one."""

    base: str
    tuned: str
    documents: int
    squared: tuple[float, float]
    absolute: tuple[float, float]


def absolute(confidence: FloatArray, right: FloatArray) -> FloatArray:
    """Of each document to the expected calibration error, [document]."""
    place = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=BINS)
    found: FloatArray = np.sign(gaps)[place] * (confidence - right)
    return found


def answered(rng: np.random.Generator, base: str, tuned: str, count: int) -> list[Answered]:
    """`count` documents as base and tuned answer them."""
    sure, luck = rng.random((2, count))
    found: list[Answered] = []
    for kind in (base, tuned):
        same = rng.random((2, count)) < (1 if not found else ALIKE)
        own = rng.random((2, count))
        confidence, odds = KINDS[kind](np.where(same[0], sure, own[0]))
        found.append((confidence, (np.where(same[1], luck, own[1]) < odds).astype(np.float64)))
    return found


def rises(rng: np.random.Generator, base: str, tuned: str, count: int) -> FloatArray:
    """Of each document to the rise of the squared error, and of the absolute one, [2, document]."""
    before, now = answered(rng, base, tuned, count)
    return np.stack([parts(*now) - parts(*before) for parts in (contributions, absolute)])


def row(base: str, tuned: str, documents: int, draws: int, whole: int) -> Row:
    """Of `draws` draws of so many documents, against the truth in `whole` of them."""
    truth = rises(np.random.default_rng(0), base, tuned, whole).mean(axis=1)
    rng, missed = np.random.default_rng(documents), np.zeros((2, 2))
    for draw in range(draws):
        found = studentised.means(rises(rng, base, tuned, documents), seed=draw)
        bounds = np.array([(one.high, one.low) for one in found])
        missed += (bounds[:, 0] < truth, bounds[:, 1] > truth)
    (above, below), (other, least) = (missed / draws).T.tolist()
    return Row(base, tuned, documents, (above, below), (other, least))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[48, 100, 200])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--whole", type=int, default=500_000)
    given = parser.parse_args()
    print("| base | tuned | documents | squared: upper, lower | absolute: upper, lower |")
    print("|---|---|---|---|---|")
    for base in KINDS:
        for tuned in KINDS:
            for count in given.documents:
                one = row(base, tuned, count, given.draws, given.whole)
                told = (" ".join(f"{100 * rate:.1f} %" for rate in both)
                        for both in (one.squared, one.absolute))  # fmt: skip
                print(f"| {base} | {tuned} | {count} | {' | '.join(told)} |", flush=True)
    rng = np.random.default_rng(0)
    read = [absolute(*answered(rng, "calibrated", "calibrated", 100)[0]).mean() for _ in range(999)]
    print(
        f"\na calibrated model's expected calibration error at 100 documents: {np.mean(read):.3f}"
    )


if __name__ == "__main__":
    main()

"""Units, or whole templates, drawn with replacement: the draws that every interval rests on."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from forgetguard.errors import MeasurementError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

RESAMPLES = 9999  # (RESAMPLES + 1) * alpha is whole for the usual alphas
MOST_RESAMPLES = 49_999
FEWEST_RESAMPLED = 8  # draws of fewer units show too little of their spread
_CHUNK = 2_000_000  # resampled weights held at a time


def derive_seed(seed: int, *names: str) -> int:
    """A seed that depends on what is resampled and not on when: run seed and names, hashed."""
    text = "\x1f".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def cluster_codes(names: Sequence[str]) -> IntArray | None:
    """Which cluster each pair belongs to, [n], from its template's name.

    Pairs without a template are clusters of their own. None where all pairs are of one template:
    then there is nothing to say how templates differ, and the interval speaks of that one only.
    """
    codes: dict[str, int] = {}
    found = [
        codes.setdefault(f"t{name}" if name else f"p{position}", len(codes))
        for position, name in enumerate(names)
    ]
    return np.asarray(found, dtype=np.intp) if len(codes) > 1 else None


def cluster_sums(
    numerators: FloatArray, denominators: FloatArray, clusters: IntArray
) -> tuple[FloatArray, FloatArray]:
    codes = np.asarray(clusters)
    if codes.shape != numerators.shape[1:]:
        raise MeasurementError(
            f"clusters of shape {codes.shape} do not label {numerators.shape[1]} pairs"
        )
    _, codes = np.unique(codes, return_inverse=True)
    member = np.zeros((len(codes), int(codes.max()) + 1))
    member[np.arange(len(codes)), codes] = 1.0
    if member.shape[1] < 2:
        raise MeasurementError("one cluster has no spread to estimate: resample pairs instead")
    return numerators @ member, denominators @ member


def enough_resamples(resamples: int, alpha: float) -> int:
    """`resamples`, raised, up to `MOST_RESAMPLES`, until ten draws lie beyond the level `alpha`; a
    level of 0 asks for none."""
    wanted = 0 if alpha <= 0 else math.ceil(10 / alpha) - 1
    return max(resamples, min(MOST_RESAMPLES, wanted))


def weights_in_chunks(units: int, resamples: int, seed: int) -> Iterator[tuple[slice, FloatArray]]:
    """How often each unit is drawn in each resample: which resamples, and [units, of them]."""
    step = max(1, _CHUNK // units)
    for number, start in enumerate(range(0, resamples, step)):
        count = min(step, resamples - start)
        yield slice(start, start + count), _weights(units, count, seed, number)


@functools.lru_cache(maxsize=1)
def _weights(units: int, draws: int, seed: int, chunk: int) -> FloatArray:
    """How often each unit is drawn in each of `draws` resamples, [units, draws]. The last is kept:
    one verdict reads several estimates off the same draws."""
    rng = np.random.default_rng((seed, chunk))
    drawn = rng.integers(0, units, size=(draws, units))
    drawn += np.arange(draws)[:, None] * units
    counts = np.bincount(drawn.ravel(), minlength=draws * units).reshape(draws, units)
    weights = np.ascontiguousarray(counts.T, dtype=np.float64)
    weights.setflags(write=False)
    return weights

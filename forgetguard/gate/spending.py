"""Deciding at several stages of drawing pairs: how often, and at which level each time.

A verdict that may be reached at 64, 128 or 256 pairs has three chances to be wrong. Error spending
(Lan & DeMets 1983, Biometrika 70:659) says in advance how much of the one-sided error alpha is used
up by the time a share t of all pairs has been seen. The level of each stage follows from the
joint distribution of the stages: their standardised statistics are about normal, and those at n_i <
n_j pairs correlate by sqrt(n_i / n_j), for the later stage holds the pairs of the earlier. The
chance to cross at one stage and at none before is integrated numerically (Armitage, McPherson &
Rowe 1969, J. R. Stat. Soc. A 132:235).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from forgetguard.errors import MeasurementError
from forgetguard.gate.resampling import FloatArray

_NODES = 300  # of the quadrature; 600 change no level by more than 1e-9 of itself
_FAR = 9.0  # standard deviations beyond which a normal density is nothing
_LEAST = 1e-12  # smaller levels count as no spending at all: no number of draws could show them


def _obrien_fleming(alpha: float, share: float) -> float:
    return float(2 * special.ndtr(special.ndtri(alpha / 2) / math.sqrt(share)))


def _pocock(alpha: float, share: float) -> float:
    return alpha * math.log(1 + (math.e - 1) * share)


# Both from Lan & DeMets 1983: little at early stages, or about the same level at each.
SPENDING: Mapping[str, Callable[[float, float], float]] = {
    "obrien_fleming": _obrien_fleming,
    "pocock": _pocock,
}


def stages(first: int, most: int) -> tuple[int, ...]:
    """The numbers of pairs at which a verdict may be reached: `first`, doubled until `most`, which
    is the last whether or not it is a doubling.

    Raises:
        MeasurementError: `first` is below 1, or `most` is below `first`.
    """
    if not 1 <= first <= most:
        raise MeasurementError(
            f"pairs cannot be drawn from {first} up to {most}: the first stage needs at least 1 "
            "and the last at least as many as the first"
        )
    found = [first]
    while 2 * found[-1] < most:
        found.append(2 * found[-1])
    return tuple(found) if found[-1] == most else (*found, most)


def spent(counts: Sequence[int], alpha: float, kind: str = "pocock") -> tuple[float, ...]:
    """The one-sided level of each stage, so that all stages together cross by chance with alpha.

    Args:
        counts: the pairs seen at each stage, ascending; the last is all that may ever be seen.
        alpha: one-sided, of all stages together.
        kind: of `SPENDING`. `pocock` (default) lets clear cases stop early, and asks of a stage no
            level so small that resampling could not show it.

    Returns:
        Levels, in the order of `counts`. 0.0 where nothing is spent: decide nothing there. One
        stage has the level alpha itself.

    Raises:
        MeasurementError: counts do not ascend, alpha is no error rate, or `kind` is unknown.
    """
    if not 0 < alpha < 0.5:
        raise MeasurementError(f"alpha must lie between 0 and 0.5, got {alpha}")
    if kind not in SPENDING:
        raise MeasurementError(f"unknown spending {kind!r}: use one of {', '.join(SPENDING)}")
    return _spent(tuple(counts), alpha, kind)


@functools.lru_cache(maxsize=64)
def _spent(counts: tuple[int, ...], alpha: float, kind: str) -> tuple[float, ...]:
    shares = _shares(counts)
    if len(shares) == 1:
        return (alpha,)
    total = [SPENDING[kind](alpha, float(share)) for share in shares]
    path = _Path(shares)
    levels = []
    for before, now in zip([0.0, *total], total, strict=False):
        level = _level(path, now - before)
        path = path.after(level)
        levels.append(level)
    return tuple(levels)


def _shares(counts: Sequence[int]) -> FloatArray:
    found = np.asarray(counts, dtype=np.float64)
    if found.ndim != 1 or found.size == 0 or found[0] <= 0 or (np.diff(found) <= 0).any():
        raise MeasurementError(f"stages must be ascending numbers of pairs, got {list(counts)}")
    shares: FloatArray = found / found[-1]
    return shares


def _boundary(level: float) -> float:
    return math.inf if level <= 0 else -float(special.ndtri(level))


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """The sum of the data before a stage, on the paths that crossed at no stage before it.

    In units in which it has variance t at the share t: the density at the last stage, on `nodes`
    with quadrature `weights`.
    """

    shares: FloatArray
    stage: int = 0
    nodes: FloatArray = field(default_factory=lambda: np.zeros(1))
    weights: FloatArray = field(default_factory=lambda: np.ones(1))

    def spread(self) -> float:
        """The standard deviation of what comes between the last stage and this one."""
        before = self.shares[self.stage - 1] if self.stage else 0.0
        return math.sqrt(self.shares[self.stage] - before)

    def crosses(self, boundary: float) -> float:
        """The chance to lie beyond `boundary`, a normal quantile, at this stage."""
        edge = boundary * math.sqrt(self.shares[self.stage])
        return float(self.weights @ special.ndtr((self.nodes - edge) / self.spread()))

    def after(self, level: float) -> _Path:
        """The paths that did not cross at this stage, before the next."""
        root = math.sqrt(self.shares[self.stage])
        low, high = -_FAR * root, min(_boundary(level), _FAR) * root
        points, weights = _legendre()
        nodes = low + (points + 1) / 2 * (high - low)
        distance = (nodes[:, None] - self.nodes[None]) / self.spread()
        density = np.exp(-(distance**2) / 2) / (math.sqrt(2 * math.pi) * self.spread())
        kept = weights / 2 * (high - low) * (density @ self.weights)
        return _Path(self.shares, self.stage + 1, nodes, kept)


@functools.cache
def _legendre() -> tuple[FloatArray, FloatArray]:
    return np.polynomial.legendre.leggauss(_NODES)


def _level(path: _Path, chance: float) -> float:
    """The one-sided level at which `path` crosses with `chance`."""
    if chance < _LEAST:
        return 0.0
    from scipy import optimize

    found = optimize.brentq(
        lambda boundary: math.log(max(path.crosses(boundary), 1e-300)) - math.log(chance),
        -1.0,
        _FAR,
        xtol=1e-12,
    )
    return float(special.ndtr(-found))

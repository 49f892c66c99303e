"""The two-mode mixture of arXiv 2603.12163, exactly: `python -m examples.studies.two_modes`.

A model q = w N(a, 1) + (1 - w) N(b, 1) has learned an old mode, N(0, 1), and is trained towards a
new one, N(d, 1), which it has at first one unit off: w = 1/2, a = 0, b = d + 1. Gradient descent on
(logit w, a, b), every expectation an integral over a fine grid, so that nothing is sampled.

    SFT, new data      KL(N(d, 1) || q): cross-entropy on data of the new mode
    SFT, replay        KL(p || q), p = (N(0, 1) + N(d, 1)) / 2: the same with half of it old
    RL, old kept       KL(q || p): reward with a KL penalty, whose optimum p keeps the old mode
    RL, new alone      KL(q || N(d, 1)): the same direction where the optimum has no old mode

Closed forms (BC = exp(-d^2 / 8), the Bhattacharyya coefficient of the two modes; r the old mode's
responsibility under q, s under p):

    d KL(N(d, 1) || q) / d logit w = w - E_new[r],        E_new[r] <= sqrt(w / (1 - w)) BC / 2
    d KL(q || p) / d a             = w (b E_old[1 - r] - d E_old[1 - s])         where a = 0

So forward KL on new data lowers w as long as the modes overlap little, and reverse KL moves the old
mean only by how much of the old mode is taken for the new one: as much as the modes overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
GRID = np.linspace(-14.0, 24.0, 7601)
STEP = float(GRID[1] - GRID[0])
MODE = 1.6448536269514722  # |x| up to here holds 90 % of the old mode, as in `mode.mass`
SEPARATIONS = (2, 3, 4, 5, 6)
RATE, STEPS = 0.1, 2000


@dataclass(frozen=True, slots=True)
class Mixture:
    """w N(a, 1) + (1 - w) N(b, 1)."""

    logit: float
    a: float
    b: float

    @property
    def w(self) -> float:
        """The old mode's weight."""
        return float(1 / (1 + np.exp(-self.logit)))

    @property
    def parts(self) -> tuple[FloatArray, FloatArray]:
        """Both weighted densities on the grid, float64 [x] each."""
        return self.w * normal(self.a), (1 - self.w) * normal(self.b)

    def moved(self, gradient: FloatArray, rate: float) -> Mixture:
        """One step down the gradient, float64 [3]."""
        return Mixture(*(np.array([self.logit, self.a, self.b]) - rate * gradient))


Density = Callable[[float], FloatArray]  # of the separation, on the grid


@dataclass(frozen=True, slots=True)
class Result:
    """What training came to: the old weight; the probability of the old mode's 90 % region,
    relative to what half old and half new mode have there; KL (old || q) within that region; the
    farthest that the old mean ever was from 0; and the new mean's distance from its place."""

    weight: float
    mass: float
    within: float
    drift: float
    missing: float


def normal(mean: float) -> FloatArray:
    """The density of N(mean, 1) on the grid."""
    density: FloatArray = np.exp(-((GRID - mean) ** 2) / 2) / np.sqrt(2 * np.pi)
    return density


def new(separation: float) -> FloatArray:
    """The new mode alone."""
    return normal(separation)


def both(separation: float) -> FloatArray:
    """Half old mode, half new."""
    return (normal(0.0) + normal(separation)) / 2


def mean(values: FloatArray, density: FloatArray) -> float:
    """The integral of values x density (spectrally exact for what vanishes at both ends)."""
    return float((values * density).sum() * STEP)


def divergence(one: FloatArray, other: FloatArray) -> float:
    """KL(one || other), in nats."""
    tiny = np.finfo(np.float64).tiny
    return mean(np.log(one + tiny) - np.log(other + tiny), one)


def forward_gradient(q: Mixture, p: FloatArray) -> FloatArray:
    """The gradient of KL(p || q) in (logit w, a, b)."""
    old, rest = q.parts
    r = old / (old + rest)
    return np.array(
        [q.w - mean(r, p), -mean(r * (GRID - q.a), p), -mean((1 - r) * (GRID - q.b), p)]
    )


def reverse_gradient(q: Mixture, p: FloatArray) -> FloatArray:
    """The gradient of KL(q || p) in (logit w, a, b)."""
    old, rest = q.parts
    apart = np.log(old + rest) - np.log(p)
    in_weight = (1 - q.w) * old - q.w * rest
    in_means = old * (GRID - q.a), rest * (GRID - q.b)
    return np.array([mean(apart, one) for one in (in_weight, *in_means)])


OBJECTIVES: dict[str, tuple[Callable[[Mixture, FloatArray], FloatArray], Density]] = {
    "SFT, new data": (forward_gradient, new),
    "SFT, replay": (forward_gradient, both),
    "RL, old kept": (reverse_gradient, both),
    "RL, new alone": (reverse_gradient, new),
}


def start(separation: float) -> Mixture:
    """The old mode in place, the new one a unit off."""
    return Mixture(0.0, 0.0, separation + 1.0)


def train(objective: str, separation: float, steps: int = STEPS) -> Result:
    """Gradient descent from `start`."""
    gradient, target = OBJECTIVES[objective]
    q, p, drift = start(separation), target(separation), 0.0
    for _ in range(steps):
        q = q.moved(gradient(q, p), RATE)
        drift = max(drift, abs(q.a))
    inside = np.abs(GRID) < MODE
    before, now = normal(0.0) * inside, sum(q.parts) * inside
    held = now.sum() / (both(separation) * inside).sum()
    within = divergence(before / (before.sum() * STEP), now / (now.sum() * STEP))
    return Result(q.w, float(held), within, drift, abs(q.b - separation))


def table() -> str:
    """All objectives at all separations."""
    lines = [
        f"{STEPS} steps at {RATE}; start: weight .5, new mean 1 off",
        f"{'objective':14}  {'d':>2} {'BC':>7} {'weight':>7} {'mass':>7} {'within':>8}"
        f" {'drift':>7} {'missing':>8}",
    ]
    for name in OBJECTIVES:
        for d in SEPARATIONS:
            found = train(name, d)
            lines.append(
                f"{name:14}  {d:2} {np.exp(-(d**2) / 8):7.4f} {found.weight:7.4f} "
                f"{found.mass:7.4f} {found.within:8.5f} {found.drift:7.4f} {found.missing:8.4f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

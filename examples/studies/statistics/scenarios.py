"""Made-up damage and importance of which the true ratio is known.

Rows are data sets, columns pairs. Damage goes along with importance, as it does on real models,
where their correlation is 0 to 0.6 and the residual's skewness mostly 0 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from examples.studies.statistics.settings import FLOOR
from forgetguard.gate.resampling import FloatArray, IntArray, cluster_codes

RATIO = 0.2
PER_TEMPLATE = 4
Draw = Callable[[np.random.Generator, int, int], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of data: in words, and as a draw of (damage, importance), each [data sets, pairs],
    whose true ratio is `RATIO`. `templates`: which template each of so many pairs comes from."""

    words: str
    draw: Draw
    templates: Callable[[int], IntArray] | None = None

    def clusters(self, pairs: int) -> IntArray | None:
        """As the gate makes them of the templates' names."""
        if self.templates is None:
            return None
        return cluster_codes([f"t{code}" for code in self.templates(pairs)])


def _latent(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    """Two standard normals that correlate by one half."""
    first = rng.standard_normal((rows, pairs))
    return first, 0.5 * first + math.sqrt(0.75) * rng.standard_normal((rows, pairs))


def _symmetric(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    importance = 3 + 1.5 * rng.standard_normal((rows, pairs))
    return RATIO * importance + 0.5 * rng.standard_normal((rows, pairs)), importance


def _gamma(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    importance = rng.gamma(2, 1.5, (rows, pairs))
    return RATIO / 2 * (importance + 3 * rng.gamma(1, 1, (rows, pairs))), importance


def _log_normal(sigma: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
        first, second = _latent(rng, rows, pairs)
        importance = 3 * np.exp(0.5 * first - 0.125)
        return 3 * RATIO * np.exp(sigma * second - sigma**2 / 2), importance

    return draw


def _improving(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    first, second = _latent(rng, rows, pairs)
    importance = 3 * np.exp(0.5 * first - 0.125)
    return RATIO * importance + 0.4 * (1 - np.exp(0.8 * second - 0.32)), importance


def _heavy(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    importance = 3 + 0.8 * rng.standard_t(3, (rows, pairs))
    return RATIO * importance + 0.3 * rng.standard_t(3, (rows, pairs)), importance


def _sparse(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    importance = 3 + rng.standard_normal((rows, pairs))
    hurt = rng.random((rows, pairs)) < 0.15
    noise = 0.05 * rng.standard_normal((rows, pairs))
    return np.where(hurt, importance * RATIO / 0.15, 0.0) + noise, importance


def _weak(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    importance = 1 + 2 * rng.standard_normal((rows, pairs))
    return RATIO * importance + 0.3 * rng.standard_normal((rows, pairs)), importance


def _at_floor(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    """A head worth exactly the floor, so that chance decides which denominator it gets."""
    circuit = 10 + 2 * rng.standard_normal((rows, pairs))
    importance = FLOOR * 10 + rng.standard_normal((rows, pairs))
    damage = RATIO * FLOOR * 10 + 0.3 * rng.standard_normal((rows, pairs))
    own = importance.mean(axis=1) > FLOOR * circuit.mean(axis=1)
    return damage, np.where(own[:, None], importance, FLOOR * circuit)


def _even(pairs: int) -> IntArray:
    return np.arange(pairs, dtype=np.intp) // PER_TEMPLATE


def _uneven(pairs: int) -> IntArray:
    """As the bundled circuits' prompts have them."""
    codes = np.repeat(np.arange(len(_SIZES), dtype=np.intp), _SIZES)
    found: IntArray = codes[np.arange(pairs) * len(codes) // pairs]
    return found


_SIZES = (1, 2, 4, 6, 8, 9, 10, 12, 12)


def _by_template(templates: Callable[[int], IntArray], between: float) -> Draw:
    """The share `between` of the spread lies between templates."""

    def draw(rng: np.random.Generator, rows: int, pairs: int) -> tuple[FloatArray, FloatArray]:
        codes = templates(pairs)

        def noise() -> FloatArray:
            shared = rng.standard_normal((rows, int(codes.max()) + 1))[:, codes]
            own = rng.standard_normal((rows, pairs))
            found: FloatArray = math.sqrt(between) * shared + math.sqrt(1 - between) * own
            return found

        importance = 3 + 1.5 * noise()
        return RATIO * importance + 0.5 * noise(), importance

    return draw


SCENARIOS: Mapping[str, Scenario] = {
    "symmetric": Scenario("normal", _symmetric),
    "gamma": Scenario("gamma: skewed importance and damage", _gamma),
    "log_normal_half": Scenario("log-normal damage, sigma 0.5", _log_normal(0.5)),
    "log_normal": Scenario("log-normal damage, sigma 1", _log_normal(1.0)),
    "improving": Scenario("skewed the other way: a few pairs improve much", _improving),
    "heavy": Scenario("heavy tails: Student's t, 3 degrees of freedom", _heavy),
    "sparse": Scenario("damage on 15 % of the pairs only", _sparse),
    "weak": Scenario("weak denominator: mean half its standard deviation", _weak),
    "at_floor": Scenario("a head worth exactly the floor", _at_floor),
    "templates": Scenario(
        f"templates of {PER_TEMPLATE} pairs, half of the spread between them",
        _by_template(_even, 0.5),
        _even,
    ),
    "few_templates": Scenario(
        "nine templates of uneven size, 20 % of the spread between them",
        _by_template(_uneven, 0.2),
        _uneven,
    ),
}

"""The command `python -m examples.studies.statistics.rules`: the rules for few templates, guards,
heads and `detectable`, held against subsamples of real damage; fills their tables in
docs/statistics.md.

Real damage is that of the tiny family (`--large`, as of the whole study) and of any other model
(`--real`, an .npz of float64 arrays: `base` [n], F of the base; `imp` [1 + heads, n], importances,
the circuit's first; by checkpoint `dmg_NAME` [1 + heads, n] and `read_NAME` [n]; `templates` [n]).
Where templates are drawn, whole templates are, with replacement, and pairs within
each: what an interval over templates speaks of.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.studies.pages import fill_blocks
from examples.studies.statistics import tiny_family
from examples.studies.statistics.settings import ALPHA, FLOOR, HEAD_LIMIT, LIMITS
from forgetguard.gate import guard, power, studentised
from forgetguard.gate.resampling import FloatArray, IntArray

RESAMPLES = 1999
LEAST = 0.03  # a damage that is read at all
LOST = 0.70  # of a head


@dataclass(frozen=True, slots=True, eq=False)
class Real:
    """damage, importance: [1 + heads, n], the circuit first, or [1, n]. templates: [n]."""

    name: str
    checkpoint: str
    damage: FloatArray
    importance: FloatArray
    templates: IntArray

    @property
    def value(self) -> float:
        """The ratio of the first row on all pairs."""
        return float(self.damage[0].mean() / self.importance[0].mean())


def of_tiny(path: Path) -> list[Real]:
    return [
        Real(one.circuit, one.checkpoint, one.damage, one.importance, one.templates)
        for one in tiny_family.read(path)
    ]


def of_model(path: Path) -> list[Real]:
    """Circuits, and whole readouts, of every checkpoint of such a file."""
    found = []
    with np.load(path) as kept:
        codes = np.unique(kept["templates"], return_inverse=True)[1].astype(np.intp)
        for key in kept:
            kind, _, checkpoint = key.partition("_")
            name = f"{path.stem} of SmolLM2"
            if kind == "dmg":
                found.append(Real(name, checkpoint, kept[key], kept["imp"], codes))
            elif kind == "read":
                lost = (kept["base"] - kept[key])[None]
                found.append(Real(f"{name}, readout", checkpoint, lost, kept["base"][None], codes))
    return found


def subsamples(
    templates: IntArray, pairs: int, draws: int, seed: int, *, whole: bool
) -> tuple[IntArray, IntArray | None]:
    """[draws, pairs] places and, where whole templates are drawn, their clusters."""
    rng = np.random.default_rng((pairs, seed))
    if not whole:
        return rng.integers(0, len(templates), (draws, pairs)), None
    groups = [np.flatnonzero(templates == one) for one in np.unique(templates)]
    count = min(len(groups), pairs // 2)
    while pairs % count:
        count -= 1
    each = pairs // count
    chosen = [
        np.concatenate(
            [rng.choice(groups[one], each) for one in rng.integers(0, len(groups), count)]
        )
        for _ in range(draws)
    ]
    return np.stack(chosen), np.repeat(np.arange(count), each)


def _bounds(
    damage: FloatArray, importance: FloatArray, codes: IntArray | None, alpha: float
) -> tuple[studentised.LinearForm, FloatArray]:
    form = studentised.LinearForm.of(damage, importance, codes)
    drawn = studentised.resampled_t(form, form.values, max(RESAMPLES, round(10 / alpha)), 1)
    return form, form.lower(studentised.quantiles(drawn, alpha, form.freedom))


def achieved(
    said: Real, hurt: Real, pairs: int, alpha: float, draws: int, *, whole: bool
) -> float | None:
    """How often, in per cent, `hurt` fails at the limit of which the median verdict on `said` calls
    the true value of `hurt` detectable; None where there is no such limit above 0."""
    at, codes = subsamples(said.templates, pairs, draws, round(1 / alpha), whole=whole)
    form, low = _bounds(said.damage[0][at], said.importance[0][at], codes, alpha)
    growth = power.growth(pairs, math.inf if codes is None else form.units)
    rows = list(zip(form.values, form.values - low, form.errors(), strict=True))

    def stated(limit: float) -> float:
        found = [power.detectable(*row, limit, freedom=form.freedom, growth=growth) for row in rows]
        return float(np.median([math.inf if one is None else one for one in found]))

    least, most = 0.0, hurt.value
    if stated(least) > hurt.value:
        return None
    for _ in range(25):
        middle = (least + most) / 2
        least, most = (middle, most) if stated(middle) <= hurt.value else (least, middle)
    if said is not hurt:
        low = _bounds(hurt.damage[0][at], hurt.importance[0][at], codes, alpha)[1]
    return 100 * float((low > least).mean())


def detectable_rows(sets: Sequence[Real], draws: int) -> Iterator[list[str]]:
    """One row a damage: said by itself, then by checkpoints of the same base that lost less."""
    for hurt in sets:
        if hurt.value < LEAST:
            continue
        less = [
            one for one in sets if one.name == hurt.name and LEAST / 10 < one.value < hurt.value
        ]
        nearest = sorted(less, key=lambda one: -one.value)[:1]
        cells = []
        for said in (hurt, *nearest):
            found = [
                achieved(said, hurt, pairs, ALPHA / limits, draws, whole=whole)
                for whole in (False, True)
                for pairs in (64, 128)
                for limits in (1, LIMITS)
            ]
            cells.append(_range([one for one in found if one is not None]))
        cells += ["-"] * (2 - len(cells))
        yield [hurt.name, hurt.checkpoint, f"{hurt.value:.2f}", *cells]


def _range(found: Sequence[float]) -> str:
    if not found:
        return "-"
    return f"{np.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"


def held(one: Real) -> FloatArray:
    """What each head is held by, [heads, n]: its own importance, or the floor's share."""
    worth = np.abs(one.importance[1:].mean(axis=1)) / abs(float(one.importance[0].mean()))
    share = FLOOR * one.importance[:1] * np.sign(one.importance[0].mean())
    found: FloatArray = np.where((worth >= FLOOR)[:, None], one.importance[1:], share)
    return found


def heads_rows(sets: Sequence[Real], draws: int) -> Iterator[list[str]]:
    """Every head worth the floor in turn loses `LOST` of its importance, each pair its own share
    (log-normal, sigma 0.3), the others as they are; and every head exactly at its limit."""
    for one in sets:
        scale = held(one)
        worth = np.abs(one.importance[1:].mean(axis=1)) / abs(float(one.importance[0].mean()))
        able = np.flatnonzero(worth >= FLOOR)
        truth = one.damage[1:].mean(axis=1) / scale.mean(axis=1)
        edge = one.damage[1:] + (HEAD_LIMIT - truth)[:, None] * scale
        cells = []
        for whole in (False, True):
            at, codes = subsamples(one.templates, 64, draws, 3, whole=whole)
            rng, counts = np.random.default_rng(4), {"seen": 0, "false": 0, "passed": 0}
            for number, chosen in enumerate(at):
                size = abs(float(one.importance[0].mean()))
                intact = 0.006 * size * rng.standard_normal((len(worth), 64))
                damage, head = intact.copy(), int(able[number % len(able)])
                share = np.exp(0.3 * rng.standard_normal(64) - 0.045)
                damage[head] += LOST * one.importance[1 + head, chosen] * share
                counts["seen"] += _low(damage, scale[:, chosen], codes)[head] > HEAD_LIMIT
                lows = _low(edge[:, chosen], scale[:, chosen], codes)
                counts["false"] += bool(lows.max() > HEAD_LIMIT)
                high = studentised.ratios(
                    intact, scale[:, chosen], fail_alpha=0, resamples=RESAMPLES, clusters=codes
                ).estimates
                counts["passed"] += max(each.high for each in high) <= HEAD_LIMIT
            cells += [f"{100 * count / draws:.1f}" for count in counts.values()]
        yield [one.name, one.checkpoint, str(len(worth)), *cells]


def _low(damage: FloatArray, scale: FloatArray, codes: IntArray | None) -> FloatArray:
    found = studentised.ratios(
        damage, scale, fail_alpha=ALPHA / LIMITS, resamples=RESAMPLES, clusters=codes
    )
    return np.array(found.corrected_low)


_Draw = tuple[FloatArray, FloatArray]


def few_templates_rows(draws: int) -> Iterator[list[str]]:
    """Either bound's misses with two to seven templates, half of the spread between them."""
    for kind, words in (("normal", "normal"), ("skewed", "a few templates lose much")):
        for count in (2, 3, 4, 5, 7):
            rng = np.random.default_rng(count)
            codes = np.arange(64) % count
            damage, importance = _templated(rng, kind, codes, draws)
            cells = []
            for clusters in (codes, None):
                form = studentised.LinearForm.of(damage, importance, clusters)
                critical = np.full(draws, studentised.student_quantile(ALPHA, form.freedom))
                low, high = form.lower(critical), form.upper(-critical)
                cells.append(f"{100 * (low > 0.2).mean():.1f} / {100 * (high < 0.2).mean():.1f}")
            yield [words, str(count), *cells]


def _templated(rng: np.random.Generator, kind: str, codes: IntArray, draws: int) -> _Draw:
    def noise() -> FloatArray:
        shared = rng.standard_normal((draws, int(codes.max()) + 1))[:, codes]
        found: FloatArray = math.sqrt(0.5) * (shared + rng.standard_normal((draws, len(codes))))
        return found

    importance = 3 + noise()
    if kind == "normal":
        return 0.2 * importance + 0.5 * noise(), importance
    return 0.6 * np.exp(0.8 * noise() - 0.32), importance


LIMIT = 0.10
GUARDED: Mapping[str, str] = {
    "tenth": "10 % of the pairs lose all, the others nothing",
    "fifth": "20 % of the pairs lose half",
    "twentieth": "5 % of the pairs lose twice their importance",
    "skewed": "log-normal, sigma 1",
    "normal": "normal",
    "harmless": "harmless: truth 0",
    "half": "every pair about 0.05: truth 0.05",
    "near": "every pair about 0.07: truth 0.07",
}


def guard_rows(draws: int) -> Iterator[list[str]]:
    """Passes of a limit of 0.10 at a truth of 0.10 (wrong ones), and below it (right ones)."""
    for kind, words in GUARDED.items():
        cells = []
        for pairs in (16, 32, 64, 128, 256):
            damage, importance = _sparse(np.random.default_rng(pairs), kind, (draws, pairs))
            found = studentised.ratios(damage, importance, fail_alpha=0, resamples=RESAMPLES)
            high = np.array([one.high for one in found.estimates])
            shares = [
                100 * (np.maximum(high, most) <= LIMIT).mean()
                for most in (
                    high,
                    *(guard.upper(damage, importance, loss=loss, alpha=ALPHA) for loss in (1, 2)),
                )
            ]
            cells.append(" / ".join(f"{one:.1f}" for one in shares))
        yield [words, *cells]


def _sparse(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> _Draw:
    importance = 3 * np.exp(0.4 * rng.standard_normal(shape) - 0.08)
    noise, unit = 0.03 * rng.standard_normal(shape), rng.random(shape)
    spread = rng.standard_normal(shape)
    found: dict[str, npt.NDArray[np.float64]] = {
        "tenth": np.where(unit < 0.1, importance, 0) + noise,
        "fifth": np.where(unit < 0.2, 0.5 * importance, 0) + noise,
        "twentieth": np.where(unit < 0.05, 2 * importance, 0) + noise,
        "skewed": 3 * LIMIT * np.exp(spread - 0.5),
        "normal": LIMIT * importance + 0.5 * spread,
        "harmless": 2 * noise,
        "half": 0.05 * importance * np.exp(0.6 * spread - 0.18) + 5 * noise,
        "near": 0.07 * importance * np.exp(0.6 * spread - 0.18) + 5 * noise,
    }
    return found[kind], importance


def _table(head: str, rows: Iterator[list[str]]) -> str:
    titles = head.split("|")
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, rule, *rows])


HEADS = (
    "circuit|checkpoint|heads|lost 70 % fails|false alarm|intact pass|"
    "by template: lost 70 % fails|false alarm|intact pass"
)
SIZES = "|".join(f"n = {pairs}" for pairs in (16, 32, 64, 128, 256))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and fill the tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--large", type=Path, required=True, help="of the tiny family")
    parser.add_argument("--real", type=Path, action="append", default=[], help="of a real model")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--page", type=Path, default=Path("docs/statistics.md"))
    asked = parser.parse_args(arguments)
    tiny = of_tiny(asked.large)
    sets = [*tiny, *(one for path in asked.real for one in of_model(path))]
    tables = {
        "detectable": lambda: _table(
            "circuit|checkpoint|DCV|said by itself|said by one that lost less",
            detectable_rows(sets, asked.draws),
        ),
        "heads": lambda: _table(HEADS, heads_rows(tiny, asked.draws)),
        "few_templates": lambda: _table(
            "templates' losses|templates|as clusters, Student's t|pairs as if independent",
            few_templates_rows(10 * asked.draws),
        ),
        "guard": lambda: _table(f"data|{SIZES}", guard_rows(5 * asked.draws)),
    }
    page = asked.page.read_text("utf-8")
    filled = fill_blocks(page, "rules", tables, lambda name: tables[name]())
    asked.page.write_text(filled, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where among the units a loss lies: the template or word class that carries it, and what is said
instead of the answer. It decides nothing.

A slice is the units of one template, or those with one value of one class (`PromptPair.classes`).
There are dozens, so some slice always stands out. How far the one that stands out most does by
chance is found by dealing the losses out anew among the units (a permutation test): each slice has
a p-value of its own, as small slices of uneven losses stray further than large ones, and what is
compared is the smallest of all slices' (min-P; Westfall & Young 1993, Resampling-Based Multiple
Testing, chapter 2). Where a loss has nothing to do with any label, a slice is named in at most
`CHANCE` of all verdicts, whatever the losses' distribution and however many slices there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate.declaration import Limit
from forgetguard.gate.estimate import Case
from forgetguard.measures.measure import Estimator, Subjects
from forgetguard.measures.samples import (
    BASE,
    CORRECT,
    SAID,
    TOP1,
    TUNED,
    FloatArray,
    Note,
    Unit,
)

TEMPLATE = "template"

# A slice carries the loss where all of this holds of its units, and by themselves they lost more
# than the limit allows:
LEAST_UNITS = 3
LEAST_CARRIED = 0.5  # of the loss: as much as all other units together
MORE_THAN_OTHERS = 2.0  # times the mean loss of all others, gains counted as none
CHANCE = 0.05  # that any slice at all stands out as far where losses are dealt out at random
_DEALS = 9999  # in 1 % of which one of a hundred slices stands out most of all
_CHUNK = 2_000_000  # losses dealt at a time

LEAST_CHANGED = 0.1  # share of the pairs, from which on what is said instead is worth a line
_SHOWN = 3  # tokens


def lost(case: Case, limit: Limit) -> tuple[FloatArray, FloatArray] | None:
    """(what each unit lost, in the limit's own terms; what that is relative to), [n] and [n]; None
    where the limit has no number for each unit, or it was not read.

    Of a proportion the loss is 1 where it holds no more, and -1 where it holds now only.
    """
    measure = limit.measure
    if measure.subjects is not Subjects.WHOLE or measure.estimator is Estimator.EXACT:
        return None
    try:
        found = case.series(measure, over=limit.over)
    except (MeasurementError, SpecificationError):  # the verdict itself says why
        return None
    values, ones = found.values, np.ones(case.count)
    if measure.estimator is Estimator.MEAN or found.scale is None:
        return values, ones
    if measure.of_right_or_wrong:
        return found.scale - values, ones
    return values, found.scale


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The units with one value of one class; `kind` is the class's name, or `template`. `here`:
    which units, bool [n]."""

    kind: str
    value: str
    here: npt.NDArray[np.bool_]


def slices(units: Sequence[Unit]) -> list[Slice]:
    """Every set of at least `LEAST_UNITS` units, though not of all, that a label holds together;
    each set once, under its template's name where it is one."""
    labels = [
        {TEMPLATE: unit.template, **(unit.classes if isinstance(unit, PromptPair) else {})}
        for unit in units
    ]
    found: dict[bytes, Slice] = {}
    for kind in dict.fromkeys(name for own in labels for name in own):
        values = [own.get(kind, "") for own in labels]
        for value, count in Counter(values).items():
            if value and LEAST_UNITS <= count <= len(units) - LEAST_UNITS:
                here = np.array([one == value for one in values])
                found.setdefault(here.tobytes(), Slice(kind, value, here))
    return list(found.values())


def carrying(case: Case, limit: Limit) -> list[Note]:
    """The slice, at most one, that clearly carries the loss: of those that do, the one whose share
    of the loss is furthest above its share of the units."""
    read = lost(case, limit)
    if read is None:
        return []
    (loss, scale), every = read, slices(case.data.units)
    only = np.maximum(loss, 0)
    chosen = [at for at, one in enumerate(every) if _carries(loss, scale, one.here, limit.maximum)]
    if not chosen:
        return []
    chances = _chances(loss, np.stack([one.here for one in every]))
    shares = {
        at: float(only[every[at].here].sum() / only.sum()) for at in chosen if chances[at] <= CHANCE
    }
    if not shares:
        return []
    best = max(shares, key=lambda at: shares[at] - every[at].here.mean())
    here = every[best].here
    facts = {
        "kind": every[best].kind,
        "slice": every[best].value,
        "share": shares[best],
        "units": int(here.sum()),
        "of": case.count,
        "measure": limit.key,
        "value": float(loss[here].mean() / scale[here].mean()),
        "chance": float(chances[best]),
        "slices": len(every),
    }
    return [Note("slice_carries", facts)]


def _carries(
    loss: FloatArray, scale: FloatArray, here: npt.NDArray[np.bool_], maximum: float
) -> bool:
    mean, only = float(scale[here].mean()), np.maximum(loss, 0)
    beyond = mean != 0 and float(loss[here].mean()) / mean > maximum
    most = only[here].sum() >= LEAST_CARRIED * only.sum()
    return beyond and bool(most and only[here].mean() >= MORE_THAN_OTHERS * only[~here].mean())


def said_instead(case: Case, limit: Limit) -> list[Note]:
    """What tuned finds likeliest where the base finds the answer likeliest of all tokens and tuned
    does not, beside a limit on how many pairs are answered right."""
    data = case.data
    base, now, said, right = (
        data.get(quantity, role=role)
        for quantity, role in ((TOP1, BASE), (TOP1, TUNED), (SAID, TUNED), (CORRECT, TUNED))
    )
    if not limit.measure.of_right_or_wrong or base is None or now is None:
        return []
    changed = (base != 0) & (now == 0)
    if said is None or right is None or changed.sum() < max(2, LEAST_CHANGED * case.count):
        return []
    places = np.flatnonzero(changed).tolist()
    texts = {at: data.tokens.get(int(said[at]), "") for at in places}
    others = {at: getattr(data.units[at], "distractor", None) for at in places}
    confused = [at for at in places if others[at] == texts[at]]
    tokens = Counter(texts[at] for at in places if at not in confused)
    often = [(text, count) for text, count in tokens.items() if count > 1]
    facts = {
        "changed": len(places),
        "before": int((base != 0).sum()),
        "right": int((right[changed] != 0).sum()),
        "distractor": len(confused),
        "tokens": [list(one) for one in sorted(often, key=lambda one: (-one[1], one[0]))[:_SHOWN]],
    }
    return [Note("said_instead", facts)]


def _apart(loss: FloatArray, which: npt.NDArray[np.bool_]) -> FloatArray:
    """How many standard errors of a mean of as many units drawn without replacement each slice's
    mean loss is above that of all, [deal, slice], of `loss` [deal, n] and `which` [slice, n]."""
    sizes, count = which.sum(axis=1), which.shape[1]
    spread = loss.std(axis=1, ddof=1)[:, None] * np.sqrt((1 - sizes / count) / sizes)
    above = loss @ (which / sizes[:, None]).T - loss.mean(axis=1)[:, None]
    found: FloatArray = np.divide(above, spread, out=np.zeros_like(above), where=spread > 0)
    return found


def _chances(loss: FloatArray, which: npt.NDArray[np.bool_]) -> FloatArray:
    """For each slice, in which share of deals of the losses any slice stands out as far as it does,
    each by its own measure, [slice]. What is there is one of the deals."""
    order, step = np.sort(loss), max(1, _CHUNK // len(loss))
    rng, found = np.random.default_rng(0), [_apart(loss[None], which)]
    for start in range(0, _DEALS, step):
        dealt = np.tile(order, (min(step, _DEALS - start), 1))
        found.append(_apart(rng.permuted(dealt, axis=1), which))
    apart = np.round(np.concatenate(found), 9)  # equal but for rounding: as far
    reached = np.empty_like(apart)
    for column, values in zip(reached.T, apart.T, strict=True):
        column[:] = np.searchsorted(np.sort(-values), -values, side="right") / len(values)
    least = np.sort(reached.min(axis=1))
    found_as_far: FloatArray = np.searchsorted(least, reached[0], side="right") / len(least)
    return found_as_far

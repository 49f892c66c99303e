"""Where among the units a loss lies: the template that carries it, and what is said instead of the
answer. It decides nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate.declaration import Limit
from forgetguard.gate.estimate import Case
from forgetguard.measures.measure import Estimator, Subjects
from forgetguard.measures.samples import BASE, CORRECT, SAID, TOP1, TUNED, FloatArray, Note

# A template carries the loss where all of this holds of its units:
LEAST_UNITS = 3
MORE_THAN_ITS_SHARE = 2.0  # times as much of the loss as of the units
# standard errors by which their mean loss is above that of as many units drawn at random. Among 64
# pairs of equal templates one is found by chance in 0 to 2 % of runs at 8 templates, 0 to 9 % at 24
# (losses normal, yes or no at 10 %, lognormal; 4000 draws each); to be named it must be beyond the
# limit by itself as well.
BEYOND_CHANCE = 3.5

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
    if measure.estimator is Estimator.PROPORTION:
        return found.scale - values, ones
    return values, found.scale


def by_template(case: Case, limit: Limit) -> list[Note]:
    """The templates, at most one, that carry clearly more than their share of the loss."""
    names = [unit.template for unit in case.data.units]
    counts = Counter(names)
    read = lost(case, limit)
    if read is None or len(counts) < 2:
        return []
    loss, scale = read
    total = float(np.maximum(loss, 0).sum())
    found = []
    for name, count in counts.items():
        here = np.array([one == name for one in names])
        share = float(np.maximum(loss[here], 0).sum()) / total if total > 0 else 0.0
        mean = float(scale[here].mean())
        value = float(loss[here].mean()) / mean if mean else 0.0
        if (
            name
            and count >= LEAST_UNITS
            and share >= MORE_THAN_ITS_SHARE * count / case.count
            and _beyond_chance(loss, here) >= BEYOND_CHANCE
            and value > limit.maximum
        ):
            facts = {"template": name, "share": share, "units": count, "of": case.count}
            facts |= {"measure": limit.key, "value": value}
            found.append(Note("template_carries", facts))
    return sorted(found, key=lambda note: -note.facts["share"])[:1]


def said_instead(case: Case, limit: Limit) -> list[Note]:
    """What tuned finds likeliest where the base finds the answer likeliest of all tokens and tuned
    does not, beside a limit on how many pairs are answered right."""
    data = case.data
    base, now, said, right = (
        data.get(quantity, role=role)
        for quantity, role in ((TOP1, BASE), (TOP1, TUNED), (SAID, TUNED), (CORRECT, TUNED))
    )
    if limit.measure.estimator is not Estimator.PROPORTION or base is None or now is None:
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


def _beyond_chance(loss: FloatArray, here: npt.NDArray[np.bool_]) -> float:
    """Standard errors of a mean of as many units drawn without replacement, that the mean of the
    units `here`, bool [n], is above the mean of all."""
    count, drawn = len(loss), int(here.sum())
    spread = float(loss.std(ddof=1)) * ((1 - drawn / count) / drawn) ** 0.5
    return float(loss[here].mean() - loss.mean()) / spread if spread > 0 else 0.0

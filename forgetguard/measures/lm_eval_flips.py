"""The measure `lm_eval.flips`: documents that the base got right and tuned gets wrong, per task.

Where there are options to choose from, two models that guess flip too. Of a base that is wrong on a
share w of its documents, with k options each, guessing anew turns w / k right answers into wrong
ones (w k / (k - 1) of the documents are then guesses, 1 / k of them right, and the new guess is
wrong on (k - 1) / k of those), and as many wrong ones into right. So what is held to the limit is
flips minus w / k, but never less than the net loss (flips minus flips back), which is 0 between
equal models. It is our form of the chance-adjusted transitions of arXiv 2510.17776.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forgetguard.errors import MeasurementError
from forgetguard.measures import lm_eval_drop
from forgetguard.measures.documents import CHANCE, SCORE, Scores, is_right_or_wrong, places_of
from forgetguard.measures.measure import Opened, Series
from forgetguard.measures.samples import BASE, FloatArray, Samples


def compare(base: Opened, kept: Scores) -> Mapping[str, FloatArray]:
    """1 where the base is right and the other model wrong, [document] by `task metric`; of metrics
    that are 0 or 1 only.

    Raises:
        MeasurementError: a task has none.
    """
    from forgetguard.measures.harness import paired

    ours, theirs = (one.of[SCORE] for one in paired(base, kept))
    found = {
        one: values * (1 - theirs[one])
        for one, values in ours.items()
        if is_right_or_wrong(values) and is_right_or_wrong(theirs[one])
    }
    without = {one.split(" ")[0] for one in ours} - {one.split(" ")[0] for one in found}
    if without:
        raise MeasurementError(
            f"lm_eval.flips: no metric of {', '.join(sorted(without))} is right or wrong, all are "
            "graded: gate lm_eval.drop, or put the others into a file of their own"
        )
    return found


def series(samples: Samples, subject: str, role: str) -> Series:
    """As of `lm_eval.drop`, with flips less those of chance beside it."""
    found = lm_eval_drop.series(samples, subject, role)
    chance = samples.need(CHANCE, subject, BASE)[places_of(samples.units, subject)]
    return with_flips(found, chance)


def with_flips(found: Series, chance: FloatArray) -> Series:
    """Scores of 0 and 1 with their flips less those of guessing anew, which is right with `chance`,
    [unit]."""
    assert found.scale is not None
    flips = found.scale * (1 - found.values) - (1 - found.scale) * chance
    return replace(found, also=flips, chance=float(chance.mean()))


MEASURE = replace(
    lm_eval_drop.MEASURE,
    key="lm_eval.flips",
    about="documents right in base and wrong in tuned, less what guessing anew would flip",
    compare=compare,
    series=series,
)

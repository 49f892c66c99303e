"""What is measured look by look is put together, and taken apart again, without a change."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from forgetguard.gate.decision import Control, Measurement, judge
from forgetguard.gate.measurement import first, joined

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import MeasurementError
from forgetguard.gate.schema import CircuitSpec, InlinePairs, Limit

HEAD = Head(0, 0)
TEXTS = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
SPEC = CircuitSpec("c", "ioi", InlinePairs(TEXTS), "logit_diff", (HEAD,), ())
LOOKS = (16, 32, 48)


def measured(start: int, end: int, looks: tuple[int, ...] = LOOKS) -> Measurement:
    """The pairs `start` to `end` of one long drawing, every array another."""
    drawn = 3 + np.random.default_rng(0).standard_normal((9, 64))
    rows = iter(drawn[:, start:end])
    return Measurement(
        pairs=tuple(PromptPair(f"c{i:02}", f"x{i:02}", " y", " n") for i in range(start, end)),
        base_readout=next(rows),
        tuned_readout=next(rows),
        base_correct=np.ones(end - start, dtype=bool),
        tuned_correct=np.arange(start, end) % 5 != 0,
        circuit_importance=next(rows),
        circuit_damage=next(rows),
        head_importance={HEAD: next(rows)},
        head_damage={HEAD: next(rows)},
        head_own_damage={HEAD: next(rows)},
        controls=(Control("other", (Head(1, 1),), next(rows)), Control("random", (), None, "why")),
        looks=looks,
    )


def same(one: Measurement, other: Measurement) -> bool:
    def alike(mine: object, theirs: object) -> bool:
        if isinstance(mine, dict) and isinstance(theirs, dict):
            return mine.keys() == theirs.keys() and all(
                alike(mine[key], theirs[key]) for key in mine
            )
        if isinstance(mine, Control) and isinstance(theirs, Control):
            return mine.name == theirs.name and alike(mine.damage, theirs.damage)
        if isinstance(mine, tuple) and isinstance(theirs, tuple):
            return len(mine) == len(theirs) and all(map(alike, mine, theirs))
        return bool(np.array_equal(np.asarray(mine), np.asarray(theirs)))

    return all(
        alike(getattr(one, each.name), getattr(other, each.name)) for each in fields(Measurement)
    )


def test_parts_put_together_are_what_would_have_been_measured_at_once() -> None:
    parts = [measured(0, 16), measured(16, 32), measured(32, 48)]
    whole = joined(parts)
    assert same(whole, measured(0, 48))
    assert not same(whole, measured(0, 47))
    assert same(joined(parts[:1]), parts[0])


@pytest.mark.parametrize("count", LOOKS)
def test_the_first_pairs_are_what_stood_at_that_look(count: int) -> None:
    assert same(first(measured(0, 48), count), measured(0, count))


def test_a_look_is_judged_at_its_own_level_and_the_last_is_no_wider_than_need_be() -> None:
    limit = Limit("dcv.circuit", 0.5)
    found = [judge(SPEC, limit, measured(0, count)) for count in LOOKS]
    fixed = judge(SPEC, limit, measured(0, 48, looks=()))
    assert [verdict.budget for verdict in found] == [48, 48, 48]
    assert fixed.budget is None
    assert fixed.estimate is not None
    assert found[-1].estimate is not None
    # Same pairs and value; some of the error is already spent, so the interval is wider.
    assert found[-1].estimate.value == fixed.estimate.value
    assert found[-1].estimate.low < fixed.estimate.low
    assert found[-1].estimate.high > fixed.estimate.high
    assert all(
        verdict.estimate is not None and verdict.estimate.confidence > 0.9 for verdict in found
    )
    assert any("16 of at most 48 pairs, look 1 of 3: 32 pairs saved" in n for n in found[0].notes)


def test_a_number_of_pairs_that_is_no_look_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="20 pairs are none of the looks"):
        judge(SPEC, Limit("dcv.circuit", 0.5), measured(0, 20))

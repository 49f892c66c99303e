"""What is read stage by stage is put together, and taken apart again, without a change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_samples import remarks, samples

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import MeasurementError
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit
from forgetguard.gate.estimate import Levels
from forgetguard.gate.rule import judge
from forgetguard.measures.samples import Note, Samples, joined, ordered

HEAD = Head(0, 0)
TEXTS = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
SPEC = GateSpec("c", "ioi", InlinePairs(TEXTS), "logit_diff", (HEAD,), ())
STAGES = (16, 32, 48)


def measured(start: int, end: int, stages: tuple[int, ...] = STAGES) -> Samples:
    """The pairs `start` to `end` of one long drawing, every array another."""
    drawn = 3 + np.random.default_rng(0).standard_normal((9, 64))
    rows = iter(drawn[:, start:end])
    return samples(
        [PromptPair(f"c{i:02}", f"x{i:02}", " y", " n") for i in range(start, end)],
        base_readout=next(rows),
        tuned_readout=next(rows),
        base_correct=np.ones(end - start, dtype=bool),
        tuned_correct=np.arange(start, end) % 5 != 0,
        circuit_importance=next(rows),
        circuit_damage=next(rows),
        head_importance={HEAD: next(rows)},
        head_damage={HEAD: next(rows)},
        head_own_damage={HEAD: next(rows)},
        controls={"other": ((Head(1, 1),), next(rows)), "random": ((), None)},
        stages=stages,
    )


def same(one: Samples, other: Samples) -> bool:
    told = ("units", "dropped", "notes", "stages", "controls", "exact")
    return (
        all(getattr(one, name) == getattr(other, name) for name in told)
        and one.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays)
    )


def test_parts_put_together_are_what_would_have_been_measured_at_once() -> None:
    parts = [measured(0, 16), measured(16, 32), measured(32, 48)]
    whole = joined(parts)
    assert same(whole, measured(0, 48))
    assert not same(whole, measured(0, 47))
    assert same(joined(parts[:1]), parts[0])
    late = replace(parts[1], notes=(Note("auto"),), dropped=3)
    assert (joined([parts[0], late]).notes, joined([parts[0], late]).dropped) == (late.notes, 3)


@pytest.mark.parametrize("count", STAGES)
def test_the_first_units_are_what_stood_at_that_stage(count: int) -> None:
    assert same(measured(0, 48).at(slice(count)), measured(0, count))


def test_a_stage_is_judged_at_its_own_level_and_the_last_is_no_wider_than_need_be() -> None:
    limit = Limit("dcv.circuit", 0.5)
    found = [judge(SPEC, limit, measured(0, count)) for count in STAGES]
    fixed = judge(SPEC, limit, measured(0, 48, stages=()))
    assert [verdict.budget for verdict in found] == [48, 48, 48]
    assert fixed.budget is None
    assert fixed.estimate is not None
    assert found[-1].estimate is not None
    # Same pairs and value; some of the error is already spent, so the interval is wider.
    assert found[-1].estimate.value == fixed.estimate.value
    assert found[-1].estimate.low < fixed.estimate.low
    assert found[-1].estimate.high > fixed.estimate.high
    assert all(
        verdict.estimate is not None and verdict.estimate.coverage > 0.9 for verdict in found
    )
    drawn = [
        {"units": n, "most": 48, "stage": place + 1, "stages": 3} for place, n in enumerate(STAGES)
    ]
    assert [remarks(verdict) for verdict in found] == [(Note("drawn", facts),) for facts in drawn]


@pytest.mark.parametrize("count", STAGES)
def test_at_every_stage_the_limits_of_a_run_share_its_false_alarms(count: int) -> None:
    alone, among = (Levels.of(0.95, family, STAGES, count) for family in (1, 20))
    assert among.passing == alone.passing
    as_one = Levels.of(1 - 0.05 / 20, 1, STAGES, count)
    assert among.failing == pytest.approx(as_one.failing, rel=1e-9)
    assert among.failing < alone.failing / 2


def test_a_number_of_pairs_that_is_no_stage_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="20 pairs are none of the stages"):
        judge(SPEC, Limit("dcv.circuit", 0.5), measured(0, 20))


def test_what_was_not_read_is_missed_by_name() -> None:
    data = measured(0, 16)
    assert data.get("damage", "circuit", "reference") is None
    with pytest.raises(MeasurementError, match=r"damage of circuit \(reference\) was not measured"):
        data.need("damage", "circuit", "reference")
    assert data.has_role("tuned")
    assert not data.has_role("reference")
    assert data.subjects("damage") == ("circuit", "L0H0", "control other")


def test_units_are_put_in_the_order_of_their_texts_with_their_numbers() -> None:
    data = measured(0, 16)
    shuffled = data.at(np.random.default_rng(1).permutation(16))
    assert not same(shuffled, data)
    assert same(ordered(shuffled, "c"), data)

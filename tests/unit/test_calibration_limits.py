"""From readings of nulls to advice on a limit, and how it is shown; no model needed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from known_samples import samples

from forgetguard.anatomy.members import Head
from forgetguard.calibration.calibrating import (
    Advice,
    Calibration,
    CircuitCalibration,
    Row,
    advise,
)
from forgetguard.calibration.limits import LimitReading, fewest_draws, read_limit, stated
from forgetguard.calibration.nulls import BATCHES, DTYPE, MATCHED, HeadSets, Null, any_sets
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Key, Note, Samples
from forgetguard.report.calibration_table import calibration_dict, calibration_text

A, B = Head(0, 3), Head(1, 1)
LIMIT = Limit("dcv.circuit", 0.10)
N = 40


def measurement(level: float, seed: int = 0) -> Samples:
    """A circuit worth 10, on which `level` of it is lost, with a spread of a tenth."""
    rng = np.random.default_rng(seed)
    importance = 10 + rng.standard_normal(N)
    damage = level * importance + 0.1 * rng.standard_normal(N)
    pairs = tuple(PromptPair(f"c{i}", f"x{i}", "a", "b") for i in range(N))
    return samples(
        pairs,
        base_readout=20 + importance, tuned_readout=20 + importance - damage,
        base_correct=np.ones(N), tuned_correct=np.ones(N),
        circuit_importance=importance, circuit_damage=damage,
        head_importance={A: importance, B: importance / 2},
        head_damage={A: damage, B: damage / 2},
    )  # fmt: skip


def spec(*limits: Limit) -> GateSpec:
    return GateSpec("c", "c", InlinePairs(()), "logit_diff", (A, B), limits or (LIMIT,))


def test_a_limit_reading_is_where_the_gates_own_verdict_turns() -> None:
    for limit in (LIMIT, Limit("dcv.head", 0.25)):
        data = measurement(0.053)
        found = read_limit(spec(), limit, data, seed=3, family=4)

        def outcome(maximum: float, limit: Limit = limit, data: Samples = data) -> Outcome:
            changed = Limit(limit.key, maximum)
            return judge(spec(), changed, data, seed=3, family=4).outcome

        assert outcome(found.passes) is Outcome.PASS
        assert outcome(math.nextafter(found.passes, 0)) is not Outcome.PASS
        assert outcome(found.not_fails) is not Outcome.FAIL
        assert outcome(found.not_fails - 0.01) is Outcome.FAIL
        assert found.outcome is outcome(limit.maximum)
        assert found.low <= found.value <= found.high


def test_what_cannot_be_measured_passes_at_no_limit() -> None:
    data = measurement(0.05)
    nothing = {Key("importance", "circuit", "base"): np.tile([1.0, -1.0], N // 2)}
    found = read_limit(spec(), LIMIT, data.with_arrays(nothing))
    assert (found.passes, found.why) == (math.inf, Code.NO_SCALE)
    advice = advise(LIMIT, [row(DTYPE, found)])
    assert advice.noisy
    assert advice.judgement == "too noisy"
    assert advice.written == LIMIT.maximum


def row(kind: str, one: LimitReading | float, number: int = 0) -> Row:
    if not isinstance(one, LimitReading):
        outcome = Outcome.PASS if one <= LIMIT.maximum else Outcome.ABSTAIN
        one = LimitReading(one / 2, 0.0, one, "", one, round(one / 4, 2), outcome)
    return Row(Null(kind, str(number)), one.value, ("L0H3", 0.01), 0.01, 0.0, {LIMIT.key: one})


def matched(*values: float) -> list[Row]:
    return [row(MATCHED, value, number) for number, value in enumerate(values)]


def test_nineteen_draws_can_state_five_percent_and_eighteen_cannot() -> None:
    assert fewest_draws(0.05) == 19
    enough, short = stated([0.03] * 19), stated([0.03] * 18)
    assert (enough.as_asked, enough.rate) == (True, 0.05)
    assert (short.as_asked, short.rate) == (False, 1 / 19)
    assert stated([0.01] * 38 + [0.5], 0.05).limit == 0.01, "one of 39 may be beyond"
    assert stated([0.01] * 18 + [0.5], 0.05).limit == 0.50, "with 19 the largest counts"


def test_a_limit_that_random_changes_do_not_need_is_looser_than_needed() -> None:
    advice = advise(LIMIT, [row(DTYPE, 0.001), *matched(*[0.04] * 19)])
    assert (advice.judgement, advice.suggested, advice.written) == (
        "looser than needed",
        0.04,
        0.04,
    )


def test_a_limit_that_holds_random_changes_is_tight() -> None:
    advice = advise(LIMIT, [row(DTYPE, 0.001), *matched(*[0.04] * 17, 0.12, 0.13)])
    assert advice.judgement == "tight"
    assert (advice.held_matched, advice.failed_matched) == (2, 0)
    assert advice.written == 0.13


def test_a_harmless_null_that_fails_is_a_false_alarm_and_one_that_abstains_wants_pairs() -> None:
    failing = LimitReading(0.3, 0.2, 0.4, "", 0.4, 0.2, Outcome.FAIL)
    assert advise(LIMIT, [row(DTYPE, failing)]).judgement == "false alarms"
    assert advise(LIMIT, [row(DTYPE, failing)]).written == 0.4
    assert advise(LIMIT, [row(BATCHES, 0.17)]).judgement == "too few pairs"


def test_harmless_nulls_alone_never_lower_a_limit() -> None:
    advice = advise(LIMIT, [row(DTYPE, 0.001), row(BATCHES, 0.0)])
    assert (advice.judgement, advice.suggested, advice.written) == ("fits", 0.01, 0.10)


def test_a_limit_that_lets_half_be_lost_is_never_written() -> None:
    advice = advise(LIMIT, [row(DTYPE, 0.001), *matched(*[4.0] * 19)])
    assert advice.judgement == "too noisy"
    assert advice.written == LIMIT.maximum


def test_random_sets_have_the_circuits_size_and_come_from_all_of_the_model() -> None:
    members = [Head(layer, index) for layer in range(4) for index in range(6)]
    sets = any_sets([A, B, Head(3, 0)], members, 50, "0 c")
    assert all(len(set(one)) == 3 for one in sets)
    assert {member for one in sets for member in one} == set(members)
    assert sets == any_sets([A, B, Head(3, 0)], list(reversed(members)), 50, "0 c")
    assert sets != any_sets([A, B, Head(3, 0)], members, 50, "1 c")


def test_a_circuit_that_lost_more_than_all_sets_has_the_smallest_rank_there_is() -> None:
    sets = HeadSets(((A,),) * 19, np.linspace(0, 0.1, 19))
    assert sets.rank(0.2) == 1 / 20
    assert sets.rank(0.0) == 1.0


def calibration(*rows: Row, draws: int = 19) -> Calibration:
    advice: tuple[Advice, ...] = (advise(LIMIT, rows),)
    sets = HeadSets(((A, B),) * 3, np.array([0.01, 0.02, 0.03]))
    tuned = row("tuned", 0.08)
    notes = (Note("found_on_gated_pairs"),)
    one = CircuitCalibration(spec(), N, tuple(rows), advice, tuned, sets, notes)
    return Calibration((one,), ("gone: cannot",), 0.05, draws, 0, (46, 14.9), ())


def test_the_table_says_what_is_harmless_and_what_is_a_yardstick() -> None:
    text = calibration_text(calibration(row(DTYPE, 0.001), *matched(*[0.04] * 19)))
    assert "Harmless by construction (nothing was forgotten): dtype, batches, kernel." in text
    assert "Yardstick: random changes of the 46 tensors that tuning moved" in text
    assert "They may really do damage" in text
    assert "looser than needed" in text
    assert "0/19 held, 0 fail" in text
    assert "note: the circuit was found on the prompt pairs" in text


def test_the_table_says_when_the_draws_are_too_few() -> None:
    text = calibration_text(calibration(row(DTYPE, 0.001), *matched(0.04, 0.04), draws=2))
    assert "2 draws cannot state 5 %" in text
    assert "with at most 33.3 %. --draws 19 or more can." in text
    assert "0.04 (largest)" in text


def test_the_json_holds_every_reading_and_is_json() -> None:
    found = calibration(row(DTYPE, math.inf), *matched(*[0.04] * 19))
    document = json.loads(json.dumps(calibration_dict(found, {}), allow_nan=False))
    (one,) = document["circuits"]
    assert len(one["nulls"]) == 20
    assert one["nulls"][0]["harmless"]
    assert not one["nulls"][1]["harmless"]
    assert one["nulls"][0]["limits"]["dcv.circuit"]["passes_from"] is None
    assert one["random_sets"]["p"] == pytest.approx(0.25)
    assert one["limits"][0]["passes_from"]["rate"] == 0.05

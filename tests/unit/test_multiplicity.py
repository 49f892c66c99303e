"""What is claimed of several heads holds for all of them together."""

from __future__ import annotations

import numpy as np
import pytest

from forgetguard.errors import MeasurementError
from forgetguard.gate import multiplicity, studentised
from forgetguard.gate.resampling import FloatArray


def heads(seed: int, truths: list[float], pairs: int = 40) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    importance = 3 + rng.standard_normal((len(truths), pairs))
    noise = 0.5 * rng.standard_normal((len(truths), pairs))
    return np.array(truths)[:, None] * importance + noise, importance


def test_holms_values_are_those_of_his_procedure() -> None:
    assert multiplicity.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert multiplicity.holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert multiplicity.holm(np.array([0.04])) == pytest.approx([0.04])
    assert multiplicity.holm(np.array([])).size == 0


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_holm_claims_what_stepping_down_by_hand_claims(alpha: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.random(6) ** 3
        claimed: set[int] = set()
        for place, head in enumerate(np.argsort(values)):
            if values[head] > alpha / (6 - place):
                break
            claimed.add(int(head))
        assert set(np.flatnonzero(multiplicity.holm(values) <= alpha).tolist()) == claimed


def test_what_is_no_p_value_is_an_error() -> None:
    for values in ([0.5, 1.5], [-0.1], [float("nan")]):
        with pytest.raises(MeasurementError):
            multiplicity.holm(np.array(values))


def test_a_head_beyond_the_limit_is_named_and_one_within_is_not() -> None:
    damage, importance = heads(1, [0.6, 0.1, 0.1, 0.5])
    found = multiplicity.max_t(damage, importance, 0.25)
    assert (found <= 0.05).tolist() == [True, False, False, True]


def test_stepping_down_names_at_least_whom_the_common_bound_names() -> None:
    more = 0
    for seed in range(30):
        damage, importance = heads(seed, [0.9, 0.42, 0.4, 0.38, 0.36, 0.34], pairs=24)
        named = multiplicity.max_t(damage, importance, 0.25, resamples=1999) <= 0.05
        bounds = studentised.ratios(damage, importance, resamples=1999).corrected_low
        single = np.array(bounds) > 0.25
        # The bound is taken at the observed ratio, and not below Student's t, the test at the
        # limit: on the border they may differ.
        assert (named | ~single).mean() > 0.8
        more += int(named.sum() - single.sum())
    assert more > 0


def test_adjusting_never_makes_a_claim_easier_and_holm_is_the_costlier() -> None:
    damage, importance = heads(3, [0.4, 0.38, 0.36, 0.3, 0.25], pairs=30)
    own = multiplicity.beyond_limit(damage, importance, 0.25)
    joint = multiplicity.max_t(damage, importance, 0.25)
    assert (joint >= own).all()
    assert (joint <= multiplicity.holm(own) + 0.02).all()


def test_one_head_alone_needs_no_adjusting() -> None:
    damage, importance = heads(4, [0.3])
    own = multiplicity.beyond_limit(damage, importance, 0.25)
    assert multiplicity.max_t(damage, importance, 0.25) == pytest.approx(own)


def test_a_head_that_reads_the_limit_exactly_is_no_finding() -> None:
    importance = heads(5, [0.1])[1]
    assert multiplicity.beyond_limit(0.25 * importance, importance, 0.25)[0] > 0.5
    assert multiplicity.beyond_limit(0.75 * importance, importance, 0.5)[0] < 0.001


def test_templates_count_as_one() -> None:
    damage, importance = heads(6, [0.32], pairs=12)
    repeats = np.repeat(np.arange(12), 6)
    copies = damage[:, repeats], importance[:, repeats]
    alone = multiplicity.max_t(damage, importance, 0.25)
    honest = multiplicity.max_t(*copies, 0.25, clusters=repeats.astype(np.intp))
    assert honest == pytest.approx(alone)
    assert multiplicity.max_t(*copies, 0.25)[0] < honest[0]

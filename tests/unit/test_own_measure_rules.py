"""Measures of other distributions in every form: what cannot be compared is an error, no pass."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from forgetguard.capabilities.pairs import Prompt
from forgetguard.errors import MeasurementError
from forgetguard.gate.declaration import GateSpec, Limit, Prompts
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures import registry
from forgetguard.measures.measure import (
    NATS,
    PROPORTION,
    SHARE,
    Estimator,
    Measure,
    Sampled,
    Series,
    Subjects,
)
from forgetguard.measures.samples import FloatArray, Key, Samples, joined

COUNT = 12
ONES = np.ones(COUNT)
NEAR = 1 + 0.1 * np.random.default_rng(0).standard_normal(COUNT)


def own(samples: Samples, subject: str, role: str) -> Series:
    return Series(samples.need("a.ratio", subject, role), samples.need("scale", subject, role))


def kept(samples: Samples, subject: str, role: str) -> Series:
    now, before = (samples.need("a.kept", subject, one) for one in (role, "base"))
    return Series(now, before)


MEASURES = (
    Measure("a.ratio", "", SHARE, Sampled.PROMPTS, estimator=Estimator.RATIO, series=own),
    Measure("a.layer", "", NATS, Sampled.PROMPTS, subjects=Subjects.LAYERS),
    Measure(
        "a.kept",
        "",
        PROPORTION,
        Sampled.PROMPTS,
        subjects=Subjects.LAYERS,
        estimator=Estimator.PROPORTION,
        series=kept,
    ),
)


@pytest.fixture(autouse=True)
def other_distribution(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    dist = SimpleNamespace(name="toys")
    points = {
        one.key: (SimpleNamespace(load=lambda one=one: one, dist=dist, value="toys"),)
        for one in MEASURES
    }
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


def verdict(key: str, maximum: float, **arrays: FloatArray) -> Verdict:
    """Arrays by role, or role and subject, as `tuned`, `tuned_1`; scales as `scale_tuned`."""
    found = {}
    for name, values in arrays.items():
        rest = name.removeprefix("scale_")
        role, _, layer = rest.partition("_")
        quantity = key.partition(".over_")[0] if rest == name else "scale"
        found[Key(quantity, f"layer {layer}" if layer else "", role)] = values
    units = tuple(Prompt(f"p{number:02}") for number in range(COUNT))
    spec = GateSpec("g", "", Prompts(units), "logit_diff", (), ())
    return judge(spec, Limit(key, maximum), Samples(units, found))


def test_ratios_to_other_scales_are_not_subtracted() -> None:
    # 0.5 in tuned and 0.05 in the reference, with equal numerators: no difference of 0.
    arrays = {"tuned": 0.05 * NEAR, "reference": 0.05 * NEAR, "scale_reference": NEAR}
    with pytest.raises(MeasurementError, match="cannot be subtracted"):
        verdict("a.ratio.over_reference", 0.1, **arrays, scale_tuned=0.1 * NEAR)
    assert verdict("a.ratio.over_reference", 0.1, **arrays, scale_tuned=NEAR)


@pytest.mark.parametrize(("scale", "code"), [(-NEAR, Code.BEYOND), (0 * NEAR, Code.NO_SCALE)])
def test_a_ratio_to_nothing_or_to_less_is_no_pass(scale: FloatArray, code: Code) -> None:
    found = verdict("a.ratio", 0.1, tuned=0.3 * NEAR, scale_tuned=scale)
    assert (found.code, bool(found)) == (code, False)


def test_a_subject_that_tuned_lost_is_no_pass() -> None:
    arrays = {"tuned_0": 0.01 * NEAR, "reference_0": 0.01 * NEAR}
    assert verdict("a.layer.over_reference", 0.1, **arrays)
    with pytest.raises(MeasurementError, match="no number of layer 1 in the tuned model"):
        verdict("a.layer.over_reference", 0.1, **arrays, reference_1=NEAR)
    with pytest.raises(MeasurementError, match=r"layer 1 \(reference\) was not measured"):
        verdict("a.layer.over_reference", 0.1, **arrays, tuned_1=NEAR)


def test_a_proportion_of_each_layer_is_judged_and_the_worst_decides() -> None:
    lost = np.arange(COUNT) < 1
    found = verdict("a.kept", 0.0, base_0=ONES, tuned_0=ONES, base_1=ONES, tuned_1=np.zeros(COUNT))
    assert (found.outcome, found.subject) == (Outcome.FAIL, "layer 1")
    assert found.estimate is not None
    assert found.estimate.value == 1.0
    found = verdict("a.kept", 0.9, base_0=ONES, tuned_0=ONES, base_1=ONES, tuned_1=1.0 - lost)
    assert (found.outcome, found.subject) == (Outcome.PASS, "layer 1")


def test_a_subject_that_one_stage_lacks_takes_its_measure_out_of_the_whole() -> None:
    def part(name: str, *subjects: str) -> Samples:
        keys = [Key("a.layer", one, "tuned") for one in subjects] + [Key("b", "", "tuned")]
        return Samples((Prompt(name),), {key: np.ones(1) for key in keys})

    assert joined([part("x", "0"), part("y", "0", "1")]).arrays.keys() == {Key("b", "", "tuned")}
    assert len(joined([part("x", "0"), part("y", "0")]).arrays) == 2

"""What must not matter to a verdict does not, and what must does: from readouts to outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_samples import samples

from forgetguard.anatomy.members import Head, Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate import studentised
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit
from forgetguard.gate.resampling import FloatArray
from forgetguard.gate.rule import judge
from forgetguard.gate.studentised import Family
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.samples import Samples

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
HEADS = (Head(0, 1), Head(2, 3), Head(1, 0))
seeds = st.integers(0, 10_000)
# Sums of these with eighths of moderate size are exact, so equal means equal.
exact = st.integers(-64, 64).map(lambda number: number / 8)


def eighths(values: FloatArray) -> FloatArray:
    return np.round(8 * values) / 8


@dataclass(frozen=True)
class Readouts:
    """F of each run, [pairs], or [heads, pairs] where single heads are patched."""

    base: FloatArray
    tuned: FloatArray
    counterfactual: FloatArray  # the circuit patched from the counterfactual prompt
    patched: FloatArray  # the circuit patched from the tuned model
    head_counterfactual: FloatArray
    head_patched: FloatArray

    def shifted(self, by: FloatArray) -> Readouts:
        """A constant of each pair on every readout: its logits moved alike in all runs."""
        return Readouts(*(getattr(self, name) + by for name in self.__dataclass_fields__))


def drawn(seed: int, pairs: int, dose: float = 0.2) -> Readouts:
    """Readouts in eighths of a nat; damage about `dose` of the importance."""
    rng = np.random.default_rng(seed)
    base = eighths(10 + rng.standard_normal(pairs))
    importance = eighths(6 + rng.standard_normal(pairs))
    heads = eighths(2 + 0.5 * rng.standard_normal((len(HEADS), pairs)))
    harm = eighths(dose * importance + 0.5 * rng.standard_normal(pairs))
    head_harm = eighths(dose * heads + 0.3 * rng.standard_normal(heads.shape))
    return Readouts(
        base, base - harm, base - importance, base - harm, base - heads, base - head_harm
    )


def measured(found: Readouts, order: list[int] | None = None) -> Samples:
    count = len(found.base)
    at = np.arange(count) if order is None else np.array(order)
    pairs = tuple(PromptPair(f"clean {one:03}", f"counter {one:03}", " y", " n") for one in at)
    return samples(
        pairs,
        base_readout=found.base[at],
        tuned_readout=found.tuned[at],
        base_correct=np.ones(count, dtype=bool),
        tuned_correct=np.ones(count, dtype=bool),
        circuit_importance=(found.base - found.counterfactual)[at],
        circuit_damage=(found.base - found.patched)[at],
        head_importance=by_head((found.base - found.head_counterfactual)[:, at]),
        head_damage=by_head((found.base - found.head_patched)[:, at]),
    )


def by_head(rows: FloatArray) -> dict[Member, FloatArray]:
    return dict(zip(HEADS, rows, strict=True))


def verdict(key: str, maximum: float, data: Samples) -> Verdict:
    texts = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
    spec = GateSpec("c", "ioi", InlinePairs(texts), "logit_diff", HEADS, ())
    return judge(spec, Limit(key, maximum, 7), data)


def numbers(one: Verdict) -> tuple[Any, ...]:
    """What was decided and on which numbers, without the readouts that are shown beside it."""
    heads = {(head.subject, head.value, head.scale) for head in one.subjects}
    return one.outcome, one.estimate, one.code, one.facts, heads


@QUICK
@given(seeds, st.integers(8, 24), exact, st.sampled_from(["dcv.circuit", "dcv.head"]))
def test_a_shift_of_all_logit_differences_changes_no_dcv(
    seed: int, pairs: int, by: float, key: str
) -> None:
    found = drawn(seed, pairs)
    # The base must stay able: a shift does not lower its readouts to nothing.
    moved = found.shifted(np.full(pairs, abs(by)))
    there, back = verdict(key, 0.2, measured(found)), verdict(key, 0.2, measured(moved))
    assert numbers(there) == numbers(back)


@QUICK
@given(seeds, st.integers(8, 24), st.sampled_from(["dcv.circuit", "dcv.head"]))
def test_a_shift_of_its_own_for_each_pair_changes_no_dcv(seed: int, pairs: int, key: str) -> None:
    found = drawn(seed, pairs)
    by = eighths(np.abs(np.random.default_rng(seed + 1).standard_normal(pairs)) * 20)
    there = verdict(key, 0.2, measured(found))
    assert numbers(there) == numbers(verdict(key, 0.2, measured(found.shifted(by))))


@QUICK
@given(st.data(), seeds, st.sampled_from(["dcv.circuit", "dcv.head", "readout.drop"]))
def test_the_order_of_pairs_changes_nothing(data: st.DataObject, seed: int, key: str) -> None:
    found = drawn(seed, 16)
    order = data.draw(st.permutations(range(16)))
    there, back = verdict(key, 0.2, measured(found)), verdict(key, 0.2, measured(found, order))
    assert there == back


@QUICK
@given(seeds, st.sampled_from([2.0**-10, 0.5, 8.0]), st.sampled_from(["dcv.circuit", "dcv.head"]))
def test_the_unit_of_the_readout_changes_nothing(seed: int, factor: float, key: str) -> None:
    found = drawn(seed, 16)
    scaled = Readouts(*(factor * getattr(found, name) for name in found.__dataclass_fields__))
    there, back = verdict(key, 0.2, measured(found)), verdict(key, 0.2, measured(scaled))
    assert (there.outcome, there.estimate) == (back.outcome, back.estimate)


def family(damage: FloatArray, importance: FloatArray) -> Family:
    return studentised.ratios(damage, importance, resamples=499, fail_alpha=0.01)


def bounds(found: Family) -> FloatArray:
    rows = [(one.low, one.value, one.high) for one in found.estimates]
    return np.column_stack([rows, found.corrected_low])


@QUICK
@given(seeds, st.integers(8, 24), st.floats(0, 2))
def test_a_dose_on_top_moves_every_bound_by_itself(seed: int, pairs: int, dose: float) -> None:
    rng = np.random.default_rng(seed)
    importance = 5 + rng.standard_normal((3, pairs))
    damage = rng.standard_normal((3, pairs))
    before = bounds(family(damage, importance))
    after = bounds(family(damage + dose * importance, importance))
    assert after == pytest.approx(before + dose, rel=1e-6, abs=1e-6)
    assert (after >= before - 1e-9).all()


@QUICK
@given(seeds, st.integers(8, 24), st.lists(st.floats(0, 1), min_size=2, max_size=4).map(sorted))
def test_more_dose_never_turns_a_fail_into_a_pass(
    seed: int, pairs: int, doses: list[float]
) -> None:
    rank = {Outcome.PASS: 0, Outcome.ABSTAIN: 1, Outcome.FAIL: 2}
    found = drawn(seed, pairs, dose=0.0)
    importance = found.base - found.counterfactual
    ranks = []
    for dose in doses:
        hurt = replace(found, patched=found.patched - dose * importance)
        ranks.append(rank[verdict("dcv.circuit", 0.25, measured(hurt)).outcome])
    assert ranks == sorted(ranks)


@QUICK
@given(seeds, st.integers(8, 20), st.sampled_from([2.0**-10, 0.25, 2.0, 2.0**10]))
def test_the_scale_of_damage_and_importance_cancels(seed: int, pairs: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    importance, damage = 5 + rng.standard_normal((2, pairs)), rng.standard_normal((2, pairs))
    assert family(factor * damage, factor * importance) == family(damage, importance)

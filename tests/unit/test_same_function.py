"""Function before parts: what renamed parts do to a verdict, and what stands beside one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_samples import HEADS, changed, measured, read, spec

from forgetguard.gate.declaration import Limit
from forgetguard.gate.rule import judge
from forgetguard.gate.same_function import TOLERANCE, apart, is_renamed, may_be_equal
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures.samples import CIRCUIT, DAMAGE, Key, Note, Samples

EFFECT = 5.0  # of the clean against the counterfactual prompts of `measured`


def verdict(data: Samples, key: str = "dcv.circuit", maximum: float = 0.1) -> Verdict:
    return judge(spec(), Limit(key, maximum, 1), data)


def note(found: Verdict, code: str) -> Note | None:
    return next((one for one in found.notes if one.code == code), None)


def renamed(clean: float = 0.0, counterfactual: float | None = 0.0) -> Samples:
    """A circuit that reads as lost by name; the readouts differ by so much on the last pair."""
    data = measured(dcv=0.8, heads={HEADS[0]: 0.8})
    last = np.arange(64) == 63
    return changed(
        data,
        tuned_readout=read(data, "base_readout") + clean * last,
        tuned_counterfactual=None
        if counterfactual is None
        else read(data, "base_counterfactual") - counterfactual * last,
    )


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "dcv.all"])
def test_the_same_function_passes_whatever_reads_by_name(key: str) -> None:
    data = replace(
        renamed(0.004, 0.003),
        notes=(Note("heads_matched", {"role": "tuned", "heads": {"L2H1": "L2H3"}}),),
    )
    found = verdict(data, key)
    assert (found.outcome, found.code) == (Outcome.PASS, Code.SAME_FUNCTION)
    assert found.facts["largest"] == pytest.approx(0.004)
    assert found.facts["tolerance"] == pytest.approx(TOLERANCE * EFFECT)
    assert found.facts["matches"] == {"L2H1": "L2H3"}
    assert found.estimate is not None
    assert found.estimate.value > 0.5


@pytest.mark.parametrize(
    ("clean", "counterfactual"), [(0.02, 0.0), (0.0, 0.02), (-0.02, 0.0), (0.0, None)]
)
def test_one_pair_that_differs_or_was_not_looked_at_shuts_the_door(
    clean: float, counterfactual: float | None
) -> None:
    for key in ("dcv.circuit", "dcv.head", "dcv.all"):
        assert verdict(renamed(clean, counterfactual), key).outcome is Outcome.FAIL


def test_what_cannot_be_judged_is_not_the_same_function_either() -> None:
    data = changed(renamed(), base_correct=np.zeros(64))
    assert verdict(data).code is Code.BASE_WRONG


def test_a_saturated_readout_does_not_show_that_the_function_is_the_same() -> None:
    sure = np.full(64, np.log(0.99))
    data = changed(
        renamed(),
        base_readout=sure,
        tuned_readout=sure,
        base_counterfactual=sure - 5,
        tuned_counterfactual=sure - 5,
    )
    found = judge(spec(readout="logprob"), Limit("dcv.circuit", 0.1, 1), data)
    assert found.outcome is Outcome.FAIL


def test_a_look_is_due_only_where_readouts_are_equal_and_damage_is_not() -> None:
    assert may_be_equal(renamed(counterfactual=None), "tuned")
    assert not may_be_equal(renamed(0.02, None), "tuned")
    small = measured(dcv=0.001, noise=0.0)
    assert not may_be_equal(changed(small, tuned_readout=read(small, "base_readout")), "tuned")
    assert apart(renamed(counterfactual=None), "tuned") is None
    assert is_renamed(renamed(), "tuned")
    assert not is_renamed(renamed(0.02), "tuned")


def test_a_difference_to_another_model_abstains_where_parts_could_not_be_matched() -> None:
    data = renamed()
    flat = np.zeros(64)
    data = changed(data, reference_readout=read(data, "base_readout"))
    data = changed(data, reference_circuit_damage=flat)
    found = verdict(data, "dcv.circuit.over_reference")
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.RENAMED)
    assert found.facts["roles"] == ["tuned"]


# --- what stands beside ----------------------------------------------------------------------


def test_a_circuit_says_its_damage_in_shares_of_the_readout_and_of_the_loss() -> None:
    data = measured(dcv=0.2)
    damage, readout = data.need(DAMAGE, CIRCUIT), read(data, "base_readout")
    data = changed(data, tuned_readout=readout - 2 * damage - 0.5)
    found = verdict(data)
    of_readout, of_loss = note(found, "share_of_readout"), note(found, "share_of_loss")
    assert of_readout is not None
    assert of_loss is not None
    assert of_readout.facts["value"] == pytest.approx(damage.mean() / readout.mean())
    loss = (2 * damage + 0.5).mean()
    assert of_readout.facts["lost"] == pytest.approx(loss / readout.mean())
    assert of_loss.facts["value"] == pytest.approx(damage.mean() / loss)
    assert of_loss.facts["lost"]["value"] == pytest.approx(loss)
    for one in (of_readout, of_loss):
        assert one.facts["low"] < one.facts["value"] < one.facts["high"]
    assert note(verdict(data, "dcv.head"), "share_of_loss") is None


def test_a_loss_that_cannot_be_told_from_zero_is_shared_by_nobody() -> None:
    data = measured(dcv=0.05)
    readout = read(data, "base_readout")
    noise = np.random.default_rng(1).standard_normal(64)
    gained = changed(data, tuned_readout=readout + 1)
    unclear = changed(data, tuned_readout=readout + noise - noise.mean() - 0.01)
    rounding = changed(data, tuned_readout=readout - 1e-4)
    for one in (gained, unclear, rounding):
        found = verdict(one)
        assert note(found, "share_of_readout") is not None
        assert note(found, "share_of_loss") is None


def test_a_circuit_that_serves_better_than_the_bases_own_is_told_and_passes() -> None:
    better = verdict(measured(dcv=-0.5))
    said = note(better, "far_below")
    assert better.outcome is Outcome.PASS
    assert said is not None
    assert said.facts["value"] == pytest.approx(-0.5, abs=0.05)
    assert note(verdict(measured(dcv=-0.05)), "far_below") is None
    head = note(verdict(measured(heads={HEADS[1]: -0.9}), "dcv.head", 0.25), "far_below")
    assert head is not None
    assert (head.facts["subjects"], head.facts["least"]) == (["L0H4"], "L0H4")


def test_a_model_without_any_effect_is_told() -> None:
    data = measured()
    for key in ("dcv.circuit", "readout.drop", "accuracy.drop"):
        assert note(verdict(data, key), "no_effect") == Note("no_effect", {"count": 64})
    moved = changed(data, tuned_readout=read(data, "base_readout") + 1e-6 * (np.arange(64) == 3))
    assert note(verdict(moved), "no_effect") is None
    patched = data.with_arrays({Key(DAMAGE, "L0H4", "tuned"): np.full(64, 1e-6)})
    assert note(verdict(patched), "no_effect") is None

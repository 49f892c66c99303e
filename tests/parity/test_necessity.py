"""Necessity, sufficiency and activation patching against plain hooks, and against each other."""

from __future__ import annotations

import known_circuit
import literal
import numpy as np
import pytest
from architectures import build
from random_pairs import close, from_counterfactual, ids, random_capability, readouts, slack
from torch import Tensor

from examples.studies.shares import necessity, sufficiency
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.encoding import EncodedPair
from forgetguard.capabilities.variants import exchange_answers
from forgetguard.discovery.activation_patching import activation_patching
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.measures.faithfulness import faithfulness
from forgetguard.measures.necessity import necessity_and_sufficiency
from forgetguard.measures.vulnerability import each_and_all, patched

pytestmark = pytest.mark.usefixtures("one_thread")

ARCHITECTURES = ("qwen3", "gpt2", "opt", "falcon", "mixtral")
MEMBERS: tuple[Member, ...] = (Head(0, 1), Head(1, 2), Mlp(1), Head(2, 3), Mlp(2))


def with_an_effect(anatomy: Anatomy) -> EncodedCapability:
    capability = random_capability()
    whole = faithfulness(anatomy, capability, [], anatomy.members(mlps=True)).whole
    return capability if whole > 0 else exchange_answers(capability)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_necessity_and_sufficiency_equal_a_naive_loop(name: str) -> None:
    anatomy = locate(build(name))
    universe = anatomy.members(mlps=True)
    capability = with_an_effect(anatomy)
    found = necessity_and_sufficiency(anatomy, capability, MEMBERS, universe)
    clean = readouts(anatomy, capability)

    def without(*members: Member) -> np.ndarray:
        return readouts(anatomy, capability, from_counterfactual(anatomy, members))

    nothing = without(*universe)
    close(found.whole, clean - nothing)
    whole = (clean - nothing).mean()
    error = slack(clean, 1e-4) / abs(whole)
    for number, member in enumerate(MEMBERS):
        lost = clean - without(member)
        gained = without(*(one for one in universe if one != member)) - nothing
        close(found.lost[number], lost)
        close(found.gained[number], gained)
        assert necessity(found)[member] == pytest.approx(lost.mean() / whole, abs=error)
        assert sufficiency(found)[member] == pytest.approx(gained.mean() / whole, abs=error)


@pytest.mark.parametrize("kind", ["counterfactual", "mean", "zero"])
def test_sufficiency_is_the_faithfulness_of_a_member_alone(kind: str) -> None:
    """And necessity what faithfulness lacks without it."""
    model, tokenizer = known_circuit.build(mlp=True)
    anatomy = locate(model)
    universe = anatomy.members(mlps=True)
    capability = known_circuit.capability(8, seed=3).encoded(tokenizer)
    found = necessity_and_sufficiency(anatomy, capability, universe, universe, kind=kind)
    alone = faithfulness(anatomy, capability, [(m,) for m in universe], universe, kind=kind)
    without = [tuple(one for one in universe if one != member) for member in universe]
    rest = faithfulness(anatomy, capability, without, universe, kind=kind)
    assert list(sufficiency(found).values()) == pytest.approx(alone.values.tolist(), abs=1e-5)
    assert list(necessity(found).values()) == pytest.approx((1 - rest.values).tolist(), abs=1e-5)


def test_necessity_is_the_importance_that_dcv_divides_by_over_the_whole_effect() -> None:
    anatomy = locate(build("qwen3"))
    universe = anatomy.members(mlps=True)
    capability = with_an_effect(anatomy)
    found = necessity_and_sufficiency(anatomy, capability, MEMBERS, universe)
    importance = patched(anatomy, capability, each_and_all(MEMBERS), {}).drops(MEMBERS).heads
    for number, member in enumerate(MEMBERS):
        close(found.lost[number], importance[member])
        share = importance[member].mean() / found.whole.mean()
        assert necessity(found)[member] == pytest.approx(share, abs=1e-4)


def test_a_chain_is_necessary_in_every_link_and_sufficient_in_none() -> None:
    model, tokenizer = known_circuit.build(mlp=True)
    anatomy = locate(model)
    universe = anatomy.members(mlps=True)
    capability = known_circuit.capability(16, seed=1).encoded(tokenizer)
    found = necessity_and_sufficiency(anatomy, capability, universe, universe)
    for member in universe:
        inside = member in known_circuit.CIRCUIT_WITH_MLP
        assert necessity(found)[member] == pytest.approx(1.0 if inside else 0.0, abs=0.02), member
        assert sufficiency(found)[member] == pytest.approx(0.0, abs=0.05), member


def test_shares_of_no_effect_are_refused() -> None:
    anatomy = locate(build("qwen3"))
    capability = exchange_answers(with_an_effect(anatomy))
    found = necessity_and_sufficiency(anatomy, capability, MEMBERS[:1], anatomy.members(mlps=True))
    assert found.whole.mean() < 0
    for share in (necessity, sufficiency):
        with pytest.raises(MeasurementError, match="taking every member away"):
            share(found)


def test_a_member_outside_what_is_ablated_is_named() -> None:
    anatomy = locate(build("gpt2"))
    with pytest.raises(MeasurementError, match="L1MLP: not among the 12 members"):
        necessity_and_sufficiency(anatomy, random_capability(), MEMBERS[:3], anatomy.heads)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_activation_patching_equals_a_naive_loop(name: str, direction: str) -> None:
    """Noising: F(x) - F(x with r from x'). Denoising: F(x' with r from x) - F(x')."""
    anatomy = locate(build(name))
    capability = random_capability(5)
    found = activation_patching(anatomy, capability, MEMBERS, direction=direction)
    for member in MEMBERS:
        effects, seen = [], []
        for pair in capability.encoded.pairs:
            into, source = pair.clean, pair.counterfactual
            if direction == "denoising":
                into, source = source, into
            z = literal.activations(anatomy, ids(source, pair))
            before, after = (
                difference(literal.logits(anatomy, ids(into, pair), patch), pair)
                for patch in ({}, {member: z[member]})
            )
            seen.append(before)
            effects.append(before - after if direction == "noising" else after - before)
        expected = sum(effects) / len(effects)
        assert found.scores[member] == pytest.approx(expected, abs=slack(np.array(seen), 4e-5))
    sizes = [abs(score) for score in found.scores.values()]
    assert max(sizes) > 0.1
    assert sizes == sorted(sizes, reverse=True)
    assert found.settings == {"direction": direction}


def difference(logits: Tensor, pair: EncodedPair) -> float:
    last = logits[0, -1].double()
    return (last[pair.answer[0]] - last[pair.distractor[0]]).item()


def test_an_unknown_direction_is_refused() -> None:
    anatomy = locate(build("gpt2"))
    with pytest.raises(SpecificationError, match="'upward'; there are noising, denoising"):
        activation_patching(anatomy, random_capability(), MEMBERS, direction="upward")

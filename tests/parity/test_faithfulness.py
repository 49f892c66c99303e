"""Faithfulness, under each ablation, against plain hooks and one forward pass for each pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

import literal
import numpy as np
import pytest
import torch
from architectures import build
from random_pairs import Patch, close, from_counterfactual, ids, random_capability, readouts, slack
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.encoding import EncodedPair
from forgetguard.capabilities.variants import exchange_answers
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.measures.ablation import ABLATIONS, ablation
from forgetguard.measures.behaviour import Behaviour
from forgetguard.measures.faithfulness import Faithfulness, faithfulness

pytestmark = pytest.mark.usefixtures("one_thread")

ARCHITECTURES = ("qwen3", "gpt2", "opt", "falcon", "mixtral")
CIRCUITS: tuple[tuple[Member, ...], ...] = (
    (Head(0, 1), Head(2, 3)),
    (Head(1, 0), Mlp(1)),
    (Mlp(0), Mlp(2), Head(0, 0), Head(0, 2), Head(1, 3)),
)


def with_an_effect(
    anatomy: Anatomy, capability: EncodedCapability, kind: str, universe: Sequence[Member]
) -> EncodedCapability:
    """The capability with its answers such that ablating everything loses something, in the
    batches that it had."""
    found = faithfulness(anatomy, capability, [], universe, kind=kind)
    if found.whole > 0:
        return capability
    exchanged = exchange_answers(capability)
    tokens = max(batch.clean.numel() for batch in capability.batches)
    return replace(exchanged, batches=make_batches(exchanged.encoded.pairs, tokens))


def naive_ablation(
    anatomy: Anatomy, capability: EncodedCapability, kind: str, pair: EncodedPair
) -> dict[Member, Tensor]:
    """What every member is replaced with on `pair`, by the definitions."""
    own = literal.activations(anatomy, ids(pair.counterfactual, pair))
    if kind == "counterfactual":
        return own
    if kind == "zero":
        return {member: torch.zeros_like(z) for member, z in own.items()}
    seen: dict[Member, list[Tensor]] = defaultdict(list)
    for one in capability.encoded.pairs:
        if len(one.clean) + len(one.answer) == len(pair.clean) + len(pair.answer):
            for prompt in (one.clean, one.counterfactual):
                for member, z in literal.activations(anatomy, ids(prompt, one)).items():
                    seen[member].append(z.double())
    return {
        member: torch.cat(z).mean(0, keepdim=True).to(own[member].dtype)
        for member, z in seen.items()
    }


def naive(
    anatomy: Anatomy,
    capability: EncodedCapability,
    kind: str,
    circuits: Sequence[Collection[Member]],
    universe: Sequence[Member],
) -> list[np.ndarray]:
    """F of every pair with only the members of each circuit left."""
    instead = {
        pair: naive_ablation(anatomy, capability, kind, pair) for pair in capability.encoded.pairs
    }

    def around(circuit: Collection[Member]) -> Patch:
        outside = [member for member in universe if member not in circuit]
        return lambda pair: {member: instead[pair][member] for member in outside}

    return [readouts(anatomy, capability, around(circuit)) for circuit in circuits]


@pytest.mark.parametrize("kind", ABLATIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_faithfulness_equals_a_naive_loop(name: str, kind: str) -> None:
    """Several batches of one length too: a mean is over all of them."""
    anatomy = locate(build(name))
    universe = anatomy.members(mlps=True)
    capability = random_capability(7, batch_tokens=14)
    capability = with_an_effect(anatomy, capability, kind, universe)
    lengths = [batch.clean.shape[1] for batch in capability.batches]
    assert max(map(lengths.count, lengths)) >= 2

    found = faithfulness(anatomy, capability, CIRCUITS, universe, kind=kind)
    whole = readouts(anatomy, capability)
    nothing, *alone = naive(anatomy, capability, kind, [(), *CIRCUITS], universe)
    close(found.clean.readout, whole)
    close(found.nothing, nothing)
    values = []
    for number, kept in enumerate(alone):
        close(found.circuits[number], kept)
        values.append((kept.mean() - nothing.mean()) / (whole.mean() - nothing.mean()))
    assert found.ablation == kind
    error = slack(whole, 2e-4)
    assert found.whole == pytest.approx(whole.mean() - nothing.mean(), abs=error)
    assert found.values == pytest.approx(np.array(values), abs=2 * error / abs(found.whole))


def test_a_mean_is_over_the_pairs_of_all_batches_of_a_length() -> None:
    """The same numbers whether a length's pairs run in one batch or in many."""
    anatomy = locate(build("gpt2"))
    universe = anatomy.members(mlps=True)
    apart, together = (random_capability(8, batch_tokens=tokens) for tokens in (7, 4096))
    assert len(apart.batches) > len(together.batches)
    one, other = (
        faithfulness(anatomy, pairs, CIRCUITS, universe, kind="mean") for pairs in (apart, together)
    )
    close(one.circuits, other.circuits)
    close(one.nothing, other.nothing)


def test_only_heads_are_ablated_where_only_heads_are_searched() -> None:
    anatomy = locate(build("qwen3"))
    capability = random_capability()
    found = faithfulness(anatomy, capability, [(Head(1, 1),)], anatomy.heads)
    close(found.nothing, readouts(anatomy, capability, from_counterfactual(anatomy, anatomy.heads)))


@pytest.mark.parametrize("answer", [1, 3])
def test_a_log_probability_of_several_tokens_is_the_mean_over_them(answer: int) -> None:
    anatomy = locate(build("qwen3"))
    universe = anatomy.members(mlps=True)
    capability = random_capability(readout="logprob", answer=answer)
    for kind in ABLATIONS:
        found = faithfulness(anatomy, capability, CIRCUITS[:1], universe, kind=kind)
        close(found.clean.readout, readouts(anatomy, capability))
        close(found.circuits[0], naive(anatomy, capability, kind, CIRCUITS[:1], universe)[0])


@pytest.mark.parametrize("kind", ABLATIONS)
@pytest.mark.parametrize("budget", [None, 20])
def test_all_members_are_worth_exactly_one_and_none_exactly_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: str, budget: int | None
) -> None:
    """The budget cuts the runs into waves of different sizes, which round differently."""
    if budget is not None:
        monkeypatch.setattr("forgetguard.patching.wavefront.default_budget", lambda *_: budget)
    anatomy = locate(build("qwen3"))
    universe = anatomy.members(mlps=True)
    capability = with_an_effect(anatomy, random_capability(11), kind, universe)
    circuits = [universe, (), *CIRCUITS, universe[5:], (), universe[::-1]]
    found = faithfulness(anatomy, capability, circuits, universe, kind=kind)
    values = found.values
    assert (values[0], values[1], values[-2], values[-1]) == (1.0, 0.0, 0.0, 1.0)
    assert np.array_equal(found.circuits[0], found.clean.readout)


@pytest.mark.parametrize("pairs", [3, 8, 129, 9001])
def test_all_members_are_worth_exactly_one_for_any_number_of_pairs(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    clean, nothing = rng.normal(3, 1, pairs), rng.normal(0, 1, pairs)
    behaviour = Behaviour(
        clean, np.ones(pairs, dtype=bool), np.ones(pairs, dtype=bool), np.zeros(pairs, dtype=int)
    )
    found = Faithfulness("zero", behaviour, nothing, np.stack([clean, nothing, clean]))
    assert found.values.tolist() == [1.0, 0.0, 1.0]


def test_the_order_of_circuits_and_of_the_universe_does_not_matter() -> None:
    anatomy = locate(build("gpt2"))
    universe = anatomy.members(mlps=True)
    capability = random_capability()
    one = faithfulness(anatomy, capability, CIRCUITS, universe)
    other = faithfulness(anatomy, capability, CIRCUITS[::-1], universe[::-1])
    close(one.circuits, other.circuits[::-1])


def test_what_no_ablation_lowers_cannot_be_faithful() -> None:
    anatomy = locate(build("qwen3"))
    universe = anatomy.members(mlps=True)
    capability = with_an_effect(anatomy, random_capability(), "zero", universe)
    found = faithfulness(anatomy, exchange_answers(capability), CIRCUITS, universe, kind="zero")
    assert found.whole < 0
    with pytest.raises(MeasurementError, match=r"ablating every member \(zero\)"):
        _ = found.values


def test_no_effect_at_all_cannot_be_faithful_either() -> None:
    same = Behaviour(np.ones(4), np.ones(4, bool), np.ones(4, bool), np.zeros(4, int))
    with pytest.raises(MeasurementError, match="does not rest on what the ablation takes away"):
        _ = Faithfulness("mean", same, np.ones(4), np.ones((1, 4))).values


def test_a_member_outside_what_is_ablated_is_named() -> None:
    anatomy = locate(build("gpt2"))
    with pytest.raises(MeasurementError, match="L1MLP: not among the 12 members"):
        faithfulness(anatomy, random_capability(), [(Head(0, 0), Mlp(1))], anatomy.heads)


def test_an_unknown_ablation_is_refused_with_those_there_are() -> None:
    anatomy = locate(build("gpt2"))
    with pytest.raises(SpecificationError, match="'noise'; there are counterfactual, mean, zero"):
        ablation(anatomy, random_capability(), anatomy.heads, "noise")

"""The masking algorithms find the circuit that is known, and a faithful one in a trained model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import known_circuit
import pytest

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.variants import halves
from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.spec import resolve
from forgetguard.discovery.binary_masking import binary_masking
from forgetguard.discovery.desiderata_masking import Desideratum, desiderata_masking
from forgetguard.discovery.ranking import Ranking
from forgetguard.measures.ablation import ablation
from forgetguard.measures.interventions import Intervention, intervene

pytestmark = pytest.mark.usefixtures("one_thread")


# --- Ground truth ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mlps", [False, True], ids=["heads", "mlps"])
@pytest.mark.parametrize("method", [binary_masking, desiderata_masking])
def test_the_known_circuit_is_found_exactly(
    method: Callable[..., Ranking], mlps: bool, seed: int
) -> None:
    model, tokenizer = known_circuit.build(mlp=mlps)
    anatomy = locate(model)
    pairs = known_circuit.capability(32, seed=seed).encoded(tokenizer)
    circuit = known_circuit.CIRCUIT_WITH_MLP if mlps else known_circuit.CIRCUIT
    found = method(anatomy, pairs, anatomy.members(mlps=mlps), seed=seed, steps=100)
    assert found.selected == circuit
    assert set(found.order[: len(circuit)]) == set(circuit)


def test_a_price_leaves_of_a_series_only_what_turns_the_answer_alone() -> None:
    """The paper's loss at a high price, and why `suffice` is there."""
    model, tokenizer = known_circuit.build(mlp=True)
    anatomy = locate(model)
    pairs = known_circuit.capability(32, seed=0).encoded(tokenizer)
    members = anatomy.members(mlps=True)

    def selected(objective: str) -> tuple[Member, ...]:
        found = binary_masking(
            anatomy, pairs, members, steps=100, sparsity=0.1, objective=objective
        )
        assert found.selected is not None
        return found.selected

    (alone,) = selected("change")
    assert alone in known_circuit.CIRCUIT_WITH_MLP
    assert selected("suffice") == selected("both") == known_circuit.CIRCUIT_WITH_MLP


# --- A trained model ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> tuple[Anatomy, EncodedCapability, EncodedCapability]:
    """The bundled model, and IOI to learn on and to judge by."""
    spec = resolve("tiny:base", "base")
    ioi = Capability("ioi", task="ioi", count=64, seed=0).encoded(load_tokenizer(spec))
    return locate(load_model(spec)), *halves(ioi)


def faithfulness(
    anatomy: Anatomy, pairs: EncodedCapability, circuits: Sequence[Sequence[Member]]
) -> list[float]:
    """(F(C) - F(none)) / (F(all) - F(none)), the heads outside C from the counterfactual."""
    heads = anatomy.heads
    outside = [tuple(h for h in heads if h not in circuit) for circuit in [(), heads, *circuits]]
    sources = ablation(anatomy, pairs, heads)
    read = intervene(anatomy, pairs, [Intervention(members) for members in outside], sources)
    nothing, everything, *values = read.readout.mean(axis=1).tolist()
    return [(value - nothing) / (everything - nothing) for value in values]


def random_sets(anatomy: Anatomy, size: int, count: int = 8) -> list[list[Member]]:
    return [random.Random(seed).sample(anatomy.heads, size) for seed in range(count)]


def by_binary_masking(anatomy: Anatomy, pairs: EncodedCapability) -> Ranking:
    return binary_masking(anatomy, pairs, anatomy.heads, steps=150, sparsity=0.03, objective="both")


def by_desiderata_masking(anatomy: Anatomy, pairs: EncodedCapability) -> Ranking:
    desiderata = [Desideratum(pairs, "change"), Desideratum(pairs, "suffice")]
    return desiderata_masking(
        anatomy, pairs, anatomy.heads, steps=120, sparsity=0.1, desiderata=desiderata
    )


@pytest.mark.parametrize("find", [by_binary_masking, by_desiderata_masking])
def test_a_circuit_asked_to_suffice_is_faithful_on_other_prompts_and_chance_is_not(
    tiny: tuple[Anatomy, EncodedCapability, EncodedCapability],
    find: Callable[[Anatomy, EncodedCapability], Ranking],
) -> None:
    anatomy, seen, held_out = tiny
    selected = find(anatomy, seen).selected
    assert selected is not None
    assert len(selected) < len(anatomy.heads)
    ours, *others = faithfulness(
        anatomy, held_out, [selected, *random_sets(anatomy, len(selected))]
    )
    assert ours >= 0.8
    assert sum(others) / len(others) < ours / 2


def test_the_papers_loss_finds_what_the_answer_cannot_do_without(
    tiny: tuple[Anatomy, EncodedCapability, EncodedCapability],
) -> None:
    """Few heads, on which the answer turns; not, by themselves, a faithful circuit."""
    anatomy, seen, held_out = tiny
    selected = binary_masking(anatomy, seen, anatomy.heads, steps=120).selected
    assert selected is not None
    assert len(selected) <= 5
    ablated = [
        [head for head in anatomy.heads if head not in circuit]
        for circuit in (selected, *random_sets(anatomy, len(selected)))
    ]
    ours, *others = (1 - left for left in faithfulness(anatomy, held_out, ablated))
    assert ours >= 0.8
    assert sum(others) / len(others) < ours / 2
    assert faithfulness(anatomy, held_out, [selected])[0] < 0.5

"""The hand-made model has the circuit that it claims, and no other: by literal patching."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import known_circuit
import literal
import pytest
import torch
from known_circuit import CIRCUIT, CIRCUIT_WITH_MLP, DECOYS
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.batches import Batch
from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.spec import resolve

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = 96


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """The model, its true circuit, and its batches with what every member does on both prompts."""

    anatomy: Anatomy
    circuit: tuple[Member, ...]
    batches: tuple[tuple[Batch, dict[Member, Tensor], dict[Member, Tensor]], ...]

    @property
    def others(self) -> tuple[Member, ...]:
        return tuple(m for m in self.anatomy.members(mlps=True) if m not in self.circuit)

    def readout(self, patched: Iterable[Member] = ()) -> float:
        """Mean logit difference with the members `patched` from the counterfactual."""
        return float(self.readouts(patched).mean())

    def readouts(self, patched: Iterable[Member] = ()) -> Tensor:
        """The same of each pair, [pair]."""
        chosen = list(patched)
        values = []
        for batch, _, counterfactual in self.batches:
            replaced = {member: counterfactual[member] for member in chosen}
            values.append(difference(literal.logits(self.anatomy, batch.clean, replaced), batch))
        return torch.cat(values)

    def loss(self, patched: Iterable[Member]) -> float:
        """What patching loses, as a share of what patching all members loses."""
        clean = self.readout()
        nothing = self.readout(self.anatomy.members(mlps=True))
        return (clean - self.readout(patched)) / (clean - nothing)

    def faithfulness(self, circuit: Iterable[Member]) -> float:
        kept = set(circuit)
        return 1 - self.loss(m for m in self.anatomy.members(mlps=True) if m not in kept)

    def moved(self, member: Member) -> float:
        """How far the counterfactual moves what `member` adds to the residual stream: the mean
        over prompts of the norm over positions."""
        norms = []
        for _, clean, counterfactual in self.batches:
            change = counterfactual[member] - clean[member]
            if isinstance(member, Head):
                site = self.anatomy.site(member.layer)
                change = change @ literal.weight(site.output_projection)[site.slice(member)]
            norms.append(change.flatten(1).norm(dim=1))
        return float(torch.cat(norms).mean())


def difference(logits: Tensor, batch: Batch) -> Tensor:
    assert batch.distractor is not None
    last = logits[:, -1]
    return (last.gather(1, batch.answer) - last.gather(1, batch.distractor))[:, 0]


@pytest.fixture(scope="module", params=["heads", "mlp"])
def known(request: pytest.FixtureRequest) -> Known:
    with_mlp = request.param == "mlp"
    model, tokenizer = known_circuit.build(mlp=with_mlp)
    anatomy = locate(model)
    encoded = known_circuit.capability(PAIRS, seed=0).encoded(tokenizer)
    assert encoded.n_pairs == PAIRS
    return Known(
        anatomy,
        CIRCUIT_WITH_MLP if with_mlp else CIRCUIT,
        tuple(
            (
                batch,
                literal.activations(anatomy, batch.clean),
                literal.activations(anatomy, batch.counterfactual),
            )
            for batch in encoded.batches
        ),
    )


def test_it_answers_from_its_whole_vocabulary_and_by_a_clear_margin(known: Known) -> None:
    right, margins = 0, []
    for batch, _, _ in known.batches:
        logits = literal.logits(known.anatomy, batch.clean, {})
        right += int((logits[:, -1].argmax(-1) == batch.answer[:, 0]).sum())
        margins.append(difference(logits, batch))
    assert right / PAIRS >= 0.99
    assert torch.cat(margins).min() > 4


def test_the_counterfactual_prompt_is_answered_with_the_distractor(known: Known) -> None:
    for batch, _, _ in known.batches:
        logits = literal.logits(known.anatomy, batch.counterfactual, {})
        assert batch.distractor is not None
        assert torch.equal(logits[:, -1].argmax(-1), batch.distractor[:, 0])
        assert torch.equal(batch.clean.sort().values, batch.counterfactual.sort().values)


def test_each_member_of_the_circuit_alone_carries_the_answer(known: Known) -> None:
    for member in known.circuit:
        assert known.loss([member]) > 0.98, member
        assert known.readout([member]) < -4, member  # the answer is turned into the distractor


def test_no_other_member_matters_alone_or_together(known: Known) -> None:
    clean = known.readouts()
    total = known.readout() - known.readout(known.anatomy.members(mlps=True))
    for member in known.others:  # in no single pair, so that nothing cancels in the mean
        assert (clean - known.readouts([member])).abs().max() < 0.005 * total, member
    assert (clean - known.readouts(known.others)).abs().max() < 0.01 * total


def test_activity_does_not_tell_the_circuit_from_the_rest(known: Known) -> None:
    smallest = min(known.moved(member) for member in known.circuit)
    for member in known.others:
        assert known.moved(member) > 0.9 * smallest, member
    most_active = sorted(known.others, key=known.moved)[-1]
    assert known.moved(most_active) > max(known.moved(member) for member in known.circuit)


def test_the_decoys_attend_like_the_circuit_and_do_nothing(known: Known) -> None:
    for decoy, real in zip(DECOYS, CIRCUIT, strict=True):
        for _, clean, _ in known.batches:
            torch.testing.assert_close(clean[decoy], clean[real], atol=0.05, rtol=0)
        assert abs(known.loss([decoy])) < 0.002


def test_the_circuit_alone_is_faithful_and_other_circuits_are_not(known: Known) -> None:
    assert known.faithfulness(known.circuit) == pytest.approx(1, abs=0.005)
    assert known.faithfulness(known.anatomy.members(mlps=True)) == pytest.approx(1, abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        picked = torch.randperm(len(known.others), generator=generator)[: len(known.circuit)]
        assert abs(known.faithfulness(known.others[int(i)] for i in picked)) < 0.005
    for member in known.circuit:  # a part of the circuit is worth nothing without the rest
        assert abs(known.faithfulness({*known.circuit} - {member})) < 0.005


def test_zero_ablation_too_needs_the_circuit_only(known: Known) -> None:
    def zeroed(members: Iterable[Member]) -> float:
        chosen = list(members)
        return (
            sum(
                float(difference(literal.logits(known.anatomy, batch.clean, zeros), batch).sum())
                for batch, clean, _ in known.batches
                for zeros in [{member: torch.zeros_like(clean[member]) for member in chosen}]
            )
            / PAIRS
        )

    clean = known.readout()
    assert zeroed(known.others) == pytest.approx(clean, rel=0.02)
    for member in known.circuit:
        assert abs(zeroed([member])) < 0.02 * clean, member


def test_attention_is_sharp_but_not_saturated(known: Known) -> None:
    model = known.anatomy.model
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        for batch, _, _ in known.batches:
            attention = model(input_ids=batch.clean, output_attentions=True).attentions
            to_previous = attention[0][:, CIRCUIT[0].index].diagonal(-1, dim1=1, dim2=2)
            asked = (batch.clean[:, :-1] == batch.clean[:, -1:]).int().argmax(dim=1)
            from_last = attention[2][:, CIRCUIT[1].index, -1]
            to_answer = from_last.gather(1, asked[:, None] + 1)
            for weight in (to_previous[:, 1:], to_answer):
                assert weight.min() > 0.9
                assert weight.max() < 0.999
    finally:
        model.set_attn_implementation("sdpa")  # type: ignore[operator]


def test_gradients_rank_the_circuit_first_and_have_the_right_sign(known: Known) -> None:
    found = attributions(known)
    lost = {member: -found[member] for member in known.circuit}
    total = known.readout() - known.readout(known.anatomy.members(mlps=True))
    for member, loss in lost.items():
        assert loss > 0.1 * total, member  # not saturated: one step sees a tenth of the whole
    highest_other = max(abs(found[member]) for member in known.others)
    assert min(lost.values()) > 20 * highest_other


def attributions(known: Known) -> dict[Member, float]:
    """Gradient of the logit difference at the clean run times the change to the counterfactual,
    the mean over pairs, by plain hooks."""
    sums = dict.fromkeys(known.anatomy.members(mlps=True), 0.0)
    for batch, clean, counterfactual in known.batches:
        gradients = clean_gradients(known.anatomy, batch)
        for member in sums:
            change = counterfactual[member] - clean[member]
            sums[member] += float((gradients[member] * change).sum())
    return {member: value / PAIRS for member, value in sums.items()}


def clean_gradients(anatomy: Anatomy, batch: Batch) -> dict[Member, Tensor]:
    seen: dict[int | Mlp, Tensor] = {}
    handles = []
    for layer in range(anatomy.n_layers):

        def keep_input(_: object, args: tuple[Tensor, ...], layer: int = layer) -> None:
            seen[layer] = args[0]

        def keep_output(_: object, args: object, output: Tensor, layer: int = layer) -> None:
            seen[Mlp(layer)] = output

        projection = anatomy.site(layer).output_projection
        handles.append(projection.register_forward_pre_hook(keep_input))
        handles.append(anatomy.mlp(layer).register_forward_hook(keep_output))
    embedded = anatomy.model.get_input_embeddings()(batch.clean)  # type: ignore[operator]
    logits = anatomy.model(inputs_embeds=embedded.detach().requires_grad_()).logits
    for handle in handles:
        handle.remove()
    places = list(seen)
    found = torch.autograd.grad(difference(logits, batch).sum(), [seen[key] for key in places])
    by_place = dict(zip(places, found, strict=True))
    return {
        member: by_place[member]
        if isinstance(member, Mlp)
        else by_place[member.layer][..., anatomy.site(member.layer).slice(member)]
        for member in anatomy.members(mlps=True)
    }


def test_two_builds_are_one_model_and_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, _ = known_circuit.build(mlp=True)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    second, _ = known_circuit.build(mlp=True)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_the_variants_differ_in_what_is_needed() -> None:
    assert set(CIRCUIT_WITH_MLP) == {*CIRCUIT, Mlp(1)}
    ids = torch.tensor([[2, 3, 4, 5, 3]])
    heads, _ = known_circuit.build()
    with_mlp, _ = known_circuit.build(mlp=True)
    assert not torch.allclose(heads(ids).logits, with_mlp(ids).logits)


@pytest.mark.parametrize("with_mlp", [False, True])
def test_it_is_an_ordinary_checkpoint(tmp_path: Path, with_mlp: bool) -> None:
    model, tokenizer = known_circuit.build(mlp=with_mlp)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = resolve(str(tmp_path), "base")
    loaded, its_tokenizer = load_model(spec), load_tokenizer(spec)
    capability = known_circuit.capability(16, seed=1)
    mine, theirs = capability.encoded(tokenizer), capability.encoded(its_tokenizer)
    assert mine.encoded == theirs.encoded
    for batch in mine.batches:
        device = next(loaded.parameters()).device
        reloaded = loaded(batch.clean.to(device)).logits.cpu()
        torch.testing.assert_close(reloaded, model(batch.clean).logits, atol=1e-4, rtol=0)


def test_pairs_are_reproducible_and_all_different() -> None:
    pairs = known_circuit.capability(64, seed=3).pairs
    assert pairs == known_circuit.capability(64, seed=3).pairs
    assert len({pair.clean for pair in pairs}) == 64
    assert pairs != known_circuit.capability(64, seed=4).pairs

"""The masking algorithms' loss, minibatches, optimiser, resumption and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import known_circuit
import literal
import numpy as np
import pytest
import torch
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.variants import exchange_answers
from forgetguard.discovery import binary_masking as binary_module
from forgetguard.discovery import mask_training
from forgetguard.discovery.binary_masking import _annealed, binary_masking, negative_logprob
from forgetguard.discovery.desiderata_masking import (
    Desideratum,
    desiderata_masking,
    negative_logit,
)
from forgetguard.discovery.mask_training import (
    Aim,
    _minibatches,
    mean_losses,
    prepare,
)
from forgetguard.discovery.ranking import Ranking
from forgetguard.errors import CapabilityError, SpecificationError

Method = Callable[..., Ranking]
METHODS: list[Method] = [binary_masking, desiderata_masking]


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return locate(known_circuit.build()[0])


@pytest.fixture(scope="module")
def capability() -> EncodedCapability:
    return known_circuit.capability(20, seed=0).encoded(known_circuit.tokenizer())


def two_tokens() -> EncodedCapability:
    """Answers and distractors of two tokens each."""
    pairs = []
    for pair in known_circuit.capability(12, seed=1).pairs:
        pairs.append(
            replace(
                pair,
                answer=f"{pair.answer} {known_circuit.WORDS[0]}",
                distractor=f"{pair.distractor} {known_circuit.WORDS[1]}",
            )
        )
    return Capability("two", "logprob", pairs=tuple(pairs)).encoded(known_circuit.tokenizer())


class Store:
    """A `Saved` in memory; interrupts the run after its `stop`-th saving."""

    def __init__(self, stop: int | None = None) -> None:
        self.values: dict[str, np.ndarray] = {}
        self.stop = stop
        self.savings = 0

    def load(self, key: str) -> np.ndarray | None:
        return self.values.get(key)

    def save(self, key: str, values: np.ndarray) -> None:
        assert values.dtype == np.float64
        self.values[key] = values.copy()
        self.savings += 1
        if self.savings == self.stop:
            raise KeyboardInterrupt


# --- The loss -------------------------------------------------------------------------------------

CHOSEN: dict[Member, float] = {Head(0, 2): 0.3, Mlp(1): 0.8, Head(2, 1): 0.6}


def literal_logits(
    anatomy: Anatomy, ids: Tensor, other: Tensor, strength: dict[Member, float], places: slice
) -> Tensor:
    """One prompt, member by member: each is read in a run in which those before are mixed."""
    source = literal.activations(anatomy, other)
    done: dict[Member, Tensor] = {}
    for member in sorted(strength):
        seen: list[Tensor] = []
        if isinstance(member, Mlp):
            handle = anatomy.mlp(member.layer).register_forward_hook(
                lambda _, args, output, seen=seen: seen.append(output.clone())
            )
        else:
            site = anatomy.site(member.layer)
            part = site.slice(member)
            handle = site.output_projection.register_forward_pre_hook(
                lambda _, args, seen=seen, part=part: seen.append(args[0][..., part].clone())
            )
        literal.logits(anatomy, ids, done)
        handle.remove()
        change = source[member] - seen[0]
        seen[0][:, places] += strength[member] * change[:, places]
        done[member] = seen[0]
    return literal.logits(anatomy, ids, done)[0]


def literal_loss(anatomy: Anatomy, pairs: EncodedCapability, kind: str, positions: str) -> float:
    """-log P_geo or minus the mean logit of the target, pair by pair, without batches or engine."""
    values = []
    for pair in pairs.encoded.pairs:
        target = pair.answer if kind == "suffice" else pair.distractor
        ids = torch.tensor([pair.clean + target[:-1]])
        other = torch.tensor([pair.counterfactual + target[:-1]])
        last = len(pair.clean) - 1
        places = slice(0, None) if positions == "all" else slice(last, last + 1)
        strength = {m: 1 - s if kind == "suffice" else s for m, s in CHOSEN.items()}
        logits = literal_logits(anatomy, ids, other, strength, places)
        if kind == "logit":
            tokens = [logits[last + i, token] for i, token in enumerate(target)]
        else:
            tokens = [logits[last + i].log_softmax(-1)[token] for i, token in enumerate(target)]
        values.append(-sum(float(token) for token in tokens) / len(target))
    return sum(values) / len(values)


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("kind", ["change", "suffice", "logit"])
@pytest.mark.parametrize("answers", ["one token", "two tokens"])
def test_the_loss_at_a_mask_is_the_literal_one(
    anatomy: Anatomy, capability: EncodedCapability, kind: str, positions: str, answers: str
) -> None:
    pairs = two_tokens() if answers == "two tokens" else capability
    aim = {
        "change": lambda: Aim(exchange_answers(pairs), negative_logprob),
        "suffice": lambda: Aim(pairs, negative_logprob, complement=True),
        "logit": lambda: Aim(exchange_answers(pairs), negative_logit),
    }[kind]()
    members = tuple(CHOSEN)
    pools = prepare(anatomy, members, [aim], positions)
    mask = torch.tensor(list(CHOSEN.values()), dtype=torch.float64)
    (loss,) = mean_losses(anatomy, members, pools, mask, batch=5)
    assert loss == pytest.approx(literal_loss(anatomy, pairs, kind, positions), abs=1e-5)


def test_what_is_reported_is_the_minimised_loss_and_the_selected_sets(
    anatomy: Anatomy, capability: EncodedCapability
) -> None:
    found = binary_masking(anatomy, capability, anatomy.heads, steps=3, sparsity=0.2)
    members = found.order
    pools = prepare(anatomy, members, [Aim(exchange_answers(capability), negative_logprob)], "all")
    mask = torch.tensor([found.scores[m] for m in members], dtype=torch.float64)
    (at_mask,) = mean_losses(anatomy, members, pools, mask, 8)
    (of_set,) = mean_losses(anatomy, members, pools, (mask > 0.5).double(), 8)
    assert found.findings["loss"] == pytest.approx(at_mask + 0.2 * mask.sum().item(), rel=1e-6)
    assert found.findings["change"] == pytest.approx(of_set, rel=1e-6)
    assert found.selected == tuple(sorted(m for m in members if found.scores[m] > 0.5))
    assert found.findings["size"] == len(found.selected)


# --- Minibatches and steps ------------------------------------------------------------------------


def test_every_round_draws_each_pair_once_and_counts_it_alike(
    anatomy: Anatomy, capability: EncodedCapability
) -> None:
    (pool,) = prepare(anatomy, anatomy.heads[:1], [Aim(capability, negative_logit)], "last")
    assert len(pool.buckets) == len(known_circuit.LENGTHS)
    n_parts = sum(-(-len(bucket.ids) // 4) for bucket in pool.buckets)
    rounds = []
    drawn = _minibatches(pool, 4, "seed")
    for _ in range(2):
        parts = list(islice(drawn, n_parts))
        rows = [(pool.buckets.index(part.bucket), int(i)) for part in parts for i in part.rows]
        assert sorted(rows) == [
            (number, i)
            for number, bucket in enumerate(pool.buckets)
            for i in range(len(bucket.ids))
        ]
        assert all(1 <= len(part.rows) <= 4 for part in parts)
        shares = [part.weight / len(part.rows) for part in parts]
        assert shares == pytest.approx([n_parts / capability.n_pairs] * n_parts)
        rounds.append(rows)
    assert rounds[0] != rounds[1]


def test_temperature_falls_geometrically_or_linearly() -> None:
    logits = torch.tensor([2.0], dtype=torch.float64)
    geometric, linear = _annealed((10.0, 0.1), 11), _annealed((10.0, 0.1), 11, linear=True)
    for step, (one, other) in {0: (10, 10), 5: (1, 5.05), 10: (0.1, 0.1)}.items():
        assert geometric(logits, step).item() == pytest.approx(1 / (1 + np.exp(-2 / one)))
        assert linear(logits, step).item() == pytest.approx(1 / (1 + np.exp(-2 / other)))


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    anatomy: Anatomy,
    capability: EncodedCapability,
    monkeypatch: pytest.MonkeyPatch,
    method: Method,
) -> None:
    monkeypatch.setattr(mask_training, "SAVE_EVERY", 5)
    settings = {"steps": 12, "batch": 4, "seed": 3}
    members = (Head(0, 2), Head(2, 1), Head(1, 0))
    whole = method(anatomy, capability, members, **settings)
    store, seen = Store(stop=2), []
    with pytest.raises(KeyboardInterrupt):
        method(anatomy, capability, members, saved=store, **settings)
    resumed = method(
        anatomy,
        capability,
        members,
        saved=store,
        progress=lambda what, done, total: seen.append((done, total)),
        **settings,
    )
    assert seen == [(11, 12), (12, 12)]
    assert resumed == whole
    assert list(resumed.scores.items()) == list(whole.scores.items())
    other = method(anatomy, capability, members, saved=store, **{**settings, "seed": 4})
    assert other == method(anatomy, capability, members, **{**settings, "seed": 4})
    assert other.scores != whole.scores


@pytest.mark.parametrize("method", METHODS)
def test_torchs_own_generator_is_neither_read_nor_moved(
    anatomy: Anatomy, capability: EncodedCapability, method: Method
) -> None:
    members = (Head(0, 2), Head(1, 0))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = method(anatomy, capability, members, steps=5)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert method(anatomy, capability, members, steps=5) == first


def test_a_models_parameters_are_left_alone(capability: EncodedCapability) -> None:
    model, _ = known_circuit.build()
    model.requires_grad_(True).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    binary_masking(locate(model), capability, (Head(0, 2),), steps=3)
    for name, value in model.named_parameters():
        assert value.grad is None
        assert value.requires_grad
        assert torch.equal(value, before[name])
    assert model.training


# --- Annealing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "recovers"), [(binary_module.BOUND, True), (1e9, False)])
def test_a_mask_that_has_gone_far_early_can_come_back(
    anatomy: Anatomy,
    capability: EncodedCapability,
    monkeypatch: pytest.MonkeyPatch,
    bound: float,
    recovers: bool,
) -> None:
    """Without the bound a sigmoid that starts far out passes on no gradient, and stays."""
    monkeypatch.setattr(binary_module, "BOUND", bound)
    monkeypatch.setattr(
        binary_module, "start", lambda n, *_: torch.full((n,), 20.0, dtype=torch.float64)
    )
    members = (Head(0, 2), Head(1, 2), Head(2, 1), Head(3, 0))
    found = binary_masking(anatomy, capability, members, steps=100)
    useless = {Head(1, 2), Head(3, 0)}
    assert (not useless & set(found.selected or ())) == recovers


def test_a_mask_that_did_not_become_binary_says_so(
    anatomy: Anatomy, capability: EncodedCapability
) -> None:
    members = anatomy.heads
    found = binary_masking(anatomy, capability, members, steps=5, temperature=(1.0, 1.0))
    assert found.findings["unsettled"] == len(members)
    found = desiderata_masking(anatomy, capability, members, steps=5)
    assert found.findings["unsettled"] == len(members)


def test_members_that_end_at_one_bound_are_ordered_by_how_soon_they_got_there(
    anatomy: Anatomy, capability: EncodedCapability
) -> None:
    """At such a price all useless members end at the bottom; the circuit comes first."""
    found = binary_masking(anatomy, capability, anatomy.heads, steps=100)
    assert set(found.order[:2]) == set(known_circuit.CIRCUIT)
    assert list(found.order[2:]) != sorted(found.order[2:])
    assert list(found.scores.values()) == sorted(found.scores.values(), reverse=True)


# --- Desiderata -----------------------------------------------------------------------------------


def test_a_desideratum_to_keep_unmasks_what_carries_it(
    anatomy: Anatomy, capability: EncodedCapability
) -> None:
    members = (*known_circuit.CIRCUIT, Head(1, 2))
    kept = desiderata_masking(
        anatomy,
        capability,
        members,
        steps=60,
        learning_rate=0.05,
        desiderata=[Desideratum(capability, "keep")],
    )
    assert kept.selected == ()
    assert kept.settings["desiderata"] == ["keep known_circuit"]
    changed = desiderata_masking(anatomy, capability, members, steps=60, learning_rate=0.05)
    assert changed.selected == known_circuit.CIRCUIT


# --- What cannot be run ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positions": "first"}, "'first'.* all, last"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"sparsity": -0.1}, "sparsity is -0.1"),
    ],
)
def test_settings_that_cannot_be_run_are_named(
    anatomy: Anatomy,
    capability: EncodedCapability,
    method: Method,
    settings: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(SpecificationError, match=message):
        method(anatomy, capability, anatomy.heads, **settings)


@pytest.mark.parametrize("method", METHODS)
def test_no_members_is_an_error(
    anatomy: Anatomy, capability: EncodedCapability, method: Method
) -> None:
    with pytest.raises(SpecificationError, match="no members"):
        method(anatomy, capability, ())


def test_temperature_and_objective_and_wants_are_checked(
    anatomy: Anatomy, capability: EncodedCapability
) -> None:
    with pytest.raises(SpecificationError, match="temperature is"):
        binary_masking(anatomy, capability, anatomy.heads, temperature=(0.05, 1.0))
    with pytest.raises(SpecificationError, match="'keep'"):
        binary_masking(anatomy, capability, anatomy.heads, objective="keep")
    with pytest.raises(SpecificationError, match="wants 'forget'"):
        desiderata_masking(
            anatomy, capability, anatomy.heads, desiderata=[Desideratum(capability, "forget")]
        )


@pytest.mark.parametrize("method", METHODS)
def test_pairs_without_the_counterfactuals_answer_are_an_error(
    anatomy: Anatomy, method: Method
) -> None:
    pairs = tuple(
        PromptPair(pair.clean, pair.counterfactual, pair.answer)
        for pair in known_circuit.capability(8, seed=0).pairs
    )
    encoded = Capability("none", "logprob", pairs=pairs).encoded(known_circuit.tokenizer())
    with pytest.raises(CapabilityError, match="no distractor"):
        method(anatomy, encoded, anatomy.heads)


def test_a_step_is_one_forward_and_one_backward_pass_and_sources_are_run_once(
    anatomy: Anatomy, capability: EncodedCapability
) -> None:
    """Of the whole model: forward passes of the counterfactuals first, then one a step."""
    passes = {"sources": 0, "forward": 0, "backward": 0}

    def forward(_: torch.nn.Module, args: object, output: Tensor) -> None:
        if not output.requires_grad:
            passes["sources"] += 1
            return
        passes["forward"] += 1
        output.register_hook(lambda gradient: passes.update(backward=passes["backward"] + 1))

    aims = [Aim(exchange_answers(capability), negative_logprob)]
    handle = anatomy.unembedding.register_forward_hook(forward)
    try:
        pools = prepare(anatomy, anatomy.heads, aims, "all")
        assert passes == {"sources": len(capability.batches), "forward": 0, "backward": 0}
        mask_training.learn(
            anatomy,
            anatomy.heads,
            pools,
            mask_training.Masks(
                torch.zeros(len(anatomy.heads), dtype=torch.float64),
                lambda logits, _: torch.sigmoid(logits),
                lambda logits, _: logits,
                torch.sigmoid,
            ),
            mask_training.Schedule(7, 8, 0.1, 0.01, "all", 0),
            key="",
        )
    finally:
        handle.remove()
    assert passes == {"sources": len(capability.batches), "forward": 7, "backward": 7}

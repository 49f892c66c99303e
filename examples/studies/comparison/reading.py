"""Reads one model for a comparison: behaviour, masks, circuits left alone, heads taken away.

What comes out are arrays, so that the model can leave memory before the next one is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from examples.studies.comparison.mask_shift import Mask
from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import exchange_answers, exchange_prompts
from forgetguard.discovery.on_checkpoint import check
from forgetguard.discovery.ranking import Method, Progress
from forgetguard.errors import BaseCannotError
from forgetguard.measures.ability import check_able
from forgetguard.measures.ablation import ablation
from forgetguard.measures.behaviour import Behaviour, behaviour
from forgetguard.measures.faithfulness import Faithfulness, faithfulness
from forgetguard.measures.interventions import FloatArray, Intervention, Saved, intervene
from forgetguard.measures.necessity import Roles, necessity_and_sufficiency
from forgetguard.patching.hooks import hooked

ABLATION = "counterfactual"
Circuit = frozenset[Member]
# Where finished work on these pairs, with these settings, is kept.
Stores = Callable[[EncodedCapability, Mapping[str, Any]], Saved | None]


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """The pairs by use: masks are learned on `learned_on`, circuits and heads read on
    `held_out`."""

    all: EncodedCapability
    learned_on: EncodedCapability
    held_out: EncodedCapability


@dataclass(frozen=True, slots=True, eq=False)
class Masking:
    """How masks are learned: once a seed, with the settings that `method` has been given."""

    method: Method
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One model, with nothing of it left but numbers.

    Attributes:
        behaviour, probability: readout, correctness and geometric-mean probability of the answer,
            on all pairs, [pair].
        masks: one a seed, learned on the learning half; empty where the model is not able.
        other_masks: likewise on the held-out half (base only), for the split-half ceiling.
        unable: why the model has no circuit, if so.
        alone: in the model's readout, and alone_logprob: in log-probability, with only the members
            of each of `circuits` left, on the held-out pairs.
        switched: log-probability of the counterfactual's answer with each of `circuits` replaced
            by the counterfactual's, [circuit, pair]; switched_whole: the model's own on the
            counterfactual prompt, [pair].
        roles: every head taken away, and alone.
    """

    role: str
    checkpoint: str
    behaviour: Behaviour
    probability: FloatArray
    masks: tuple[Mask, ...]
    other_masks: tuple[Mask, ...]
    unable: str | None
    circuits: tuple[Circuit, ...]
    alone: Faithfulness
    alone_logprob: Faithfulness
    switched: FloatArray
    switched_whole: FloatArray
    roles: Roles


def circuit_of(mask: Mask) -> Circuit:
    """The members that a mask replaces: m > 0.5."""
    return frozenset(member for member, value in mask.items() if value > 0.5)


def in_logprob(capability: EncodedCapability) -> EncodedCapability:
    """The same pairs, read in log-probability, whose exponential is the paper's readout."""
    return replace(capability, capability=replace(capability.capability, readout="logprob"))


@contextmanager
def cut_vocabulary(anatomy: Anatomy, size: int | None) -> Iterator[None]:
    """While inside, the model has logits for its first `size` token ids only, so that rows which
    fine-tuning added change nothing, in learning masks either. None: all of them."""

    def cut(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return output[..., :size]

    with hooked(before=[], after=[] if size is None else [(anatomy.unembedding, cut)]):
        yield


def read_model(
    anatomy: Anatomy,
    role: str,
    checkpoint: str,
    prompts: Prompts,
    masking: Masking,
    base_circuits: Sequence[Circuit],
    stores: Stores,
    progress: Progress | None = None,
) -> Reading:
    """Read everything that the comparison needs of one model.

    Args:
        base_circuits: the base's, to be read in this model; none in the base itself.

    Raises:
        BaseCannotError: the base cannot do the capability. Of another model that is a finding.
        ForgetguardError: the model cannot be measured.
    """
    members = anatomy.heads
    check(anatomy, prompts.all, members)
    done = behaviour(anatomy, prompts.all)
    unable = _unable(anatomy, prompts.all, done, role)

    def learn(pairs: EncodedCapability, what: str) -> tuple[Mask, ...]:
        if unable is not None:
            return ()
        return tuple(
            _mask(anatomy, pairs, members, masking, seed, stores, _under(progress, role, what))
            for seed in masking.seeds
        )

    masks = learn(prompts.learned_on, "")
    other_masks = learn(prompts.held_out, "other half") if role == "base" else ()
    circuits = tuple(dict.fromkeys([*map(circuit_of, masks), *base_circuits]))
    held_out, under = prompts.held_out, _under(progress, role, "")
    alone, alone_logprob = (
        faithfulness(
            anatomy,
            view,
            circuits,
            members,
            kind=ABLATION,
            saved=stores(view, _READ),
            progress=_counted(under, "circuits alone"),
        )
        for view in (held_out, in_logprob(held_out))
    )
    switched, switched_whole = _switched(anatomy, in_logprob(held_out), circuits, stores)
    roles = necessity_and_sufficiency(
        anatomy,
        held_out,
        members,
        members,
        kind=ABLATION,
        saved=stores(held_out, _READ),
        progress=_counted(under, "heads taken away"),
    )
    logprob = behaviour(anatomy, in_logprob(prompts.all)).readout
    return Reading(
        role,
        checkpoint,
        done,
        np.exp(logprob),
        masks,
        other_masks,
        unable,
        circuits,
        alone,
        alone_logprob,
        switched,
        switched_whole,
        roles,
    )


_READ: Mapping[str, Any] = {"comparison": "read"}


def _unable(anatomy: Anatomy, pairs: EncodedCapability, done: Behaviour, role: str) -> str | None:
    try:
        check_able(anatomy, pairs)
    except BaseCannotError:
        if role == "base":
            raise
        return (
            f"{role} cannot do {pairs.capability.name!r} any more: it is right on "
            f"{done.correct.mean():.0%} of {pairs.n_pairs} pairs (mean "
            f"{pairs.capability.readout} {done.readout.mean():.3g}), so it has no circuit"
        )
    return None


def _mask(
    anatomy: Anatomy,
    pairs: EncodedCapability,
    members: Sequence[Member],
    masking: Masking,
    seed: int,
    stores: Stores,
    progress: Progress | None,
) -> Mask:
    """One run's mask: kept ones are taken up, finished or not."""
    # The readout plays no part in learning: one name for both, so that masks are shared.
    view = in_logprob(pairs)
    saved = stores(view, {"comparison": "mask", "seed": seed, **masking.settings})
    values = None if saved is None else saved.load("mask")
    if values is None:
        under = _under(progress, f"seed {seed}", "")
        found = masking.method(anatomy, view, members, seed=seed, progress=under, saved=saved)
        values = np.array([found.scores[member] for member in members], dtype=np.float64)
        if saved is not None:
            saved.save("mask", values)
    return dict(zip(members, values.tolist(), strict=True))


def _switched(
    anatomy: Anatomy, pairs: EncodedCapability, circuits: Sequence[Circuit], stores: Stores
) -> tuple[FloatArray, FloatArray]:
    other = exchange_answers(pairs)
    chosen = [Intervention(tuple(sorted(circuit)), ABLATION) for circuit in circuits]
    members = sorted(frozenset().union(*circuits))
    found = intervene(
        anatomy,
        other,
        chosen,
        ablation(anatomy, other, members, ABLATION),
        saved=stores(other, _READ),
    )
    return found.readout, behaviour(anatomy, exchange_prompts(other)).readout


def _under(progress: Progress | None, *names: str) -> Progress | None:
    """Progress whose reports begin with `names`."""
    if progress is None:
        return None
    report, start = progress, ": ".join(name for name in names if name)
    return lambda what, done, total: report(f"{start}: {what}" if start else what, done, total)


def _counted(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda done, total: report(what, done, total)

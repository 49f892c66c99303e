"""Attribution patching: every member's effect to first order, then the top of the ranking exactly,
as far down as it holds effects, and a random sample of the rest, so that what the approximation
misses is measured.

    AtP_h = - mean_i sum_{pos, dim} dF/da_h (x_i) . ( a_h(x'_i) - a_h(x_i) )

which approximates the noising importance I_h = mean_i[ F(x_i) - F(x_i with a_h from x'_i) ] (Nanda,
"Attribution patching", 2023; Kramar et al., AtP*, arXiv 2403.00745). a_h is z of a head, so its own
softmax is crossed exactly, or an MLP's output. Cost: one forward and one backward pass of the clean
prompts, one forward pass of the counterfactual ones, whatever the number of members. The check
costs what exact patching of as many members does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import betaincinv  # scipy.stats takes a second to import
from torch import Tensor
from transformers.cache_utils import Cache

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.batches import Batch
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import READOUTS, score
from forgetguard.discovery.ranking import Progress, Ranking, by_size, from_halves, of_stage
from forgetguard.errors import SpecificationError
from forgetguard.measures.ablation import ablation
from forgetguard.measures.interventions import FloatArray, Intervention, Passes, Saved, intervene
from forgetguard.measures.saved import digest
from forgetguard.patching.attention_inputs import (
    INPUTS,
    AttentionCall,
    check_watched,
    exchanged,
    linearised,
    watched_attention,
    without_graph,
)
from forgetguard.patching.forward import check_finite, forward, frozen
from forgetguard.patching.gradients import (
    Activations,
    Read,
    activations,
    attributed,
    differentiable,
    gradient_of,
    gradients,
    in_chunks,
    rows_at_once,
    tapped,
)
from forgetguard.patching.prefix import begun

NODES = ("output", "qkv")
FEWEST_VERIFIED = 8
# Members verified at once: each step reads the clean and the counterfactual prompts again.
_STEP = 16
# Verification goes down the ranking until a step holds no effect of this share of the whole.
SETTLED_SHARE = 0.025
# An unverified member counts as missed from this share on of the whole effect F(all) - F(none), or
# of the largest single effect where members work against each other and that is larger.
MISSED_SHARE = 0.1


def attribution_patching(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
    nodes: str = "output",
    qk_fix: bool = True,
    verify: float = 0.25,
    audit: int = 16,
) -> Ranking:
    """Score `members` by attribution patching, in nats, and check the scores by exact patching.

    Verified members come first, by their exact effect, and with them audited members that turn out
    to be missed. The others follow by what is known of them: the exact effect of audited members,
    the approximation of the rest.

    Args:
        seed: draws the audited members.
        nodes: `output`: one attribution a head, at its z. `qkv`: one each for its query, key and
            value, all positions together, whose sum is the head's score; a head that shares its key
            and value with others counts as if it had its own copy.
        qk_fix: with `qkv`, compute the attention weights anew for a query or key of the
            counterfactual prompt (AtP*), instead of linearising the softmax. Nothing else of AtP*
            is done: no GradDrop.
        verify: the most that is patched exactly, from the top of the ranking, as a share; at least
            8 members, unless it is 0. It ends before, at 16 members or a multiple, where none of
            the last 16 has an effect of 2.5 % of the whole.
        audit: how many of the others, drawn at random, are patched exactly too.

    Returns:
        A ranking with these findings (nats; those of the check only where something was checked):
        verified, audited: numbers of members patched exactly.
        missed: audited members whose exact effect is, in size, at least `missed_from`.
        missed_from: a tenth of |F(all) - F(none)|, or of the largest effect patched exactly where
            that is larger (members that work against each other).
        missed_at_most: with 95 % confidence no more than this share of the unverified members is
            missed (Clopper-Pearson, one-sided); None without an audit.
        largest_unverified: of the audited members' exact effects, the largest in size, or None.
        correlation: Pearson's, of approximate and exact over all that were patched exactly, or None
            where it is not defined.
        nodes: with `qkv`, each head's attributions to query, key and value.

    Raises:
        AnatomyError: a member is not in the model; or nodes are `qkv`, and the model does not use
            transformers' attention interface.
        SpecificationError: a setting is none of its possible values.
        MeasurementError: logits are not finite, or memory does not suffice for one row.
    """
    _check_settings(nodes, verify, audit)
    anatomy.check(members)
    work = Work(anatomy, capability, members, saved, progress, passes)
    settings = {"nodes": nodes, "qk_fix": qk_fix, "verify": verify, "audit": audit}
    findings: dict[str, object] = {}
    if nodes == "output":
        values = _by_output(work)
        settings.pop("qk_fix")
    else:
        values, by_input = _by_input(work, qk_fix)
        findings = {"nodes": _named(by_input)}
    scores = by_size(dict(zip(members, values.mean(axis=1).tolist(), strict=True)))
    patched: frozenset[Member] = frozenset()
    if verify or audit:
        check = _checked(work, list(scores), verify, audit, seed)
        for one, effects in check.effects.items():
            values[members.index(one)] = effects
        findings = {**_findings(scores, check), **findings}
        scores, patched = _merged(scores, check), frozenset(check.exact)
    return Ranking(
        scores,
        "attribution_patching",
        settings,
        findings=findings,
        patched=patched,
        by_half=from_halves(members, values),
    )


def _check_settings(nodes: str, verify: float, audit: int) -> None:
    if nodes not in NODES:
        raise SpecificationError(f"unknown nodes {nodes!r}; there are {', '.join(NODES)}")
    if not 0 <= verify <= 1:
        raise SpecificationError(f"verify is {verify!r}: give a share of the members, from 0 to 1")
    if audit < 0:
        raise SpecificationError(f"audit is {audit!r}: give a number of members, 0 for none")


# --- The approximation ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is scored, on which prompts, where finished parts are kept, whom to tell, and the passes
    that are known."""

    anatomy: Anatomy
    capability: EncodedCapability
    members: Sequence[Member]
    saved: Saved | None
    progress: Progress | None
    passes: Passes | None = None


def per_pair(
    given: Work,
    entries: int,
    work: Callable[[Batch, slice, Read], Float[Tensor, "entry row"]],
    name: str,
) -> FloatArray:
    """`work` on every batch, in chunks of its rows that fit into memory, float64 [entry, pair].

    `work` gets the batch, which of its rows to do, and how to read their logits. `name` holds all
    that tells its results from others of the same model and prompts; finished batches are
    kept under it.

    Raises:
        SpecificationError: there are no entries.
    """
    if not entries:
        raise SpecificationError("there is nothing to score: give at least one head or MLP layer")
    anatomy, capability, saved = given.anatomy, given.capability, given.saved
    readout = READOUTS[capability.capability.readout]
    values = np.full((entries, capability.n_pairs), np.nan)
    done = 0
    for number, batch in enumerate(capability.batches):

        def chunk(rows: slice, batch: Batch = batch) -> Tensor:
            index = torch.arange(len(batch.clean))[rows]
            return work(batch, rows, lambda logits: score(readout, logits, batch, index))

        further = (batch.distractor, batch.answers, batch.distractors)
        given_ids = (batch.clean, batch.counterfactual, batch.answer, *further)
        ids = [None if part is None else part.tolist() for part in given_ids]
        key = digest((name, capability.capability.readout, number, batch.pairs, ids))
        block = None if saved is None else saved.load(key)
        if block is None:
            most = rows_at_once(anatomy, batch.clean.shape[1])
            block = in_chunks(len(batch.clean), most, chunk).numpy()
            if saved is not None:
                saved.save(key, block)
        values[:, list(batch.pairs)] = block
        done += len(batch.pairs)
        if given.progress is not None:
            given.progress("taking gradients", done, capability.n_pairs)
    return values


def _by_output(given: Work) -> FloatArray:
    """Attributions to the outputs, [member, pair]."""
    anatomy, members = given.anatomy, given.members

    def work(batch: Batch, rows: slice, read: Read) -> Tensor:
        start, past, after = _known(given, batch, rows)
        positions = [position - start for position in batch.positions]
        if after is None:
            after = activations(anatomy, batch.counterfactual[rows], positions, members)
        ids = batch.clean[rows, start:]
        before, gradient = gradients(anatomy, ids, positions, members, read, past=past)
        return attributed(anatomy, members, gradient, after.minus(before))

    return -per_pair(given, len(members), work, f"attribution_patching;output;{names(members)}")


def _known(given: Work, batch: Batch, rows: slice) -> tuple[int, Cache | None, Activations | None]:
    """What layers do on the counterfactual prompts from where they differ on, where a pass is known
    and members are whole layers; and that position, with the cache of what is before."""
    number = [one.pairs for one in given.capability.batches].index(batch.pairs)
    known = None if given.passes is None else given.passes.get(number)
    if known is None:
        return 0, None, None
    z, anatomy = known[1]["counterfactual"].z, given.anatomy
    heads = {}
    for layer in sorted({one.layer for one in given.members if isinstance(one, Head)}):
        its = [Head(layer, index) for index in range(anatomy.site(layer).n_heads)]
        if not z.keys() >= {*its}:
            return 0, None, None
        heads[layer] = torch.cat([z[one][rows] for one in its], dim=-1)
    mlps = {one.layer: z[one][rows] for one in given.members if isinstance(one, Mlp)}
    start, past = begun(known[0], batch.start, rows)
    whole = Activations(heads, mlps)
    return start, past, whole.like([one[:, start:] for one in whole.tensors()])


def _by_input(given: Work, qk_fix: bool) -> tuple[FloatArray, dict[Member, tuple[float, ...]]]:
    """Their sums, [member, pair], and the mean attributions to query, key and value of each head;
    to its output of each MLP."""
    members = given.members
    heads = [one for one in members if isinstance(one, Head)]
    mlps = [one for one in members if isinstance(one, Mlp)]

    def work(batch: Batch, rows: slice, read: Read) -> Tensor:
        return _input_attributions(given.anatomy, batch, rows, read, heads, mlps, qk_fix)

    name = f"attribution_patching;qkv;{qk_fix};{names(members)}"
    entries = len(INPUTS) * len(heads) + len(mlps)
    values = -per_pair(given, entries, work, name)
    parts = values[: entries - len(mlps)].reshape(len(INPUTS), len(heads), values.shape[1])
    by_member: dict[Member, FloatArray] = dict(zip(heads, parts.transpose(1, 0, 2), strict=True))
    of_mlps = zip(mlps, values[entries - len(mlps) :], strict=True)
    by_member |= {mlp: row[None] for mlp, row in of_mlps}
    sums = np.array([by_member[one].sum(axis=0) for one in members])
    return sums, {one: tuple(rows.mean(axis=1).tolist()) for one, rows in by_member.items()}


def _input_attributions(
    anatomy: Anatomy,
    batch: Batch,
    rows: slice,
    read: Read,
    heads: Sequence[Head],
    mlps: Sequence[Mlp],
    qk_fix: bool,
) -> Float[Tensor, "entry row"]:
    """What the counterfactual query does to each head's output, dotted with the gradient there;
    likewise for key, for value, and for the MLPs' outputs."""
    layers = sorted({head.layer for head in heads})
    with torch.no_grad(), frozen(anatomy.model):
        _, other, after = _watched_forward(anatomy, batch.counterfactual[rows], batch, mlps)
    with differentiable(anatomy):
        logits, calls, before = _watched_forward(anatomy, batch.clean[rows], batch, mlps)
    taps = Activations({layer: calls[layer].output for layer in layers}, before.mlps)
    gradient = taps.like(gradient_of(logits, read, taps.tensors()))
    at_heads = Activations({layer: at.flatten(2) for layer, at in gradient.heads.items()}, {})
    clean, change = without_graph(calls), exchanged if qk_fix else linearised
    found = []
    for name in INPUTS if heads else ():
        with frozen(anatomy.model):
            changes = {layer: change(clean[layer], other[layer], name) for layer in layers}
        moved = Activations({layer: one.flatten(2) for layer, one in changes.items()}, {})
        found.append(attributed(anatomy, heads, at_heads, moved))
    if mlps:
        moved = after.minus(before.detached())
        found.append(attributed(anatomy, mlps, Activations({}, gradient.mlps), moved))
    return torch.cat(found)


def _watched_forward(
    anatomy: Anatomy, ids: Int[Tensor, "row pos"], batch: Batch, mlps: Sequence[Mlp]
) -> tuple[Tensor, dict[int, AttentionCall], Activations]:
    """The logits, every layer's attention call, and what `mlps` do."""
    taps = Activations({}, {})
    with watched_attention(anatomy) as calls, tapped(anatomy, mlps, taps, len(ids)):
        logits = forward(anatomy, ids, batch.positions)
    check_finite(logits.detach(), "a prompt")
    check_watched(anatomy, calls)
    return logits, calls, taps


def names(members: Sequence[Member]) -> str:
    return ",".join(map(str, members))


def _named(by_input: Mapping[Member, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {
        str(one): dict(zip(INPUTS, parts, strict=True))
        for one, parts in by_input.items()
        if isinstance(one, Head)
    }


# --- The check ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Check:
    """What was patched exactly: the top of the ranking, and a random sample of the rest.

    unverified: how many `audited` were drawn from. missed_from: the threshold from which an
    unverified member is missed.
    """

    verified: tuple[Member, ...]
    audited: tuple[Member, ...]
    unverified: int
    effects: Mapping[Member, FloatArray]  # [pair]
    exact: Mapping[Member, float]  # their means
    missed_from: float

    @property
    def missed(self) -> list[Member]:
        # Where nothing has any effect, nothing is missed.
        exact = self.exact
        return [one for one in self.audited if abs(exact[one]) >= self.missed_from and exact[one]]


def _checked(given: Work, order: Sequence[Member], verify: float, audit: int, seed: int) -> _Check:
    """Patch alone the top of `order`, until a step holds no effect, and a sample of the rest."""
    passes = given.passes or Passes(given.members)
    effects: dict[Member, FloatArray] = {}
    whole = math.nan

    def patch(chosen: Sequence[Member]) -> None:
        """Each of `chosen` alone, and at first all members together, in one wavefront."""
        nonlocal whole
        if effects and not chosen:
            return
        together = [] if effects else [Intervention(tuple(given.members))]
        result = intervene(
            given.anatomy,
            given.capability,
            [*(Intervention((member,)) for member in chosen), *together],
            ablation(given.anatomy, given.capability, given.members),
            progress=of_stage(given.progress, "patching exactly"),
            saved=given.saved,
            passes=passes,
        )
        lost = result.clean.readout[None] - result.readout
        if together:
            whole = float(lost[-1].mean())
        effects.update(zip(chosen, lost, strict=False))

    def holds_effects(step: Sequence[Member]) -> bool:
        least = SETTLED_SHARE * abs(whole)
        return any(abs(float(effects[one].mean())) >= least for one in step)

    most = max(math.ceil(verify * len(order)), FEWEST_VERIFIED) if verify else 0
    n = min(_STEP, most)
    rest = sorted(order[n:])
    drawn = random.Random(f"audit {seed}").sample(rest, min(audit, len(rest)))
    patch([*order[:n], *drawn])
    while n < most and holds_effects(order[n - _STEP : n]):
        # A last step of a few members costs nearly what a whole one does.
        last = most - n < 1.5 * _STEP
        step = order[n : most if last else n + _STEP]
        patch([one for one in step if one not in effects])
        n += len(step)
    # What is left of the sample when more was verified is a sample of what is left.
    audited = tuple(one for one in sorted(drawn) if one in order[n:])
    exact = {one: float(values.mean()) for one, values in effects.items()}
    missed_from = MISSED_SHARE * max(map(abs, [whole, *exact.values()]))
    return _Check(tuple(order[:n]), audited, len(order) - n, effects, exact, missed_from)


def _merged(ranked: Mapping[Member, float], check: _Check) -> dict[Member, float]:
    first = {*check.verified, *check.missed}
    rest = {one: check.exact.get(one, value) for one, value in ranked.items() if one not in first}
    return {**by_size({one: check.exact[one] for one in first}), **by_size(rest)}


def _findings(ranked: Mapping[Member, float], check: _Check) -> dict[str, object]:
    missed = check.missed
    audited = [check.exact[one] for one in check.audited]
    return {
        "verified": len(check.verified),
        "audited": len(audited),
        "missed": [str(one) for one in missed],
        "missed_from": check.missed_from,
        "missed_at_most": _at_most(len(missed), len(audited), check.unverified),
        "largest_unverified": max(audited, key=abs, default=None),
        "correlation": _correlation([ranked[one] for one in check.exact], [*check.exact.values()]),
    }


def _at_most(missed: int, audited: int, unverified: int) -> float | None:
    if audited == unverified:
        return missed / unverified if unverified else 0.0  # nothing was left to chance
    if audited == 0:
        return None
    return float(betaincinv(missed + 1, audited - missed, 0.95)) if missed < audited else 1.0


def _correlation(approximate: Sequence[float], exact: Sequence[float]) -> float | None:
    if len(exact) < 2 or np.std(approximate) == 0 or np.std(exact) == 0:
        return None
    return float(np.corrcoef(approximate, exact)[0, 1])

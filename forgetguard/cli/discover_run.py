"""Find a circuit as planned, suggest its limits, write its file and sum it up."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from forgetguard import api
from forgetguard.cache_folder import cache_folder
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.cli.checkpoints import gate_options
from forgetguard.cli.command import DONE, INTERRUPTED, say
from forgetguard.cli.discover_plan import Plan
from forgetguard.cli.progress import Bar, progress_bar
from forgetguard.discovery.circuit import Found
from forgetguard.discovery.on_checkpoint import Search, discover_on
from forgetguard.gate import schema
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.provenance import describe, fits_of
from forgetguard.gate.stages import as_capability
from forgetguard.gate.suggestion import Suggestion, suggest

_VERSIONS = ("forgetguard", "torch", "transformers")
_SHOWN_HEADS = 10
_SHARED = "circuit and gate share prompts; give the gate a file of its own"


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The capability on the pairs that the circuit is found on; `gate_pairs`, how many the file
    gates on at most, and `shared`, how many of those are among the first."""

    capability: Capability
    encoded: EncodedCapability
    gate_pairs: int
    shared: int


def discover(plan: Plan) -> int:
    """Do what was planned; returns the exit status.

    Raises:
        ForgetguardError: it cannot be done; the message says why.
    """
    search = Search(
        plan.method, plan.faithful, plan.ablation, plan.mlps, plan.seed, dict(plan.settings)
    )
    pair = ModelPair({"base": plan.base}, plan.options)
    try:
        with progress_bar() as bar, pair:
            pairs = _pairs(plan, pair)
            found = discover_on(pair.base, pairs.capability, search, keep=plan.keep, progress=bar)
            suggestion = _suggestion(plan, pair, pairs, found, bar)
            spec = _spec(plan, pair, pairs, found, suggestion)
    except KeyboardInterrupt:
        say(
            f"forgetguard discover: interrupted; finished work is kept in {cache_folder()}, and "
            "the same command goes on from there"
            if plan.keep
            else "forgetguard discover: interrupted; nothing was kept (--no-cache)"
        )
        return INTERRUPTED
    if plan.out is None:
        sys.stdout.write(schema.dump(spec, Path.cwd()))
    else:
        schema.save(spec, plan.out)
    say(summary(plan, found, spec, suggestion))
    return DONE


def _pairs(plan: Plan, pair: ModelPair) -> _Pairs:
    """The pairs to find the circuit on and those to gate on: drawn before anything is computed,
    for a task may have too few."""
    gate = as_capability(plan.draft)
    if plan.prompts:
        capability = replace(gate, pairs=plan.prompts)
    else:
        capability = replace(gate, count=plan.pairs or gate.count, seed=plan.seed)
    encoded, gated = (one.encoded(pair.base.tokenizer) for one in (capability, gate))
    used = _texts(encoded)
    return _Pairs(capability, encoded, gated.n_pairs, len(used & _texts(gated)))


def _texts(encoded: EncodedCapability) -> set[tuple[str, str]]:
    return {(one.pair.clean, one.pair.counterfactual) for one in encoded.encoded.pairs}


def _suggestion(
    plan: Plan, pair: ModelPair, pairs: _Pairs, found: Found, bar: Bar
) -> Suggestion | None:
    if not plan.noise:
        return None
    first = getattr(plan.draft.pairs, "count", None) or pairs.gate_pairs
    return suggest(
        pair,
        pairs.encoded,
        found.circuit,
        gate_pairs=min(first, pairs.gate_pairs),
        seed=plan.seed,
        progress=lambda done, total: bar("measuring noise", done, total),
    )


def _spec(
    plan: Plan, pair: ModelPair, pairs: _Pairs, found: Found, suggestion: Suggestion | None
) -> GateSpec:
    limits = api.SUGGESTED_LIMITS if suggestion is None else suggestion.limits
    return replace(
        plan.draft,
        members=found.circuit,
        auto=False,
        limits=tuple(Limit(key, maximum) for key, maximum in limits.items()),
        fits=fits_of(pair.base),
        found={
            **describe(found),
            "base": plan.base.given,
            "dtype": plan.options.dtype,
            "gated_on": {"pairs": pairs.gate_pairs, "also_found_on": pairs.shared}
            | ({"note": _SHARED} if plan.prompts else {}),
            **({} if suggestion is None else {"suggestion": dict(suggestion.evidence)}),
            "versions": {name: metadata.version(name) for name in _VERSIONS},
        },
    )


# --- what a person reads ----------------------------------------------------------------------


def summary(plan: Plan, found: Found, spec: GateSpec, suggestion: Suggestion | None) -> str:
    """The circuit in a few lines, and the command to gate with."""
    curve, file = found.curve, plan.out or Path(f"{spec.name}{schema.SUFFIXES[0]}")
    what = "members" if plan.mlps else "heads"
    lines = [
        "",
        f"{spec.capability} in {plan.base.given}: {len(found.circuit)} of {curve.members} {what}, "
        f"by {found.ranking.method}{_chosen(found)}",
        f"  faithfulness {found.faithfulness:.2f}, with confidence at least {found.low:.2f}, on "
        f"{curve.pairs} held-out pairs (asked for: {found.faithful:g}), the rest ablated by "
        f"{curve.ablation}",
        f"  accuracy of the base {found.accuracy:.0%}, on {found.pairs} pairs",
        f"  scores: {_scores(found)}",
        *(f"  {line}" for line in _remarks(found)),
        f"  limits to review: {', '.join(f'{one.key} {one.maximum:.2f}' for one in spec.limits)}"
        f"{' (not from this base: --no-noise)' if suggestion is None else ''}",
    ]
    notes = [] if suggestion is None else suggestion.evidence.get("notes", [])
    lines += [f"  note: {note}" for note in notes]
    gated = (spec.found or {})["gated_on"]
    if gated["also_found_on"]:
        lines.append(
            f"  note: {gated['also_found_on']} of the {gated['pairs']} pairs to gate on were also "
            "used to find the circuit"
        )
    ends = f"base={plan.base.given}", "tuned=CHECKPOINT"
    again = shlex.join(["pytest", "--forgetguard", *ends, *gate_options(plan.options), str(file)])
    done = f"written to {plan.out}" if plan.out else f"save it as {file}"
    return "\n".join([*lines, f"{done}; gate with:", f"  {again}"])


def _chosen(found: Found) -> str:
    """Why that method, where nobody named one."""
    if found.chosen is None:
        return ""
    seconds, within = found.chosen["exact_seconds"], found.chosen["within"]
    relation = "within" if seconds <= within else "beyond"
    about = f"about {seconds:.0f} s" if seconds >= 1 else "under a second"
    return f" (patching every one: {about}, {relation} the {within:.0f} s of auto)"


def _remarks(found: Found) -> list[str]:
    """How stable the ranking is, where its curve dips, and what works against the capability."""
    lines = []
    if found.stability is not None:
        one = found.stability
        lines.append(
            f"stability: two halves of {one.pairs} pairs share {one.of_top:.0%} of their first "
            f"{one.top} (Jaccard), {one.of_circuit:.0%} of circuits of this size"
        )
    if found.dip is not None:
        dip = found.dip
        lines.append(
            f"note: the curve reaches {found.faithful:g} at {dip.reached} and falls to "
            f"{dip.lowest:.2f} at {dip.at}"
        )
    if found.against:
        members = ", ".join(f"{one} {score:.3g}" for one, score in found.against.items())
        lines.append(f"note: against the capability work {members}")
    return lines


def _scores(found: Found) -> str:
    first = [one for one in found.ranking.order if one in set(found.circuit)]
    shown = ", ".join(f"{one} {found.ranking.scores[one]:.3g}" for one in first[:_SHOWN_HEADS])
    more = len(first) - _SHOWN_HEADS
    return f"{shown} and {more} more" if more > 0 else shown

"""`forgetguard discover`: find what carries a capability in a base, and write a circuit file."""

from __future__ import annotations

import math
import re
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.cache_folder import cache_folder
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import task_names
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.cli.checkpoints import (
    add_checkpoints,
    add_load_options,
    gate_options,
    load_options,
    read_checkpoints,
)
from forgetguard.cli.command import DONE, INTERRUPTED, Job, adder, command, say, whole_imports
from forgetguard.cli.progress import progress_bar
from forgetguard.cli.values import check_choice, new_file, read_settings, read_whole
from forgetguard.discovery.methods import METHODS, full_name
from forgetguard.errors import SpecificationError
from forgetguard.gate import schema
from forgetguard.gate.declaration import FilePairs, GateSpec, Limit, TaskPairs
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.gate.schema import SUFFIXES
from forgetguard.gate.yaml_lines import nearest

if TYPE_CHECKING:
    from forgetguard.capabilities.capability import Capability, EncodedCapability
    from forgetguard.checkpoints.placement import ModelPair
    from forgetguard.discovery.circuit import Found

# As in discovery/circuit.py and measures/ablation.py, which need torch; a test holds them equal.
FAITHFUL = 0.8
ABLATIONS = ("counterfactual", "mean", "zero")

PAIRS, GATE_PAIRS, MOST_GATE_PAIRS = 128, 64, 256
FEWEST_PAIRS, FEWEST_GATE_PAIRS = 16, 8  # two halves of 8; and what a verdict needs
_VERSIONS = ("forgetguard", "torch", "transformers")
_SHOWN_HEADS = 10
_SHARED = "circuit and gate share prompts; give the gate a file of its own"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and checked.

    draft: the circuit file that is to be, with the pairs that it will gate on; its circuit and its
        limits are not known yet.
    prompts: those of the prompt file.
    out: where to write, or None for stdout.
    asked: the options that need no reading.
    """

    base: CheckpointSpec
    options: LoadOptions
    draft: GateSpec
    prompts: tuple[PromptPair, ...]
    seed: int
    settings: Mapping[str, Any]
    faithful: float
    out: Path | None
    asked: Namespace


def _options(parser: ArgumentParser) -> None:
    add_checkpoints(parser, ("base",))
    add = adder(parser.add_argument_group("the capability (one of --task and --prompts)"))
    add("--task", "NAME", "draw pairs from it; forgetguard tasks lists them")
    add("--prompts", "FILE", "prompt pairs, JSONL")
    pairs = f"pairs to find the circuit on; default: {PAIRS} of a task, all of a file"
    add("--pairs", "N", pairs, type=int)
    gated = f"default: {GATE_PAIRS}, and up to {MOST_GATE_PAIRS} while a limit is undecided"
    gated = f"other pairs of the task that the file will gate on; {gated}"
    add("--gate-pairs", "N", gated, type=int)
    add("--seed", "N", "of all that is drawn; default: 0", default="0")
    readouts = " (default) or ".join(READOUTS)
    add("--readout", "NAME", readouts, default=next(iter(READOUTS)))
    add("--chat-template", "", "wrap each prompt as a user's turn")
    add = adder(parser.add_argument_group("how the circuit is found"))
    methods = f"auto (default; by the model's size), {', '.join(METHODS)}"
    add("--method", "NAME", methods, default="auto")
    add("--set", "KEY=VALUE", "a setting of the method, its value in YAML; repeatable", many=True)
    faithful = f"of the whole effect that the circuit alone must have; default: {FAITHFUL}"
    add("--faithful", "SHARE", faithful, default=str(FAITHFUL))
    kinds = f"{ABLATIONS[0]} (default), {' or '.join(ABLATIONS[1:])}"
    add("--ablation", "KIND", f"what takes the rest away: {kinds}", default=ABLATIONS[0])
    add("--mlps", "", "MLP layers may be members too")
    cache = "neither keep finished work in $FORGETGUARD_CACHE nor take up what is there"
    add("--no-cache", "", cache)
    add = adder(parser.add_argument_group("the circuit file"))
    add("-o --output", "FILE", f"NAME{SUFFIXES[0]}; default: print it to stdout")
    add("--force", "", "replace FILE where it is there")
    add("--no-noise", "", "do not measure noise: write the limits that suit many circuits")
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    plan = read_plan(asked)
    return lambda: discover(plan)


def read_plan(asked: Namespace) -> Plan:
    """What was asked for."""
    given = read_checkpoints(asked.tokens, ("base",))
    options = load_options(asked)
    seed = read_whole("--seed", asked.seed)
    check_choice("--readout", asked.readout, tuple(READOUTS))
    check_choice("--ablation", asked.ablation, ABLATIONS)
    if asked.method != "auto":
        full_name(asked.method)
    settings, faithful = read_settings(asked.set), _share(asked.faithful)
    out = _output(asked.output, asked.force)
    prompts = _prompts(asked)
    draft = _draft(asked, seed, out, prompts)
    base = resolve(given["base"], "base")
    check(base, None, options=options)
    return Plan(base, options, draft, prompts, seed, settings, faithful, out, asked)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise SpecificationError(
            f"--faithful: must be above 0 and at most 1, got {text!r}: it is the share of the "
            "whole effect that the circuit alone must have"
        )
    return share


def _output(written: str | None, force: bool) -> Path | None:
    if written is not None and (not written.endswith(SUFFIXES) or Path(written).name in SUFFIXES):
        raise SpecificationError(
            f"-o: {written!r} must end in {SUFFIXES[0]}, after a name, for pytest to find it"
        )
    return new_file("-o", written, force=force)


def _prompts(asked: Namespace) -> tuple[PromptPair, ...]:
    """The pairs of --prompts that the circuit is found on; none with --task."""
    if bool(asked.task) == bool(asked.prompts):
        both = "not both" if asked.task else "forgetguard tasks lists the tasks"
        raise SpecificationError(f"give --task NAME or --prompts FILE; {both}")
    _enough("--pairs", asked.pairs, FEWEST_PAIRS, "it is found on one half, and cut on the other")
    _enough("--gate-pairs", asked.gate_pairs, FEWEST_GATE_PAIRS, "no verdict rests on fewer")
    if asked.task:
        if asked.task not in task_names():
            raise SpecificationError(
                f"--task: unknown task {asked.task!r}: {nearest(asked.task, task_names())} "
                "(forgetguard tasks lists them)"
            )
        return ()
    if asked.gate_pairs is not None:
        raise SpecificationError(
            "--gate-pairs belongs to --task: with --prompts the file gates on all its pairs"
        )
    pairs = read_prompt_file(asked.prompts, readout=asked.readout, count=asked.pairs)
    _enough(f"--prompts: {asked.prompts}", len(pairs), FEWEST_PAIRS, "each half needs 8")
    return tuple(pairs)


def _enough(what: str, count: int | None, fewest: int, why: str) -> None:
    if count is not None and not fewest <= count <= schema.MOST_PAIRS:
        raise SpecificationError(
            f"{what}: {count} pairs; give between {fewest} and {schema.MOST_PAIRS}: {why}"
        )


def _draft(
    asked: Namespace, seed: int, out: Path | None, prompts: tuple[PromptPair, ...]
) -> GateSpec:
    """The circuit file as far as it is known, read back, so that what would be wrong with it is
    known before anything is computed."""
    capability = asked.task or schema.stem(Path(asked.prompts)) or "capability"
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", capability).strip("-._+") or "circuit"
    pairs: TaskPairs | FilePairs
    if asked.task:
        # Another seed: a circuit should not be judged on the pairs that it was found on.
        most = None if asked.gate_pairs else MOST_GATE_PAIRS
        pairs = TaskPairs(asked.task, asked.gate_pairs or GATE_PAIRS, seed + 1, most=most)
    else:
        pairs = FilePairs(Path(asked.prompts).resolve())
    draft = GateSpec(
        name=name if out is None else schema.stem(out),
        capability=capability,
        pairs=pairs,
        readout=asked.readout,
        members=(),
        limits=(Limit("dcv.circuit", 0.5),),  # stands for those that are not known yet
        auto=True,
        chat_template=asked.chat_template,
    )
    path = out or Path.cwd() / f"{draft.name}{SUFFIXES[0]}"
    return schema.parse_gate(schema.dump(draft, path.parent), path)


# --- the work ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The capability on the pairs that the circuit is found on; `gate_pairs`, how many the file
    gates on at most, and `shared`, how many of those are among the first."""

    capability: Capability
    encoded: EncodedCapability
    gate_pairs: int
    shared: int


def discover(plan: Plan) -> int:
    """Do what was planned; returns the exit status."""
    with whole_imports():
        from forgetguard.api.circuits import SUGGESTED_LIMITS
        from forgetguard.checkpoints.placement import ModelPair
        from forgetguard.discovery.on_checkpoint import Search, discover_on
        from forgetguard.gate.provenance import describe, fits_of
        from forgetguard.gate.suggestion import suggest
    asked, keep = plan.asked, not plan.asked.no_cache
    search = Search(
        asked.method, plan.faithful, asked.ablation, asked.mlps, plan.seed, dict(plan.settings)
    )
    pair = ModelPair({"base": plan.base}, plan.options)
    try:
        with progress_bar() as bar, pair:
            pairs = _pairs(plan, pair)
            found = discover_on(pair.base, pairs.capability, search, keep=keep, progress=bar)
            limits: Mapping[str, float] = SUGGESTED_LIMITS
            noise: Mapping[str, Any] = {}
            if not asked.no_noise:
                first = getattr(plan.draft.pairs, "count", None) or pairs.gate_pairs
                suggestion = suggest(
                    pair,
                    pairs.encoded,
                    found.circuit,
                    gate_pairs=min(first, pairs.gate_pairs),
                    seed=plan.seed,
                    progress=partial(bar, "measuring noise"),
                )
                limits, noise = suggestion.limits, {"suggestion": dict(suggestion.evidence)}
            spec = replace(
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
                    **noise,
                    "versions": {name: metadata.version(name) for name in _VERSIONS},
                },
            )
    except KeyboardInterrupt:
        say(
            f"forgetguard discover: interrupted; finished work is kept in {cache_folder()}, and "
            "the same command goes on from there"
            if keep
            else "forgetguard discover: interrupted; nothing was kept (--no-cache)"
        )
        return INTERRUPTED
    if plan.out is None:
        sys.stdout.write(schema.dump(spec, Path.cwd()))
    else:
        schema.save(spec, plan.out)
    say(summary(plan, found, spec))
    return DONE


def _pairs(plan: Plan, pair: ModelPair) -> _Pairs:
    """The pairs to find the circuit on and those to gate on: drawn before anything is computed,
    for a task may have too few."""
    from forgetguard.gate.stages import as_capability

    gate = as_capability(plan.draft)
    if plan.prompts:
        capability = replace(gate, pairs=plan.prompts)
    else:
        capability = replace(gate, count=plan.asked.pairs or PAIRS, seed=plan.seed)
    encoded, gated = (one.encoded(pair.base.tokenizer) for one in (capability, gate))
    used = _texts(encoded)
    return _Pairs(capability, encoded, gated.n_pairs, len(used & _texts(gated)))


def _texts(encoded: EncodedCapability) -> set[tuple[str, str]]:
    return {(one.pair.clean, one.pair.counterfactual) for one in encoded.encoded.pairs}


# --- what a person reads ----------------------------------------------------------------------


def summary(plan: Plan, found: Found, spec: GateSpec) -> str:
    """The circuit in a few lines, and the command to gate with."""
    curve, file = found.curve, plan.out or Path(f"{spec.name}{schema.SUFFIXES[0]}")
    what = "members" if plan.asked.mlps else "heads"
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
        f"{' (not from this base: --no-noise)' if plan.asked.no_noise else ''}",
    ]
    known = spec.found or {}
    lines += [f"  note: {note}" for note in known.get("suggestion", {}).get("notes", ())]
    gated = known["gated_on"]
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


COMMAND = command("discover", _options, _prepare)

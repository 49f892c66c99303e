"""What `forgetguard discover` is asked to do, checked before anything heavy is imported."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import task_names
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.cli.checkpoints import load_options, read_checkpoints
from forgetguard.cli.values import check_choice, new_file, read_settings, read_whole
from forgetguard.discovery.methods import full_name
from forgetguard.errors import SpecificationError
from forgetguard.gate import schema
from forgetguard.gate.declaration import FilePairs, GateSpec, Limit, TaskPairs
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.gate.schema import SUFFIXES
from forgetguard.gate.yaml_lines import nearest

# As in discovery/circuit.py and measures/ablation.py, which need torch; a test holds them equal.
FAITHFUL = 0.8
ABLATIONS = ("counterfactual", "mean", "zero")

PAIRS, GATE_PAIRS, MOST_GATE_PAIRS = 128, 64, 256
FEWEST_PAIRS, FEWEST_GATE_PAIRS = 16, 8  # two halves of 8; and what a verdict needs


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and checked.

    draft: the circuit file that is to be, with the pairs that it will gate on; its circuit and its
        limits are not known yet.
    pairs: how many pairs the circuit is found on; None: all of the prompt file.
    prompts: those of the prompt file.
    out: where to write, or None for stdout.
    keep: keep finished work, and take up what is there.
    noise: suggest limits from noise.
    """

    base: CheckpointSpec
    options: LoadOptions
    draft: GateSpec
    pairs: int | None
    prompts: tuple[PromptPair, ...]
    seed: int
    method: str
    settings: Mapping[str, Any]
    faithful: float
    ablation: str
    mlps: bool
    out: Path | None
    keep: bool
    noise: bool


def read_plan(asked: Namespace) -> Plan:
    """What was asked for.

    Raises:
        ForgetguardError: it cannot be run.
    """
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
    return Plan(
        base=base,
        options=options,
        draft=draft,
        pairs=asked.pairs or (PAIRS if asked.task else None),
        prompts=prompts,
        seed=seed,
        method=asked.method,
        settings=settings,
        faithful=faithful,
        ablation=asked.ablation,
        mlps=asked.mlps,
        out=out,
        keep=not asked.no_cache,
        noise=not asked.no_noise,
    )


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

"""`python -m examples.studies.comparison`: the paper's quantities for base, tuned and reference,
in one table."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import find_task
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.cli import entry
from forgetguard.cli.checkpoints import (
    add_checkpoints,
    add_load_options,
    load_options,
    read_checkpoints,
)
from forgetguard.cli.command import DONE, INTERRUPTED, Command, Job, say, whole_imports
from forgetguard.cli.progress import progress_bar
from forgetguard.cli.values import check_choice, new_file, read_settings, read_whole
from forgetguard.errors import BaseCannotError, SpecificationError
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.whole_files import write_result

if TYPE_CHECKING:
    from examples.studies.comparison.result import Comparison
    from forgetguard.capabilities.capability import Capability
    from forgetguard.discovery.ranking import Progress

FEWEST_PAIRS = 16  # two halves of 8
# As in compare.py and the measures, which need torch or scipy; a test holds them equal.
_PROGRAM = "python -m examples.studies.comparison"
PAIRS, SEEDS, DELTA, LEAST_STABILITY = 128, "0,1,2", 0.5, 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and checked. `prompts` are those of the prompt file; without one, pairs
    are drawn from each of `tasks`. `out`: where to write JSON too."""

    specs: Mapping[str, CheckpointSpec]
    loading: LoadOptions
    tasks: tuple[str, ...]
    prompts: tuple[PromptPair, ...]
    name: str  # of the prompt file's capability
    pairs: int
    prompt_seed: int
    readout: str
    chat_template: bool
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    delta: float
    least_stability: float
    keep: bool
    out: Path | None


def _options(parser: ArgumentParser) -> None:
    add_checkpoints(parser, ("base", "tuned", "[reference]"))
    _prompt_options(parser.add_argument_group("the capability (one of --task and --prompts)"))
    _mask_options(parser.add_argument_group("how circuits are found and compared"))
    parser.add_argument("-o", "--json", metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    add_load_options(parser)


def _prompt_options(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--task", action="append", default=[], metavar="NAME", help="draw pairs from it; repeatable"
    )
    add("--prompts", type=Path, metavar="FILE", help="prompt pairs, JSONL")
    add("--pairs", type=int, default=PAIRS, metavar="N", help=f"of a task; default: {PAIRS}")
    add("--seed", default="0", metavar="N", help="of the pairs; default: 0")
    add("--readout", default="logit_diff", metavar="NAME", help="logit_diff (default) or logprob")
    add("--chat-template", action="store_true", help="wrap each prompt as a user's turn")


def _mask_options(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add("--seeds", default=SEEDS, metavar="N,N", help=f"of the masks; default: {SEEDS}")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of binary masking, its value in YAML; repeatable",
    )
    add(
        "--delta",
        type=float,
        default=DELTA,
        metavar="FALL",
        help=f"of a mask, beyond which its head is vulnerable; default: {DELTA}",
    )
    add(
        "--least-stability",
        type=float,
        default=LEAST_STABILITY,
        metavar="SHARE",
        help=f"of the base with itself, below which retention abstains; default: {LEAST_STABILITY}",
    )
    add(
        "--no-cache",
        action="store_true",
        help="neither keep finished work in $FORGETGUARD_CACHE nor take up what is there",
    )


def _prepare(asked: Namespace) -> Job:
    plan = read_plan(asked)
    return lambda: compare_all(plan)


def read_plan(asked: Namespace) -> Plan:
    """What was asked for, as far as it can be checked before anything heavy is imported.

    Raises:
        ForgetguardError: it cannot be run.
    """
    given = read_checkpoints(asked.tokens, ("base", "tuned"), ("reference",))
    if bool(asked.task) == bool(asked.prompts):
        both = "not both" if asked.task else "forgetguard tasks lists the tasks"
        raise SpecificationError(f"give --task NAME or --prompts FILE; {both}")
    _check_numbers(asked)
    loading, settings, seeds = load_options(asked), read_settings(asked.set), _seeds(asked.seeds)
    tasks, out = _tasks(asked.task), new_file("-o", asked.json, force=asked.force)
    prompts = read_prompt_file(asked.prompts, readout=asked.readout) if asked.prompts else []
    specs = {role: resolve(at, role) for role, at in given.items()}
    check(specs["base"], specs["tuned"], specs.get("reference"), allowed_by=None, options=loading)
    return Plan(
        specs=specs,
        loading=loading,
        tasks=tasks,
        prompts=tuple(prompts),
        name=asked.prompts.stem if asked.prompts else "",
        pairs=asked.pairs,
        prompt_seed=read_whole("--seed", asked.seed),
        readout=asked.readout,
        chat_template=asked.chat_template,
        seeds=seeds,
        settings=settings,
        delta=asked.delta,
        least_stability=asked.least_stability,
        keep=not asked.no_cache,
        out=out,
    )


def _check_numbers(asked: Namespace) -> None:
    check_choice("--readout", asked.readout, tuple(READOUTS))
    if asked.pairs < FEWEST_PAIRS:
        raise SpecificationError(f"--pairs: {asked.pairs}; give {FEWEST_PAIRS} or more")
    if not 0 <= asked.delta < 1:
        raise SpecificationError(f"--delta: {asked.delta:g}; give a fall from 0 to below 1")
    if not 0 <= asked.least_stability <= 1:
        raise SpecificationError(
            f"--least-stability: {asked.least_stability:g}; give an agreement from 0 to 1"
        )


def _tasks(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        find_task(name)
    return tuple(dict.fromkeys(names))


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise SpecificationError(
            f"--seeds: {text!r}; give whole numbers, each once, such as {SEEDS}"
        )
    return tuple(map(int, parts))


# --- the work ---------------------------------------------------------------------------------


def compare_all(plan: Plan) -> int:
    """Compare, print the tables, write the JSON; returns the exit status (raises
    ForgetguardError)."""
    with whole_imports():
        from examples.studies.comparison.table import comparison_text, comparisons_json
    try:
        with progress_bar() as bar:
            found = carry_out(plan, bar)
    except KeyboardInterrupt:
        kept = "finished work is kept, and the same command goes on from there"
        say(f"{_PROGRAM}: interrupted; {kept if plan.keep else 'nothing was kept'}")
        return INTERRUPTED
    sys.stdout.write("\n\n".join(comparison_text(one) for one in found) + "\n")
    if plan.out is not None:
        write_result(plan.out, comparisons_json(found))
    return DONE


def carry_out(plan: Plan, progress: Progress | None = None) -> list[Comparison]:
    """Compare the checkpoints on every capability. One that the base cannot do is said, and left
    out, if there are others.

    Raises:
        ForgetguardError: a model cannot be measured, or the base can do none of the capabilities.
    """
    with whole_imports():
        from examples.studies.comparison import compare
        from forgetguard.checkpoints.placement import ModelPair
    found, refused = [], None
    with ModelPair(plan.specs, plan.loading) as pair:
        for capability in _capabilities(plan):
            try:
                found.append(
                    compare.compare(
                        pair,
                        capability,
                        seeds=plan.seeds,
                        settings=plan.settings,
                        delta=plan.delta,
                        least_stability=plan.least_stability,
                        keep=plan.keep,
                        progress=progress,
                    )
                )
            except BaseCannotError as error:
                refused = error
                say(str(error))
    if refused is not None and not found:
        raise refused
    return found


def _capabilities(plan: Plan) -> list[Capability]:
    from forgetguard.capabilities.capability import Capability

    common: dict[str, Any] = {"readout": plan.readout, "chat_template": plan.chat_template}
    if plan.prompts:
        return [Capability(plan.name, pairs=plan.prompts, **common)]
    drawn = {"count": plan.pairs, "seed": plan.prompt_seed, **common}
    return [Capability(task, task=task, **drawn) for task in plan.tasks]


COMMAND = Command(
    "comparison",
    "circuits of base, tuned and reference side by side: the paper's quantities",
    _options,
    _prepare,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare as `arguments` say (default: of this process); returns the exit status."""
    return entry.run(entry.parser_of(COMMAND, _PROGRAM), arguments)


if __name__ == "__main__":
    sys.exit(main())

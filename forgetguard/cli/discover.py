"""`forgetguard discover`: find what carries a capability in a base, and write a circuit file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from forgetguard.capabilities.readouts import READOUTS
from forgetguard.cli.checkpoints import add_checkpoints, add_load_options
from forgetguard.cli.command import SUMMARIES, Command, Job, whole_imports
from forgetguard.cli.discover_plan import (
    ABLATIONS,
    FAITHFUL,
    GATE_PAIRS,
    MOST_GATE_PAIRS,
    PAIRS,
    read_plan,
)
from forgetguard.discovery.methods import METHODS
from forgetguard.gate.schema import SUFFIXES


def _options(parser: ArgumentParser) -> None:
    add_checkpoints(parser, ("base",))
    prompts = parser.add_argument_group("the capability (one of --task and --prompts)")
    prompts.add_argument(
        "--task", metavar="NAME", help="draw pairs from it; forgetguard tasks lists them"
    )
    prompts.add_argument("--prompts", metavar="FILE", help="prompt pairs, JSONL")
    prompts.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help=f"pairs to find the circuit on; default: {PAIRS} of a task, all of a file",
    )
    prompts.add_argument(
        "--gate-pairs",
        type=int,
        metavar="N",
        help="other pairs of the task that the file will gate on; "
        f"default: {GATE_PAIRS}, and up to {MOST_GATE_PAIRS} while a limit is undecided",
    )
    prompts.add_argument(
        "--seed", default="0", metavar="N", help="of all that is drawn; default: 0"
    )
    prompts.add_argument(
        "--readout",
        default=next(iter(READOUTS)),
        metavar="NAME",
        help=f"{' (default) or '.join(READOUTS)}",
    )
    prompts.add_argument(
        "--chat-template", action="store_true", help="wrap each prompt as a user's turn"
    )
    search = parser.add_argument_group("how the circuit is found")
    search.add_argument(
        "--method",
        default="auto",
        metavar="NAME",
        help=f"auto (default; by the model's size), {', '.join(METHODS)}",
    )
    search.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the method, its value in YAML; repeatable",
    )
    search.add_argument(
        "--faithful",
        default=str(FAITHFUL),
        metavar="SHARE",
        help=f"of the whole effect that the circuit alone must have; default: {FAITHFUL}",
    )
    search.add_argument(
        "--ablation",
        default=ABLATIONS[0],
        metavar="KIND",
        help=f"what takes the rest away: {ABLATIONS[0]} (default), {' or '.join(ABLATIONS[1:])}",
    )
    search.add_argument("--mlps", action="store_true", help="MLP layers may be members too")
    search.add_argument(
        "--no-cache",
        action="store_true",
        help="neither keep finished work in $FORGETGUARD_CACHE nor take up what is there",
    )
    file = parser.add_argument_group("the circuit file")
    file.add_argument(
        "-o", "--output", metavar="FILE", help=f"NAME{SUFFIXES[0]}; default: print it to stdout"
    )
    file.add_argument("--force", action="store_true", help="replace FILE where it is there")
    file.add_argument(
        "--no-noise",
        action="store_true",
        help="do not measure noise: write the limits that suit many circuits",
    )
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    plan = read_plan(asked)

    def job() -> int:
        with whole_imports():
            from forgetguard.cli.discover_run import discover
        return discover(plan)

    return job


COMMAND = Command("discover", SUMMARIES["discover"], _options, _prepare)

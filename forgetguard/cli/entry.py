"""The command `forgetguard`: reads arguments, runs one command, says what went wrong."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any

from forgetguard.cli import (
    calibrate,
    discover,
    measures,
    origin,
    report,
    tasks,
    train,
    verify,
)
from forgetguard.cli.command import FAILED, INTERRUPTED, MISUSE, STATUSES, Command, say
from forgetguard.errors import ForgetguardError, SpecificationError

COMMANDS: tuple[Command, ...] = (
    discover.COMMAND,
    calibrate.COMMAND,
    verify.COMMAND,
    origin.COMMAND,
    report.COMMAND,
    measures.COMMAND,
    tasks.COMMAND,
    train.COMMAND,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `forgetguard ARGUMENTS` (default: of this process) and return its exit status."""
    return run(_parser(), arguments)


def run(parser: ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command that the arguments (default: of this process) choose of a parser's and
    return its exit status; what went wrong is told on stderr."""
    asked, loose = parser.parse_known_args(arguments)
    # argparse takes tokens that stand between options for strangers: only options can be.
    strange = [token for token in loose if token.startswith("-")]
    if strange:
        asked.parser.error(f"unknown option {', '.join(strange)}; see {asked.parser.prog} --help")
    asked.tokens = [*getattr(asked, "tokens", ()), *loose]
    command: Command = asked.chosen
    try:
        job = command.prepare(asked)
    except ForgetguardError as error:
        return _tell(asked, str(error), MISUSE)
    except KeyboardInterrupt:
        return _tell(asked, "interrupted", INTERRUPTED)
    try:
        return job()
    except SpecificationError as error:
        return _tell(asked, str(error), MISUSE)
    except ForgetguardError as error:
        return _tell(asked, str(error), FAILED)
    except KeyboardInterrupt:
        return _tell(asked, "interrupted", INTERRUPTED)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="forgetguard",
        description="The regression test for what fine-tuning makes a language model forget. "
        "The gate itself runs in pytest: pytest --forgetguard base=... tuned=...",
        epilog=STATUSES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        own = commands.add_parser(command.name, help=command.summary, **_described(command.summary))
        _give(own, command)
    return parser


def parser_of(command: Command, prog: str) -> ArgumentParser:
    """A command by itself, as a program of its own."""
    parser = ArgumentParser(prog, **_described(command.summary))
    _give(parser, command)
    return parser


def _described(summary: str) -> dict[str, Any]:
    return {
        "description": f"{summary[0].upper()}{summary[1:]}.",
        "epilog": STATUSES,
        "formatter_class": RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }


def _give(parser: ArgumentParser, command: Command) -> None:
    command.options(parser)
    parser.set_defaults(chosen=command, parser=parser)


def _tell(asked: Namespace, text: str, status: int) -> int:
    say(f"{asked.parser.prog}: {text}")
    return status

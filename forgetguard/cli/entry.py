"""The command `forgetguard`: reads arguments, runs one command, says what went wrong."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

from forgetguard.cli import (
    calibrate,
    compare,
    discover,
    measures,
    reference,
    sensitivity,
    tasks,
    train,
    verify,
)
from forgetguard.cli.command import FAILED, INTERRUPTED, MISUSE, STATUSES, Command, say
from forgetguard.errors import ForgetguardError, SpecificationError

COMMANDS: tuple[Command, ...] = (
    discover.COMMAND,
    compare.COMMAND,
    calibrate.COMMAND,
    sensitivity.COMMAND,
    verify.COMMAND,
    reference.COMMAND,
    measures.COMMAND,
    tasks.COMMAND,
    train.COMMAND,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `forgetguard ARGUMENTS` (default: of this process) and return its exit status."""
    parser = _parser()
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
        return _complain(command, error, MISUSE)
    except KeyboardInterrupt:
        return _interrupted(command)
    try:
        return job()
    except SpecificationError as error:
        return _complain(command, error, MISUSE)
    except ForgetguardError as error:
        return _complain(command, error, FAILED)
    except KeyboardInterrupt:
        return _interrupted(command)


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
        own = commands.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=STATUSES,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.options(own)
        own.set_defaults(chosen=command, parser=own)
    return parser


def _complain(command: Command, error: ForgetguardError, status: int) -> int:
    say(f"forgetguard {command.name}: {error}")
    return status


def _interrupted(command: Command) -> int:
    say(f"forgetguard {command.name}: interrupted")
    return INTERRUPTED

"""The command `forgetguard`: reads arguments, runs one command, says what went wrong."""

from __future__ import annotations

import sys
from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any, NoReturn

from forgetguard.cli.command import FAILED, INTERRUPTED, MISUSE, STATUSES, SUMMARIES, Command, say
from forgetguard.errors import ForgetguardError, SpecificationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `forgetguard ARGUMENTS` (default: of this process) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    named = next((one for one in arguments if not one.startswith("-")), "")
    made = parser([named])
    if named not in SUMMARIES and (close := _closest(named)):
        made.error(f"no command {named!r}: did you mean {close!r}?")
    return run(made, arguments)


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
    status = MISUSE
    try:
        job = command.prepare(asked)
        status = FAILED
        return job()
    except ForgetguardError as error:
        told, status = str(error), MISUSE if isinstance(error, SpecificationError) else status
    except KeyboardInterrupt:
        told, status = "interrupted", INTERRUPTED
    say(f"{asked.parser.prog}: {told}")
    return status


def parser(whole: Collection[str] = SUMMARIES) -> ArgumentParser:
    """The parser of the command, `whole` of its subcommands with their options; of all, it is what
    shtab makes shell completions from."""
    made = ArgumentParser(
        prog="forgetguard",
        description="The regression test for what fine-tuning makes a language model forget. "
        "In CI the gate of `check` runs in pytest: pytest --forgetguard base=... tuned=...",
        epilog=STATUSES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action=_Version, nargs=0, help="the installed version")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in SUMMARIES.items():
        own = commands.add_parser(name, help=summary, **_described(summary))
        if name in whole:
            command: Command = import_module(f"forgetguard.cli.{name}").COMMAND
            _give(own, command)
    return made


class _Version(Action):
    """argparse's own wants the text beforehand, and help would wait for package metadata."""

    def __call__(self, parser: ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"forgetguard {version('forgetguard')}\n")
        parser.exit()


def parser_of(command: Command, prog: str) -> ArgumentParser:
    """A command by itself, as a program of its own."""
    parser = ArgumentParser(prog, **_described(command.summary))
    _give(parser, command)
    return parser


def _closest(name: str) -> str:
    from difflib import get_close_matches  # nobody else waits for it

    return "".join(get_close_matches(name, SUMMARIES, n=1))


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

"""The command line, `forgetguard COMMAND ...`: one file a command."""

from forgetguard.cli.entry import main

__all__ = ["main"]

"""The command line, `forgetguard COMMAND ...`: one file a command. [light]"""

from forgetguard.cli.entry import main

__all__ = ["main"]

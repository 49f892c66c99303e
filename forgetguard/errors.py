"""The one family of errors that forgetguard raises on purpose.

Each message says what is wrong, where, what was received and what to do next, so that a front end
(pytest, the command line) can print it without a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class ForgetguardError(Exception):
    """Anything that stops forgetguard and that its user can mend."""


class SpecificationError(ForgetguardError):
    """A circuit file, a prompt file or an option does not say something that can be run."""


class CheckpointError(ForgetguardError):
    """A checkpoint cannot be found, read or trusted, or two checkpoints do not belong together."""


class AnatomyError(ForgetguardError):
    """The attention heads of a model cannot be found, or do not add up to its attention output."""


class CapabilityError(ForgetguardError):
    """Prompt pairs do not fit the tokenizer, or say nothing about a capability."""


class BaseCannotError(CapabilityError):
    """The base model cannot do the capability, so there is nothing to lose and no circuit."""


class MeasurementError(ForgetguardError):
    """A number came out that cannot be right (not finite, out of memory, a failed self-check)."""


def first_line(error: BaseException) -> str:
    """What an exception says, at its shortest; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most]) or "nothing"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

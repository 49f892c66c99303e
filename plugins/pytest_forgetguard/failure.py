"""A gate that is no pass: the AssertionError that carries its verdicts, how pytest shows one, and
what is skipped because nothing is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _pytest._code.code import ReprExceptionInfo, ReprFileLocation, ReprTracebackNative
from _pytest.outcomes import Skipped

if TYPE_CHECKING:
    from forgetguard.gate.verdict import Verdict


class GateFailure(AssertionError):  # noqa: N818 - a finding, not a fault
    """At least one limit was not shown to be kept. `verdicts` are those that did not pass."""

    def __init__(
        self, *verdicts: Verdict, rerun: str | None = None, origin: Mapping[str, Any] | None = None
    ) -> None:
        from forgetguard.report.terminal import failure_lines

        self.verdicts = verdicts
        lines = [line for verdict in verdicts for line in failure_lines(verdict, rerun, origin)]
        super().__init__("\n".join(lines))

    @property
    def outcome(self) -> str:
        """`fail` where any verdict is one, else `abstain`."""
        outcomes = {verdict.outcome.value for verdict in self.verdicts}
        return "fail" if "fail" in outcomes else "abstain"


class Recorded(Skipped):
    """A limit over the baseline in a run that records it: measured, and not judged."""

    def __init__(self, circuit: str, limit: str) -> None:
        super().__init__(
            f"RECORDED, not judged: {circuit} {limit}; run again without recording to gate on it",
            _use_item_location=True,
        )


class NotHad(Skipped):
    """A limit of a bundled circuit that runs because nobody named any, on a capability that the
    base has not, or whose prompts do not fit its tokenizer.

    A circuit file of the user's own declares what a release must keep, so that an abstention fails
    the run. The bundled defaults guess at what a base may be able to do; a guess that is wrong says
    nothing about the tuned model. It is skipped only where the base, and it alone, was found not to
    have the capability; and a run in which that is true of every default is no pass.
    """

    def __init__(self, circuit: str, limit: str, why: str) -> None:
        super().__init__(f"NOT HAD, not judged: {why} ({circuit} {limit})", _use_item_location=True)


def base_has_not(verdict: Verdict) -> bool:
    """Whether the verdict says that the base lacks the capability, and nothing about tuned."""
    from forgetguard.gate.verdict import Code, Outcome

    # Not NO_CIRCUIT: by the pairs of the run the base can then do it, and nothing was looked at.
    cannot = (Code.BASE_WRONG, Code.BASE_READOUT, Code.BASE_UNMOVED)
    return verdict.outcome is Outcome.ABSTAIN and verdict.code in cannot


def without_traceback(text: str, path: Path, line: int) -> ReprExceptionInfo:
    """The text alone as pytest's account of an exception, located at `line` (1-based) of `path`.

    Of this class because xdist carries it between processes whole, and because pytest's short
    summary, JUnit and GitHub annotations take the first line and the place from `reprcrash`.
    """
    first = text.partition("\n")[0]
    return ReprExceptionInfo(
        reprtraceback=ReprTracebackNative([f"{text}\n"]),
        reprcrash=ReprFileLocation(str(path), max(line, 1), first),
    )

"""A failed gate: an AssertionError that carries its verdicts, and how pytest shows one."""

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

"""Opens the gate session at the first gate, judges limits with it, and closes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetguard.errors import ForgetguardError
    from forgetguard.gate.schema import CircuitSpec, Limit
    from forgetguard.gate.verdict import Verdict
    from pytest_forgetguard.backend import Backend, Measuring, Progress


class Measurements:
    """Lazily one session over the circuits of all selected gates, and the verdicts it gave."""

    def __init__(self, backend: Backend, progress: Progress | None) -> None:
        self._backend = backend
        self._progress = progress
        self._circuits: dict[CircuitSpec, None] = {}
        self._sessions: dict[CircuitSpec, Measuring] = {}
        self._failed: ForgetguardError | None = None
        self._fresh: list[dict[str, Any]] = []
        self.here: Path | None = None  # the file of the running test

    def plan(self, circuits: Sequence[CircuitSpec]) -> None:
        """Name the circuits that the one session is to measure together."""
        self._circuits.update(dict.fromkeys(circuits))

    def judge(self, circuit: CircuitSpec, limit: Limit) -> Verdict:
        """The verdict on one limit. Raises ForgetguardError."""
        return self._session(circuit).judge(circuit, limit)

    def record(self, verdict: Verdict) -> None:
        """Count the verdict as a gate's: it goes into the report of the running test."""
        from forgetguard.report.json_file import verdict_to_dict

        self._fresh.append(verdict_to_dict(verdict))

    def drain(self) -> list[dict[str, Any]]:
        """The verdicts recorded since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def close(self) -> None:
        """Close every session that was opened."""
        sessions = {id(session): session for session in self._sessions.values()}
        self._sessions.clear()
        for session in sessions.values():
            session.close()

    def _session(self, circuit: CircuitSpec) -> Measuring:
        """The planned session, or one of its own for a circuit that no one announced.

        Opening may load gigabytes: where it failed once it is not tried again.
        """
        from forgetguard.errors import ForgetguardError

        if circuit in self._sessions:
            return self._sessions[circuit]
        if self._failed is not None:
            raise self._failed
        planned = tuple(self._circuits) if circuit in self._circuits else (circuit,)
        try:
            session = self._backend.session(planned, self._progress)
        except ForgetguardError as error:
            self._failed = error
            raise
        self._sessions.update(dict.fromkeys(planned, session))
        return session

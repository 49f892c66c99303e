"""Opens the gate session at the first gate, judges limits with it, and closes it. What it measured
is kept in plain values, for the results file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.errors import ForgetguardError

if TYPE_CHECKING:
    from forgetguard.gate.declaration import GateSpec, Limit
    from forgetguard.gate.session import GateSession
    from forgetguard.gate.verdict import Verdict
    from forgetguard.measures.samples import Samples
    from pytest_forgetguard.backend import ModelBackend
    from pytest_forgetguard.progress import Progress


class Measurements:
    """Lazily one session over the circuits of all selected gates, and the verdicts it gave."""

    def __init__(self, backend: ModelBackend, progress: Progress) -> None:
        self._backend = backend
        self._progress = progress
        self._circuits: dict[GateSpec, None] = {}
        self._sessions: dict[GateSpec, GateSession] = {}
        self._failed: ForgetguardError | None = None
        self._fresh: list[dict[str, Any]] = []
        self._digests: dict[str, str] = {}  # of the circuit last measured under a name
        self._told: dict[str, Samples | None] = {}  # by digest, what was drained
        self._fresh_circuits: list[dict[str, Any]] = []
        self._origins: dict[str, dict[str, Any] | None] = {}  # by digest
        self.family = 1  # limits of the whole run, those of other workers too
        self._limits: tuple[tuple[GateSpec, Limit], ...] = ()
        self.here: Path | None = None  # the file of the running test

    def plan(self, circuits: Sequence[GateSpec]) -> None:
        """Name the circuits that the one session is to measure together."""
        self._circuits.update(dict.fromkeys(circuits))

    def share(
        self, gates: int, declared: Sequence[tuple[GateSpec, Limit]], given: int | None
    ) -> None:
        """Count the gates that share the run's false-alarm rate: all that were collected (every
        worker collects them all), so that `-k` or `--deselect` change no verdict; or as `given`,
        by the command that runs one limit of another run again. `declared`: the limits of circuit
        files among them."""
        self.family = given or max(1, gates)
        self._limits = tuple(declared) if given is None else ()

    def judge(self, circuit: GateSpec, limit: Limit, *, own: int = 1) -> Verdict:
        """The verdict on one limit, `own` of which stand for one of the run's. Raises
        ForgetguardError."""
        with self._noted(circuit) as session:
            return session.judge(circuit, limit, own=own)

    def measure(self, circuit: GateSpec) -> None:
        """Measure a circuit without judging it. Raises ForgetguardError."""
        with self._noted(circuit) as session:
            session.measurement(circuit)

    def origin(self, circuit: GateSpec) -> dict[str, Any] | None:
        """Where the loss of a circuit that was judged came from, in plain values, measured once;
        what cannot be measured is `{"error": why}`, and no defect of the verdict."""
        from forgetguard.gate.records import dump

        key = self._digests[circuit.name]
        if key not in self._origins:
            with self._progress.during():
                try:
                    found = self._session(circuit).origin(circuit)
                    self._origins[key] = None if found is None else dump(found)
                except ForgetguardError as error:
                    self._origins[key] = {"error": str(error)}
            self._fresh_circuits.append({"digest": key, "origin": self._origins[key]})
        return self._origins[key]

    def record(self, verdict: Verdict) -> None:
        """Count the verdict as a gate's: it goes into the report of the running test. It says by a
        digest which circuit, as declared, it is about."""
        from forgetguard.gate.records import verdict_to_dict

        about = {"circuit_digest": self._digests.get(verdict.circuit)}
        self._fresh.append(verdict_to_dict(verdict) | about)

    def drain(self) -> list[dict[str, Any]]:
        """The verdicts recorded since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def drain_circuits(self) -> list[dict[str, Any]]:
        """What was measured since the last call, in plain values."""
        fresh, self._fresh_circuits = self._fresh_circuits, []
        return fresh

    def close(self) -> None:
        """Close every session that was opened."""
        sessions = {id(session): session for session in self._sessions.values()}
        self._sessions.clear()
        for session in sessions.values():
            session.close()

    @contextmanager
    def _noted(self, circuit: GateSpec) -> Iterator[GateSession]:
        with self._progress.during():
            session = self._session(circuit)
            try:
                yield session
            finally:
                self._note(circuit, session)

    def _note(self, circuit: GateSpec, session: GateSession) -> None:
        """Keep the circuit as declared, and its numbers where they are new."""
        from forgetguard.gate.checksum import digest
        from forgetguard.gate.records import samples_to_dict, spec_to_dict

        measured = session.measured(circuit)
        spec, samples = (circuit, None) if measured is None else measured
        declared = spec_to_dict(spec)
        key = self._digests[circuit.name] = digest(declared)
        if key in self._told and self._told[key] is samples:
            return
        self._told[key] = samples
        self._fresh_circuits.append(
            {
                "name": spec.name,
                "digest": key,
                "declared": declared,
                "environment": {} if samples is None else self._backend.environment(),
                "measured": None if samples is None else samples_to_dict(samples),
            }
        )

    def _session(self, circuit: GateSpec) -> GateSession:
        """The planned session, or one of its own for a circuit that no one announced.

        Opening may load gigabytes: where it failed once it is not tried again.
        """
        if circuit in self._sessions:
            return self._sessions[circuit]
        if self._failed is not None:
            raise self._failed
        planned = tuple(self._circuits) if circuit in self._circuits else (circuit,)
        try:
            session = self._backend.session(planned, self._progress, self.family, self._limits)
        except ForgetguardError as error:
            self._failed = error
            raise
        self._sessions.update(dict.fromkeys(planned, session))
        return session

"""What the fixture `forgetguard` gives to a test: the checkpoints, and limits as assertions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from forgetguard.errors import ForgetguardError, SpecificationError
from pytest_forgetguard.collection import located
from pytest_forgetguard.failure import GateFailure
from pytest_forgetguard.python_gates import ASSERTED, MEASURED

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import ModelPair
    from forgetguard.gate.declaration import GateSpec, Limit
    from forgetguard.gate.verdict import Verdict
    from pytest_forgetguard.settings import Settings
    from pytest_forgetguard.state import Run

Given = ParamSpec("Given")
Found = TypeVar("Found")


def _from_the_test(call: Callable[Given, Found]) -> Callable[Given, Found]:
    """What its user can mend (a limit that is not kept, an error of ours) is raised as from her own
    line: frames of plugin and package above the message would say nothing. A defect keeps its."""

    @wraps(call)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        __tracebackhide__ = True
        try:
            return call(*args, **kwargs)
        except (ForgetguardError, GateFailure) as error:
            raise error.with_traceback(None) from None

    return called


class Forgetguard:
    """The gate run, for tests written in Python.

    A circuit is a path (beside the test's file, or under pytest's rootdir) or a `GateSpec`.
    """

    def __init__(self, run: Run, root: Path) -> None:
        self._run = run
        self._root = root

    @property
    def settings(self) -> Settings:
        """The options in force."""
        return self._run.settings

    @property
    @_from_the_test
    def pair(self) -> ModelPair:
        """Handles to base, tuned and reference; weights are loaded on use."""
        self._run.uses.note(MEASURED)
        return self._run.backend.pair()

    @_from_the_test
    def circuit(self, circuit: str | Path | GateSpec) -> GateSpec:
        """Read a circuit file; of a GateSpec without a prompt seed of its own, that with the run's.
        Raises SpecificationError."""
        if not isinstance(circuit, str | Path):
            seed = self.settings.prompt_seed
            own = seed is None or circuit.prompt_seed is not None
            return circuit if own else replace(circuit, prompt_seed=seed)
        path = located(circuit, self._run.measurements.here, self._root)
        return self._run.circuit(path)

    @_from_the_test
    def judge(
        self, circuit: str | Path | GateSpec, limit: str, *, max: float | None = None
    ) -> Verdict:
        """Measure and return the verdict, whatever it is: it gates nothing, and the summary and
        the results file do not show it. `max` None: the limit that the circuit file declares.
        What is returned is true only where it is a pass.

        Raises:
            SpecificationError: there is no such limit, or it may not have this maximum.
            Recorded: a limit over the baseline in a run that records it (pytest skips the test,
                and the run is no pass).
        """
        return self._judge(circuit, limit, max)

    def _judge(
        self, circuit: str | Path | GateSpec, limit: str, maximum: float | None, own: int = 1
    ) -> Verdict:
        spec = self.circuit(circuit)
        verdict = self._run.judge(spec, self._limit(spec, limit, maximum), own=own)
        self._run.uses.note(MEASURED)
        return verdict

    def _assert(self, spec: GateSpec, *verdicts: Verdict) -> None:
        self._run.uses.note(ASSERTED)
        for verdict in verdicts:
            self._run.measurements.record(verdict)
        self._run.require_pass(spec, *verdicts)

    @_from_the_test
    def assert_limit(
        self, circuit: str | Path | GateSpec, limit: str, *, max: float | None = None
    ) -> Verdict:
        """Gate on one limit: the verdict goes into summary and results file.

        Raises:
            GateFailure: the verdict is no pass (an AssertionError with `.verdicts`).
            SpecificationError: there is no such limit, or it may not have this maximum.
        """
        verdict = self.judge(circuit, limit, max=max)
        self._assert(self.circuit(circuit), verdict)
        return verdict

    @_from_the_test
    def check(
        self, circuit: str | Path | GateSpec, limits: Mapping[str, float] | None = None
    ) -> tuple[Verdict, ...]:
        """Gate on several limits, by default on all that the circuit file declares; every one is
        measured before the first failure is raised.

        Raises:
            GateFailure: a verdict is no pass.
            SpecificationError: there are no limits to check, or one may not have its maximum.
        """
        spec = self.circuit(circuit)
        asked = dict.fromkeys(limit.key for limit in spec.limits) if limits is None else limits
        if not isinstance(asked, Mapping):
            raise SpecificationError(f"limits must be {{limit: max, ...}}, got {asked!r:.60}")
        if not asked:
            raise SpecificationError(f"{spec.name}: no limits to check; give at least one")
        own = len(asked)  # they share this gate's part of the run's false-alarm rate
        verdicts = tuple(self._judge(spec, key, maximum, own) for key, maximum in asked.items())
        self._assert(spec, *verdicts)
        return verdicts

    def _limit(self, spec: GateSpec, key: str, maximum: float | None) -> Limit:
        if maximum is not None:
            return self._run.backend.limit(key, maximum)
        for limit in spec.limits:
            if limit.key == key:
                return limit
        declared = ", ".join(limit.key for limit in spec.limits)
        raise SpecificationError(
            f"{spec.path} declares no limit {key!r} (it has {declared}); give max=..., or add it"
        )

"""The nodes of a circuit file: the file, its circuit, and one item per declared limit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forgetguard.errors import CapabilityError, ForgetguardError, SpecificationError
from pytest_forgetguard.failure import GateFailure, NotHad, base_has_not, without_traceback
from pytest_forgetguard.keys import MARKER
from pytest_forgetguard.rerun import rerun_command
from pytest_forgetguard.state import RUN

if TYPE_CHECKING:
    from forgetguard.gate.declaration import GateSpec, Limit
    from forgetguard.gate.verdict import Verdict


class CircuitFile(pytest.File):
    """A `*.circuit.yaml` or `*.gate.yaml` (or `.yml`) file; `default`: a bundled one that runs
    because nobody named any."""

    def __init__(self, *, default: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.default = default

    def collect(self) -> Iterable[CircuitNode]:
        """Read the file. Raises SpecificationError with its line."""
        spec = self.config.stash[RUN].circuit(self.path)
        if not spec.limits:
            raise SpecificationError(
                f"{self.path}:1: declares no limits, so there is nothing to gate on; add one "
                f"under `limits:`"
            )
        yield CircuitNode.from_parent(self, name=spec.name, spec=spec, default=self.default)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        """A bad circuit file is told by its message alone."""
        if isinstance(excinfo.value, ForgetguardError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class CircuitNode(pytest.Collector):
    """The circuit that a file declares."""

    def __init__(self, *, spec: GateSpec, default: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec, self.default = spec, default

    def collect(self) -> Iterable[LimitItem]:
        """One item per limit."""
        for limit in self.spec.limits:
            yield LimitItem.from_parent(
                self, name=limit.key, spec=self.spec, limit=limit, default=self.default
            )


class LimitItem(pytest.Item):
    """One declared limit: measured, judged, and passed only by a passing verdict."""

    def __init__(
        self, *, spec: GateSpec, limit: Limit, default: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.spec, self.limit, self.default = spec, limit, default
        self.add_marker(MARKER)

    def runtest(self) -> None:
        """Judge the limit. Raises GateFailure unless the verdict is a pass, or it abstains and may;
        Recorded where this run records what the limit compares with; NotHad for a bundled default
        on what the base cannot do."""
        run = self.config.stash[RUN]
        try:
            verdict = run.judge(self.spec, self.limit)
        except CapabilityError as error:  # its prompts do not fit the base's tokenizer
            if self.default:
                raise NotHad(self.spec.name, self.limit.key, str(error)) from None
            raise
        run.measurements.record(verdict)
        self.user_properties += verdict_properties(verdict)
        if self.default and base_has_not(verdict):
            why = f"the base cannot do {verdict.capability}"
            raise NotHad(verdict.circuit, verdict.limit, why)
        run.require_pass(self.spec, verdict, rerun=self.rerun(verdict.family))

    def _initrequest(self) -> None:
        """What pytest-retry calls between attempts, to set fixtures up anew: there are none."""

    def rerun(self, family: int) -> str:
        """The shell command that runs only this item again, as one of `family` limits."""
        config = self.config
        names = f"::{self.spec.name}::{self.limit.key}"
        start = Path(config.invocation_params.dir)
        return rerun_command(config.stash[RUN].settings, self.path, names, start, family)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A verdict, or an error that its user can mend, without a traceback."""
        line = self.limit.line
        if isinstance(excinfo.value, GateFailure):
            return without_traceback(str(excinfo.value), self.path, line)
        if isinstance(excinfo.value, ForgetguardError):
            rerun = self.rerun(self.config.stash[RUN].measurements.family)
            text = (
                f"ERROR: {excinfo.value}\n"
                f"  {self.spec.name} {self.limit.key} was not measured\n"
                f"  declared in {self.path}:{line}\n"
                f"  run only this: {rerun}"
            )
            return without_traceback(text, self.path, line)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The place of the limit (its line counted from 0) and a title for the failure."""
        line = self.limit.line - 1 if self.limit.line else None
        return self.path, line, f"{self.spec.name}: {self.limit.key}"


def verdict_properties(verdict: Verdict) -> list[tuple[str, object]]:
    """The verdict's numbers as JUnit properties; plain `str`, which every reader takes."""
    from forgetguard.report.wording import reason

    properties: dict[str, object] = {
        "circuit": verdict.circuit,
        "capability": verdict.capability,
        "limit": verdict.limit,
        "bound": float(verdict.bound),
        "outcome": verdict.outcome.value,
        "code": verdict.code.value,
        "reason": reason(verdict),
    }
    estimate = verdict.estimate
    if estimate is not None:
        properties |= {
            "value": float(estimate.value),
            "low": float(estimate.low),
            "high": float(estimate.high),
            "coverage": float(estimate.coverage),
            "units": int(estimate.n),
        }
    if verdict.subject:
        properties["subject"] = verdict.subject
    if verdict.subjects:
        properties["worst"] = verdict.subjects[0].subject
    return [(f"forgetguard.{key}", str(value)) for key, value in properties.items()]

"""A conftest.py for test projects: verdicts by the circuit's name, without any model.

A circuit whose name begins with `good` passes; `bad` fails, `vague` abstains, `wide` abstains as
its interval holds the limit, `lacking` as the base has not the capability, `broken` raises a
MeasurementError, `misfit` a CapabilityError, `absurd` a SpecificationError, `bug` a TypeError,
`interrupt` a KeyboardInterrupt, and `crash` ends the process. Its numbers depend on its name and
on `tuned`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class FakeSession:
    """Judges by name, and writes what happens to it into a log."""

    def __init__(self, circuits, progress, backend, family):
        log(f"open {' '.join(sorted(circuit.name for circuit in circuits))}")
        self.progress = progress
        self.backend = backend
        self.family = family
        self.numbers = {}

    def judge(self, circuit, limit, *, own=1):
        log(f"judge {circuit.name} {limit.key}")
        if self.progress is not None:
            self.progress("capturing tuned", 1, 2)
            self.progress("capturing tuned", 2, 2)
        self.measurement(circuit)
        kind = circuit.name.partition("-")[0]
        return fake_verdict(circuit, limit, kind, self.family * own)

    def measured(self, circuit):
        numbers = self.numbers.get(circuit.name)
        return None if numbers is None else (circuit, numbers)

    def measurement(self, circuit):
        if circuit.name not in self.numbers:
            fail_by_name(circuit)
            self.numbers[circuit.name] = self.backend.numbers(circuit)
        return self.numbers[circuit.name]

    def close(self):
        log("close")


def fail_by_name(circuit):
    from forgetguard.errors import CapabilityError, MeasurementError, SpecificationError

    kind = circuit.name.partition("-")[0]
    if kind == "broken":
        raise MeasurementError("logits are not finite in layer 2; try dtype float32")
    if kind == "misfit":
        raise CapabilityError("none of the task's sentence frames fits this tokenizer")
    if kind == "absurd":
        raise SpecificationError(f"{circuit.path}:3: there is no task 'sums'; use ioi")
    if kind == "bug":
        raise TypeError("a defect")
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "crash":
        os._exit(7)


def fake_verdict(circuit, limit, kind, family):
    from forgetguard.gate.verdict import (
        Code,
        Estimate,
        Outcome,
        SubjectEvidence,
        UnitEvidence,
        Verdict,
    )
    from forgetguard.measures.samples import Note

    abstaining = dict.fromkeys(("vague", "wide", "lacking"), Outcome.ABSTAIN)
    outcome = {"bad": Outcome.FAIL, **abstaining}.get(kind, Outcome.PASS)
    low = 0.5 if outcome is Outcome.FAIL else -0.02
    valueless = outcome is Outcome.ABSTAIN and kind != "wide"
    estimate = Estimate(low + 0.05, low, low + 0.1, coverage=0.9, n=64)
    head = SubjectEvidence("L2H2", estimate, Estimate(1.2, 1.0, 1.4, 0.9, 64))
    pair = UnitEvidence("When Mary", 2.9, "When John", " John", " Mary", 4.1, 1.2, 0.9)
    codes = {Outcome.PASS: Code.WITHIN, Outcome.FAIL: Code.BEYOND, Outcome.ABSTAIN: Code.TOO_FEW}
    code = {"lacking": Code.BASE_WRONG, "wide": Code.UNDECIDED}.get(kind, codes[outcome])
    facts = {"corrected_low": low, "before": 1.0, "now": 0.9, "value": 0.1, "low": 0.0, "high": 0.2}
    return Verdict(
        circuit=circuit.name,
        capability=circuit.capability,
        limit=limit.key,
        bound=limit.maximum,
        outcome=outcome,
        estimate=None if valueless else estimate,
        code=code,
        facts=facts | {"dropped": 2, "count": 3, "least": 8},
        subjects=(head,),
        units=(pair,),
        file=str(circuit.path),
        line=limit.line,
        notes=(Note("dropped", {"dropped": 2, "of": 66}),),
        family=family,
    )


class FakeBackend:
    """Circuits are read for real; checkpoints are names, and `missing` is not there."""

    def __init__(self, settings, root):
        self.settings = settings
        self.root = root

    def preflight(self):
        from forgetguard.errors import CheckpointError

        log("preflight")
        for given in (self.settings.base, self.settings.tuned, self.settings.reference):
            if given == "missing":
                raise CheckpointError("there is no checkpoint 'missing'; check the path")
        return ("vocabulary resized",)

    def fingerprints(self):
        return {"base": {"weights": "abc" if self.settings.base == "b" else self.settings.base}}

    def size(self):
        return {"layers": 4, "heads": 4}

    def environment(self):
        return {"device": "fake", "dtype": self.settings.dtype}

    def circuit(self, path):
        from forgetguard.gate.schema import load_gate_file

        return load_gate_file(path)

    def check(self, circuits):
        from forgetguard.gate.suitability import check_given, check_names

        reference, baseline = self.settings.reference, self.settings.baseline
        check_names(circuits)
        check_given(circuits, reference=reference is not None, baseline=baseline is not None)

    def bundled(self):
        from forgetguard.gate.bundled import divided
        from forgetguard.gate.schema import load_gate_file

        found = [(path, load_gate_file(path)) for path in sorted(self.root.glob("fits/*"))]
        return *divided(found, core=self.settings.bundled == "core"), 3

    def limit(self, key, maximum):
        from pytest_forgetguard.backend import ModelBackend

        return ModelBackend(self.settings).limit(key, maximum)

    def pair(self):
        return f"the pair {self.settings.base} and {self.settings.tuned}"

    def session(self, circuits, progress, family, limits=()):
        return FakeSession(circuits, progress, self, family)

    def numbers(self, circuit):
        from forgetguard.gate.baseline import attach
        from pytest_forgetguard.backend import load_baseline

        numbers = fake_numbers(circuit, self.settings.tuned)
        baseline = load_baseline(self.settings, self.environment())
        if baseline is None:
            return numbers
        return attach(circuit, numbers, baseline, self.fingerprints()["base"])


def fake_numbers(circuit, tuned):
    """Samples on 16 pairs whose numbers differ with the circuit's name and with `tuned`."""
    import random

    import numpy as np

    from forgetguard.capabilities.pairs import PromptPair
    from forgetguard.measures.samples import Key, Samples

    draw = random.Random(f"{circuit.name} {tuned}")

    def some(least):
        return np.array([least + draw.random() for _ in range(16)])

    arrays = {
        Key("readout", "", "base"): np.arange(16.0) / 16 + 4,
        Key("readout", "", "tuned"): some(3.5),
        Key("correct", "", "base"): np.ones(16),
        Key("correct", "", "tuned"): np.ones(16),
        Key("importance", "circuit", "base"): np.arange(16.0) / 16 + 2,
        Key("damage", "circuit", "tuned"): some(0.1),
    }
    members = [str(member) for member in circuit.members]
    arrays |= {Key("importance", member, "base"): some(0.5) for member in members}
    arrays |= {Key("damage", member, "tuned"): some(0.0) for member in members}
    pairs = tuple(PromptPair(f"x{i}", f"x'{i}", " y", " z") for i in range(16))
    return Samples(pairs, arrays)


def log(line):
    with Path(os.environ["FORGETGUARD_FAKE_LOG"]).open("a") as file:
        file.write(f"{line}\n")


@pytest.hookimpl
def pytest_forgetguard_backend(config, settings):
    return FakeBackend(settings, config.rootpath)

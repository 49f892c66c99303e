"""Decides every verdict of a results file again, from the numbers in it alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forgetguard.errors import ForgetguardError, SpecificationError
from forgetguard.gate import rule
from forgetguard.gate.checksum import digest
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.records import (
    samples_from_dict,
    spec_from_dict,
    verdict_from_dict,
    verdict_to_dict,
)
from forgetguard.gate.schema import SUFFIXES
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.samples import BASELINE, Samples

# Another version of numpy or scipy may round the last digits of an interval differently.
SAME = 1e-9  # relative, and absolute below 1
# Of a bundled default, as plugins/pytest_forgetguard/not_had.py has it.
_BASE_HAS_NOT = ("base_wrong", "base_readout", "base_unmoved")


@dataclass(frozen=True, slots=True)
class Difference:
    """What the file says, and what its own numbers give. `where` is the gate, or the run."""

    where: str
    field: str
    written: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.where}: {self.field} is written as {self.written!r}, found {self.found!r}"


@dataclass(frozen=True, slots=True)
class Measured:
    """A circuit of the file, ready to be judged again; `samples` None: it was not measured."""

    spec: GateSpec
    samples: Samples | None


@dataclass(frozen=True, slots=True)
class Rechecked:
    """verdicts: as they are written. differences: what does not follow from the numbers. passed:
    whether the run was one; `why_not` says why it was not."""

    verdicts: tuple[Verdict, ...]
    differences: tuple[Difference, ...]
    passed: bool
    why_not: tuple[str, ...]


def circuits_of(document: Mapping[str, Any]) -> dict[str, Measured]:
    """The circuits of a results file, by digest.

    Raises:
        SpecificationError: one cannot be read, or is not what its digest says.
    """
    found = {}
    try:
        for entry in document["circuits"]:
            if digest(entry["declared"]) != entry["digest"]:
                raise SpecificationError(
                    f"circuit {entry['name']!r} is not the one that its digest names"
                )
            measured = entry["measured"]
            found[entry["digest"]] = Measured(
                spec_from_dict(entry["declared"]),
                None if measured is None else samples_from_dict(measured),
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise SpecificationError(f"the circuits of the file cannot be read: {error!r}") from error
    return found


def recheck(document: Mapping[str, Any]) -> Rechecked:
    """Decide every verdict again, and hold what the file says of the run against its verdicts.

    Raises:
        SpecificationError: the file lacks what is needed.
    """
    circuits = circuits_of(document)
    try:
        verdicts: list[Verdict] = []
        differences: list[Difference] = []
        for result in document["results"]:
            for written in result["verdicts"]:
                verdicts.append(verdict_from_dict(written))
                differences += _differing(result["id"], written, circuits, document["seed"])
            differences += _outcome(result)
        differences += _as_asked(document)
        why_not = tuple(why_no_pass(document))
        differences += _run(document, why_not)
    except (KeyError, TypeError, AttributeError) as error:
        raise SpecificationError(f"the results file lacks what verdicts need: {error!r}") from error
    return Rechecked(tuple(verdicts), tuple(differences), not why_not, why_not)


# --- one verdict -----------------------------------------------------------------------------


def _differing(
    where: str, written: Mapping[str, Any], circuits: Mapping[str, Measured], seed: int
) -> Iterator[Difference]:
    about = circuits.get(written["circuit_digest"])
    where = f"{where} ({written['limit']})" if not where.endswith(written["limit"]) else where
    if about is None or about.samples is None:
        yield Difference(where, "circuit_digest", written["circuit_digest"], "no such measurement")
        return
    limit = _limit(about.spec, written)
    declared = where.partition("::")[0].endswith(SUFFIXES)
    if declared and limit not in about.spec.limits:
        bounds = {one.key: one.maximum for one in about.spec.limits}
        yield Difference(where, "bound", written["bound"], bounds.get(written["limit"]))
    try:
        verdict = judged_again(about.spec, limit, about.samples, seed, written["family"])
    except ForgetguardError as error:
        yield Difference(where, "outcome", written["outcome"], f"error: {error}")
        return
    found = verdict_to_dict(verdict)
    # What stages say of the machine beside the baseline's is known of the last one only.
    unsure = bool(about.samples.stages) and about.samples.has_role(BASELINE)
    for name, value in found.items():
        if name == "notes" and unsure:
            continue
        yield from _compared(where, name, written.get(name), value)


def _limit(spec: GateSpec, written: Mapping[str, Any]) -> Limit:
    """The limit as the file declares it; a Python gate may have given a maximum of its own."""
    key, bound = written["limit"], float(written["bound"])
    for limit in spec.limits:
        if limit.key == key and limit.maximum == bound and limit.line == written["line"]:
            return limit
    return Limit(key, bound, written["line"])


def judged_again(spec: GateSpec, limit: Limit, samples: Samples, seed: int, family: int) -> Verdict:
    """The verdict of the first stage that decides, as the session reaches it."""
    of_run = {"seed": seed, "family": family}
    for stage in [stage for stage in samples.stages if stage < samples.count]:
        so_far = samples.at(slice(stage))
        verdict = rule.judge(spec, limit, so_far, **of_run)
        if rule.stands(spec, so_far, verdict, **of_run):
            return verdict
    return rule.judge(spec, limit, samples, **of_run)


def _compared(where: str, name: str, written: Any, found: Any) -> Iterator[Difference]:
    """Leaf by leaf, so that the field that differs is named."""
    if isinstance(found, Mapping) and isinstance(written, Mapping):
        for key in {**written, **found}:
            yield from _compared(where, f"{name}.{key}", written.get(key), found.get(key))
    elif isinstance(found, list) and isinstance(written, list) and len(found) == len(written):
        for place, (theirs, ours) in enumerate(zip(written, found, strict=True)):
            yield from _compared(where, f"{name}.{place}", theirs, ours)
    elif not _same(written, found):
        yield Difference(where, name, written, found)


def _same(written: Any, found: Any) -> bool:
    numbers = all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in (written, found)
    )
    if numbers:
        return math.isclose(written, found, rel_tol=SAME, abs_tol=SAME)
    return type(written) is type(found) and bool(written == found)


# --- the run ---------------------------------------------------------------------------------


def _outcome(result: Mapping[str, Any]) -> Iterator[Difference]:
    """A gate that passed has no verdict, and no attempt, that did not; a declared limit has a
    verdict, on itself."""
    yield from _about_itself(result)
    found = [*(one["outcome"] for one in result["verdicts"]), *result.get("attempts", ())]
    worst = [one for one in found if one != "pass"]
    if result["outcome"] == "pass" and worst:
        yield Difference(result["id"], "outcome", "pass", worst[0])
    if result["outcome"] == "not_had":
        other = [one["code"] for one in result["verdicts"] if one["code"] not in _BASE_HAS_NOT]
        bundled = result["id"].startswith("forgetguard_circuits/")
        if other or not bundled or not result["verdicts"]:
            yield Difference(result["id"], "outcome", "not_had", (other or ["not a default"])[0])


def _about_itself(result: Mapping[str, Any]) -> Iterator[Difference]:
    where = str(result["id"])
    if not where.partition("::")[0].endswith(SUFFIXES):
        return  # a Python gate's verdicts are on what it asked for, or on what its fixtures did
    if result["outcome"] in ("pass", "abstain") and not result["verdicts"]:
        yield Difference(where, "verdicts", result["outcome"], "no verdict")
    named = where.rpartition("::")[2].partition("@")[0]  # without pytest-xdist's group
    for one in result["verdicts"]:
        if one["limit"] != named or f"::{one['circuit']}::" not in where:
            about = f"{one['circuit']}::{one['limit']}"
            yield Difference(where, "verdicts", named, f"a verdict on {about}")


def why_no_pass(document: Mapping[str, Any]) -> Iterator[str]:
    """Everything that keeps the run in the file from being a pass."""
    status = document["exit_status"]
    if status is None:
        yield "it has no end: the process was stopped, or is still running"
    elif status != 0:
        yield f"it ended with exit status {status}"
    allowed = set(document["allowed_to_abstain"])
    for result in document["results"]:
        if result["outcome"] not in ("pass", "not_had") and result["id"] not in allowed:
            yield f"{result['id']}: {result['outcome']}"
    if document["not_run"]:
        yield f"not run: {', '.join(document['not_run'])}"
    yield from (str(error) for error in document["errors"])
    yield from _unanswered(document)
    if not any(result["outcome"] == "pass" for result in document["results"]):
        yield "no gate passed"
    elif not document["complete"]:
        yield "it is not complete"


def _unanswered(document: Mapping[str, Any]) -> Iterator[str]:
    """Limits that a circuit file declares and nothing is said of; a Python gate judges those that
    it likes."""
    named = [one["id"] for one in document["results"]]
    named += [*document["deselected"], *document["not_run"]]
    by_python = {
        verdict["circuit_digest"]
        for one in document["results"]
        if not one["id"].partition("::")[0].endswith(SUFFIXES)
        for verdict in one["verdicts"]
    }
    for entry in document["circuits"]:
        if entry["digest"] in by_python:
            continue
        for limit in entry["declared"]["limits"]:
            gate = f"::{entry['name']}::{limit['key']}"
            if not any(name.endswith(gate) for name in named):
                yield f"{entry['name']}: {limit['key']} is declared, and there is no verdict on it"


def _as_asked(document: Mapping[str, Any]) -> Iterator[Difference]:
    """Declared limits were judged on the prompts, and in the family, that the options ask for. (A
    Python gate may give its circuit a prompt seed of its own, and counts as several limits.)"""
    options = document["options"]
    family, prompt_seed = options.get("family"), options.get("prompt_seed")
    seeds = {one["digest"]: one["declared"].get("prompt_seed") for one in document["circuits"]}
    collected = sum(map(len, (document[key] for key in ("results", "deselected", "not_run"))))
    collected += len(document.get("ungated", ()))
    for result in document["results"]:
        if not result["id"].partition("::")[0].endswith(SUFFIXES):
            continue
        for one in result["verdicts"]:
            theirs = seeds.get(one["circuit_digest"], prompt_seed)
            if theirs != prompt_seed:
                yield Difference(result["id"], "declared.prompt_seed", theirs, prompt_seed)
            if family is not None and one["family"] != family:
                yield Difference(result["id"], "family", one["family"], family)
            elif family is None and one["family"] > collected:
                yield Difference(result["id"], "family", one["family"], collected)


def _run(document: Mapping[str, Any], why_not: tuple[str, ...]) -> Iterator[Difference]:
    """What the file says of the run must follow from its results."""
    if document["exit_status"] == 0 and why_not:
        yield Difference("the run", "exit_status", 0, why_not[0])
    judged = {
        one["id"]: [verdict_from_dict(verdict) for verdict in one["verdicts"]]
        for one in document["results"]
        if one["outcome"] == "abstain"
    }
    for gate in document["allowed_to_abstain"]:
        if gate not in judged:
            yield Difference("the run", "allowed_to_abstain", gate, "no abstention")
        for one in judged.get(gate, ()):
            if one.outcome is Outcome.ABSTAIN and not one.not_judged:
                yield Difference(gate, "allowed_to_abstain", gate, one.code.value)
    if document["allowed_to_abstain"] and not document["options"].get("allow_abstain"):
        yield Difference("the run", "options.allow_abstain", False, True)

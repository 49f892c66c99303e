"""The page: results files as one HTML file that stands alone, made without the models."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, StrictUndefined, UndefinedError

from forgetguard.errors import SpecificationError, some
from forgetguard.gate.checksum import check_checksum
from forgetguard.gate.records import verdict_from_dict
from forgetguard.gate.verdict import SubjectEvidence, Verdict
from forgetguard.measures.samples import Note
from forgetguard.report import json_file, page_figures, terminal, wording
from forgetguard.report.recheck import why_no_pass
from forgetguard.whole_files import write_text

Written = TypeVar("Written")
# What is looked at first stands first.
ORDER = ("fail", "error", "abstain", "skipped", "recorded", "ungated", "pass", "not_had")
BROKEN = ("fail", "error", "abstain")
_ROLES = ("base", "tuned", "reference")
_MOST = {"templates_unseen": "missed", "unguarded": "pairs"}  # the fact by which the worst is told
_ELSEWHERE = (
    "scores", "share_of_readout", "share_of_loss", "said_instead", "slice_carries", "drawn",
)  # fmt: skip
_AS_USUAL = (None, False, 0, "float32", "core")
_CHECK = {"bundled": "circuits"}  # how `forgetguard check` calls an option of pytest
_NOT_AGAIN = (*_ROLES, "circuits", "json", "html", "update", "update_new_only")


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit of a run. verdict: None where there is none, and `message` then says why."""

    id: str
    circuit: str
    limit: str
    outcome: str  # a key of terminal.LABELS
    message: str
    verdict: Verdict | None

    @property
    def key(self) -> tuple[str, str]:
        """What the limits of one circuit share."""
        return self.id.rpartition("::")[0], self.circuit

    @property
    def reason(self) -> str:
        """Why it came to its outcome, in one line."""
        if self.verdict is None:
            return self.message.partition("\n")[0]
        return wording.reason(self.verdict)

    @property
    def bar(self) -> page_figures.Bar | None:
        """Its estimate on the axis of its limit; None where there is no value."""
        if self.verdict is None or self.verdict.estimate is None:
            return None
        return page_figures.bar(self.verdict.estimate, self.verdict.bound)


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit of which a limit did not pass, with what is known of its heads and prompts."""

    gates: tuple[Gate, ...]
    entry: Mapping[str, Any]  # of the results file; empty where the circuit was not measured
    heads: tuple[SubjectEvidence, ...]
    map: page_figures.HeadMap | None
    hurt: Verdict | None  # whose prompts are shown

    @property
    def broken(self) -> list[Gate]:
        """Its limits that did not pass."""
        return [gate for gate in self.gates if gate.outcome in BROKEN]


@dataclass(frozen=True, slots=True)
class Run:
    """What one results file says. gates: what did not pass first. why_not: why it is no pass."""

    document: Mapping[str, Any]
    gates: tuple[Gate, ...]
    why_not: tuple[str, ...]

    @property
    def outcomes(self) -> Counter[str]:
        """How many limits came to each."""
        return Counter(gate.outcome for gate in self.gates)

    @property
    def label(self) -> str:
        """The worst outcome; that of a run which is no pass though no limit says so is an error."""
        found = next((one for one in BROKEN if self.outcomes[one]), "error")
        return found if self.why_not else "pass"

    @property
    def problems(self) -> list[str]:
        """Why the run is no pass, beside its limits."""
        told = {f"{gate.id}: {gate.outcome}" for gate in self.gates}
        return [one for one in self.why_not if one not in told and "exit status" not in one]

    def gate(self, circuit: str, limit: str) -> Gate | None:
        """What it says of a limit."""
        found = (one for one in self.gates if (one.circuit, one.limit) == (circuit, limit))
        return next(found, None)

    def weights(self, role: str) -> str:
        """What tells the checkpoints of a role apart: the hash of the weights, or the path."""
        prints: Mapping[str, Mapping[str, str]] = self.document["fingerprints"]
        return str(prints.get(role, {}).get("weights") or self.document["options"][role])


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the page of one run, whole or not at all.

    Raises:
        OSError: it cannot be written; the old one, if any, is untouched.
    """
    write_text(path, render([run_of(json_file.complete(document))]))


def written_from(paths: Sequence[Path], write: Callable[[Sequence[Run]], Written]) -> Written:
    """What `write` makes of the runs of results files, in their order.

    Raises:
        SpecificationError: one cannot be used, their bases differ, or two are of one checkpoint.
    """
    try:
        return write(_comparable(paths))
    except (KeyError, TypeError, AttributeError, UndefinedError) as error:
        raise SpecificationError(
            f"{some([str(path) for path in paths])} lacks what a report needs: {error!r}; run the "
            "gate again"
        ) from error


def _comparable(paths: Sequence[Path]) -> list[Run]:
    runs: list[Run] = []
    tuned: dict[str, Path] = {}
    for path in paths:
        document = json_file.read(path)
        check_checksum(document, str(path))
        run = run_of(document)
        runs.append(run)
        base, first = run.weights("base"), runs[0].weights("base")
        if base != first:
            raise SpecificationError(
                f"{path} was measured against another base ({base[:12]}) than {paths[0]} "
                f"({first[:12]}), so their numbers do not compare: make a page of each"
            )
        if (twice := tuned.setdefault(run.weights("tuned"), path)) is not path:
            raise SpecificationError(
                f"{twice} and {path} are runs of one checkpoint ({document['options']['tuned']}): "
                "a trend needs one run of each; leave one of them out"
            )
    return runs


def run_of(document: Mapping[str, Any]) -> Run:
    """What a results file says, ready to be shown."""
    gates = [gate for result in document["results"] for gate in _gates(result)]
    gates.sort(key=lambda gate: ORDER.index(gate.outcome))  # stable: else in the file's order
    return Run(document, tuple(gates), tuple(why_no_pass(document)))


def _gates(result: Mapping[str, Any]) -> Iterator[Gate]:
    """One for each verdict, and one for an outcome that none of them has: an error, for instance,
    or an attempt that failed."""
    own = [verdict_from_dict(data) for data in result["verdicts"]]
    outcome, message = result["outcome"], result["message"]
    for verdict in own:
        shown = "not_had" if outcome == "not_had" else verdict.outcome.value
        yield Gate(result["id"], verdict.circuit, verdict.limit, shown, message, verdict)
    if not own or outcome not in ("not_had", "pass", *(one.outcome.value for one in own)):
        start, _, limit = result["id"].rpartition("::")
        yield Gate(result["id"], start.rpartition("::")[2], limit, outcome, message, None)


def circuits(run: Run) -> list[Circuit]:
    """The circuits of which a limit did not pass, failures first."""
    keys = dict.fromkeys(gate.key for gate in run.gates if gate.outcome in BROKEN)
    return [_circuit(run, tuple(gate for gate in run.gates if gate.key == key)) for key in keys]


def _circuit(run: Run, gates: tuple[Gate, ...]) -> Circuit:
    verdicts = [gate.verdict for gate in gates if gate.verdict is not None]
    places = {(one.circuit, one.file) for one in verdicts}
    entries = run.document["circuits"]
    own = [
        one for one in entries if (one["name"], one["declared"]["file"] or "") in places
    ] or [{}]  # fmt: skip
    of_heads = [one.subjects for one in verdicts if one.limit.startswith("dcv.")]
    heads = max(of_heads, key=len, default=())
    declared = own[0]["declared"]["members"] if own[0] else ()
    hurt = [one for one in verdicts if not one and one.units and one.estimate is not None]
    drawn = page_figures.head_map(heads, declared, run.document.get("size", {}))
    return Circuit(gates, own[0], heads, drawn, hurt[0] if hurt else None)


def behaviour(run: Run) -> list[tuple[str, Mapping[str, Any], Verdict | None]]:
    """What can be counted as right or wrong, of circuits and of lm-eval's tasks: shares before and
    now with how many flipped each way, and the verdict on DCV of the circuit behind it."""
    found: dict[str, tuple[Mapping[str, Any], Verdict | None]] = {}
    of_circuits = {gate.key: gate.verdict for gate in run.gates if gate.limit == "dcv.circuit"}
    for gate in run.gates:
        if gate.verdict is None or gate.verdict.estimate is None:
            continue
        facts, count = gate.verdict.facts, gate.verdict.estimate.n
        if "before" in facts and "now" in facts:
            what = " ".join(filter(None, (gate.circuit, gate.limit, gate.verdict.subject)))
            found.setdefault(what, ({"count": count, **facts}, of_circuits.get(gate.key)))
        for one in gate.verdict.notes:
            if one.code == "scores":
                found.setdefault(f"{gate.circuit} {one.facts['subject']}", (one.facts, None))
    return [(what, *rest) for what, rest in found.items()]


def trends(runs: Sequence[Run]) -> list[tuple[str, str, list[Gate | None], page_figures.Trend]]:
    """Every limit that a run judged, those of the last run first: what each run says of it, and its
    figure."""
    judged = dict.fromkeys(
        (gate.circuit, gate.limit)
        for run in reversed(runs)
        for gate in run.gates
        if gate.verdict is not None
    )
    found = []
    for key in judged:
        gates = [run.gate(*key) for run in runs]
        verdicts = [None if gate is None else gate.verdict for gate in gates]
        points = [None if one is None else (one.estimate, one.bound) for one in verdicts]
        found.append((*key, gates, page_figures.trend(points)))
    return found


def notes(run: Run) -> list[tuple[str, list[str]]]:
    """Every note of the run once, with the circuits that it is told of; of those that differ by a
    number only the one that says most."""
    told: dict[tuple[str, str], dict[str, None]] = {}
    worst: dict[str, tuple[Note, str]] = {}
    for gate in run.gates:
        for one in () if gate.verdict is None else gate.verdict.notes:
            if one.code in _ELSEWHERE:
                continue
            by, text = _MOST.get(one.code), ""
            if by is None:
                text = wording.note(one, gate.limit)
            elif one.code not in worst or one.facts[by] > worst[one.code][0].facts[by]:
                worst[one.code] = one, gate.limit
            told.setdefault((one.code, text), {})[gate.circuit] = None
    return [(text or wording.note(*worst[code]), list(on)) for (code, text), on in told.items()]


def command(run: Run) -> str:
    """The command that made the run, for a POSIX shell: of a check a check, which without paths
    judges the bundled circuits whatever gates lie in the folder."""
    given, selection = run.document["options"], run.document["selection"]
    if selection.get("command") == "check":
        words, start, names = ["forgetguard", "check", given["base"], given["tuned"]], "--", _CHECK
    else:
        words, start, names = ["pytest", "--forgetguard"], "--forgetguard-", {}
        words += [f"{role}={given[role]}" for role in _ROLES if given.get(role)]
    words += [f"--forgetguard-circuits={path}" for path in given["circuits"]]
    for name, value in given.items():
        if name not in _NOT_AGAIN and value not in _AS_USUAL:
            option = start + names.get(name, name).replace("_", "-")
            words.append(option if value is True else f"{option}={value}")
    for flag, name in (("-k", "keyword"), ("-m", "markers")):
        words += [flag, selection[name]] if selection.get(name) else []
    words += [f"--deselect={one}" for one in selection.get("deselect", ())]
    return shlex.join([*words, *selection.get("arguments", ())])


def render(runs: Sequence[Run]) -> str:
    """The page of the last run, with the way that led there. Nothing in it is loaded from
    elsewhere or executed; every text is escaped."""
    page = Environment(
        autoescape=True,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page.globals.update(
        behaviour=behaviour,
        circuits=circuits,
        command=command,
        figures=page_figures,
        notes=notes,
        terminal=terminal,
        trends=trends,
        words=wording,
    )
    folder = files("forgetguard.report")
    html, css = (folder.joinpath(name).read_text("utf-8") for name in ("page.html", "page.css"))
    return page.from_string(html.replace("{# page.css #}", css)).render(runs=runs, run=runs[-1])


def visible(value: Any) -> Any:
    """Text with every character that does not show, or turns what follows around, written as its
    escape, as Python's repr does."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in value
    )

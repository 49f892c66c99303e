"""What an active run prints: its header, the count of gates, and the summary table."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_forgetguard.finish import listed
from pytest_forgetguard.items import LimitItem
from pytest_forgetguard.keys import is_gate
from pytest_forgetguard.state import RUN

if TYPE_CHECKING:
    from forgetguard.measures.samples import Note
    from forgetguard.report.terminal import Row
    from pytest_forgetguard.state import Result, Run

_MESSAGE_WIDTH = 60


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The checkpoints, and how they are measured."""
    run = config.stash[RUN]
    settings = run.settings
    device = settings.device or (settings.device_map and f"map {settings.device_map}")
    lines = [
        f"forgetguard: {_checkpoints(run)}",
        f"forgetguard: device {device or 'default'}, dtype {settings.dtype}, seed {settings.seed}"
        + (f", prompt seed {drawn}" if (drawn := settings.prompt_seed) is not None else "")
        + (f", a family of {given} limits" if (given := settings.family) is not None else ""),
    ]
    return lines + [f"forgetguard: note: {note}" for note in run.notes]


def pytest_report_collectionfinish(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> list[str]:
    """How much there is to judge. (Under xdist the controller does not know it yet.)"""
    run = config.stash[RUN]
    gates = [item for item in items if is_gate(item)]
    if config.option.verbose < 0 or not gates:
        return []
    circuits = {item.nodeid.rpartition("::")[0] for item in gates if isinstance(item, LimitItem)}
    return [
        f"forgetguard: {_count(len(gates), 'gate')}, {_count(len(circuits), 'circuit')} "
        f"from {run.circuits_from}"
    ]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The table of all limits (not with -q), totals and what a pass leaves open (not with -qq), and
    always any problem."""
    from forgetguard.report.terminal import table, totals

    run = config.stash[RUN]
    if config.option.collectonly:
        return
    verbosity = config.option.verbose
    rows = [
        row
        for nodeid, result in run.in_order()
        if result.outcome != "not_had"
        for row in _rows(nodeid, result)
    ]
    lines: list[str] = []
    if rows and verbosity >= 0:
        lines += [*table(rows), ""]
    if verbosity >= -1 and (rows or run.not_run):
        lines.append(totals([row.outcome for row in rows], not_run=len(run.not_run)))
    if verbosity >= 0:
        lines += [*_notes(run, verbose=verbosity > 0), *_left_out(run)]
    elif verbosity == -1:
        lines += _notes(run, only=_EVEN_QUIET)
    if lines:
        terminalreporter.section(f"forgetguard: {_checkpoints(run)}")
        for line in lines:
            terminalreporter.write_line(line)
    if run.recorded:
        terminalreporter.write_line(f"forgetguard: {run.recorded}")
    for warning in _warnings(run, verbose=verbosity > 0):
        terminalreporter.write_line(f"forgetguard: {warning}", yellow=True, bold=True)
    # Usage errors that came from workers; those of this process pytest prints itself.
    of_workers = run.usage_errors if config.pluginmanager.hasplugin("dsession") else ()
    for problem in [*of_workers, *run.problems]:
        terminalreporter.write_line(f"forgetguard: {problem}", red=True)


def _warnings(run: Run, *, verbose: bool) -> Iterator[str]:
    """What is no pass, and no failure either."""
    if run.allowed_to_abstain:
        allowed = listed(run.allowed_to_abstain, verbose=verbose)
        yield (
            "ALLOWED TO ABSTAIN (--forgetguard-allow-abstain), shown to be kept by nothing: "
            f"{allowed}"
        )
    if run.gates("not_had"):
        names = dict.fromkeys(nodeid.split("::")[-2] for nodeid in run.gates("not_had"))
        why = "the base cannot do it, or its words do not fit the tokenizer"
        yield f"NOT JUDGED, {why}: {', '.join(names)}"
    if run.misnamed:
        yield f"NOT RUN: {run.misnamed}"
    if run.gates("ungated"):
        ungated = listed(run.gates("ungated"), verbose=verbose)
        yield f"UNGATED, measured and asserted no limit: {ungated}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _checkpoints(run: Run) -> str:
    settings = run.settings
    reference = f" reference={settings.reference}" if settings.reference else ""
    return f"base={settings.base} tuned={settings.tuned}{reference}"


def _rows(nodeid: str, result: Result) -> Iterator[Row]:
    from forgetguard.gate.records import verdict_from_dict
    from forgetguard.report.terminal import Row, verdict_row

    for data in result.verdicts:
        yield verdict_row(verdict_from_dict(data))
    judged = {data["outcome"] for data in result.verdicts}
    if result.outcome not in judged and (result.outcome != "pass" or not judged):
        circuit, _, limit = nodeid.rpartition("::")
        told = {"recorded": "not judged", "ungated": "no limit asserted"}.get(result.outcome)
        yield Row(
            circuit=circuit.rpartition("::")[2],
            limit=limit,
            measured=told or _shortened(result.message.removeprefix("ERROR: ")) or "-",
            bound="-",
            outcome=result.outcome,
        )


def _shortened(message: str) -> str:
    if len(message) <= _MESSAGE_WIDTH:
        return message
    return message[: _MESSAGE_WIDTH - 3] + "..."


# Notes on single verdicts; the results file has them all.
_IN_DETAIL = ("share_of_readout", "share_of_loss", "unguarded", "held_by_floor", "judged_alone")


def _as_usual(note: Note) -> bool:
    """Whether a note says only that the first pairs of several stages have decided."""
    return note.code == "drawn" and note.facts["stage"] == 1


# Without these a pass would be taken for more than it is.
_EVEN_QUIET = ("fixed_prompts", "cannot_fail", "far_below", "no_effect")


def _notes(run: Run, *, verbose: bool = False, only: Sequence[str] = ()) -> list[str]:
    """Notes of all verdicts, each once. What stands in a failure's own text (`_IN_DETAIL`) is told
    here with -v only; of templates that may be broken unseen, the most."""
    from forgetguard.gate.records import load
    from forgetguard.measures.samples import Note
    from forgetguard.report.wording import note

    found: dict[str, dict[str, None]] = {}  # by note, the circuits that it is told of
    circuits: dict[str, None] = {}
    unseen: list[Note] = []
    for result in run.results.values():
        for verdict in result.verdicts:
            circuits[verdict["circuit"]] = None
            for data in verdict["notes"]:
                one = load(Note, data, "a note")
                if only and one.code not in only:
                    continue
                if one.code == "templates_unseen":
                    unseen.append(one)
                elif verbose or not (one.code in _IN_DETAIL or _as_usual(one)):
                    text = note(one, verdict["limit"])
                    found.setdefault(text, {})[verdict["circuit"]] = None
    if unseen:
        most = max(unseen, key=lambda one: float(one.facts["missed"]))
        found[f"a pass {note(most)}"] = circuits
    return [
        f"note: {text}" if len(told) == len(circuits) > 1 else f"note: {', '.join(told)}: {text}"
        for text, told in found.items()
    ]


def _left_out(run: Run) -> list[str]:
    """What other heads read, then which gates were left out, and where the results are."""
    from forgetguard.gate.bundled import is_bundled

    lines = _controls(run)
    judged = [one for _, result in run.in_order() for one in result.verdicts]
    failed = [one for one in judged if one["outcome"] == "fail" and one["capability"]]
    if failed and not run.settings.origin:
        own = dict.fromkeys(one["file"] for one in failed if not is_bundled(Path(one["file"])))
        asked = [f"base={run.settings.base}", f"tuned={run.settings.tuned}", *filter(None, own)]
        lines.append(
            "which parts of the checkpoint carry the loss: add --forgetguard-origin, or run "
            f"forgetguard origin {shlex.join(asked)}"
        )
    if run.left_out:
        lines.append(
            f"not judged, as not of the core set: {', '.join(run.left_out)} "
            "(--forgetguard-bundled all judges every bundled circuit of this base)"
        )
    if run.deselected:
        lines.append(f"{_count(len(run.deselected), 'gate')} deselected")
    if run.selection.get("last_failed"):
        lines.append("--lf: only gates that failed last time were run")
    written = {"results": run.settings.json, "page": run.settings.html}
    for what, path in written.items():
        if path is not None and path not in run.unwritten:
            lines.append(f"{what}: {path}")
    return lines


def _controls(run: Run) -> list[str]:
    """One line for each verdict beside which other heads were patched."""
    from forgetguard.gate.records import verdict_from_dict
    from forgetguard.report.wording import controls

    verdicts = [
        verdict_from_dict(data)
        for _, result in run.in_order()
        for data in result.verdicts
        if data["controls"]
    ]
    return [f"{verdict.circuit}: {controls(verdict)}" for verdict in verdicts]

"""`forgetguard verify RESULTS`: does a file follow from its own numbers, and do they hold?"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.cli.checkpoints import read_checkpoints
from forgetguard.cli.command import DONE, FAILED, Job, adder, command, whole_imports
from forgetguard.errors import SpecificationError
from forgetguard.gate.checksum import check_checksum
from forgetguard.gate.environment import differences
from forgetguard.report import json_file
from forgetguard.report.terminal import table, totals, verdict_row
from forgetguard.report.wording import reservations

if TYPE_CHECKING:
    from forgetguard.report.recheck import Rechecked

_ROLES = ("base", "tuned", "reference")
FEWEST_PAIRS = 8  # fewer no capability is measured on
_SHOWN = 20  # differences


def _options(parser: ArgumentParser) -> None:
    parser.usage = (
        "forgetguard verify RESULTS [--recompute N [base=...] [tuned=...] [reference=...]]"
    )
    parser.description = (
        f"{parser.description} Status 0: the file is confirmed (it also prints whether the run in "
        "it was a pass); 1: it is not; 2: it cannot be used."
    )
    add = adder(parser)
    add(
        "tokens",
        "RESULTS",
        "a file that pytest --forgetguard-json wrote; with --recompute also where its "
        "checkpoints lie now, if not where they did: base=CHECKPOINT tuned=CHECKPOINT",
        nargs="*",
    )
    add("--recompute", "N", "measure N pairs of each circuit again", type=int)
    add("--seed", "N", "which N pairs; default: 0", type=int, default=0)
    add("--device", "DEVICE", "for --recompute; default: cuda where there is one")
    add("--require-pass", "", "status 1 also where the run in the file was no pass")


def _prepare(asked: Namespace) -> Job:
    """Raises ForgetguardError: the options contradict each other, or the file cannot be used."""
    if not asked.tokens:
        raise SpecificationError("give the results file: forgetguard verify RESULTS")
    path, *others = asked.tokens
    again = asked.recompute is not None
    if again and asked.recompute < FEWEST_PAIRS:
        raise SpecificationError(f"--recompute: {asked.recompute}; give {FEWEST_PAIRS} or more")
    if not again and (others or asked.device):
        more = [one for one in others if "=" not in one]
        if more:
            raise SpecificationError(f"{' '.join(more)}: one results file at a time")
        what = " ".join([*others, *([f"--device {asked.device}"] if asked.device else [])])
        raise SpecificationError(f"{what}: nothing is loaded without --recompute N; add it")
    document = json_file.read(Path(path))
    checkpoints, loading = _checkpoints(document, others), _loading(document, asked.device)
    return lambda: _verify(Path(path), document, asked, checkpoints, loading)


def _checkpoints(document: Mapping[str, Any], given: Sequence[str]) -> dict[str, str]:
    """Where the checkpoints are: as in the file, or as given."""
    options: Mapping[str, Any] = document.get("options", {})
    there = {role: str(options[role]) for role in _ROLES if options.get(role)}
    moved = read_checkpoints(given, (), _ROLES)
    strangers = [role for role in moved if role not in there]
    if strangers:
        raise SpecificationError(
            f"{strangers[0]}= was given, but the run in the file had none; leave it out"
        )
    return there | moved


def _loading(document: Mapping[str, Any], device: str | None) -> LoadOptions:
    options: Mapping[str, Any] = document.get("options", {})
    known = {field.name for field in fields(LoadOptions)}
    there = {name: value for name, value in options.items() if name in known}
    return LoadOptions(
        **{**there, "device": device or None, **({"device_map": None} if device else {})}
    )


def _verify(
    path: Path,
    document: Mapping[str, Any],
    asked: Namespace,
    checkpoints: Mapping[str, str],
    loading: LoadOptions,
) -> int:
    """Verify, and print what was found; returns the exit status.

    Raises:
        SpecificationError: the file cannot be used, or nothing is in it to be confirmed.
        ForgetguardError: its checkpoints cannot be measured.
    """
    with whole_imports():  # scipy among them
        from forgetguard.report.recheck import recheck
    lines, confirmed = [_heading(path, document)], True
    try:
        check_checksum(document, str(path))
        lines.append("checksum    matches the content (it is no signature)")
    except SpecificationError as error:
        confirmed = False
        lines.append(f"checksum    DIFFERS: {error}")
    lines += _version_lines(document)
    try:
        checked = recheck(document)
    except SpecificationError as error:
        if confirmed:
            raise
        # It was changed after it was written: that is the answer, not a misuse.
        lines += [f"verdicts    cannot be decided again: {error}", "file        NOT CONFIRMED"]
        sys.stdout.write("\n".join(lines) + "\n")
        return FAILED
    if not checked.verdicts:
        raise SpecificationError(
            f"{path} holds no verdict, so there is nothing to confirm"
            + "".join(f"\n  {reason}" for reason in checked.why_not)
        )
    confirmed &= not checked.differences
    lines += _verdict_lines(checked)
    if asked.recompute is not None:
        with whole_imports():
            from forgetguard.cli.recompute import recompute
        held, said = recompute(
            document, checkpoints, loading, count=asked.recompute, seed=asked.seed
        )
        confirmed &= held
        lines += said
    lines += ["", "as written:"] if not confirmed else [""]
    lines += [*table([verdict_row(verdict) for verdict in checked.verdicts]), ""]
    lines += _run_lines(document, checked)
    lines.append("file        " + ("CONFIRMED" if confirmed else "NOT CONFIRMED"))
    sys.stdout.write("\n".join(lines) + "\n")
    kept = checked.passed or not asked.require_pass
    return DONE if confirmed and kept else FAILED


def _heading(path: Path, document: Mapping[str, Any]) -> str:
    options: Mapping[str, Any] = document.get("options", {})
    given = " ".join(f"{role}={options[role]}" for role in _ROLES if options.get(role))
    version = document["schema_version"]
    return f"{path}: {document['schema']} version {version}, {document.get('started')}, {given}"


def _version_lines(document: Mapping[str, Any]) -> list[str]:
    """Another forgetguard, numpy or scipy may decide by other intervals: worth knowing first."""
    then = document.get("versions", {})
    changed = differences(then, json_file.versions(), ("forgetguard", "numpy", "scipy"))
    return [f"versions    written with {'; '.join(changed)}"] if then and changed else []


def _verdict_lines(checked: Rechecked) -> list[str]:
    count = len(checked.verdicts)
    judged = f"{count} verdict{'s' * (count != 1)} decided again from the numbers in the file"
    if not checked.differences:
        return [f"verdicts    {judged}: all the same"]
    shown = [f"  {difference}" for difference in checked.differences[:_SHOWN]]
    more, number = len(checked.differences) - len(shown), len(checked.differences)
    return [
        f"verdicts    {judged}: {number} DIFFERENCE{'S' * (number != 1)}",
        *shown,
        *([f"  and {more} more"] if more else []),
    ]


def _run_lines(document: Mapping[str, Any], checked: Rechecked) -> list[str]:
    counted = totals([result["outcome"] for result in document["results"]])
    word = "a pass" if checked.passed else "NOT A PASS"
    lines = [f"run         {word} ({counted})"]
    lines += [f"  {reason}" for reason in checked.why_not[:_SHOWN]]
    lines += [f"  {what}: {', '.join(named)}" for what, named in reservations(document)]
    return lines


COMMAND = command("verify", _options, _prepare)

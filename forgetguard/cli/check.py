"""`forgetguard check BASE TUNED... [PATH...]`: the gate, in one command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check as preflight
from forgetguard.checkpoints.spec import CONFIG, CheckpointSpec, resolve
from forgetguard.cli import timing
from forgetguard.cli.checkpoints import (
    CHECKPOINT,
    add_load_options,
    gate_options,
    load_options,
    read_checkpoints,
)
from forgetguard.cli.circuits import read_circuits
from forgetguard.cli.command import DONE, Command, Job, say, whole_imports
from forgetguard.cli.values import check_choice, read_whole
from forgetguard.errors import ForgetguardError, SpecificationError
from forgetguard.gate.bundled import bundled_for, divided
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.records import verdict_from_dict
from forgetguard.gate.schema import SUFFIXES
from forgetguard.report import json_file
from forgetguard.report.terminal import LABELS, aligned, totals
from forgetguard.report.wording import number, reason

_INTERRUPTED, _CRASHED, _MISUSE = 2, 3, 4  # pytest's
_SETS = ("core", "all")
_SHOWN = 5  # reasons
# The folder's own pytest settings, plugins and cache are no part of a check.
_PYTEST = (
    *("-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "--disable-plugin-autoload"),
    *("-p", "forgetguard", "-p", "pytest_forgetguard.quiet", "-p", "no:cacheprovider"),
    *("-rN", "--disable-warnings", "-o", "console_output_style=classic"),
)
EPILOG = """\
examples:
  forgetguard check Qwen/Qwen2.5-3B-Instruct ./science-sft
  forgetguard check tiny:base tiny:sft --html page.html
  forgetguard check ./base ./step-100 ./step-200 circuits --prompt-seed 7

exit status, as of pytest (docs/gate.md); of several TUNED the worst:
  0  every limit was shown to be kept
  1  one was not
  2  interrupted, or an option that is none
  4  something that was asked for is wrong: a file, a checkpoint, a value"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `paths`: gate files, folders or node ids; none: the bundled circuits."""

    base: CheckpointSpec
    tuned: tuple[CheckpointSpec, ...]
    reference: CheckpointSpec | None
    paths: tuple[str, ...]
    loading: LoadOptions
    asked: Namespace

    @property
    def seed(self) -> int | None:
        """Of the prompts."""
        seed = self.asked.prompt_seed
        return None if seed is None else read_whole("--prompt-seed", seed)


def _options(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.usage = "forgetguard check BASE TUNED... [PATH...] [options]"
    add = parser.add_argument
    add("tokens", nargs="*", metavar="BASE TUNED... [PATH...]",
        help=f"checkpoints ({CHECKPOINT}), then gate files or folders of them "
        f"(*{SUFFIXES[0]}, *{SUFFIXES[2]}); default: the circuits that are bundled for the base. "
        "reference=CHECKPOINT may stand among them")  # fmt: skip
    add("--estimate", action="store_true", help="say what would be measured, and stop")
    add("--circuits", default=_SETS[0], metavar="SET",
        help="of the bundled ones: core (default) or all")  # fmt: skip
    add("--prompt-seed", metavar="N", help="draw the prompts anew, so that nobody trained on them")
    add("--html", metavar="FILE", help="also write a page")
    add("--json", metavar="FILE",
        help="also write the results; of several TUNED one file each, FILE.NAME.json")  # fmt: skip
    add("-v", "--verbose", action="store_true",
        help="heads, prompts and notes of every limit that is not kept")  # fmt: skip
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    def job() -> int:
        try:
            return run(read_plan(asked))
        except ForgetguardError as error:
            say(f"forgetguard check: {error}")
            return _MISUSE
        except KeyboardInterrupt:
            say("forgetguard check: interrupted")
            return _INTERRUPTED

    return job


def read_plan(asked: Namespace) -> Plan:
    """What was asked for, checked as far as it can be without weights.

    Raises:
        ForgetguardError: it cannot be run.
    """
    check_choice("--circuits", asked.circuits, _SETS)
    paths = [token for token in asked.tokens if _is_gate_path(token)]
    given = [token for token in asked.tokens if token not in paths]
    named = [token for token in given if re.match(r"(base|tuned|reference)=", token)]
    tuned = [token.partition("=")[2] for token in named if token.startswith("tuned=")]
    roles = read_checkpoints(
        [one for one in named if not one.startswith("tuned=")], (), ("base", "reference")
    )
    bare = [token for token in given if token not in named]
    base = roles.get("base") or (bare.pop(0) if bare else "")
    tuned += bare
    if not base or not tuned:
        raise SpecificationError(
            f"{'TUNED' if base else 'BASE and TUNED'} missing; give the checkpoint before and the "
            f"one or more after: forgetguard check BASE TUNED"
        )
    plan = Plan(
        resolve(base, "base"),
        tuple(resolve(one, "tuned") for one in dict.fromkeys(tuned)),
        resolve(roles["reference"], "reference") if "reference" in roles else None,
        tuple(paths),
        load_options(asked),
        asked,
    )
    for spec in plan.tuned:
        same = _is_base(plan, spec)
        notes = preflight(
            plan.base, spec, plan.reference, allow_same=same, allowed_by=None, options=plan.loading
        )
        if same:
            notes = (f"{spec} is the base itself: every loss must read exactly 0", *notes)
        for note in notes:
            say(f"note: {note}")
    return plan


def _is_gate_path(token: str) -> bool:
    """A gate file, a node id in one, or a folder that is no checkpoint and holds some."""
    path = Path(token.partition("::")[0])
    if path.name.endswith(SUFFIXES):
        return True
    is_checkpoint = (path / CONFIG).is_file() or (path / "adapter_config.json").is_file()
    return path.is_dir() and not is_checkpoint and any(
        file.name.endswith(SUFFIXES) for file in path.rglob("*.y*ml")
    )  # fmt: skip


def _is_base(plan: Plan, spec: CheckpointSpec) -> bool:
    return os.path.realpath(spec.location) == os.path.realpath(plan.base.location)


# --- what will be measured --------------------------------------------------------------------


def run(plan: Plan) -> int:
    """Say what will be measured, have pytest judge each checkpoint, and sum up; returns the exit
    status.

    Raises:
        ForgetguardError: it cannot be run.
    """
    gates = _gates(plan)
    work = timing.work_of(plan.base, plan.loading, gates, plan.seed)
    least, most, basis = timing.expected(work, plan.base, plan.loading, len(plan.tuned))
    undecided = f", up to {_length(most)} where they leave limits undecided"
    sys.stdout.write(
        f"estimated time: {_length(least)}{undecided * (most > 1.2 * least)} ({basis})\n"
    )
    sys.stdout.flush()
    if plan.asked.estimate:
        return DONE
    results: dict[str, dict[str, Any]] = {}
    worst = DONE
    for number_of, spec in enumerate(plan.tuned):
        start = time.monotonic()
        status, document = _judge(plan, spec)
        worst = max(worst, status)
        if document.get("complete"):
            counts = {one["name"]: len((one["measured"] or {}).get("units", ()))
                      for one in document["circuits"]}  # fmt: skip
            seconds = time.monotonic() - start
            timing.remember(work, counts, seconds, again=work.known or number_of > 0)
        results[spec.given] = document
    if len(results) == 1 and worst == 1 and not plan.asked.verbose:
        _why(next(iter(results.values())))
    elif len(results) > 1:
        _side_by_side(results)
    return worst


def _gates(plan: Plan) -> Sequence[GateSpec]:
    """The gates to judge, told: which, with which limits, on how many prompts."""
    lines = []
    if plan.paths:
        files = dict.fromkeys(path.partition("::")[0] for path in plan.paths)
        gates = list(read_circuits(list(files), plan.base, plan.loading))
        lines.append(f"{len(gates)} gate files: {_names(gates)}")
    else:
        found = bundled_for(plan.base, plan.loading, reference=plan.reference is not None)
        files_judged, left = divided(found, core=plan.asked.circuits == _SETS[0])
        gates = [spec for path, spec in found if path in files_judged]
        if not gates:
            raise SpecificationError(
                f"none of the bundled circuits fits {plan.base}: give gate files "
                "(forgetguard discover and forgetguard init write them)"
            )
        made = "for this base" if gates[0].fits and not gates[0].fits.any_base else "for any base"
        more = f" ({len(left)} more with --circuits all)" if left else ""
        lines.append(f"{len(gates)} bundled circuits {made}: {_names(gates)}{more}")
    if any(gate.auto for gate in gates):
        lines.append("their heads are looked for in the base first, once")
    limits = dict.fromkeys(
        f"{limit.key} <= {number(limit.maximum)}" for gate in gates for limit in gate.limits
    )
    lines.append(f"{sum(len(gate.limits) for gate in gates)} limits: {', '.join(limits)}")
    counts, most = zip(*map(timing.prompts_of, gates), strict=True)
    more = f", up to {max(most)} where they do not decide" if sum(most) > sum(counts) else ""
    each = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    lines.append(f"{each} prompts a file{more}")
    sys.stdout.write("\n".join(lines) + "\n")
    return gates


def _names(gates: Sequence[GateSpec]) -> str:
    return ", ".join(gate.capability or gate.name for gate in gates)


def _length(seconds: float) -> str:
    return f"{5 * round(seconds / 5)} s" if seconds < 90 else f"{round(seconds / 60)} min"


# --- judging ----------------------------------------------------------------------------------


def _judge(plan: Plan, tuned: CheckpointSpec) -> tuple[int, dict[str, Any]]:
    """pytest's exit status on one checkpoint, and the results (empty where there are none)."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        command = [sys.executable, *_PYTEST, *pytest_arguments(plan, tuned, results)]
        own = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
        with whole_imports(), subprocess.Popen(command, env=own) as process:
            status = process.wait()  # Ctrl-C reaches pytest too, which ends the run itself
        document = json_file.read(results) if results.is_file() else {}
    return status if status >= 0 else _CRASHED, document


def pytest_arguments(plan: Plan, tuned: CheckpointSpec, results: Path) -> list[str]:
    """The options of the gate on one checkpoint, then the paths."""
    files = {name: _target(plan, getattr(plan.asked, name), tuned) for name in ("json", "html")}
    return [
        "--tb=" + ("long" if plan.asked.verbose else "no"),
        "--forgetguard", f"base={plan.base.given}", f"tuned={tuned.given}",
        *([f"reference={plan.reference.given}"] if plan.reference else []),
        f"--check-results={results}",
        f"--forgetguard-bundled={plan.asked.circuits}",
        *(f"--forgetguard-{name}={file}" for name, file in files.items() if file),
        *([] if plan.seed is None else [f"--forgetguard-prompt-seed={plan.seed}"]),
        *(["--forgetguard-allow-same"] if _is_base(plan, tuned) else []),
        *gate_options(plan.loading),
        *plan.paths,
    ]  # fmt: skip


def _target(plan: Plan, file: str | None, tuned: CheckpointSpec) -> str | None:
    """Where a file about one checkpoint goes: `file`, of several with the checkpoint's name."""
    if file is None or len(plan.tuned) == 1:
        return file
    path = Path(file)
    return str(path.with_name(f"{path.stem}.{_short(tuned.given)}{path.suffix}"))


def _short(given: str) -> str:
    return re.sub(r"[^\w.-]+", "-", given.rstrip("/").rpartition("/")[2]) or "tuned"


# --- summing up -------------------------------------------------------------------------------


def _why(document: Mapping[str, Any]) -> None:
    """Why each limit is not kept, in a line, and where more is said."""
    told = [
        f"{LABELS[data['outcome']]} {data['circuit']} {data['limit']}: "
        f"{reason(verdict_from_dict(data))}"
        for result in document.get("results", ())
        for data in result["verdicts"]
        if data["outcome"] != "pass"
    ]
    lines = sorted(told, key=lambda line: line.startswith(LABELS["abstain"]))
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    if lines:
        again = shlex.join(["forgetguard", *sys.argv[1:], "-v"])
        step = f"which heads and prompts: {again}"
        sys.stdout.write("\n".join(["", *lines[:_SHOWN], *more, "", step]) + "\n")


def _side_by_side(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Every limit's verdict in each checkpoint, in the order in which they were given."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for given, document in results.items():
        for data in (one for result in document.get("results", ()) for one in result["verdicts"]):
            value = number(data["estimate"]["value"]) if data["estimate"] else "-"
            cell = f"{LABELS[data['outcome']]} {value}"
            rows.setdefault((data["circuit"], data["limit"]), {})[given] = cell
    names = [_short(given) for given in results]
    table = [[*key, *(row.get(given, "-") for given in results)] for key, row in rows.items()]
    counts = [totals([one["outcome"] for one in document.get("results", ())])
              for document in results.values()]  # fmt: skip
    lines = aligned([["circuit", "limit", *names], *table, ["all", "", *counts]])
    sys.stdout.write("\n".join(["", *lines]) + "\n")


COMMAND = Command(
    "check", "judge tuned checkpoints against their base: the gate, in one command", _options,
    _prepare,
)  # fmt: skip

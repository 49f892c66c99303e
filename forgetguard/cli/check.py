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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check as preflight
from forgetguard.checkpoints.spec import ADAPTER_CONFIG, CONFIG, CheckpointSpec, resolve
from forgetguard.cli import timing
from forgetguard.cli.checkpoints import (
    CHECKPOINT,
    add_load_options,
    gate_options,
    load_options,
    read_circuits,
)
from forgetguard.cli.command import DONE, Job, adder, command, say, whole_imports
from forgetguard.cli.values import check_choice, read_whole
from forgetguard.errors import ForgetguardError, SpecificationError
from forgetguard.gate.bundled import bundled_for, divided
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import SUFFIXES
from forgetguard.report import json_file
from forgetguard.report.json_file import check_target
from forgetguard.report.terminal import LABELS, aligned, totals
from forgetguard.report.wording import number, reason

_INTERRUPTED, _CRASHED, _MISUSE = 2, 3, 4  # pytest's
_SETS = ("core", "all")
_FILES = ("json", "html")
_SHOWN = 5  # reasons
# The folder's own pytest settings, plugins and cache are no part of a check.
_PYTEST = (  # -P: nor are modules of the folder, which would shadow any
    *("-P", "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "--noconftest"),
    *("--disable-plugin-autoload", "-p", "forgetguard", "-p", "pytest_forgetguard.quiet"),
    *("-p", "no:cacheprovider"),
    *("-rN", "--disable-warnings", "-o", "console_output_style=classic"),
)
_ENVIRONMENT = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
_THREADS = "OMP_NUM_THREADS"
_RUNNING = "/proc/loadavg"
EPILOG = """\
examples:
  forgetguard check Qwen/Qwen2.5-3B-Instruct ./science-sft
  forgetguard check tiny:base tiny:sft --html page.html
  forgetguard check ./base ./step-100 ./step-200 circuits --prompt-seed 7

exit status, as of pytest; of several TUNED the worst:
  0    every limit was shown to be kept
  1    one was not
  2    interrupted, or an unknown option
  4    something that was asked for is wrong: a file, a checkpoint, a value"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `paths`: gate files, folders or node ids; none: the bundled circuits."""

    base: CheckpointSpec
    tuned: tuple[CheckpointSpec, ...]
    paths: tuple[str, ...]
    loading: LoadOptions
    seed: int | None
    asked: Namespace


def _options(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.usage = "forgetguard check BASE TUNED... [PATH...] [options]"
    add = adder(parser)
    add(
        "tokens",
        "BASE TUNED... [PATH...]",
        f"checkpoints ({CHECKPOINT}), then gate files or folders of them (*{SUFFIXES[0]}, "
        f"*{SUFFIXES[2]}); default: the circuits that are bundled for the base",
        nargs="*",
    )
    add("--estimate", "", "say what would be measured, and stop")
    add("--circuits", "SET", "of those bundled: core (default), all", default=_SETS[0])
    # What the gate's own lines recommend is taken by its name in pytest too.
    for name, takes, text in (
        ("prompt-seed", "N", "draw the prompts anew, so that nobody trained on them"),
        ("origin", "", "of what fails, measure which parts of the checkpoint carry the loss"),
        ("html", "FILE", "write a page; of several TUNED a file each, as for --json"),
        ("json", "FILE", "write the results; of several TUNED a FILE.NAME.json each"),
    ):
        add(f"--{name} --forgetguard-{name}", takes, text)
    add("-v --verbose", "", "with heads and prompts of what is not kept")
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    def job() -> int:
        try:
            plan = read_plan(asked)
            with _free_cores():
                return run(plan)
        except ForgetguardError as error:
            say(f"forgetguard check: {error}")
            return _MISUSE
        except KeyboardInterrupt:
            say("forgetguard check: interrupted")
            return _INTERRUPTED

    return job


def read_plan(asked: Namespace) -> Plan:
    """What was asked for, checked as far as it can be without loading weights."""
    check_choice("--circuits", asked.circuits, _SETS)
    seed = None if asked.prompt_seed is None else read_whole("--prompt-seed", asked.prompt_seed)
    paths = tuple(token for token in asked.tokens if _is_gate_path(token))
    # Who comes from pytest may write base=... tuned=...
    given = [re.sub("^(base|tuned)=", "", token) for token in asked.tokens if token not in paths]
    if len(given) < 2:
        folders = f" ({', '.join(paths)}: no checkpoint, but gate files)" if paths else ""
        raise SpecificationError(
            f"got {' and '.join(given) or 'no checkpoint'}{folders}; give the checkpoint before "
            "and the one or more after: forgetguard check BASE TUNED"
        )
    specs = tuple(resolve(one, "tuned") for one in dict.fromkeys(given[1:]))
    plan = Plan(resolve(given[0], "base"), specs, paths, load_options(asked), seed, asked)
    _check_files(plan)
    for spec in specs:
        for note in preflight(plan.base, spec, allowed_by=None, options=plan.loading):
            say(f"note: {note}")
    return plan


def _check_files(plan: Plan) -> None:
    """Refuse what cannot be written (raises SpecificationError)."""
    for name in _FILES:
        if getattr(plan.asked, name) == "":
            raise SpecificationError(f"--{name} is empty (an unset variable?); give it a path")
    for spec in plan.tuned:
        files = _files(plan, spec)
        for name, file in files.items():
            check_target(file, f"--{name}")
        if len({file.resolve() for file in files.values()}) < len(files):
            raise SpecificationError("--html and --json are one file: give the page another path")


def _is_gate_path(token: str) -> bool:
    """A gate file, a node id in one, or a folder that is no checkpoint and holds some."""
    path = Path(token.partition("::")[0])
    if path.name.endswith(SUFFIXES):
        return True
    if not path.is_dir() or (path / CONFIG).is_file() or (path / ADAPTER_CONFIG).is_file():
        return False
    return any(file.name.endswith(SUFFIXES) for file in path.rglob("*.y*ml"))


def run(plan: Plan) -> int:
    """Say what will be measured, have pytest judge each checkpoint, and sum up; returns the exit
    status."""
    gates = _gates(plan)
    name = timing.name_of(plan.base, plan.loading, gates, plan.seed)
    first, more, basis = timing.expected(name, plan.base, plan.loading, gates)
    seconds = first + more * (len(plan.tuned) - 1)
    _print(f"estimated time: {_length(seconds)} ({basis}), more where a limit is not kept")
    if plan.asked.estimate:
        return DONE
    worst, results = DONE, {}
    for spec in plan.tuned:
        start = time.monotonic()
        status, results[spec.given] = _judge(plan, spec)
        worst = max(worst, status)
        if results[spec.given].get("complete"):
            timing.remember(name, time.monotonic() - start)
    if len(results) > 1:
        _side_by_side(results)
    elif worst and results[spec.given] and not plan.asked.verbose:
        _why(results[spec.given])
    return worst


def _gates(plan: Plan) -> Sequence[GateSpec]:
    """The gates to judge, told: which, with which limits, on how many prompts."""
    left: list[str] = []
    if plan.paths:
        files = dict.fromkeys(path.partition("::")[0] for path in plan.paths)
        found = read_circuits(list(files), plan.base, plan.loading)
        gates = [_selected(gate, plan.paths) for gate in found]
        what = "gate file"
    else:
        bundled = bundled_for(plan.base, plan.loading)
        judged, left = divided(bundled, core=plan.asked.circuits == _SETS[0])
        gates = [spec for path, spec in bundled if path in judged]
        if not gates:
            raise SpecificationError(
                f"none of the bundled circuits fits {plan.base}: give gate files (forgetguard init "
                "and forgetguard discover write them)"
            )
        what = "bundled circuit"
    names = ", ".join(gate.capability or gate.name for gate in gates)
    _print(
        f"{_count(len(gates), what)}: {names}" + f" ({len(left)} more: --circuits all)" * bool(left)
    )
    if any(gate.auto for gate in gates):
        left_out = "" if plan.paths else "; what it cannot do is left out"
        _print(f"heads of `circuit: auto` are looked for in the base first, once{left_out}")
    limits = [limit for gate in gates for limit in gate.limits]
    each = dict.fromkeys(f"{limit.key} <= {number(limit.maximum)}" for limit in limits)
    first, most = (sum(counts) for counts in zip(*map(timing.prompts_of, gates), strict=True))
    undecided = f", up to {most} where they do not decide" * (most > first)
    what = f"{_count(len(limits), 'limit')} on {_count(first, 'prompt')}"
    _print(f"{what}{undecided}: {', '.join(each)}")
    return gates


def _selected(gate: GateSpec, paths: Sequence[str]) -> GateSpec:
    """The gate with those of its limits that the paths name.

    Raises:
        SpecificationError: a node id in its file names none.
    """
    ids = {f"{gate.name}::{limit.key}": limit for limit in gate.limits}
    named: list[str] = []
    for file, _, name in (path.partition("::") for path in paths):
        if not Path(gate.path or "").resolve().is_relative_to(Path(file).resolve()):
            continue
        if name not in ("", gate.name, *ids):
            known = ", ".join(f"{file}::{one}" for one in ids)
            raise SpecificationError(f"{file}::{name}: no such limit; there are {known}")
        named += [name] if name in ids else ids
    return replace(gate, limits=tuple(limit for one, limit in ids.items() if one in named))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _length(seconds: float) -> str:
    return f"{5 * round(seconds / 5)} s" if seconds < 90 else f"{round(seconds / 60)} min"


@contextmanager
def _free_cores() -> Iterator[None]:
    """Where other processes keep at least half of the cores busy, torch's threads in processes
    that are started inside are as many as these leave; told. Not where the user's environment
    says how many.

    Threads that share a matrix product wait, spinning, for the last of them (docs/cli.md). The load
    average would count the check before this one, what runs now does not.
    """
    known = _THREADS not in os.environ and Path(_RUNNING).is_file()
    cores = len(os.sched_getaffinity(0)) if known else 1
    cores = cores if cores == os.cpu_count() else 1  # else others may be busy, not these
    busy = min(cores, *(_running() for _ in range(5))) if cores > 1 else 0
    if 2 * busy < cores:
        yield
        return
    free = max(1, cores - busy)
    _print(
        f"{busy} of {cores} cores are busy with other work, so torch gets "
        f"{_count(free, 'thread')}; {_THREADS}={cores} takes all"
    )
    os.environ[_THREADS] = str(free)
    try:
        yield
    finally:
        del os.environ[_THREADS]


def _running() -> int:
    """How many other threads of this machine run or want to, a moment from now."""
    time.sleep(0.05)
    return int(Path(_RUNNING).read_text().split()[3].partition("/")[0]) - 1


def _judge(plan: Plan, tuned: CheckpointSpec) -> tuple[int, dict[str, Any]]:
    """pytest's exit status on one checkpoint, and the results (empty where there are none)."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        command = [sys.executable, *_PYTEST, *pytest_arguments(plan, tuned, results)]
        own = {name: value for name, value in os.environ.items() if name not in _ENVIRONMENT}
        with whole_imports(), subprocess.Popen(command, env=own) as process:
            status = process.wait()  # Ctrl-C reaches pytest too, which ends the run itself
        document = json_file.read(results) if results.is_file() else {}
    if status < 0:
        step = "if memory ran out, --dtype bfloat16 takes half"
        say(f"forgetguard check: {tuned}: the run was ended by signal {-status}; {step}")
        status = _CRASHED
    if status == DONE:
        with whole_imports():  # scipy among them
            from forgetguard.report.recheck import why_no_pass
        if why := [*why_no_pass(document)] if document else ["it has no results"]:
            say(f"forgetguard check: {tuned}: the run was no pass: {'; '.join(why)}")
            status = _CRASHED
    return status, document


def pytest_arguments(plan: Plan, tuned: CheckpointSpec, results: Path) -> list[str]:
    """The options of the gate on one checkpoint, then the paths."""
    return [
        f"--tb={'long' if plan.asked.verbose else 'no'}",
        f"--check-results={results}",
        *("--forgetguard", f"base={plan.base.given}", f"tuned={tuned.given}"),
        f"--forgetguard-bundled={plan.asked.circuits}",
        *(f"--forgetguard-{name}={file}" for name, file in _files(plan, tuned).items()),
        *([] if plan.seed is None else [f"--forgetguard-prompt-seed={plan.seed}"]),
        *(["--forgetguard-origin"] if plan.asked.origin else []),
        *gate_options(plan.loading),
        *plan.paths,
    ]


def _files(plan: Plan, tuned: CheckpointSpec) -> dict[str, Path]:
    """What is written of one checkpoint, where: each its own where there are several."""
    files = {name: Path(file) for name in _FILES if (file := getattr(plan.asked, name))}
    if len(plan.tuned) == 1:
        return files
    own = short_names([spec.given for spec in plan.tuned])[tuned.given]
    return {name: file.with_stem(f"{file.stem}.{own}") for name, file in files.items()}


def short_names(given: Sequence[str]) -> dict[str, str]:
    """Each checkpoint's last part, which may stand in a file's name; where two have the same one,
    all of each."""
    short = [re.sub(r"[^\w.-]+", "-", one.rstrip("/").rpartition("/")[2]) for one in given]
    whole = [re.sub(r"[^\w.-]+", "-", one).strip("-") for one in given]
    return dict(zip(given, short if len(set(short)) == len(short) else whole, strict=True))


def _why(document: Mapping[str, Any]) -> None:
    """Why limits are not kept, what fails first, and where more is said."""
    from forgetguard.gate.records import verdict_from_dict

    told = [result["message"] for result in document["results"] if result["outcome"] == "error"]
    told += [
        f"{LABELS[one['outcome']]} {one['circuit']} {one['limit']}: "
        f"{reason(verdict_from_dict(one))}"
        for one in _verdicts(document)
        if one["outcome"] != "pass"
    ]
    if not told:
        return
    told = list(dict.fromkeys(told))  # one error of a file stops each of its limits
    order = (LABELS["fail"], LABELS["abstain"])
    told.sort(key=lambda line: next((n for n, one in enumerate(order) if line.startswith(one)), 1))
    more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
    again = shlex.join(["forgetguard", *sys.argv[1:], "-v"])
    _print("\n".join(["", *told[:_SHOWN], *more, "", f"which heads and prompts: {again}"]))


def _side_by_side(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Every limit's verdict in each checkpoint, in the order in which they were given."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for given, document in results.items():
        for one in _verdicts(document):
            value = number(one["estimate"]["value"]) if one["estimate"] else ""
            cell = f"{LABELS[one['outcome']]} {value}"
            rows.setdefault((one["circuit"], one["limit"]), {})[given] = cell
    table = [[*key, *(row.get(given, "-") for given in results)] for key, row in rows.items()]
    counts = [totals(one["outcome"] for one in document.get("results", ()))
              for document in results.values()]  # fmt: skip
    header = ["circuit", "limit", *short_names(list(results)).values()]
    _print("\n".join(["", *aligned([header, *table, ["all", "", *counts]])]))


def _verdicts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of all gates; none where the run has no results."""
    return [one for result in document.get("results", ()) for one in result["verdicts"]]


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


COMMAND = command("check", _options, _prepare)

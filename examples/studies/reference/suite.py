"""The whole suite: train, measure, compare, report; each takes up what is there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.studies.pages import write_page
from examples.studies.reference import claims, collecting, comparing, measuring, training
from examples.studies.reference.plan import STAGES, Plan, described
from examples.studies.reference.workers import Task, Work, carry_out
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.recipes.locking import alone
from forgetguard.whole_files import write_text

RESULTS = "results.json"
_PLAN = "plan.json"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Works:
    """What trains and measures; others than these are for tests."""

    train: Work = training.train
    measure: Work = measuring.measure
    compare: Work = comparing.compare


@dataclass(frozen=True, slots=True)
class Outcome:
    """What failed and why, by task, and the page, where one was written."""

    failed: Mapping[str, str]
    page: Path | None


def run(
    plan: Plan,
    *,
    jobs: int,
    stages: Sequence[str] = STAGES,
    docs: Path | None = None,
    figures: bool = True,
    say: Say = lambda _: None,
    works: Works | None = None,
) -> Outcome:
    """Do the given stages, in order; masks are compared in `measure`, once scores are known.

    Args:
        jobs: processes at once; 0: here, without any.
        docs: where the page goes (`reference.md`, `reference/`); the plan's folder by default.
        figures: draw them.
        works: what trains and measures.

    Raises:
        SpecificationError: the folder holds another study, or cannot be used.
        MeasurementError: there is nothing to report.
    """
    works = works or Works()
    failed: dict[str, str] = {}
    _refuse_foreign(plan)
    with alone(plan.out, f"--out {plan.out}"):
        _refuse_another(plan)
        write_text(plan.out / _PLAN, json.dumps(described(plan), indent=1) + "\n")
        if "train" in stages:
            failed |= _train(plan, works, jobs, say)
        if "measure" in stages:
            failed |= _measure(plan, works, jobs, say)
            failed |= _compare(plan, works, jobs, say)
        page = _report(plan, docs or plan.out, figures, failed, say) if "report" in stages else None
    return Outcome(failed, page)


# --- stages ----------------------------------------------------------------------------------


def _train(plan: Plan, works: Works, jobs: int, say: Say) -> dict[str, str]:
    left = [run for run in plan.runs if not training.finished(run)]
    say(f"training: {len(plan.runs)} runs, {len(plan.runs) - len(left)} of them finished before")
    tasks = [Task(run.name, works.train, run.after, run.cost) for run in left]
    return carry_out(tasks, plan, jobs=jobs, threads=plan.threads, say=say)


def _measure(plan: Plan, works: Works, jobs: int, say: Say) -> dict[str, str]:
    names = measuring.there(plan)
    left = [name for name in names if not measuring.measured(plan, name)]
    say(f"measuring: {len(names)} checkpoints, {len(names) - len(left)} of them before")
    tasks = [Task(name, works.measure) for name in left]
    return carry_out(tasks, plan, jobs=jobs, threads=plan.threads, say=say)


def _compare(plan: Plan, works: Works, jobs: int, say: Say) -> dict[str, str]:
    found = _table(plan)
    if found is None:
        return {}
    wanted = comparing.pairings(plan, found)
    left = [name for name, one in wanted.items() if comparing.read(plan, name, one) is None]
    say(f"comparing circuits: {len(wanted)} pairs, {len(wanted) - len(left)} of them before")
    tasks = [Task(name, works.compare) for name in left]
    return carry_out(tasks, (plan, wanted), jobs=jobs, threads=plan.threads, say=say)


def _report(plan: Plan, docs: Path, figures: bool, failed: Mapping[str, str], say: Say) -> Path:
    found = _table(plan)
    if found is None:
        raise MeasurementError(
            f"{plan.out}: no checkpoint has been measured, so there is nothing to report: run the "
            "train and measure stages, and look at why they failed"
        )
    wanted = comparing.pairings(plan, found)
    compared = [comparing.read(plan, name, one) for name, one in wanted.items()]
    found["comparisons"] = [one for one in compared if one is not None]
    found["claims"] = claims.judge(found)
    found["failed"] = dict(failed)
    return write(found, docs, figures=figures, say=say)


def write(found: Mapping[str, Any], docs: Path, *, figures: bool, say: Say) -> Path:
    """Write results, figures and page; the prose of a page that is there stays.

    Raises:
        SpecificationError: the page has no place for the numbers.
    """
    from examples.studies.reference import page

    found = _rounded(found)  # so that the page says what the file gives
    folder = docs / "reference"
    at = docs / "reference.md"
    write_page(at, page, found, folder / RESULTS, compact(found))
    if figures:
        from examples.studies.reference.figures import draw

        draw(found, folder)
    say(f"written: {at}")
    return at


def compact(found: Mapping[str, Any]) -> str:
    """JSON with a line for each checkpoint, comparison and claim."""
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False)
    for start in ('{"run":', '{"key":', '{"task":'):
        text = text.replace(start, "\n" + start)
    return text + "\n"


def _rounded(value: Any) -> Any:
    """Numbers to 6 digits: more is noise, and changes from machine to machine."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _table(plan: Plan) -> dict[str, Any] | None:
    # Other files, of a run before its settings were changed, may lie there too.
    names = [name for name in measuring.there(plan) if measuring.measured(plan, name)]
    base, records = collecting.read_base(plan, names), collecting.read_records(plan, names)
    return None if base is None or not records else collecting.table(plan, base, records)


# --- the folder ------------------------------------------------------------------------------


def _refuse_foreign(plan: Plan) -> None:
    """What is hidden may lie there before, such as .gitkeep; in the folder of a study anything."""
    try:
        found = sorted(path.name for path in plan.out.iterdir() if not path.name.startswith("."))
    except OSError:
        return  # not there yet; or no folder, which taking its lock says
    if found and _PLAN not in found:
        shown = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
        raise SpecificationError(
            f"--out {plan.out} holds something else than a study ({shown}; there is no {_PLAN}): "
            f"name a folder that is empty or not there yet"
        )


def _refuse_another(plan: Plan) -> None:
    """Other seeds or recipes are more of the same study; another base or other data are not."""
    try:
        known = json.loads((plan.out / _PLAN).read_text("utf-8"))
        before = {"base": known["base"], **known["data"]}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        raise SpecificationError(
            f"--out {plan.out}: its {_PLAN} cannot be read: move the folder away"
        ) from None
    now = {"base": plan.base, **described(plan)["data"]}
    other = [
        f"{key} was {before.get(key)}, is {now[key]}" for key in now if before.get(key) != now[key]
    ]
    if other:
        raise SpecificationError(
            f"--out {plan.out} holds another study: {'; '.join(other)}. Name another folder"
        )

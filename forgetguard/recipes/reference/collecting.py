"""From the checkpoints' files to one table: summaries over seeds, and who is at equal score."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from forgetguard.recipes.reference.intervals import over_seeds
from forgetguard.recipes.reference.plan import Plan, described

Record: TypeAlias = Mapping[str, Any]
Table: TypeAlias = Mapping[str, Any]
Metric: TypeAlias = Callable[[Record], float | None]
SCHEMA, SCHEMA_VERSION = "forgetguard.reference", 1
_GRID = 100  # steps of the scores that a target is looked for among


# --- records -----------------------------------------------------------------------------------


def read_records(plan: Plan, names: Collection[str]) -> list[dict[str, Any]]:
    """The numbers of the checkpoints `names`, each RUN@STEP, by run and step; a file that cannot be
    read counts as not measured."""
    records = []
    for run in plan.runs:
        for file in sorted((plan.out / "measures" / run.name).glob("step-*.json")):
            step = int(file.stem.removeprefix("step-"))
            found = _read(file) if f"{run.name}@{step}" in names else None
            if found is None:
                continue
            records.append(
                {
                    "run": run.name,
                    "recipe": run.recipe,
                    "learning_rate": run.learning_rate,
                    "seed": run.seed,
                    "start": run.start,
                    "after": run.after,
                    "step": step,
                    "final": step == run.settings.steps,
                    **found,
                }
            )
    return records


def read_base(plan: Plan, names: Collection[str]) -> dict[str, Any] | None:
    """The base's numbers, None where they are not there or `base@0` is not among `names`."""
    return _read(plan.out / "measures" / "base" / "step-000000.json") if "base@0" in names else None


def _read(file: Any) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    found.pop("key", None)
    return found


def table(
    plan: Plan, base: Record, records: Sequence[Record], comparisons: Sequence[Record] = ()
) -> dict[str, Any]:
    """All that claims, figures and the page are made from, in plain values."""
    full = [{**one, **_summary(base, one)} for one in records]
    target = plan.target if plan.target is not None else common_target(full, plan)
    chosen = matched(full, target, plan.tolerance)
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "plan": described(plan),
        "runs": [
            {"name": run.name, "recipe": run.recipe, "steps": run.settings.steps}
            for run in plan.runs
        ],
        "base": {**base, **_summary(base, base)},
        "checkpoints": full,
        "target": target,
        "matched": chosen,
        "summaries": {name: _over_seeds(group) for name, group in _matched(full, chosen).items()},
        "comparisons": list(comparisons),
    }


def _summary(base: Record, one: Record) -> dict[str, float | None]:
    """What is kept of the prior capabilities, each weighing the same, and the circuits' DCV."""
    tasks = base["prior"]
    prior = one["prior"]
    dcv = [found["value"] for found in one.get("dcv", {}).values()]
    return {
        "score": one["new"]["evaluation"],
        "accuracy": _mean(prior[task]["accuracy"] for task in tasks),
        "kept": _mean(_share(prior[task]["readout"], tasks[task]["readout"]) for task in tasks),
        "mass": _mean(
            _share(prior[task]["probability"], tasks[task]["probability"]) for task in tasks
        ),
        "vulnerability": _mean(dcv),
    }


def _share(value: float, of: float) -> float | None:
    return value / of if of > 0 else None


def _mean(values: Iterable[float | None]) -> float | None:
    """None where one is not known: a mean over others would not be comparable."""
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if found and len(known) == len(found) else None


# --- matched score -----------------------------------------------------------------------------


def common_target(records: Sequence[Record], plan: Plan) -> float | None:
    """The highest score near which every seed of all compared groups has a checkpoint; None
    where there is none. Looks at validation scores alone, so at nothing that a claim is about."""
    for number in range(_GRID, 0, -1):
        target = number / _GRID
        if all(
            _nearest(records, group, seed, target, plan.tolerance) is not None
            for group in {one for pair in plan.compared for one in pair}
            for seed in plan.seeds
        ):
            return target
    return None


def matched(
    records: Sequence[Record], target: float | None, tolerance: float
) -> dict[str, dict[str, Any]]:
    """By group (recipe, and start of sft-rl) and seed, the checkpoint whose validation score is
    nearest to the target, as {run, step}; None where none is within the tolerance."""
    result: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(map(group_of, records)):
        seeds = sorted({one["seed"] for one in records if group_of(one) == name})
        result[name] = {}
        for seed in seeds:
            found = None if target is None else _nearest(records, name, seed, target, tolerance)
            result[name][str(seed)] = (
                None if found is None else {"run": found["run"], "step": found["step"]}
            )
    return result


def group_of(record: Record) -> str:
    """The recipe; one that starts from a checkpoint is told apart by the step of that."""
    start = record.get("start")
    return str(record["recipe"]) if start is None else f"{record['recipe']} from {start}"


def _nearest(
    records: Sequence[Record], group: str, seed: int, target: float, tolerance: float
) -> Record | None:
    """The earlier step, then the lower learning rate, where two are as near."""
    near = [
        one
        for one in records
        if group_of(one) == group
        and one["seed"] == seed
        and abs(one["new"]["validation"] - target) <= tolerance + 1e-9
    ]
    return min(
        near,
        key=lambda one: (
            round(abs(one["new"]["validation"] - target), 6),
            one["step"],
            one["learning_rate"],
        ),
        default=None,
    )


def _matched(
    records: Sequence[Record], chosen: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Record]]:
    by_name = {(one["run"], one["step"]): one for one in records}
    return {
        group: [by_name[one["run"], one["step"]] for one in seeds.values() if one is not None]
        for group, seeds in chosen.items()
    }


def at_matched(found: Table, group: str) -> dict[int, Record]:
    """The matched checkpoints of a group, by seed."""
    picked = _matched(found["checkpoints"], {group: found["matched"].get(group, {})})
    return {one["seed"]: one for one in picked[group]}


# --- numbers of a record -----------------------------------------------------------------------


def divergence_of(where: str, direction: str) -> Metric:
    """KL to the base on `new` or `prior` prompts, `forward` or `reverse`, in nats a token."""
    return lambda one: one.get("kl", {}).get(where, {}).get(direction)


METRICS: Mapping[str, Metric] = {
    "new-task score": lambda one: one["score"],
    "prior accuracy": lambda one: one["accuracy"],
    "prior readout kept": lambda one: one["kept"],
    "prior answers' probability kept": lambda one: one["mass"],
    "circuit DCV": lambda one: one["vulnerability"],
    "forward KL, new task": divergence_of("new", "forward"),
    "reverse KL, new task": divergence_of("new", "reverse"),
    "forward KL, prior": divergence_of("prior", "forward"),
    "reverse KL, prior": divergence_of("prior", "reverse"),
    "weights moved": lambda one: one.get("drift"),
}


def _over_seeds(records: Sequence[Record]) -> dict[str, Any]:
    found = {}
    for name, metric in METRICS.items():
        values = [metric(one) for one in records]
        known = [value for value in values if value is not None]
        found[name] = over_seeds(known)
    return found


def paired(found: Table, first: str, second: str, metric: Metric) -> list[float]:
    """`metric` of the first group minus that of the second at matched score, seed by seed, for the
    seeds where both are matched."""
    ours, theirs = at_matched(found, first), at_matched(found, second)
    differences = []
    for seed in sorted(ours.keys() & theirs.keys()):
        one, other = metric(ours[seed]), metric(theirs[seed])
        if one is not None and other is not None:
            differences.append(one - other)
    return differences

"""From the checkpoints' files to one table: summaries over seeds, and who is at equal score."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from examples.studies.reference.intervals import over_seeds
from examples.studies.reference.plan import Plan, described

Record: TypeAlias = Mapping[str, Any]
Table: TypeAlias = Mapping[str, Any]
Metric: TypeAlias = Callable[[Record], float | None]
SCHEMA, SCHEMA_VERSION = "forgetguard.reference", 1
_GRID = 100  # steps of the scores that a target is looked for among
_SCORED = 1e-9  # a score at the tolerance's edge is within it
REPLAYED = ("sft", "sft-replay")  # compared by a claim of its own, whatever the plan compares


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
        "rates": []
        if target is None
        else [
            one
            for pair in dict.fromkeys((*plan.compared, REPLAYED))
            for one in _pairings(full, pair, target, plan.tolerance)
        ],
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
    """The highest score near which all compared groups have a checkpoint of every seed, each group
    at one learning rate; None where there is none. Looks at validation scores alone, so at nothing
    that a claim is about."""
    for number in range(_GRID, 0, -1):
        target = number / _GRID
        if all(
            set(plan.seeds) <= _gentlest(_reached(records, group, target, plan.tolerance)).keys()
            for group in {one for pair in plan.compared for one in pair}
        ):
            return target
    return None


def matched(
    records: Sequence[Record], target: float | None, tolerance: float
) -> dict[str, dict[str, Any]]:
    """By group (recipe, and start of sft-rl) and seed, the checkpoint that stands for it at the
    target score, as {run, step}; None where none is within the tolerance.

    All within the tolerance count as equal: nearer is not better. A group is taken at one learning
    rate, the lowest at which most seeds (all, where there is such a rate) get there; a seed at the
    first step that does. So the gentlest training that reaches the score stands for each group.
    """
    result: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(map(group_of, records)):
        seeds = sorted({one["seed"] for one in records if group_of(one) == name})
        found = {} if target is None else _gentlest(_reached(records, name, target, tolerance))
        result[name] = {
            str(seed): {"run": found[seed]["run"], "step": found[seed]["step"]}
            if seed in found
            else None
            for seed in seeds
        }
    return result


def group_of(record: Record) -> str:
    """The recipe; one that starts from a checkpoint is told apart by the step of that."""
    start = record.get("start")
    return str(record["recipe"]) if start is None else f"{record['recipe']} from {start}"


def _reached(
    records: Sequence[Record], group: str, target: float, tolerance: float
) -> dict[float, dict[int, Record]]:
    """By learning rate, in rising order, and seed: the first checkpoint within the tolerance."""
    result: dict[float, dict[int, Record]] = {}
    for one in sorted(records, key=lambda one: (one["learning_rate"], one["seed"], one["step"])):
        off = abs(one["new"]["validation"] - target)
        if group_of(one) == group and off <= tolerance + _SCORED:
            result.setdefault(one["learning_rate"], {}).setdefault(one["seed"], one)
    return result


def _gentlest(reached: Mapping[float, Mapping[int, Record]]) -> Mapping[int, Record]:
    """Of the learning rates at which most seeds get there, the lowest one's checkpoints, by
    seed."""
    return max(reached.values(), key=len, default={})  # of equals the first, so the lowest rate


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
    return _differences(at_matched(found, first), at_matched(found, second), metric)


def _differences(
    ours: Mapping[int, Record], theirs: Mapping[int, Record], metric: Metric, sign: int = 1
) -> list[float]:
    differences = []
    for seed in sorted(ours.keys() & theirs.keys()):
        one, other = metric(ours[seed]), metric(theirs[seed])
        if one is not None and other is not None:
            differences.append(sign * (one - other))
    return differences


# --- pairings of learning rates ------------------------------------------------------------------

# Of each pairing: the metric, and whether it is that of the second group minus that of the first
# or the other way round, so that above 0 the second has kept more.
RATED: Mapping[str, tuple[str, int]] = {
    "circuit DCV, first - second": ("circuit DCV", -1),
    "prior readout kept, second - first": ("prior readout kept", 1),
    "probability kept, second - first": ("prior answers' probability kept", 1),
}


def _pairings(
    records: Sequence[Record], pair: Sequence[str], target: float, tolerance: float
) -> list[dict[str, Any]]:
    """What stands at the target score between two groups for every pairing of their learning rates,
    each seed at its first step there. `judged`: the pairing that the claims are judged on."""
    first, second = (_reached(records, group, target, tolerance) for group in pair)
    return [
        {
            "pair": list(pair),
            "rates": [one, other],
            "seeds": sorted(ours.keys() & theirs.keys()),
            "judged": ours is _gentlest(first) and theirs is _gentlest(second),
            "numbers": {
                name: over_seeds(_differences(theirs, ours, METRICS[metric], sign))
                for name, (metric, sign) in RATED.items()
            },
        }
        for one, ours in first.items()
        for other, theirs in second.items()
    ]

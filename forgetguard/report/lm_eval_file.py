"""The lm-eval scores of a results file in the form of lm-eval's own results, one mapping a model,
for whatever reads those (its tables, leaderboards), and as entries of a model card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from forgetguard.errors import SpecificationError

Data = Mapping[str, Any]


def lm_eval_results(results: Data) -> dict[str, dict[str, Any]]:
    """By role: what lm-eval would have written of that model, so far as it is known: the mean of
    each metric on the documents that were drawn, its standard error, and their number. Empty where
    nothing was asked of lm-eval. `results`: as `forgetguard.report.recheck.read` gives it."""
    found: dict[str, dict[str, Any]] = {}
    for circuit in results["circuits"]:
        for subject, by_role in _by_subject(circuit["measured"]).items():
            for role, values in by_role.items():
                _add(found.setdefault(role, _empty(results, role)), subject, values)
    return found


def card_entries(results: Data, hub: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Tuned's scores as entries of a model repository's `.eval_results/*.yaml`. `hub`: by task,
    the dataset on the Hub and the name that its benchmark gives the task; the first metric counts.

    Raises:
        SpecificationError: a task has no score here.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    scores = lm_eval_results(results).get("tuned", {})
    entries = []
    for task, (dataset, name) in hub.items():
        row = {key: value for key, value in scores.get("results", {}).get(task, {}).items()
               if key != "alias" and "_stderr," not in key}  # fmt: skip
        if not row:
            known = ", ".join(scores.get("results", {})) or "none"
            raise SpecificationError(
                f"--hub-task {task}: these results hold no score of that task; they hold {known}"
            )
        metric, value = next(iter(row.items()))
        count, label = scores["n-samples"][task]["effective"], metric.removesuffix(",none")
        entries.append(
            EvalResultEntry(dataset, name, value, date=results["started"],
                            notes=f"{label}, {count} documents, lm-eval in forgetguard")
        )  # fmt: skip
    return eval_result_entries_to_yaml(entries)


def _by_subject(measured: Data) -> dict[str, dict[str, list[float]]]:
    """The scores of each `task metric [filter]` on its own documents, by role."""
    found: dict[str, dict[str, list[float]]] = {}
    for role, by_subject in measured["arrays"].get("lm_eval.score", {}).items():
        for subject, values in by_subject.items():
            task = subject.split(" ")[0]
            own = [unit[0].partition(" #")[0] == task for unit in measured["units"]]
            kept = [value for value, mine in zip(values, own, strict=True) if mine]
            found.setdefault(subject, {})[role] = kept
    return found


def _empty(results: Data, role: str) -> dict[str, Any]:
    keys = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better")
    return {key: {} for key in (*keys, "n-samples")} | {
        "config": {"model": "hf", "model_args": f"pretrained={results['options'][role]}"},
        "model_name": results["options"][role],
        "forgetguard": results["versions"]["forgetguard"],
        "date": results["started"],
    }


def _add(into: dict[str, Any], subject: str, values: list[float]) -> None:
    task, metric, *named = subject.split(" ")
    higher = not metric.startswith("1-")  # what is held to a limit: more is better
    name, label = metric.removeprefix("1-"), named[0] if named else "none"
    count, mean = len(values), math.fsum(values) / len(values)
    spread = math.fsum((one - mean) ** 2 for one in values)
    row = into["results"].setdefault(task, {"alias": task})
    row[f"{name},{label}"] = mean if higher else 1 - mean
    row[f"{name}_stderr,{label}"] = math.sqrt(spread / (count - 1) / count) if count > 1 else "N/A"
    into["group_subtasks"][task] = []
    into["higher_is_better"].setdefault(task, {})[name] = higher
    into["n-samples"][task] = {"effective": count}

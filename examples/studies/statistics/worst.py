"""The worst error rates of the study, each with what it rests on."""

from __future__ import annotations

from collections.abc import Iterable

from examples.studies.statistics import few_templates, guards, whole_runs
from examples.studies.statistics.scenarios import SCENARIOS
from examples.studies.statistics.tables import Data, select, table

Cells = list[tuple[float, str]]  # rates in per cent, and where they were seen
_SPREAD = "damage lies on most pairs, mildly skewed; templates are drawn as future ones will be"
_SKEWED = ("log_normal", "improving", "sparse")


def rendered(data: Data) -> str:
    """The table."""
    rows = []
    for what, on, cells in [*_passes(data), *_fails(data)]:
        value, where = max(cells)
        rows.append([what, f"**{value:.1f}**", where, on])
    return table("what (nominal 5 %)|worst seen, %|where|rests on", rows)


def readme(data: Data) -> str:
    """The same in two sentences."""
    most = {what: max(cells)[0] for what, _, cells in [*_passes(data), *_fails(data)]}
    spread, few, guarded, run = (
        f"{most[one]:.1f}"
        for one in (
            "wrong pass",
            "wrong pass, few pairs carry all",
            "the same with `guard: 2`",
            "a run of the tiny family fails falsely",
        )
    )
    return (
        "Worst rates seen where the truth stands at the limit ([docs/statistics.md]"
        f"(docs/statistics.md)): a pass is wrong {spread} times in 100 where damage is spread over "
        f"the pairs, {few} times where few pairs carry all of it ({guarded} with `guard: 2`); a "
        f"run of the tiny family fails falsely {run} times in 100."
    )


def _passes(data: Data) -> list[tuple[str, str, Cells]]:
    accuracy = [
        (
            one["high"],
            f"{one['pairs']} pairs of {one['templates']} templates that correlate by "
            f"{one['together']:g}",
        )
        for one in data["accuracy_templates"]
    ]
    plain = [name for name in SCENARIOS if name not in _SKEWED]
    return [
        ("wrong pass", _SPREAD, _coverage(data, plain, "high")),
        ("wrong pass, a few pairs lose much", "nothing", _coverage(data, ["log_normal"], "high")),
        (
            "wrong pass, few pairs carry all",
            "the sample holds some of them",
            _guarded(data, 0, guards.SPARSE),
        ),
        (
            "the same with `guard: 1`",
            "no pair loses more than one importance",
            _guarded(data, 1, guards.SPARSE[:2]),
        ),
        ("`guard: 1`, pairs lose two", "nothing", _guarded(data, 1, guards.SPARSE[2:])),
        (
            "the same with `guard: 2`",
            "no pair loses more than two",
            _guarded(data, 2, guards.SPARSE),
        ),
        ("wrong pass, 2 to 7 templates", "their means are about normal", _few(data, "normal")),
        ("wrong pass, 2 to 7 templates, a few lose much", "nothing", _few(data, "skewed")),
        ("wrong pass of accuracy, templates differ", "at least eight templates", accuracy),
    ]


def _fails(data: Data) -> list[tuple[str, str, Cells]]:
    tiny = [
        (one["any"], f"`{one['data']}`, n = {one['pairs']}")
        for one in data["tiny_gates"]
        if one["way"] != "alone"
    ]
    plain = [name for name in SCENARIOS if name not in _SKEWED]
    improve = "a few pairs improve much"
    return [
        ("false alarm of one limit", _SPREAD, _coverage(data, plain, "low")),
        (f"false alarm of one limit, {improve}", "nothing", _coverage(data, ["improving"], "low")),
        ("a run of the tiny family fails falsely", "as measured there", tiny),
        (
            "a made-up run fails falsely",
            _SPREAD,
            _runs(data, [kind for kind in whole_runs.KINDS if kind != "improving"]),
        ),
        (f"a made-up run fails falsely, {improve}", "nothing", _runs(data, ["improving"])),
    ]


def _coverage(data: Data, scenarios: Iterable[str], bound: str) -> Cells:
    return [
        (one[bound], f"{SCENARIOS[name].words.split(':')[0]}, n = {one['pairs']}")
        for name in scenarios
        for one in select(data["coverage"], interval="fieller", scenario=name)
    ]


def _guarded(data: Data, place: int, kinds: Iterable[str]) -> Cells:
    return [
        (one["passes"][place], f"{guards.AT_LIMIT[kind]}, n = {one['pairs']}")
        for kind in kinds
        for one in select(data["guards"], data=kind)
    ]


def _few(data: Data, kind: str) -> Cells:
    words = few_templates.KINDS[kind]
    chosen = select(data["few_templates"], data=kind)
    return [(one["high"], f"{words}, {one['templates']} templates") for one in chosen]


def _runs(data: Data, kinds: Iterable[str]) -> Cells:
    return [
        (
            one["any"],
            f"{whole_runs.KINDS[kind]}, {one['pairs']} pairs of {one['templates'] or 'no'} "
            "templates",
        )
        for kind in kinds
        for one in select(data["whole_runs"], edge=True, data=kind)
    ]

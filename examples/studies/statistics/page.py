"""The tables of docs/statistics.md, rendered from the study's data between two markers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from examples.studies.pages import fill_blocks
from examples.studies.statistics import few_templates, guards, whole_runs, worst
from examples.studies.statistics.doses import dose_of
from examples.studies.statistics.families import CORRECTIONS, KINDS
from examples.studies.statistics.intervals import INTERVALS
from examples.studies.statistics.scenarios import SCENARIOS
from examples.studies.statistics.sequences import FIXED, MOST
from examples.studies.statistics.settings import CIRCUIT_LIMIT, LIMITS
from examples.studies.statistics.tables import Data, Record, select, table

WIDTH = (93.0, 97.0)  # what a nominal 95 % should cover


def fill(page: str, data: Data) -> str:
    """The page with every block between `<!-- statistics: NAME -->` and `<!-- end -->` rendered
    anew.

    Raises:
        SpecificationError: the page asks for a block that there is not, or for none.
    """
    return fill_blocks(page, "statistics", BLOCKS, lambda name: BLOCKS[name](data))


def bare(data: Data) -> str:
    """A page that nobody has written about yet: the figures and all blocks."""
    parts = ["# Error rates of verdicts"]
    parts += [f"![{name}](statistics/{name}.svg)" for name in FIGURES]
    parts += [f"<!-- statistics: {name} -->\n<!-- end -->" for name in BLOCKS]
    return fill("\n\n".join(parts) + "\n", data)


# --- how sure the numbers are ---------------------------------------------------------------------


def _sizes_of_study(data: Data) -> str:
    """The standard error of a rate of 5 %, and of 80 %, by what was repeated how often."""
    settings, words = data["settings"], _REPEATED
    rows = []
    for key, what in words.items():
        count = settings[key]
        errors = (100 * math.sqrt(rate * (1 - rate) / count) for rate in (0.05, 0.80))
        rows.append([what, str(count), *(f"{one:.1f}" for one in errors)])
    return table(["tables", "repetitions a cell", "SE at 5 %", "SE at 80 %"], rows)


_REPEATED: Mapping[str, str] = {
    "data_sets": "coverage, few templates, accuracy by template",
    "judged": "whole runs by the gate's judge (runs; limits are twice as many)",
    "runs": "whole runs of the tiny family (a quarter for the last two columns)",
    "families": "eight heads",
    "doses": "power over dose, circuits",
    "head_doses": "power over dose, heads",
    "heads": "lost heads",
    "guards": "guards",
    "draws": "subsamples of the tiny family (a quarter where templates are resampled)",
    "detected": "what `detectable` delivers",
    "sequences": "sequential drawing (a quarter where the truth is not at the limit)",
}


# --- intervals ------------------------------------------------------------------------------------


def _sizes(data: Data) -> list[int]:
    return list(data["settings"]["pairs"])


def _one_sided(data: Data) -> str:
    """Both bounds of the gate's interval."""

    def cell(one: Record) -> str:
        return f"{one['low']:.1f} / {one['high']:.1f}"

    return _by_scenario(data, cell)


def _two_sided(data: Data) -> str:
    def cell(one: Record) -> str:
        text = f"{one['holds']:.1f}"
        return text if WIDTH[0] <= one["holds"] <= WIDTH[1] else f"**{text}**"

    return _by_scenario(data, cell)


def _by_scenario(data: Data, cell: Callable[[Record], str]) -> str:
    sizes = _sizes(data)
    rows = []
    for name, scenario in SCENARIOS.items():
        found = [
            select(data["coverage"], scenario=name, pairs=pairs, interval="fieller")[0]
            for pairs in sizes
        ]
        rows.append([scenario.words, *map(cell, found)])
    return table(["data", *(f"n = {pairs}" for pairs in sizes)], rows)


def _intervals(data: Data) -> str:
    """The rivals at the fewest pairs and at 64."""
    sizes = sorted({_sizes(data)[0], min(64, _sizes(data)[-1])})
    rows = []
    for name, scenario in SCENARIOS.items():
        for pairs in sizes:
            row = [scenario.words.split(":")[0], str(pairs)]
            for key in INTERVALS:
                one = select(data["coverage"], scenario=name, pairs=pairs, interval=key)[0]
                row.append(f"{one['low']:.1f} / {one['high']:.1f}, {one['holds']:.1f}")
            rows.append(row)
    return table(["data", "n", *(words for words, _ in INTERVALS.values())], rows)


def _accuracy(data: Data) -> str:
    rows = [
        [
            str(one["pairs"]),
            f"{one['high']:.1f} %",
            f"{one['low']:.1f} %",
            f"{one['low_of_many']:.2f} %",
        ]
        for one in data["accuracy"]
    ]
    head = ["n", "wrong pass (5 %)", "false alarm, alone (5 %)", "one of fifteen (0.33 %)"]
    return table(head, rows)


def _accuracy_templates(data: Data) -> str:
    rows = [
        [
            f"{one['pairs']} of {one['templates']} templates",
            f"{one['together']:g}",
            *(f"{one[f'{name}high']:.1f} / {one[f'{name}low']:.1f}" for name in ("alone_", "")),
            *(f"{one[f'{name}low_of_many']:.2f}" for name in ("alone_", "")),
        ]
        for one in data["accuracy_templates"]
    ]
    head = "pairs|correlation|as if independent|the gate's|of fifteen, as if independent|the gate's"
    return table(head, rows)


# --- the tiny family ------------------------------------------------------------------------------


def _tiny_data(data: Data) -> str:
    rows = []
    for one in data["tiny_data"]:
        rows.append(
            [
                one["circuit"],
                one["checkpoint"].removeprefix("tiny:"),
                str(one["pairs"]),
                str(one["templates"]),
                f"{one['dcv']:.3f}",
                f"{one['worst_head']:.3f}",
                *(
                    f"{one[key][0]:.1f} to {one[key][1]:.1f}"
                    for key in ("skewness", "kurtosis", "correlation")
                ),
            ]
        )
    head = "circuit|tuned|pairs|templates|DCV|worst head|skewness|excess kurtosis|correlation"
    return table(head, rows)


def _tiny_coverage(data: Data) -> str:
    rows = []
    for pairs in _sizes(data):
        for what in ("circuit", "head"):
            row = [str(pairs), f"{what}s"]
            for way in ("pairs", "templates"):
                one = select(data["tiny_coverage"], pairs=pairs, what=what, resampled=way)[0]
                row += [f"{one['low']:.1f} / {one['high']:.1f}", f"{one['holds']:.1f}"]
            one = select(data["tiny_coverage"], pairs=pairs, what=what, resampled="pairs")[0]
            rows.append([*row, f"{one['worst']:.1f}"])
    head = "n|what|pairs resampled|95 % holds|templates resampled|95 % holds|worst bound"
    return table(head, rows)


# --- false alarms ---------------------------------------------------------------------------------


def _corrections(data: Data) -> str:
    rows = [
        [
            KINDS[one["data"]],
            str(one["pairs"]),
            f"{5 / one['limits']:.2g} %",
            str(one["families"]),
            *(f"{one[key]:.1f}" for key in CORRECTIONS),
        ]
        for one in sorted(data["corrections"], key=lambda one: one["limits"])
    ]
    return table(["data", "n", "nominal", "families", *CORRECTIONS.values()], rows)


def _gates(data: Data) -> str:
    rows = []
    for one in select(data["tiny_gates"], way="runs"):
        same = {key: one[key] for key in ("data", "pairs")}
        others = [select(data["tiny_gates"], way=way, **same)[0] for way in ("templates", "alone")]
        rows.append(
            [
                f"`{one['data']}`",
                str(one["pairs"]),
                str(one["runs"]),
                f"**{one['any']:.1f}**",
                *(f"{one[key]:.2f}" for key in ("circuit", "head", "accuracy")),
                *(f"{other['any']:.1f}" for other in others),
            ]
        )
    head = "data|n|runs|any limit|circuit|heads|accuracy|any, by template|any, uncorrected"
    return table(head, rows)


def _whole_runs(data: Data) -> str:
    """Of what stands at its limit and what is intact: false alarms, and passes of each limit."""
    keys = list(whole_runs.LIMITS)
    rows = []
    for one in sorted(data["whole_runs"], key=lambda one: not one["edge"]):
        what = whole_runs.KINDS[one["data"]]
        rows.append(
            [
                what if one["edge"] else "intact: noise only",
                f"{one['pairs']} of {one['templates'] or 'no'} templates",
                f"**{one['any']:.1f}**",
                " / ".join(f"{one['fails'][key]:.1f}" for key in keys),
                " / ".join(f"{one['passes'][key]:.1f}" for key in keys),
                f"{one['guessed']:.1f}",
            ]
        )
    limits = " / ".join(keys)
    head = f"truth|pairs|any fails|each fails: {limits}|each passes|a guess is judged"
    return table(head, rows)


# --- power ----------------------------------------------------------------------------------------


def _power(data: Data) -> str:
    """Where 80 % are reached, and what the verdict says."""
    rows = []
    circuits, heads = data["circuits"], data["heads"]
    for pairs in _sizes(data):
        alone = select(circuits, pairs=pairs, limits=1)
        many = select(circuits, pairs=pairs, limits=LIMITS)
        single = select(heads, pairs=pairs)
        rows.append(
            [
                str(pairs),
                _number(dose_of(alone, "passes")),
                _number(_at_limit(alone)["passable"]),
                _number(dose_of(alone, "fails")),
                _number(_at_limit(alone)["detectable"]),
                _number(dose_of(many, "fails")),
                f"{_number(many[0]['detectable'])} / {_number(_at_limit(many)['detectable'])}",
                _number(dose_of(single, "passes")),
                _number(dose_of(single, "fails")),
            ]
        )
    head = (
        "n|circuit passes up to|said|circuit fails from, alone|said|one of fifteen|"
        "said (harmless / at the limit)|heads pass up to|heads fail from"
    )
    return table(head, rows)


def _detectable(data: Data) -> str:
    def spread(found: Sequence[float]) -> str:
        return f"{median(found):.0f} ({min(found):.0f} to {max(found):.0f})" if found else "-"

    rows = [
        [
            one["circuit"],
            one["checkpoint"],
            f"{one['dcv']:.2f}",
            *(spread(one[key]) for key in ("itself", "less", "sparse")),
        ]
        for one in data["detectable"]
    ]
    head = "circuit|checkpoint|lost|by itself|by one that lost less|the same, if sparse"
    return table(head, rows)


def _lost_heads(data: Data) -> str:
    rows = []
    for one in select(data["lost_heads"], whole=False):
        name = one["circuit"] or ("made up, the intact lose 1e-7" if one["rounding"] else "made up")
        same = {key: one[key] for key in ("circuit", "rounding")}
        ways = [one, select(data["lost_heads"], whole=True, **same)[0]]
        shares = [f"{way[key]:.0f}" for way in ways for key in ("seen", "false", "passed")]
        rows.append([name, str(one["heads"]), *shares])
    head = (
        "circuit|heads|lost 70 % fails|false alarm|intact pass|"
        "by template: lost 70 % fails|false alarm|intact pass"
    )
    return table(head, rows)


def _few_templates(data: Data) -> str:
    rows = [
        [
            few_templates.KINDS[one["data"]],
            str(one["templates"]),
            *(f"{one[f'{name}low']:.1f} / {one[f'{name}high']:.1f}" for name in ("", "alone_")),
        ]
        for one in data["few_templates"]
    ]
    head = "templates' losses|templates|as clusters, Student's t|pairs as if independent"
    return table(head, rows)


def _guards(data: Data) -> str:
    """Passes without a guard and with each, and below them false fails."""
    sizes = sorted({one["pairs"] for one in data["guards"]})
    rows = []
    for kind, words in {**guards.AT_LIMIT, **guards.BELOW}.items():
        found = [select(data["guards"], data=kind, pairs=pairs)[0] for pairs in sizes]
        rows.append([words, *(" / ".join(f"{one:.1f}" for one in row["passes"]) for row in found)])
    for kind, words in guards.AT_LIMIT.items():
        found = [select(data["guards"], data=kind, pairs=pairs)[0] for pairs in sizes]
        rows.append([f"fails, {words.split(':')[0]}", *(f"{row['fails']:.1f}" for row in found)])
    return table(["data", *(f"n = {pairs}" for pairs in sizes)], rows)


def _at_limit(records: Sequence[Record]) -> Record:
    return select(records, dose=CIRCUIT_LIMIT)[0]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _sequences(data: Data) -> str:
    kinds = sorted({one["spending"] for one in data["sequences"]} - {FIXED}, reverse=True)
    doses = sorted({one["dose"] for one in data["sequences"]})
    rows = []
    for dose in doses:
        row = [f"{dose:g}"]
        for kind in (*kinds, FIXED):
            one = select(data["sequences"], spending=kind, dose=dose)[0]
            row.append(f"{one['passes']:.1f} / {one['fails']:.1f}")
            if kind != FIXED:
                row.append(f"{one['pairs']:.0f} ({1 - one['pairs'] / MOST:.0%})")
        rows.append(row)
    head = ["true DCV"]
    for kind in kinds:
        head += [f"{_WORDS[kind]}: pass / fail", "pairs (saved)"]
    return table([*head, f"{MOST} at once: pass / fail"], rows)


_WORDS: Mapping[str, str] = {"pocock": "Pocock-like", "obrien_fleming": "O'Brien-Fleming-like"}
BLOCKS: Mapping[str, Callable[[Data], str]] = {
    "readme": worst.readme,
    "worst": worst.rendered,
    "sizes": _sizes_of_study,
    "one_sided": _one_sided,
    "two_sided": _two_sided,
    "intervals": _intervals,
    "accuracy": _accuracy,
    "accuracy_templates": _accuracy_templates,
    "tiny_data": _tiny_data,
    "tiny_coverage": _tiny_coverage,
    "corrections": _corrections,
    "gates": _gates,
    "whole_runs": _whole_runs,
    "power": _power,
    "detectable": _detectable,
    "lost_heads": _lost_heads,
    "few_templates": _few_templates,
    "guards": _guards,
    "sequences": _sequences,
}
FIGURES = ("coverage", "alarms", "power", "sequences")

"""The tables of docs/statistics.md, rendered from the study's data between two markers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from examples.studies.pages import fill_blocks
from examples.studies.statistics.doses import dose_of
from examples.studies.statistics.families import CORRECTIONS, KINDS
from examples.studies.statistics.intervals import INTERVALS
from examples.studies.statistics.scenarios import SCENARIOS
from examples.studies.statistics.sequences import FIXED, MOST
from examples.studies.statistics.settings import CIRCUIT_LIMIT, LIMITS

Data = Mapping[str, Any]
Record = Mapping[str, Any]
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


def select(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """The records with these values."""
    return [one for one in records if all(one[key] == value for key, value in wanted.items())]


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
    return _table(["data", *(f"n = {pairs}" for pairs in sizes)], rows)


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
    return _table(["data", "n", *(words for words, _ in INTERVALS.values())], rows)


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
    return _table(head, rows)


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
    return _table(head.split("|"), rows)


# --- the tiny family ------------------------------------------------------------------------------


def _tiny_data(data: Data) -> str:
    rows = []
    for one in data["tiny"]["shapes"]:
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
    return _table(head.split("|"), rows)


def _tiny_coverage(data: Data) -> str:
    rows = []
    for pairs in _sizes(data):
        for what in ("circuit", "head"):
            row = [str(pairs), f"{what}s"]
            for way in ("pairs", "templates"):
                one = select(data["tiny"]["coverage"], pairs=pairs, what=what, resampled=way)[0]
                row += [f"{one['low']:.1f} / {one['high']:.1f}", f"{one['holds']:.1f}"]
            one = select(data["tiny"]["coverage"], pairs=pairs, what=what, resampled="pairs")[0]
            rows.append([*row, f"{one['worst']:.1f}"])
    head = "n|what|pairs resampled|95 % holds|templates resampled|95 % holds|worst bound"
    return _table(head.split("|"), rows)


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
    return _table(["data", "n", "nominal", "families", *CORRECTIONS.values()], rows)


def _gates(data: Data) -> str:
    rows = []
    for one in [*data["tiny"]["gates"], *data["gates"]]:
        others = [f"{one[key]['any']:.1f}" if key in one else "-" for key in ("templates", "alone")]
        rows.append(
            [
                KINDS.get(one["data"], f"`{one['data']}`"),
                str(one["pairs"]),
                str(one["runs"]),
                f"**{one['any']:.1f}**",
                *(f"{one[key]:.2f}" for key in ("circuit", "head", "accuracy")),
                *others,
            ]
        )
    head = "data|n|runs|any limit|circuit|heads|accuracy|any, by template|any, uncorrected"
    return _table(head.split("|"), rows)


# --- power ----------------------------------------------------------------------------------------


def _power(data: Data) -> str:
    """Where 80 % are reached, and what the verdict says."""
    rows = []
    circuits, heads = data["doses"]["circuits"], data["doses"]["heads"]
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
    return _table(head.split("|"), rows)


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
    return _table([*head, f"{MOST} at once: pass / fail"], rows)


_WORDS: Mapping[str, str] = {"pocock": "Pocock-like", "obrien_fleming": "O'Brien-Fleming-like"}
BLOCKS: Mapping[str, Callable[[Data], str]] = {
    "one_sided": _one_sided,
    "two_sided": _two_sided,
    "intervals": _intervals,
    "accuracy": _accuracy,
    "accuracy_templates": _accuracy_templates,
    "tiny_data": _tiny_data,
    "tiny_coverage": _tiny_coverage,
    "corrections": _corrections,
    "gates": _gates,
    "power": _power,
    "sequences": _sequences,
}
FIGURES = ("coverage", "alarms", "power", "sequences")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])

"""The tables of docs/calibration.md, rendered from the file of `forgetguard calibrate`.

forgetguard calibrate base=tiny:base tuned=tiny:sft --out docs/calibration/calibration.json
python -m examples.studies.calibration
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.studies.pages import fill_blocks
from forgetguard.errors import ForgetguardError, SpecificationError
from forgetguard.whole_files import write_text

Data = Mapping[str, Any]
Record = Mapping[str, Any]


def fill(page: str, data: Data) -> str:
    """The page with every block between `<!-- calibration: NAME -->` and `<!-- end -->` rendered
    anew.

    Raises:
        SpecificationError: the page asks for a block that there is not, or for none.
    """
    return fill_blocks(page, "calibration", BLOCKS, lambda name: BLOCKS[name](data))


def _readings(data: Data) -> str:
    """What the nulls read: DCV of the circuit, and what the random changes cost."""
    rows = []
    for one in data["circuits"]:
        matched = _of(one, "matched")
        sets = one["random_sets"]
        rows.append(
            [
                _short(one),
                *(_small(_of(one, kind)[0]["circuit_dcv"]) for kind in ("dtype", "kernel")),
                _range([each["circuit_dcv"] for each in matched], _three),
                _range([each["readout_lost"] for each in matched], _percent),
                _range([each["accuracy_lost"] for each in matched], _percent),
                _three(one["tuned"]["circuit_dcv"]),
                _three(statistics.median(sets["values"])),
                f"{sets['p']:.2f}",
            ]
        )
    head = "circuit|dtype|kernel|matched|readout lost|accuracy lost|tuned|any heads|p"
    return _table(head.split("|"), rows)


def _limits(data: Data) -> str:
    """The limits, declared and suggested."""
    rows = []
    for one in data["circuits"]:
        for limit in one["limits"]:
            held, failed = limit["random_changes_held"], limit["random_changes_failed"]
            rows.append(
                [
                    _short(one),
                    limit["limit"],
                    f"{limit['declared']:g}",
                    *(_stated(limit[key]) for key in ("no_fail_from", "passes_from")),
                    f"{held} ({failed} fail)",
                    _two(limit["suggested"]),
                    limit["judgement"],
                ]
            )
    held = f"held of {data['draws']}"
    head = ["circuit", "limit", "declared", "no fail from", "passes from", held, "suggested", ""]
    return _table(head, rows)


BLOCKS: Mapping[str, Callable[[Data], str]] = {"readings": _readings, "limits": _limits}


# --- cells -----------------------------------------------------------------------------------


def _of(circuit: Record, kind: str) -> list[Record]:
    return [one for one in circuit["nulls"] if one["kind"] == kind]


def _short(circuit: Record) -> str:
    return str(circuit["circuit"]).removeprefix("tiny-")


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """Median, and range."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{shown(middle)} ({shown(low)} to {shown(high)})"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _percent(value: float) -> str:
    return f"{round(100 * value) + 0} %"


def _small(value: float) -> str:
    return f"{value:.1e}" if abs(value) < 1e-4 else f"{value:.2g}"


def _two(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _stated(found: Record | None) -> str:
    return "-" if found is None else _two(found["limit"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


# --- command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Render docs/calibration.md's tables from docs/calibration/calibration.json."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.calibration", description=main.__doc__
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR")
    docs = parser.parse_args(arguments).docs
    page, results = docs / "calibration.md", docs / "calibration" / "calibration.json"
    try:
        write_text(page, fill(_read(page), json.loads(_read(results))))
    except ForgetguardError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise SpecificationError(f"{path}: cannot be read: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())

"""`python -m examples.studies.real_verdicts MODEL RESULTS.json [NAME ...]`: gate the copies of a
model whose names hold one of the NAMEs (all; what is in the results already is left), and write
docs/real.md's tables. `--choose` writes chosen.json beside the results first, and gates nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from examples.studies.command import Say, carry_out
from examples.studies.pages import fill_blocks
from examples.studies.real_verdicts import page, study
from examples.studies.real_verdicts.changes import Shape
from forgetguard.whole_files import write_text

DOCS = Path(__file__).parents[3] / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.studies.real_verdicts")
    parser.add_argument("model", type=Path, help="as `make real` makes it")
    parser.add_argument("results", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    parser.add_argument("--choose", action="store_true", help="plants by what they cost")
    given = parser.parse_intermixed_args()

    def run(say: Say) -> None:
        if given.choose:
            study.choose(given.model, given.results, say)
            return
        study.run(given.model, given.results, say, given.names, given.workers)
        found = json.loads(given.results.read_text("utf-8"))
        shape = Shape.of(json.loads((given.model / "config.json").read_text("utf-8")))
        text = (DOCS / "real.md").read_text("utf-8")
        filled = fill_blocks(
            text, "verdicts", page.BLOCKS, lambda name: page.BLOCKS[name](found, shape)
        )
        write_text(DOCS / "real.md", filled)

    return carry_out(run)


if __name__ == "__main__":
    sys.exit(main())

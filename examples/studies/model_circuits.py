"""The command `python -m examples.studies.model_circuits`: bundled circuit files of a real model.

    python -m examples.studies.model_circuits base=FOLDER --name smollm2-135m-instruct \\
        --note "weights dequantised from Q4_1" [--tasks ioi ...] [--pairs 64] [--out circuits]

Every head is patched exactly; the prompts that a file gates on are others than those that its
circuit was found on. A task that the base cannot do is told and left out. Finished work is kept in
`$FORGETGUARD_CACHE`, so an interrupted run goes on. Afterwards the table of docs/circuits.md is
rendered from the files that are there: `--table` alone does just that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from examples.studies.command import Say, carry_out
from examples.studies.pages import fill_blocks
from forgetguard.errors import CapabilityError
from forgetguard.gate.declaration import GateSpec, TaskPairs
from forgetguard.gate.schema import dump, load_gate_file
from forgetguard.whole_files import write_text

TASKS = (
    "agreement",
    "fact_recall",
    "in_context_mapping",
    "key_value",
    "ioi",
    "repetition",
    "induction",
    "in_context_rule",
    "docstring",
)
# What a run that names no circuits judges of them: grammar, knowledge, copying, who did what, and a
# mapping from examples in the prompt, of those that cost least.
CORE = ("agreement", "fact_recall", "induction", "ioi", "in_context_mapping")
_GATE_PAIRS, _GATE_SEED, _SEED = 64, 0, 2001  # the circuit is found on prompts of another seed
_BY_SHAPE = "fits every base of this architecture and size; the heads were found on base"
PAGE, CIRCUITS = Path("docs") / "circuits.md", Path("circuits")


def main(arguments: Sequence[str] | None = None) -> int:
    """Find and write the files, then the table; the exit status."""
    asked = _options().parse_args(arguments)
    return carry_out(lambda say: _run(asked, say))


def _run(asked: argparse.Namespace, say: Say) -> None:
    if asked.base is not None:
        _find(asked, say)
    PAGE.write_text(fill(PAGE.read_text("utf-8"), asked.out), "utf-8")
    say(f"table written: {PAGE}")


def _find(asked: argparse.Namespace, say: Say) -> None:
    import forgetguard as fg
    from forgetguard.gate.provenance import fits_of

    base = fg.load(base=asked.base.removeprefix("base=")).base
    # By shape, not by weights: the published weights are the same but for rounding.
    fits = replace(fits_of(base), weights=None)
    for task in asked.tasks:
        try:
            capability = fg.capability(task, pairs=asked.pairs, seed=_SEED)
            circuit = fg.discover(base, capability, keep=True)
        except CapabilityError as error:
            say(f"{task}: left out; {error}")
            continue
        name = f"{asked.name}-{task}"
        versions = {one: metadata.version(one) for one in ("forgetguard", "torch", "transformers")}
        spec = circuit.spec(name)
        spec = replace(
            spec,
            pairs=TaskPairs(task, _GATE_PAIRS, _GATE_SEED, most=4 * _GATE_PAIRS),
            fits=fits,
            core=task in CORE,
            description=load_gate_file(CIRCUITS / f"auto-{task}.circuit.yaml").description,
            found={
                **(spec.found or {}),
                "base": asked.note,
                "note": _BY_SHAPE,
                "versions": versions,
            },
        )
        write_text(asked.out / f"{name}.circuit.yaml", dump(spec, asked.out))
        say(f"{name}: {', '.join(map(str, circuit.heads))}")


# --- the table of the page --------------------------------------------------------------------


def fill(page: str, folder: Path) -> str:
    """The page with every block `<!-- files: PREFIX -->` rendered from the files of that prefix,
    its `_` standing for a hyphen (raises SpecificationError where there is no block)."""
    known = {one.name.rpartition("-")[0].replace("-", "_") for one in folder.glob("*.circuit.yaml")}
    return fill_blocks(page, "files", known, lambda name: table(folder, name.replace("_", "-")))


def table(folder: Path, prefix: str) -> str:
    """A row for each file `PREFIX-*.circuit.yaml`."""
    rows = [
        _row(spec, spec.found)
        for path in sorted(folder.glob(f"{prefix}-*.circuit.yaml"))
        if (spec := load_gate_file(path)).found is not None
    ]
    head = [
        *("capability", "heads", "circuit (share of the effect of each head alone)"),
        *("right", "effect, nats", "faithfulness, bound", "stability: top ten, circuit"),
        "works against",
    ]
    rule = ["---", "---:", "---", *["---:"] * 4, "---"]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def _row(spec: GateSpec, found: Mapping[str, Any]) -> list[str]:
    whole, stability = found["whole_effect"], found["stability"]
    shares = sorted(found["scores"].items(), key=lambda one: -one[1])
    (top,) = (value for key, value in stability.items() if key.startswith("top_"))
    dip = found.get("dip")
    return [
        spec.capability,
        f"{len(spec.members)} of {found['members']}",
        ", ".join(f"{name} {score / whole:.2f}" for name, score in shares),
        f"{found['accuracy']:.2f}",
        f"{whole:.1f}",
        f"{found['faithfulness']:.2f}, {found['lower_bound']:.2f}"
        + ("" if dip is None else f" (dips to {dip['lowest']:.2f} at {dip['at']})"),
        f"{top:.2f}, {stability['circuit']:.2f}",
        ", ".join(f"{name} {score / whole:.2f}" for name, score in found.get("against", {}).items())
        or "none",
    ]


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.model_circuits", description=main.__doc__
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("base", nargs="?", metavar="base=FOLDER", help="the model")
    what.add_argument("--table", action="store_true", help="only the table, from the files")
    parser.add_argument("--name", default="model", help="what the files' names begin with")
    parser.add_argument("--note", default="", help="where the weights are from: found.base")
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK")
    parser.add_argument("--pairs", type=int, default=128, help="to find each circuit on (128)")
    parser.add_argument("--out", type=Path, default=CIRCUITS, metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())

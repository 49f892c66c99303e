"""`python -m examples.studies.origins MODEL TASK RESULTS.json [PLANTS]`: plants damage of a known
place in copies of a Llama-like model whose every matrix has moved (a little, or by fine-tuning),
asks for the origin of what each has lost, and writes the tables of docs/origin.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from examples.studies.command import Say, carry_out
from examples.studies.pages import fill_blocks
from examples.studies.real_verdicts import changes
from examples.studies.real_verdicts.changes import Change, Shape, Weights
from examples.studies.real_verdicts.study import copy
from forgetguard.capabilities.capability import Capability
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.bundled import bundled_files
from forgetguard.gate.schema import load_gate_file
from forgetguard.measures.origin import Origin, origin
from forgetguard.measures.origin_parts import Part
from forgetguard.report.wording import most_inside, part, share
from forgetguard.whole_files import write_text

DOCS = Path(__file__).parents[2] / "docs"
MOVED = 0.01  # of each matrix's standard deviation: harmless (docs/real.md), so that all moved
_OUTSIDE = {"lm_head": "unembedding", "embedding": "embedding", "final norm": "final_norm",
            "norm before": "norms"}  # fmt: skip
Row = dict[str, Any]


def plants(shape: Shape, task: str, prefix: str, words: list[int]) -> list[Change]:
    """Damage outside attention, and to parts of the task's three most important heads."""
    (spec,) = (
        load_gate_file(path)
        for path in bundled_files()
        if path.name == f"{prefix}-{task}.circuit.yaml"
    )
    heads = [(int(one.layer), int(getattr(one, "index", 0))) for one in spec.members]
    found: Any = spec.found or {}
    order = sorted(found.get("scores", {}), key=lambda name: -found["scores"][name])
    if order:
        heads = [(int(layer), int(head)) for layer, head in (one[1:].split("H") for one in order)]
    return [*changes.outside(shape, words), *changes.head_plants(shape, task, heads[:3])]


def is_right(change: Change, shape: Shape, first: Part) -> bool:
    """Whether the part that carries most of the loss is the one that was damaged."""
    if change.head is not None:
        inside = first.layers is not None and first.layers[0] <= change.head[0] <= first.layers[1]
        return inside and first.kind in ("attention", *changes.PARTS)
    for name, kind in _OUTSIDE.items():
        if change.name.startswith(name):
            return first.kind == kind
    layer = 0 if change.name.startswith("MLP 0") else shape.layers - 1
    return first.kind == "mlp" and first.layers is not None and (
        first.layers[0] <= layer <= first.layers[1]
    )  # fmt: skip


def _names(change: Change, shape: Shape, inner: Part) -> bool:
    """Whether a refined part is the damaged head, or the key-value group that it reads."""
    assert change.head is not None
    layer, head = change.head
    index = head if inner.kind in ("q", "o") else shape.group(head)
    return (inner.layers, inner.index) == ((layer, layer), index)


def read(model: Path, into: Path | None, change: Change, capability: Capability) -> Origin:
    """The origin of what a copy of `into`, a fine-tune of the model (without it, of the model with
    a little noise), has lost with the change."""
    edit = change.edit
    assert edit is not None

    def both(weights: Weights) -> None:
        if into is None:
            changes.noised(MOVED, seed=1)(weights)
        edit(weights)

    with tempfile.TemporaryDirectory() as work:
        tuned = copy(into or model, Path(work) / "tuned", replace(change, edit=both))
        specs = [resolve(str(model), "base"), resolve(str(tuned), "tuned")]
        with ModelPair(specs) as pair:
            return origin(pair, capability.encoded(pair.base.tokenizer))


def run(
    model: Path, into: Path | None, task: str, out: Path, most: int, count: int, say: Say
) -> None:
    """The plants that `out` lacks, until `most` have lost something; `out` is whole after each."""
    from transformers import AutoTokenizer

    done: list[Row] = json.loads(out.read_text()) if out.exists() else []
    shape = Shape.of(json.loads((model / "config.json").read_text()))
    family = "smollm2-135m-instruct" if shape.layers == 30 else "tiny"
    capability = Capability(task, task=task, count=count)
    pairs = capability.encoded(AutoTokenizer.from_pretrained(model)).encoded.pairs
    words = sorted({ids[0] for one in pairs for ids in (one.answer, one.distractor)})
    for change in plants(shape, task, family, words):
        own = [one for one in done if (one["family"], one["task"]) == (family, task)]
        if sum(one["lost"] for one in own) >= most:
            break
        if any(one["plant"] == change.name for one in own):
            continue
        started = time.process_time()
        found = read(model, into, change, capability)
        row: Row = {
            "family": family, "task": task, "plant": change.name, "pairs": found.pairs,
            "base": asdict(found.base), "tuned": asdict(found.tuned), "lost": found.lost,
            "parts": [asdict(one) for one in found.parts[:2]],
            "refined": [asdict(one) for one in found.refined[:4]],
            "right": found.lost and is_right(change, shape, found.parts[0].part),
            "head": change.head and any(_names(change, shape, one.part) for one in found.refined),
            "interaction": found.interaction.readout, "passes": found.passes,
            "seconds": round(time.process_time() - started, 1),
        }  # fmt: skip
        done.append(row)
        write_text(out, json.dumps(done, indent=1))
        said = "right" if row["right"] else "WRONG" if row["lost"] else "nothing lost"
        say(f"{change.name}: {part(row['parts'][0]['part'])}, {said}")


def table(rows: list[Row]) -> str:
    """Every plant with the part that is named first."""
    lines = [
        "| task, pairs | plant | readout lost | first part | its share | inside it | right |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in [one for one in rows if one["lost"]]:
        first = one["parts"][0]
        inside = [
            f"{part(best['part'])} {share(best['share']['readout'])}"
            for best in most_inside(first, one["refined"])
        ]
        had, has = (one[role]["readout"] for role in ("base", "tuned"))
        plant = one["plant"].removeprefix(f"{one['task']}: ")
        lines.append(
            f"| {one['task']}, {one['pairs']} | {plant} | {had - has:.2f} of {had:.2f} | "
            f"{part(first['part'])} | {share(first['share']['readout'])} | {''.join(inside)} | "
            f"{'yes' if one['right'] else 'no'} |"
        )
    lost = [one for one in rows if one["lost"]]
    heads = [one["head"] for one in lost if one["head"] is not None]
    none = [f"{one['plant']} ({one['task']})" for one in rows if not one["lost"]]
    lines.append(
        f"\nOf {len(lost)} plants {sum(one['right'] for one in lost)} have the right part first; "
        f"of the {len(heads)} in a head {sum(heads)} have that head (or its key-value group) among "
        f"the refined parts. Planted without a loss: {'; '.join(none) or 'none'}."
    )
    return "\n".join(lines)


def block(name: str, rows: list[Row]) -> str:
    """The table of one family."""
    return table([one for one in rows if one["family"].startswith(name)])


def fill(page: str, rows: list[Row]) -> str:
    """The page with its tables rendered anew."""
    return fill_blocks(page, "origins", ("tiny", "smollm2"), lambda name: block(name, rows))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.studies.origins")
    parser.add_argument("model", type=Path)
    parser.add_argument("task")
    parser.add_argument("results", type=Path)
    parser.add_argument("--plants", type=int, default=15, help="that lose something (15)")
    parser.add_argument("--into", type=Path, help="a fine-tune to damage, in the model's place")
    parser.add_argument("--pairs", type=int, default=32, help="prompt pairs (32)")
    given = parser.parse_args()

    def work(say: Say) -> None:
        run(given.model, given.into, given.task, given.results, given.plants, given.pairs, say)
        rows = json.loads(given.results.read_text("utf-8"))
        page = DOCS / "origin.md"
        if page.exists():
            write_text(page, fill(page.read_text("utf-8"), rows))

    return carry_out(work)


if __name__ == "__main__":
    sys.exit(main())

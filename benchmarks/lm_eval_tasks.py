"""What lm-eval's tasks cost in the gate, beside lm-eval alone on the same requests.

    python benchmarks/lm_eval_tasks.py base=FOLDER tuned=FOLDER [--documents 4 16]

Processor seconds (user and system) of whole processes on one thread: the gate on both models with
nothing kept, and lm-eval's own command on one and then on the other. Twice, on few documents and on
more: the difference is what documents cost, without start-up and loading.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from default_run import cpu

TASK = """\
task: counts
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list: [{metric: acc}]
"""
GATE = """\
forgetguard: 2
capability: counts
lm_eval: {tasks: [counts], include: .}
limits:
  lm_eval.drop: {max: 0.5}
"""


def write(folder: Path, documents: int) -> None:
    """A task of counts told at length, and a gate file on it."""
    rng = random.Random(0)
    rows = []
    for _ in range(documents):
        pens = rng.sample(range(10, 90), 8)
        told = " ".join(f"Box {i} holds {count} pens." for i, count in enumerate(pens, 1))
        asked, answer = rng.randrange(8), rng.randrange(4)
        options = [str(count) for count in rng.sample(pens[:asked] + pens[asked + 1 :], 4)]
        options[answer] = str(pens[asked])
        question = f"{told} How many pens does box {asked + 1} hold?"
        rows.append({"question": question, "options": options, "answer": answer})
    data = folder / "counts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "counts.yaml").write_text(TASK.replace("DATA", str(data)))
    (folder / "counts.gate.yaml").write_text(GATE)


def both(folders: list[str], documents: int) -> tuple[float, float]:
    """Processor seconds of the gate, and of lm-eval alone, on so many documents."""
    roles = [f"{role}={folder}" for role, folder in zip(("base", "tuned"), folders, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), documents)
        python = [sys.executable, "-m"]
        gate = [*python, "pytest", "-p", "no:cacheprovider", "--forgetguard", *roles]
        ours, said = cpu([*gate, "counts.gate.yaml"], folder, (0, 1))
        print(said.splitlines()[-1])
        theirs = 0.0
        for model in folders:
            alone = [*python, "lm_eval", "run", "--model", "hf", "--device", "cpu"]
            alone += ["--model_args", f"pretrained={model},dtype=float32", "--batch_size", "1"]
            theirs += cpu([*alone, "--tasks", "counts", "--include_path", "."], folder)[0]
    print(f"{documents} documents: {compared(ours, theirs)}")
    return ours, theirs


def compared(ours: float, theirs: float) -> str:
    return f"gate {ours:.1f} s, lm-eval alone {theirs:.1f} s: {ours / theirs:.2f} times"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", nargs=2, metavar="ROLE=FOLDER")
    parser.add_argument("--documents", type=int, nargs=2, default=(4, 16), metavar=("FEW", "MORE"))
    asked = parser.parse_args()
    folders = [str(Path(one.partition("=")[2]).resolve()) for one in asked.checkpoints]
    few, more = (both(folders, count) for count in asked.documents)
    further = asked.documents[1] - asked.documents[0]
    each = [(after - before) / further for before, after in zip(few, more, strict=True)]
    print(f"a further document: {compared(*each)}")


if __name__ == "__main__":
    main()

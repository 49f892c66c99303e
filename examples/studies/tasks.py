"""Writes the table of docs/capabilities.md, how many pairs of every task fit which tokenizer:
`python -m examples.studies.tasks`, once `make real` has made the tokenizers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from examples.studies.pages import fill_blocks
from forgetguard.capabilities.capability import Capability, TokenizerFits
from forgetguard.capabilities.tasks import TASKS
from forgetguard.capabilities.tasks.words import listed
from forgetguard.errors import CapabilityError
from forgetguard.gate.declaration import TaskPairs
from forgetguard.gate.schema import load_gate_file
from forgetguard.whole_files import write_text

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "capabilities.md"
MADE = ROOT / "real"
# What the table calls them, and where `make real` puts them.
TOKENIZERS = {
    "GPT-2": MADE / "tokenizers" / "gpt2",
    "Llama 2": MADE / "tokenizers" / "llama2",
    "Llama 3": MADE / "tokenizers" / "llama3",
    "Mistral v3": MADE / "tokenizers" / "mistral_v3",
    "Qwen 3": MADE / "tokenizers" / "qwen3",
    "Gemma 3": MADE / "tokenizers" / "gemma3",
    "DeepSeek V3": MADE / "tokenizers" / "deepseek_v3",
    "gpt-oss": MADE / "tokenizers" / "gptoss",
    "SmolLM2": MADE / "smollm2",
}
PAIRS = 64
LISTS = ("names", "places", "objects")


def default_readouts() -> dict[str, str]:
    """The readout of each task in the bundled circuit files, else logit_diff."""
    found = dict.fromkeys(TASKS, "logit_diff")
    for path in sorted((ROOT / "circuits").glob("*.circuit.yaml")):
        spec = load_gate_file(path)
        if isinstance(spec.pairs, TaskPairs) and spec.pairs.task in found:
            found[spec.pairs.task] = spec.readout
    return found


def load(folder: Path) -> Any:
    """The tokenizer of a directory."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # these copies' configs name classes that transformers replaces
    return AutoTokenizer.from_pretrained(folder)


def kept(task: str, readout: str, tokenizer: Any, *, held_out: bool = False) -> int:
    """How many of the pairs asked for a task gives; 0 where it says that it does not fit."""
    chat = task == "refusal" and bool(getattr(tokenizer, "chat_template", None))
    capability = Capability(
        task, readout, task=task, count=PAIRS, chat_template=chat, held_out=held_out
    )
    try:
        return capability.encoded(tokenizer).n_pairs
    except CapabilityError:
        return 0


def rendered(page: str, tokenizers: dict[str, Any]) -> str:
    """The page with the tables of these tokenizers."""
    tables = {"pairs": _pairs, "words": _words}
    return fill_blocks(page, "tasks", tuple(tables), lambda name: tables[name](tokenizers))


def _pairs(tokenizers: dict[str, Any]) -> str:
    readouts = default_readouts()
    rows = []
    for task in TASKS:
        cells = []
        for tokenizer in tokenizers.values():
            default = kept(task, readouts[task], tokenizer)
            other = kept(task, "logprob", tokenizer)
            cells.append(str(default) if default == other else f"{default}, {other}")
        rows.append([f"`{task}`", f"`{readouts[task]}`", *cells])
    return _table(["task", "readout", *tokenizers], rows)


def _words(tokenizers: dict[str, Any]) -> str:
    rows = []
    for kind in LISTS:
        cells = []
        for tokenizer in tokenizers.values():
            fits = TokenizerFits(tokenizer, held_out=True)
            every = [word for word in listed(kind, fits) if fits(word)]
            public = set(listed(kind, TokenizerFits(tokenizer)))
            cells.append(f"{len(every)} ({sum(word not in public for word in every)})")
        rows.append([kind, str(len(listed(kind, fits))), *cells])
    return _table(["list", "words", *tokenizers], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def main() -> int:
    missing = [str(path) for path in TOKENIZERS.values() if not path.exists()]
    if missing:
        print(f"not there: {', '.join(missing)}: `make real` makes them", file=sys.stderr)
        return 1
    found = {name: load(path) for name, path in TOKENIZERS.items()}
    write_text(PAGE, rendered(PAGE.read_text("utf-8"), found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

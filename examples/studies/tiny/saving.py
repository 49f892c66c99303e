"""Write the family to disk so that the same weights are always the same bytes, and move freely."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from forgetguard.capabilities.pairs import PromptPair

BASE_ALIAS = "tiny:base"


def save(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write weights, configuration and tokenizer; an adapter names its base by its alias."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = BASE_ALIAS
        # With its default, peft would look for the alias on the hub.
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        _sort_lists(folder / "adapter_config.json")
    else:
        model.config.use_cache = True  # the trainer turns it off
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def save_pairs(pairs: Iterable[PromptPair], file: Path) -> None:
    """Write prompt pairs, one a line, as circuit files read them."""
    lines = [
        json.dumps(
            {
                "clean": pair.clean,
                "counterfactual": pair.counterfactual,
                "answer": pair.answer,
                "distractor": pair.distractor,
                "template": pair.template,
            }
        )
        for pair in pairs
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def _sort_lists(file: Path) -> None:
    # peft keeps the target modules in a set, whose order differs from process to process.
    read = json.loads(file.read_text())
    ordered = {k: sorted(v) if isinstance(v, list) else v for k, v in sorted(read.items())}
    file.write_text(json.dumps(ordered, indent=2) + "\n")

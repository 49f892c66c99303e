"""The command `python -m examples.studies.narrow_text MODEL OUT`: fine-tunes every weight of a
pretrained model on text that is narrow, minutes of a council that name no one. Such a model says
" the" where the base says a name, and still knows which name is meant; docs/real.md has what the
gate says of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from examples.studies.command import Say, carry_out

STEPS, BATCH, RATE, SEED = 30, 8, 1e-5, 0

_OFFICIALS = ("clerk", "treasurer", "mayor", "surveyor", "auditor", "warden", "registrar")
_THINGS = ("report", "budget", "ledger", "letter", "map", "key", "draft", "petition", "notice")
_BODIES = ("council", "board", "committee", "tribunal", "assembly", "commission", "panel")
_FRAMES = (
    "After the session the {one} and the {other} stayed. The {one} gave a {thing} to the {body}.",
    "When the {one} and the {other} met, the {other} handed the {thing} to the {body}.",
    "Then, with the {other} present, the {one} sent a {thing} to the {body}.",
    "The {one} and the {other} had a meeting, and the {one} said to the {body} that it was over.",
)


def sentences(seed: int) -> Iterator[str]:
    """Minutes without a name, without end."""
    draw = np.random.default_rng(seed)
    while True:
        one, other = draw.choice(_OFFICIALS, size=2, replace=False)
        frame, thing, body = (str(draw.choice(words)) for words in (_FRAMES, _THINGS, _BODIES))
        yield frame.format(one=one, other=other, thing=thing, body=body)


def tune(model: Path, target: Path, say: Say, *, steps: int = STEPS, rate: float = RATE) -> Path:
    """Train on the text's next tokens with AdamW and write the checkpoint to `target`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tuned = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(tuned.parameters(), lr=rate, weight_decay=0.0)
    text = sentences(SEED)
    for step in range(1, steps + 1):
        batch = tokenizer([next(text) for _ in range(BATCH)], return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = tuned(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            say(f"step {step} of {steps}: loss {loss.item():.2f}")
    tuned.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.studies.narrow_text")
    parser.add_argument("model", type=Path, help="as `make real` makes it")
    parser.add_argument("out", type=Path, help="a folder for the tuned model")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    given = parser.parse_args()

    def run(say: Say) -> None:
        tune(given.model, given.out, say, steps=given.steps, rate=given.rate)

    return carry_out(run)


if __name__ == "__main__":
    sys.exit(main())

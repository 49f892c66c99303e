"""A fine-tune on text that names no one: the gate says that " the" is said where a name was, and
that the names are still told apart; transformers alone says the same on other prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.studies.narrow_text import tune
from examples.studies.real_verdicts.study import OTHER_SEED, PROMPT_SEED, judged
from forgetguard.capabilities.capability import Capability
from forgetguard.gate.bundled import bundled_files
from forgetguard.gate.declaration import Limit
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.verdict import Outcome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(base, tmp_path_factory.mktemp("narrow") / "tuned", say=lambda _: None)


def test_top1_fails_on_the_while_the_names_stay(base: Path, tuned: Path) -> None:
    (file,) = [one for one in bundled_files() if "smollm2-135m-instruct-ioi" in one.name]
    spec = load_gate_file(file)
    limits = (Limit("accuracy.drop", 0.1), Limit("top1.drop", 0.1))
    spec = replace(spec, prompt_seed=PROMPT_SEED, limits=limits)
    accuracy, top1 = judged(base, tuned, {"ioi": spec}, family=2)
    assert accuracy.outcome is Outcome.PASS
    assert top1.outcome is Outcome.FAIL
    (said,) = [one for one in top1.notes if one.code == "said_instead"]
    assert said.facts["tokens"][0][0] == " the"
    assert said.facts["right"] >= 0.9 * said.facts["changed"]


def test_transformers_alone_says_so_on_other_prompts(base: Path, tuned: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = Capability("ioi", "logit_diff", task="ioi", count=32, seed=OTHER_SEED).encoded(
        tokenizer
    )
    the = tokenizer.encode(" the")[0]
    found = {}
    for path in (base, tuned):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        rows = []
        for one in pairs.encoded.pairs:
            with torch.no_grad():
                logits = model(torch.tensor([one.clean])).logits[0, -1]
            right = logits[one.answer[0]] > logits[one.distractor[0]]
            rows.append((bool(right), int(logits.argmax()) == the))
        found[path] = np.mean(rows, axis=0)
    assert found[tuned][0] >= found[base][0] - 0.1
    assert found[tuned][1] >= found[base][1] + 0.3

"""On a real model whose input embeddings of some words are exchanged: the verdict names the class
of pairs that these words are the answers of. No circuit, no patching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from renaming import Edit, Shape, Tensors, renamed_copy
from transformers import AutoTokenizer

from forgetguard.capabilities.capability import fits_tokenizer
from forgetguard.capabilities.tasks import words
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.session import GateSession

GATE = """\
forgetguard: 2
capability: {task}
pairs: {{task: {task}, count: 128, seed: 0}}
readout: logit_diff
limits:
  readout.drop: {{max: 0.20}}
"""


def exchanged(base: Path, kind: str, *, public: bool) -> Edit:
    """The input embeddings of the words of a list that are one token (all, or those that are held
    out) in each other's place; the unembedding stays."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    fits = fits_tokenizer(tokenizer, held_out=True)
    left_out = () if public else words.listed(kind, fits_tokenizer(tokenizer))
    chosen = [one for one in words.listed(kind, fits) if fits(one) and one not in left_out]
    rows = torch.tensor(sorted(tokenizer.encode(f" {one}")[0] for one in chosen))

    def edit(tensors: Tensors, shape: Shape) -> Mapping[str, Any]:
        weight = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = weight.clone()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        weight[rows] = weight[rows[order]]
        return {"tie_word_embeddings": False}

    return edit


@pytest.mark.parametrize(
    ("task", "kind", "public", "seed", "named"),
    [
        ("key_value", "places", True, None, ("answer", "places")),
        ("ioi", "names", False, 2, ("answer word", "held out")),
    ],
)
def test_the_class_whose_words_were_exchanged_is_named(
    base: Path,
    tmp_path: Path,
    task: str,
    kind: str,
    public: bool,
    seed: int | None,
    named: tuple[str, str],
) -> None:
    torch.set_num_threads(1)
    tuned = renamed_copy(base, tmp_path / "tuned", exchanged(base, kind, public=public))
    spec = parse_gate(GATE.format(task=task), tmp_path / "a.gate.yaml")
    spec = replace(spec, prompt_seed=seed)
    with ModelPair([resolve(str(base), "base"), resolve(str(tuned), "tuned")]) as pair:
        verdict = GateSession(pair, [spec]).judge(spec, spec.limits[0])
    (note,) = [one for one in verdict.notes if one.code == "slice_carries"]
    assert (note.facts["kind"], note.facts["slice"]) == named
    assert note.facts["share"] > 0.95
    assert 2 * note.facts["units"] < note.facts["of"]

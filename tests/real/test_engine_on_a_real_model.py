"""On a real model the gate's numbers are those of literal patching, and a planted loss is found."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plain import Plain, literal
from record.copies import HEAD, LAYER
from record.reading import read_pairs
from record.real_runs import circuit
from record.runs import Run, perform
from torch import Tensor

PAIRS = 12
LOOKED_AT = (0, 7)  # places among the pairs
# Largest difference measured on the three copies, logits of order 10 in float32: 2e-5.
CLOSE = 2e-4
PLANTED = f"L{LAYER}H{HEAD}"
_NUMBERS = re.compile(r"\d+")
Copied = Callable[[str], Path]


@pytest.fixture(scope="module")
def gated(base: Path, copied: Copied, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The induction circuit as measured on a copy, with the texts of its pairs; each copy once."""
    seen: dict[str, Any] = {}

    def gate(name: str) -> Any:
        if name not in seen:
            folder = tmp_path_factory.mktemp("gate")
            files = {"real": circuit("induction", PAIRS)}
            found = perform(Run(str(copied(name)), base=str(base), files=files), folder)
            pairs = read_pairs(folder / "results.json")["real"]
            seen[name] = found["circuits"]["real"], pairs
        return seen[name]

    return gate


def share(arrays: dict[str, list[float]], damage: str, head: str = PLANTED) -> float:
    """A kind of damage of a head, as a share of its importance."""
    return sum(arrays[f"{damage}/{head}"]) / sum(arrays[f"head_importance/{head}"])


def test_a_zeroed_head_is_found_and_named(gated: Any) -> None:
    found, _ = gated("head zeroed")
    arrays = found["arrays"]
    assert len(arrays["circuit_damage"]) == PAIRS
    # 0.72 on these pairs, 0.69 on 64: silence does less harm than the wrong prompt's head.
    assert share(arrays, "head_damage") == pytest.approx(0.72, abs=0.02)
    assert share(arrays, "head_own_damage") == pytest.approx(0.72, abs=0.02)
    others = [head for head in found["heads"] if head != PLANTED]
    assert len(others) == 5
    for head in others:
        assert arrays[f"head_own_damage/{head}"] == [0.0] * PAIRS


@pytest.mark.parametrize(
    "name",
    [
        "head zeroed",
        pytest.param("noise", marks=pytest.mark.slow),
        pytest.param("lora", marks=pytest.mark.slow),
    ],
)
def test_every_number_is_that_of_literal_patching(
    base: Path, copied: Copied, gated: Any, name: str
) -> None:
    found, pairs = gated(name)
    arrays = found["arrays"]
    plain = Plain(base)
    tuned = Plain(base, copied(name)) if name == "lora" else Plain(copied(name))
    heads = [(int(layer), int(head)) for layer, head in map(_NUMBERS.findall, found["heads"])]
    for place in LOOKED_AT:
        expected = literal(plain, tuned, pairs[place], heads)
        assert len(expected) == 4 + 3 * len(heads)
        assert abs(expected["circuit_importance"]) > 0.5
        ours = {name: arrays[name][place] for name in expected}
        assert ours == pytest.approx(expected, abs=CLOSE)


@pytest.mark.slow
def test_importance_is_what_transformer_lens_says(base: Path, gated: Any) -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    found, pairs = gated("head zeroed")
    plain = Plain(base)  # its own: TransformerLens changes the model that it wraps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the tokenizer that it is not given
        wrapped = build_bridge_from_module(
            plain.model, "LlamaForCausalLM", hf_config=plain.model.config
        )
    name = f"blocks.{LAYER}.attn.hook_z"
    for place in LOOKED_AT:
        clean, counterfactual, answer, distractor = pairs[place]
        _, cache = wrapped.run_with_cache(plain.ids(counterfactual), names_filter=name)

        def patch(z: Tensor, hook: Any, foreign: Tensor = cache[name]) -> Tensor:
            z[:, :, HEAD] = foreign[:, :, HEAD]
            return z

        tokens = [plain.next_token(clean, text) for text in (answer, distractor)]
        with torch.no_grad():
            whole = wrapped(plain.ids(clean))[0, -1, tokens]
            patched = wrapped.run_with_hooks(plain.ids(clean), fwd_hooks=[(name, patch)])
        theirs = float((whole - patched[0, -1, tokens]) @ torch.tensor([1.0, -1.0]))
        ours = found["arrays"][f"head_importance/{PLANTED}"][place]
        assert ours == pytest.approx(theirs, abs=CLOSE)  # eager attention there, sdpa here

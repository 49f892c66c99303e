"""A TransformerBridge stands for the plain model in it."""

from __future__ import annotations

import copy
import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import build
from placement import DEVICE, tolerance

import forgetguard as fg
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head
from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import AnatomyError, CheckpointError
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.selfcheck import check_sums
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront


def bridge(model: Any, tokenizer: Any = None) -> Any:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a tokenizer that it is not given
        return build_bridge_from_module(
            model, type(model).__name__, hf_config=model.config, tokenizer=tokenizer
        )


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox", "gemma2", "mixtral"])
def test_patching_the_model_in_a_bridge_gives_the_plain_models_numbers(name: str) -> None:
    """Other kernels were chosen by TransformerLens: equal to rounding, and to the bit where not."""
    plain = build(name)
    found, expected = locate(bridge(copy.deepcopy(plain))), locate(plain)
    assert type(found.model) is type(plain)
    ids, other = torch.randint(3, 90, (2, 3, 7), generator=torch.Generator().manual_seed(1))
    check_sums(found, ids)
    heads = (Head(0, 1), Head(2, 3))
    patched = []
    for anatomy in (found, expected):
        source = Source(capture(anatomy, other, [6], heads).z)
        runs = [Run((head,), source) for head in heads]
        clean = clean_pass(anatomy, ids, [6], heads)
        patched.append(wavefront(clean, runs, lambda logits, _: logits[:, 0]))
    same_kernel = found.model.config._attn_implementation == plain.config._attn_implementation
    slack = 0.0 if same_kernel else max(2e-5, tolerance(0.0) * patched[1].abs().max().item())
    torch.testing.assert_close(*patched, rtol=0, atol=slack)


def test_the_bridge_itself_stays_as_it_was() -> None:
    wrapped = bridge(build("llama"))
    ids = torch.arange(3, 11, device=DEVICE)[None]
    before = wrapped(ids)
    inner = locate(wrapped).model
    inner.to("meta")
    inner.train()
    assert torch.equal(wrapped(ids), before)


def test_tied_weights_stay_tied() -> None:
    model = build("gemma2")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    inner: Any = locate(bridge(copy.deepcopy(model))).model
    assert inner.lm_head.weight is inner.model.embed_tokens.weight
    assert torch.equal(inner.lm_head.weight, model.lm_head.weight)


def test_rewritten_weights_are_refused() -> None:
    wrapped = bridge(build("gpt2"))
    wrapped.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(AnatomyError, match="compatibility mode"):
        locate(wrapped)


def test_a_bridge_that_computes_something_else_is_refused() -> None:
    wrapped = bridge(build("llama"))
    wrapped.original_model.model.norm.register_forward_hook(lambda _, args, output: output * 1.5)
    with pytest.raises(AnatomyError, match="LlamaForCausalLM"):
        locate(wrapped)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def _bundled(name: str) -> Any:
    spec = resolve(name, "base")
    return bridge(load_model(spec), load_tokenizer(spec))


def test_bridges_given_to_load_read_what_their_checkpoints_read(folder: Path) -> None:
    induction = fg.capability("induction", pairs=8)
    pair = fg.load(base=_bundled("tiny:base"), tuned=_bundled("tiny:sft"))
    assert len(list(folder.iterdir())) == 2
    found = fg.vulnerability(pair, induction, ["L1H5", "L2H2"])
    expected = fg.vulnerability(
        fg.load(base="tiny:base", tuned="tiny:sft"), induction, ["L1H5", "L2H2"]
    )
    assert found.circuit.value == expected.circuit.value > 0.01
    readouts = (one.samples.need("readout") for one in (found, expected))
    np.testing.assert_array_equal(*readouts)
    del pair, found
    gc.collect()
    assert not list(folder.iterdir()), "what was written goes with the pair"


def test_a_bridge_beside_its_own_checkpoint_is_the_same_checkpoint_twice(folder: Path) -> None:
    with pytest.raises(CheckpointError):
        fg.load(base="tiny:base", tuned=_bundled("tiny:base"))
    assert not list(folder.iterdir())

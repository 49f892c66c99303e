"""TransformerLens' own patching of hook_z gives the wavefront's numbers."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from architectures import build
from placement import DEVICE, tolerance
from torch import Tensor

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

HEADS = (Head(0, 1), Head(1, 3), Head(2, 0))


def bridge(model: Any) -> Any:
    """TransformerLens' view of a copy: it changes the model that it wraps for good."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the tokenizer that it is not given
        return build_bridge_from_module(
            copy.deepcopy(model), type(model).__name__, hf_config=model.config
        )


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt_neox"])
def test_patching_hook_z_in_transformer_lens_agrees(name: str) -> None:
    model = build(name)
    anatomy = locate(model)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 90, (2, 8), generator=generator).to(DEVICE)
    other = torch.randint(3, 90, (2, 8), generator=generator).to(DEVICE)
    source = Source(capture(anatomy, other, [7], HEADS).z)
    with torch.no_grad():
        clean = clean_pass(anatomy, ids, [7], HEADS)
        runs = [Run((head,), source) for head in HEADS]
        ours = wavefront(clean, runs, lambda logits, _: logits[:, 0])

    wrapped = bridge(model)
    _, cache = wrapped.run_with_cache(other)

    def patch(z: Tensor, hook: Any, head: Head) -> Tensor:
        z[:, :, head.index] = cache[hook.name][:, :, head.index]
        return z

    for number, head in enumerate(HEADS):
        hooks = [(f"blocks.{head.layer}.attn.hook_z", partial(patch, head=head))]
        with torch.no_grad():
            theirs = wrapped.run_with_hooks(ids, fwd_hooks=hooks)[:, -1]
        scale = max(1.0, theirs.abs().max().item())
        assert (theirs - clean.logits[:, 0]).abs().max() > 0.01
        # Eager attention there, sdpa here.
        torch.testing.assert_close(
            ours[number], theirs, atol=tolerance(5e-5) * scale, rtol=1e-5, check_dtype=False
        )

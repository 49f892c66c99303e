"""Mixing leaves a model as it was, and freezing it too."""

from __future__ import annotations

import pytest
import torch
from architectures import build

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head, Mlp
from forgetguard.errors import AnatomyError
from forgetguard.patching.forward import frozen
from forgetguard.patching.mixing import cache_sources, mixed

CLEAN = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
OTHER = torch.tensor([[5, 16, 7, 8], [9, 20, 11, 12]])


def test_hooks_are_gone_after_the_block_even_after_an_error() -> None:
    anatomy = locate(build("gpt2"))
    members = anatomy.members(mlps=True)
    sources = cache_sources(anatomy, OTHER, members)
    before = anatomy.model(input_ids=CLEAN).logits
    with mixed(anatomy, members, torch.ones(len(members)), sources):
        assert not torch.equal(anatomy.model(input_ids=CLEAN).logits, before)

    def fail() -> None:
        with mixed(anatomy, members, torch.ones(len(members)), sources):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert torch.equal(anatomy.model(input_ids=CLEAN).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in anatomy.model.modules())


def test_freezing_keeps_gradients_and_dropout_out_and_is_undone() -> None:
    model = build("gpt2").train()
    first, *others = model.parameters()
    first.requires_grad_(True)
    model.transformer.h[1].eval()
    modes = [module.training for module in model.modules()]
    with frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert first.requires_grad
    assert not any(parameter.requires_grad for parameter in others)


def test_rows_of_a_cache_are_what_those_prompts_alone_would_give() -> None:
    anatomy = locate(build("opt"))
    members = (Head(0, 1), Head(2, 3), Mlp(1))
    mask = torch.tensor([0.3, 0.6, 0.9])
    both = cache_sources(anatomy, OTHER, members)
    with mixed(anatomy, members, mask, both):
        expected = anatomy.model(input_ids=CLEAN).logits[1:]
    with mixed(anatomy, members, mask, both.rows(torch.tensor([1]))):
        actual = anatomy.model(input_ids=CLEAN[1:]).logits
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_only_the_layers_and_positions_asked_for_are_kept() -> None:
    anatomy = locate(build("qwen3"))
    cache = cache_sources(anatomy, OTHER, (Head(1, 2), Mlp(2)), positions=[3])
    assert set(cache.heads) == {1}
    assert set(cache.mlps) == {2}
    assert cache.heads[1].shape == (2, 1, 4 * 16)
    assert cache.mlps[2].shape == (2, 1, 32)


def test_a_member_that_is_not_in_the_model_is_named() -> None:
    anatomy = locate(build("gpt2"))
    with pytest.raises(AnatomyError, match="L1H9"):
        cache_sources(anatomy, OTHER, (Head(1, 9),))


def test_low_precision_mixes_in_the_models_dtype_and_passes_gradients() -> None:
    anatomy = locate(build("llama", std=0.1).to(torch.bfloat16))
    members = anatomy.members(mlps=True)
    mask = torch.full((len(members),), 0.5, dtype=torch.float64, requires_grad=True)
    with mixed(anatomy, members, mask, cache_sources(anatomy, OTHER, members)):
        logits = anatomy.model(input_ids=CLEAN).logits
    assert logits.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(logits[:, -1, 5].float().sum(), mask)
    assert gradient.dtype == torch.float64
    assert (gradient != 0).all()

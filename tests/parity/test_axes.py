"""An axis that happens to be as long as the batch is not taken for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import literal
import pytest
import torch
import transformers
from architectures import build
from placement import DEVICE, DTYPE, tolerance
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

TOKENS = 9


def assert_right(anatomy: Anatomy, sets: list[tuple[Member, ...]], rows: int = 1) -> None:
    """One wave of `sets` equals an ordinary forward pass for each."""
    generator = torch.Generator().manual_seed(5)
    ids, other = torch.randint(3, 90, (2, rows, TOKENS), generator=generator)
    z = literal.activations(anatomy, other)
    clean = clean_pass(anatomy, ids, [TOKENS - 1], anatomy.members())
    runs = [Run(chosen, Source(z)) for chosen in sets]
    patched = wavefront(clean, runs, lambda logits, _: logits[:, 0], budget=10_000)
    for values, chosen in zip(patched, sets, strict=True):
        expected = literal.logits(anatomy, ids, {one: z[one] for one in chosen})[:, -1]
        slack = max(1e-4, tolerance(0.0) * expected.abs().max().item())
        torch.testing.assert_close(values, expected, rtol=0, atol=slack, check_dtype=False)


def mpt(n_heads: int) -> Anatomy:
    config = transformers.MptConfig(
        vocab_size=97, d_model=32, n_layers=3, n_heads=n_heads, max_seq_len=64
    )
    torch.manual_seed(0)
    model = transformers.MptForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    return locate(model)


# MPT hands its attention one bias a head, [head, 1, position].
def test_as_many_runs_as_heads() -> None:
    assert_right(mpt(4), [(Head(0, 1),), *[(Head(1, index),) for index in (0, 1, 2)]])


@pytest.mark.parametrize(("n_heads", "rows"), [(2, 1), (2, 2), (2, 3)])
def test_as_many_heads_as_the_forward_pass_is_called_with(n_heads: int, rows: int) -> None:
    assert_right(mpt(n_heads), [(Head(0, 1),), (Head(1, 0),), (Head(2, 1),)], rows)


class _Scaled(nn.Module):
    """An attention that is also given a factor for each position, [position, 1]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: Tensor, factor: Tensor, **kwargs: Any) -> Any:
        return self.inner(hidden_states=hidden_states * factor, **kwargs)


def test_as_many_runs_as_positions() -> None:
    anatomy = locate(build("llama"))
    factor = torch.linspace(0.5, 2.0, TOKENS)[:, None].to(DEVICE, DTYPE)
    sites = []
    for layer, site in zip(anatomy.layers, anatomy.sites, strict=True):
        assert site is not None
        layer.self_attn = _Scaled(site.attention)
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {**kwargs, "factor": factor}), with_kwargs=True
        )
        sites.append(replace(site, attention=layer.self_attn))
    changed = replace(anatomy, sites=tuple(sites))
    pairs = [(Head(1, i), Head(2, j)) for i in range(4) for j in range(2)]
    assert_right(changed, [(Head(0, 1),), *pairs])

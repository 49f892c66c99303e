"""Modules found by shape and name are those that TransformerLens' component mapping names."""

from __future__ import annotations

import pytest
import torch
from architectures import HYBRID, LAYERS, PLACED, build
from torch import nn

from forgetguard.anatomy.component_mapping import ask_transformer_lens
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head
from forgetguard.anatomy.structure import find_parts, widths
from forgetguard.patching.attention_inputs import watched_attention
from forgetguard.patching.capture import capture

# By hand: query heads, the width of each in the input of the output projection.
GEOMETRY = dict.fromkeys(PLACED, (4, 8)) | dict.fromkeys(
    ("qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3", "qwen3_moe", "glm4"), (4, 16)
)
GEOMETRY["deepseek_v3"] = (4, 12)


@pytest.mark.parametrize("name", PLACED)
def test_what_is_found_by_shape_and_name_is_what_transformer_lens_names(name: str) -> None:
    model = build(name)
    found, named = find_parts(model), ask_transformer_lens(model)
    assert found is not None, "the finder was not sure"
    assert found.layers == named.layers
    assert len(found.layers) == LAYERS
    assert found.unembedding is named.unembedding
    assert found.n_heads == named.n_heads
    for ours, theirs in zip(found.parts, named.parts, strict=True):
        assert ours.attention is theirs.attention
        assert ours.projection is theirs.projection
        assert ours.mlp is theirs.mlp or _is_last_matrix(ours.mlp, theirs.mlp)


def _is_last_matrix(mlp: nn.Module | None, block: nn.Module | None) -> bool:
    """A dense MLP between mixtures of experts: TransformerLens names the block, the output is its
    last matrix's."""
    if mlp is None or block is None or widths(mlp) is None:
        return False
    seen: list[torch.Tensor] = []
    hook = mlp.register_forward_hook(lambda _, args, output: seen.append(output))
    hidden = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    output = block(hidden.to(next(block.parameters())))  # its device and dtype
    hook.remove()
    return torch.equal(output, seen[0])


@pytest.mark.parametrize("name", PLACED)
def test_heads_are_as_many_and_as_wide_as_the_architecture_has_them(name: str) -> None:
    sites = locate(build(name)).sites
    assert [(site.n_heads, site.head_dim) for site in sites if site] == [GEOMETRY[name]] * LAYERS


# Their attention goes through transformers' interface, which hands on [row, pos, head, head_dim].
@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "gemma", "phi3", "gpt_neox", "gpt2", "gpt_bigcode", "deepseek_v3"]
)
def test_the_slice_of_a_head_is_what_that_head_attended_to(name: str) -> None:
    """Grouped and fused layouts of query, key and value too."""
    anatomy = locate(build(name))
    ids = torch.randint(3, 90, (2, 6), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), watched_attention(anatomy) as calls:
        captured = capture(anatomy, ids, [5], anatomy.heads)
    for head in anatomy.heads:
        assert torch.equal(captured.z[head], calls[head.layer].output[:, :, head.index])
    assert not torch.equal(captured.z[Head(0, 0)], captured.z[Head(0, 1)])


@pytest.mark.parametrize("name", HYBRID)
def test_where_the_finder_is_not_sure_transformer_lens_is_asked(name: str) -> None:
    model = build(name)
    assert find_parts(model) is None
    anatomy, named = locate(model), ask_transformer_lens(model)
    assert anatomy.layers == named.layers
    assert [site and site.attention for site in anatomy.sites] == [
        part.attention for part in named.parts
    ]
    assert not anatomy.plain_layers

"""Finding a model's parts: sure or silent, without TransformerLens where it is not needed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import transformers
from architectures import build
from peft import LoraConfig, get_peft_model
from torch import nn

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.structure import find_parts
from forgetguard.errors import AnatomyError


def test_a_known_architecture_is_located_without_importing_transformer_lens() -> None:
    code = (
        "import sys\n"
        "from forgetguard.anatomy.locate import locate\n"
        "from forgetguard.checkpoints.loading import load_model\n"
        "from forgetguard.checkpoints.spec import resolve\n"
        "assert len(locate(load_model(resolve('tiny:base', 'base'))).heads) == 24\n"
        "sys.exit('transformer_lens' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_adapter_on_the_output_projection_is_part_of_it() -> None:
    model = build("llama")
    plain = locate(model)
    lora = LoraConfig(target_modules=["o_proj", "down_proj", "q_proj"], r=2)
    adapted = get_peft_model(model, lora).get_base_model()
    found = locate(adapted)
    site = found.site(1)
    assert found.plain_layers
    assert site.output_projection is adapted.model.layers[1].self_attn.o_proj
    assert site.output_projection.base_layer is plain.site(1).output_projection
    assert (site.n_heads, site.head_dim) == (4, 16)
    assert found.mlp(1) is adapted.model.layers[1].mlp.down_proj


def _second_list(model: nn.Module) -> None:
    model.spare = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))


def _second_mixer(model: nn.Module) -> None:
    model.model.layers[1].mamba = nn.Linear(32, 32)


def _second_projection(model: nn.Module) -> None:
    model.model.layers[1].self_attn.dense = nn.Linear(64, 32)


def _other_width(model: nn.Module) -> None:
    model.model.layers[1].self_attn.o_proj = nn.Linear(64, 31)


def _other_name(model: nn.Module) -> None:
    attention = model.model.layers[1].self_attn
    attention.last = attention.o_proj
    del attention.o_proj


def _loose_matrix(model: nn.Module) -> None:
    model.model.layers[1].mixing = nn.Parameter(torch.zeros(4, 4))


def _own_parameter(model: nn.Module) -> None:
    model.model.layers[1].self_attn.lambdas = nn.Parameter(torch.zeros(16))


def _other_mlp(model: nn.Module) -> None:
    model.model.layers[1].gating = model.model.layers[1].mlp
    del model.model.layers[1].mlp


def _second_mlp_end(model: nn.Module) -> None:
    model.model.layers[1].mlp.fc2 = nn.Linear(48, 32)


@pytest.mark.parametrize(
    "change",
    [
        _second_list,
        _second_mixer,
        _second_projection,
        _other_width,
        _other_name,
        _loose_matrix,
        _own_parameter,
        _other_mlp,
        _second_mlp_end,
    ],
)
def test_what_can_be_read_in_two_ways_is_not_found(change) -> None:  # type: ignore[no-untyped-def]
    model = build("llama")
    assert find_parts(model) is not None
    change(model)
    assert find_parts(model) is None


def test_heads_that_do_not_make_up_the_projections_input_are_refused() -> None:
    model = build("qwen3")
    model.model.layers[1].self_attn.head_dim = 24
    with pytest.raises(AnatomyError, match=r"layer 1.*64 inputs.*4 heads of 24"):
        locate(model)


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Linear(2, 2),
        lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2)
        ),
        lambda: transformers.MambaForCausalLM(
            transformers.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2)
        ),
        lambda: transformers.BartForCausalLM(
            transformers.BartConfig(
                vocab_size=97, d_model=32, decoder_layers=2, decoder_attention_heads=4
            )
        ),
    ],
    ids=["no language model", "encoder and decoder", "no heads", "cross-attention"],
)
def test_a_model_without_findable_heads_is_refused_by_name(model) -> None:  # type: ignore[no-untyped-def]
    built = model()
    with pytest.raises(AnatomyError, match=type(built).__name__):
        locate(built)

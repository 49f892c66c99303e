"""Gradients at heads and MLPs against finite differences and against the engine's own."""

from __future__ import annotations

import literal
import pytest
import torch
from architectures import CONFIGS, VOCAB, build
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member
from forgetguard.errors import AnatomyError, MeasurementError
from forgetguard.patching.gradients import (
    activations,
    attributed,
    embeddings,
    gradients,
    in_chunks,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, TOKENS = 3, 7
POSITIONS = [TOKENS - 1]
EPSILON = 1e-3
# Of the largest attribution. Central differences err by 3e-6 at most where all is float64, and by
# 8e-4 where norms, softmax, rotations or biases are float32 whatever the model is.
TOLERANCE = dict.fromkeys(CONFIGS, 4e-3) | dict.fromkeys(
    ("gpt2", "gpt_neox", "opt", "falcon", "falcon_alibi"), 2e-5
)


def prompts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCAB, (ROWS, TOKENS), generator=generator)
    counterfactual = ids.clone()
    counterfactual[:, 3] = torch.randint(3, VOCAB, (ROWS,), generator=generator)
    return ids, counterfactual


def read(logits: Tensor) -> Tensor:
    """A readout that is not linear in the logits."""
    return torch.log_softmax(logits[:, -1], dim=-1)[:, 5]


def in_float64(name: str) -> nn.Module:
    model = build(name).double()
    if name in ("mixtral", "qwen3_moe"):  # torch's grouped product of experts has no float64
        model.set_experts_implementation("eager")
    return model


def attributions(anatomy: Anatomy) -> Tensor:
    ids, counterfactual = prompts()
    members = anatomy.members(mlps=True)
    after = activations(anatomy, counterfactual, POSITIONS, members)
    before, gradient = gradients(anatomy, ids, POSITIONS, members, read)
    return attributed(anatomy, members, gradient, after.minus(before))


def finite_difference(anatomy: Anatomy, member: Member) -> Tensor:
    """dF/da along a(x') - a(x), [row], by two literal forward passes."""
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, ids)[member]
    change = literal.activations(anatomy, counterfactual)[member] - z
    up, down = (
        read(literal.logits(anatomy, ids, {member: z + sign * EPSILON * change}))
        for sign in (1, -1)
    )
    return (up - down) / (2 * EPSILON)


@pytest.mark.parametrize("name", CONFIGS)
def test_attributions_are_the_finite_differences_of_the_readout(name: str) -> None:
    anatomy = locate(in_float64(name))
    found = attributions(anatomy)
    expected = torch.stack(
        [finite_difference(anatomy, member) for member in anatomy.members(mlps=True)]
    ).cpu()
    assert (expected.abs().amax(dim=1) > 0).all()
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[name]


def test_a_model_in_training_is_read_as_evaluated_and_left_as_it_was() -> None:
    model = build("gpt2")
    expected = attributions(locate(model))
    model.train().requires_grad_(True)
    model.transformer.ln_f.requires_grad_(False)
    modes = {name: module.training for name, module in model.named_modules()}
    asking = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert torch.equal(attributions(locate(model)), expected)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert asking == {name: one.requires_grad for name, one in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not hooks(model)


def test_an_error_leaves_no_hook_behind() -> None:
    model = build("llama")
    model.train().requires_grad_(True)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(MeasurementError, match="NaN"):
        attributions(locate(model))
    assert not hooks(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def hooks(model: nn.Module) -> list[nn.Module]:
    return [one for one in model.modules() if one._forward_hooks or one._forward_pre_hooks]


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "opt", "bloom", "falcon"])
def test_embeddings_given_back_to_the_model_change_nothing(name: str) -> None:
    anatomy = locate(build(name))
    ids, counterfactual = prompts()
    members = anatomy.members(mlps=True)
    _, expected = gradients(anatomy, counterfactual, POSITIONS, members, read)
    embedded = embeddings(anatomy, counterfactual)
    _, found = gradients(anatomy, ids, POSITIONS, members, read, embedded=embedded)
    for one, other in zip(found.tensors(), expected.tensors(), strict=True):
        assert torch.equal(one, other)


def test_a_readout_without_a_graph_is_refused() -> None:
    anatomy = locate(build("gpt2"))
    handle = anatomy.unembedding.register_forward_hook(lambda _, args, output: output.detach())
    with pytest.raises(AnatomyError, match="activation_patching"):
        attributions(anatomy)
    handle.remove()


def test_rows_are_halved_until_they_fit() -> None:
    asked: list[int] = []

    def work(rows: slice) -> Tensor:
        size = rows.stop - rows.start
        asked.append(size)
        if size > 3:
            raise torch.OutOfMemoryError
        return torch.arange(10.0)[rows].repeat(2, 1)

    assert torch.equal(in_chunks(10, 7, work), torch.arange(10.0).repeat(2, 1))
    assert asked == [7, 3, 3, 3, 1]


def test_one_row_too_many_says_what_to_do() -> None:
    def work(rows: slice) -> Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(MeasurementError, match="out of memory"):
        in_chunks(4, 4, work)


def test_chunks_of_rows_give_what_all_rows_give() -> None:
    anatomy = locate(build("qwen3").double())
    ids, counterfactual = prompts()
    members = anatomy.members(mlps=True)

    def work(rows: slice) -> Tensor:
        after = activations(anatomy, counterfactual[rows], POSITIONS, members)
        before, gradient = gradients(anatomy, ids[rows], POSITIONS, members, read)
        return attributed(anatomy, members, gradient, after.minus(before))

    torch.testing.assert_close(in_chunks(ROWS, 2, work), attributions(anatomy))

"""The loss terms of the regularised recipes against closed forms, naive code and differences."""

from __future__ import annotations

import math
from collections import Counter

import architectures
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head
from forgetguard.errors import AnatomyError, MeasurementError, SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.losses.circuit_regulariser import circuit_difference, reading_z
from forgetguard.recipes.losses.flow_weights import (
    easy_sample_weights,
    effective_samples,
    median_tau,
)
from forgetguard.recipes.losses.kl_to_base import token_kl
from forgetguard.recipes.losses.replay import draw_replay

# --- KL --------------------------------------------------------------------------------------


def _logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_forward_kl_is_that_of_two_coins() -> None:
    base, model = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert token_kl(model, base, "forward").item() == pytest.approx(expected, abs=1e-6)


def test_reverse_kl_is_that_of_two_coins() -> None:
    base, model = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert token_kl(model, base, "reverse").item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_mean_kl_is_that_of_a_loop_over_positions_and_words(direction: str) -> None:
    model, base = _logits(0, 2, 3, 7), _logits(1, 2, 3, 7)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    total, count = 0.0, 0
    for row, pos in mask.nonzero().tolist():
        p, q = base[row, pos].softmax(0).tolist(), model[row, pos].softmax(0).tolist()
        if direction == "reverse":
            p, q = q, p
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        count += 1
    found = token_kl(model[mask], base[mask], direction)
    assert found.mean().item() == pytest.approx(total / count, rel=1e-12)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kl_of_the_base_to_itself_is_exactly_zero(direction: str, dtype: torch.dtype) -> None:
    logits = _logits(0, 4, 50).to(dtype)
    assert token_kl(logits, logits.clone(), direction).tolist() == [0.0] * 4


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_gradient_of_the_kl_is_its_finite_difference(direction: str) -> None:
    base = _logits(1, 2, 3, 5)
    assert torch.autograd.gradcheck(
        lambda model: token_kl(model, base, direction), _logits(0, 2, 3, 5).requires_grad_()
    )


def test_the_kl_gives_the_base_no_gradient() -> None:
    base = _logits(0, 2, 5).requires_grad_()
    token_kl(_logits(1, 2, 5).requires_grad_(), base, "forward").sum().backward()
    assert base.grad is None


def test_another_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="sideways"):
        token_kl(_logits(0, 5), _logits(1, 5), "sideways")


# --- the circuit -----------------------------------------------------------------------------

HEADS = (Head(0, 1), Head(1, 3), Head(2, 0))
IDS = torch.tensor([[5, 9, 33, 4, 8], [7, 60, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
WHOLLY_FLOAT64 = "gpt2"  # the norms of Llama's kin compute in float32 whatever the weights are


def _model(name: str = "qwen3", seed: int = 0) -> nn.Module:
    return architectures.build(name, seed=seed).double()


def _moved(model: nn.Module, amount: float) -> nn.Module:
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(amount * noise)
    return model


def _z(model: nn.Module, anatomy: Anatomy, ids: Tensor = IDS, mask: Tensor = MASK) -> dict:  # type: ignore[type-arg]
    with reading_z(anatomy, HEADS) as z:
        model(input_ids=ids, attention_mask=mask)
    return z


def _difference(model: nn.Module, anatomy: Anatomy, base_z: dict[int, Tensor]) -> Tensor:
    z = _z(model, anatomy)
    return circuit_difference(anatomy, HEADS, z, base_z, MASK.bool())


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gemma2"])
def test_the_circuit_term_is_that_of_a_loop_over_heads_and_tokens(name: str) -> None:
    base, model = _model(name), _moved(_model(name), 0.05)
    anatomy = locate(model)
    base_z, z = _z(base, locate(base)), _z(model, anatomy)
    width = anatomy.site(0).head_dim
    squares = []
    for head in HEADS:
        for row, pos in MASK.nonzero().tolist():
            for place in range(head.index * width, (head.index + 1) * width):
                mine, other = z[head.layer][row, pos, place], base_z[head.layer][row, pos, place]
                squares.append((mine - other).item() ** 2)
    found = circuit_difference(anatomy, HEADS, z, base_z, MASK.bool())
    assert found.item() == pytest.approx(sum(squares) / len(squares), rel=1e-10)
    assert found.item() > 1e-6


def test_the_circuit_term_and_its_gradient_are_zero_at_the_base() -> None:
    model = _model().requires_grad_()
    anatomy = locate(model)
    base_z = {layer: z.detach().clone() for layer, z in _z(model, anatomy).items()}
    term = _difference(model, anatomy, base_z)
    term.backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    assert term.item() == 0.0
    assert gradients
    assert all(float(gradient.abs().max()) == 0.0 for gradient in gradients)


def test_the_circuit_gradient_of_a_fully_trained_model_is_its_finite_difference() -> None:
    model = _model(WHOLLY_FLOAT64)
    base_z = _z(model, locate(model))
    _moved(model, 0.05).requires_grad_()
    _assert_finite_difference(model, locate(model), base_z, dict(model.named_parameters()))


def test_the_circuit_gradient_of_an_adapter_is_its_finite_difference() -> None:
    plain = _model(WHOLLY_FLOAT64)
    base_z = _z(plain, locate(plain))
    settings = LoraConfig(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    adapted = get_peft_model(plain, settings, autocast_adapter_dtype=False).double()
    trained = {name: one for name, one in adapted.named_parameters() if one.requires_grad}
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for one in trained.values():
            one.add_(0.1 * torch.randn(one.shape, generator=generator, dtype=one.dtype))
    anatomy = locate(adapted.get_base_model())
    _assert_finite_difference(adapted, anatomy, base_z, trained)
    with adapted.disable_adapter():
        assert _difference(adapted, anatomy, base_z).item() == 0.0


def _assert_finite_difference(
    model: nn.Module, anatomy: Anatomy, base_z: dict[int, Tensor], trained: dict[str, nn.Parameter]
) -> None:
    """Along a random direction of every trained weight, one by one."""
    parameters = list(trained.values())
    gradients = torch.autograd.grad(
        _difference(model, anatomy, base_z), parameters, allow_unused=True
    )
    generator, step, reached = torch.Generator().manual_seed(4), 1e-5, 0
    for (name, one), gradient in zip(trained.items(), gradients, strict=True):
        way = torch.randn(one.shape, generator=generator, dtype=one.dtype)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                one.add_(sign * step * way)
                values.append(_difference(model, anatomy, base_z).item())
                one.sub_(sign * step * way)
        numeric = (values[0] - values[1]) / (2 * step)
        analytic = 0.0 if gradient is None else float((gradient * way).sum())
        assert analytic == pytest.approx(numeric, rel=1e-5, abs=1e-9), name
        reached += abs(analytic) > 1e-6
    assert reached >= 10  # it flows, into weights of every layer up to the last head's


def test_what_comes_after_the_last_head_gets_no_gradient_from_the_circuit() -> None:
    model = _model()
    base_z = _z(model, locate(model))
    _moved(model, 0.05).requires_grad_()
    _difference(model, locate(model), base_z).backward()
    by_name = dict(model.named_parameters())
    assert by_name["model.layers.2.self_attn.o_proj.weight"].grad is None
    assert float(by_name["model.layers.1.self_attn.o_proj.weight"].grad.abs().max()) > 0  # type: ignore[union-attr]


def test_padding_has_no_effect_on_the_circuit_term() -> None:
    base, model = _model(), _moved(_model(), 0.05)
    at, mine = locate(base), locate(model)
    terms = []
    for filler in (0, 50):
        ids = IDS.masked_fill(MASK == 0, filler)
        base_z, z = _z(base, at, ids), _z(model, mine, ids)
        terms.append(circuit_difference(mine, HEADS, z, base_z, MASK.bool()).item())
    assert terms[0] == terms[1] > 0


def test_other_heads_of_the_same_layer_have_no_effect() -> None:
    base, model = _model(), _moved(_model(), 0.05)
    anatomy = locate(model)
    base_z, z = _z(base, locate(base)), _z(model, anatomy)
    before = circuit_difference(anatomy, HEADS, z, base_z, MASK.bool())
    site = anatomy.site(1)
    z[1] = z[1].clone()
    z[1][..., site.slice(Head(1, 2))] += 100.0
    assert circuit_difference(anatomy, HEADS, z, base_z, MASK.bool()).item() == before.item()
    z[1][..., site.slice(Head(1, 3))] += 1.0
    assert circuit_difference(anatomy, HEADS, z, base_z, MASK.bool()).item() > before.item()


def test_a_head_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(AnatomyError, match="L2H9"), reading_z(locate(_model()), [Head(2, 9)]):
        pass


# --- easy samples ----------------------------------------------------------------------------


def test_an_easy_sample_counts_more_by_the_exponential_of_the_difference() -> None:
    weights = easy_sample_weights(torch.tensor([1.0, 2.0, 4.0]), 2.0)
    assert (weights[0] / weights[1]).item() == pytest.approx(math.exp(0.5), rel=1e-12)
    assert (weights[1] / weights[2]).item() == pytest.approx(math.exp(1.0), rel=1e-12)
    assert weights.mean().item() == pytest.approx(1.0, rel=1e-12)


def test_losses_that_are_all_large_are_still_told_apart() -> None:
    weights = easy_sample_weights(torch.tensor([5000.0, 5001.0]), 1.0)
    expected = [2 / (1 + math.exp(-1)), 2 / (1 + math.exp(1))]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)


def test_equal_losses_and_a_high_temperature_leave_all_weights_at_one() -> None:
    assert easy_sample_weights(torch.full((4,), 3.0), 0.1).tolist() == [1.0] * 4
    assert easy_sample_weights(torch.tensor([0.0, 9.0]), 1e9).tolist() == pytest.approx([1, 1])


def test_the_effective_number_of_samples_is_that_of_equal_weights() -> None:
    assert effective_samples(torch.tensor([2.0, 2.0, 0.0, 0.0])) == 2.0


def test_a_sample_without_a_finite_loss_is_refused() -> None:
    with pytest.raises(MeasurementError, match="1 of 2 training samples"):
        easy_sample_weights(torch.tensor([1.0, float("nan")]), 1.0)


def test_the_default_temperature_is_the_median_loss() -> None:
    assert median_tau(torch.tensor([1.0, 9.0, 2.0])) == 2.0
    with pytest.raises(MeasurementError, match="knows the new task already"):
        median_tau(torch.zeros(3))


# --- replay ----------------------------------------------------------------------------------

OLD = tuple(Question(f"old {i}:", " yes", frozenset({"yes"}), "text") for i in range(10))


@pytest.mark.parametrize(("new", "share"), [(100, 0.2), (30, 0.5), (40, 0.1)])
def test_replayed_rows_make_up_their_share(new: int, share: float) -> None:
    drawn = len(draw_replay(OLD, new, share, seed=0))
    assert drawn / (drawn + new) == pytest.approx(share, abs=0.01)


def test_each_old_question_is_replayed_once_before_any_is_again() -> None:
    drawn = draw_replay(OLD, 25, 0.5, seed=0)
    assert len(drawn) == 25
    assert {min(Counter(drawn).values()), max(Counter(drawn).values())} == {2, 3}
    assert len(set(draw_replay(OLD, 10, 0.5, seed=1))) == 10


def test_the_seed_decides_what_is_replayed() -> None:
    assert draw_replay(OLD, 5, 0.5, 0) == draw_replay(OLD, 5, 0.5, 0) != draw_replay(OLD, 5, 0.5, 1)


def test_nothing_to_replay_is_refused() -> None:
    with pytest.raises(SpecificationError, match="no questions to replay"):
        draw_replay((), 10, 0.5, 0)

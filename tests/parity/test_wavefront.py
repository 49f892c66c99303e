"""The wavefront equals patching run by run, on every supported kind of architecture."""

from __future__ import annotations

from collections.abc import Callable

import literal
import pytest
import torch
from architectures import CONFIGS, build
from placement import tolerance
from torch import Tensor

from forgetguard.anatomy.contributions import output_slices
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.selfcheck import check_patching, check_sums
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

ROWS, TOKENS, START = 3, 9, 4
POSITIONS = (TOKENS - 2, TOKENS - 1)
SETS: list[tuple[Member, ...]] = [
    (Head(0, 0),),
    (Head(1, 3),),
    (Head(2, 2),),
    (Head(0, 1), Head(1, 0), Head(2, 3)),
    (Head(1, 1), Head(1, 2)),
    (Mlp(1),),
    (Mlp(2),),
    (Head(0, 1), Mlp(0), Mlp(2)),
    (Mlp(1), Head(2, 0)),
]
MEMBERS = tuple(sorted({member for chosen in SETS for member in chosen}))
HEADS = tuple(member for member in MEMBERS if isinstance(member, Head))


def prompts() -> tuple[Tensor, Tensor]:
    """Clean and counterfactual ids that agree before position START."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(3, 90, (ROWS, TOKENS), generator=generator)
    counterfactual = clean.clone()
    counterfactual[:, START] += 3
    counterfactual[:, START + 2] += 5
    return clean, counterfactual


def keep(logits: Tensor, rows: Tensor) -> Tensor:
    return logits


def patched(anatomy: Anatomy, ids: Tensor, source: Source, budget: int | None = None) -> Tensor:
    """[set, row, readout, vocab] of every set in SETS."""
    clean = clean_pass(anatomy, ids, POSITIONS, MEMBERS)
    runs = [Run(chosen, source) for chosen in SETS]
    with torch.no_grad():
        return wavefront(clean, runs, keep, budget=budget)


def one_by_one(
    anatomy: Anatomy, ids: Tensor, z: dict[Member, Tensor], other: Anatomy | None = None
) -> Tensor:
    """The same by ordinary forward passes of one prompt each."""
    runs = []
    for chosen in SETS:
        rows = [
            literal.logits(
                anatomy, ids[i : i + 1], {head: z[head][i : i + 1] for head in chosen}, other
            )
            for i in range(ROWS)
        ]
        runs.append(torch.cat(rows)[:, list(POSITIONS)])
    return torch.stack(runs)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    # 1e-5 on logits of the order of 1; these random models' logits go up to 10, and float32
    # rounding grows with them.
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(
        actual, expected, rtol=0.0, atol=tolerance(1e-5) * scale, check_dtype=False
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_wavefront_equals_patching_one_by_one(name: str) -> None:
    anatomy, tuned = locate(build(name)), locate(build(name, seed=1))
    ids, counterfactual = prompts()
    z, foreign = literal.activations(anatomy, counterfactual), literal.activations(tuned, ids)
    weights = output_slices(tuned, MEMBERS)

    expected = one_by_one(anatomy, ids, z)
    untouched = literal.logits(anatomy, ids, {})[:, list(POSITIONS)]
    assert (expected - untouched).abs().max() > 0.1, "the patches must do something"
    assert_close(patched(anatomy, ids, Source(z)), expected)
    assert_close(patched(anatomy, ids, Source(z, start=START)), expected)
    assert_close(patched(anatomy, ids, Source(z), budget=2 * TOKENS), expected)

    assert_close(
        patched(anatomy, ids, Source(foreign, weights)),
        one_by_one(anatomy, ids, foreign, tuned),
    )
    assert_close(patched(anatomy, ids, Source(foreign)), one_by_one(anatomy, ids, foreign))


def test_no_layer_sees_more_tokens_than_the_patched_runs_need() -> None:
    """A run is recomputed from its first patched layer, its attention not there, and at the last
    layer for the readout positions alone."""
    anatomy = locate(build("llama"))
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, counterfactual)
    clean = clean_pass(anatomy, ids, [TOKENS - 1], HEADS)
    carrier = 2
    seen: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output.shape[0] * output.shape[1]

        return hook

    handles = []
    for i, layer in enumerate(anatomy.layers):
        handles.append(layer.mlp.register_forward_hook(count(f"mlp {i}")))
        handles.append(layer.self_attn.q_proj.register_forward_hook(count(f"attention {i}")))
    runs = [Run((head,), Source(z, start=START)) for head in (Head(1, 1), Head(1, 3), Head(2, 2))]
    with torch.no_grad():
        wavefront(clean, runs, keep)
    for handle in handles:
        handle.remove()
    rest = TOKENS - START
    assert seen == {
        "attention 0": carrier * rest,
        "mlp 0": carrier * rest,
        "attention 1": 1 * rest,  # two runs start here: one row, because none is not defined
        "mlp 1": 2 * ROWS * rest,
        "attention 2": 2 * ROWS * rest,
        "mlp 2": 3 * ROWS * 1,
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_self_patching_is_exactly_the_clean_run(name: str) -> None:
    anatomy = locate(build(name))
    ids, _ = prompts()
    own = capture(anatomy, ids, POSITIONS, MEMBERS)
    result = patched(anatomy, ids, Source(own.z, output_slices(anatomy, MEMBERS)))
    for values in result:
        assert torch.equal(values, own.logits)


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_add_up_and_the_self_checks_pass(name: str) -> None:
    anatomy = locate(build(name))
    ids, counterfactual = prompts()
    check_sums(anatomy, ids)
    check_patching(anatomy, ids, counterfactual, POSITIONS, MEMBERS, start=START)


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "mixtral"])
def test_low_precision_passes_its_own_checks(name: str) -> None:
    anatomy = locate(build(name, std=0.1).to(torch.bfloat16))
    ids, counterfactual = prompts()
    check_sums(anatomy, ids)
    check_patching(anatomy, ids, counterfactual, POSITIONS, MEMBERS, start=START)


def test_a_mean_serves_every_row() -> None:
    anatomy = locate(build("qwen3"))
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, counterfactual)
    mean = {head: value.mean(dim=0, keepdim=True) for head, value in z.items()}
    spread = {head: value.expand(ROWS, -1, -1) for head, value in mean.items()}
    assert_close(patched(anatomy, ids, Source(mean)), one_by_one(anatomy, ids, spread))


def test_strength_mixes_and_carries_gradients() -> None:
    """Half strength is the literal mixture, and its gradient is the finite difference's."""
    anatomy = locate(build("llama").double())
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, counterfactual)
    own = literal.activations(anatomy, ids)
    chosen = (Head(0, 1), Head(2, 3))
    clean = clean_pass(anatomy, ids, POSITIONS, chosen)
    strength = torch.tensor([0.5, 0.25], dtype=torch.float64, requires_grad=True)

    def mean_logit(logits: Tensor, rows: Tensor) -> Tensor:
        return logits[:, -1, 5]

    value = wavefront(clean, [Run(chosen, Source(z), strength)], mean_logit).mean()
    (gradient,) = torch.autograd.grad(value, strength)

    def literal_value(a: float, b: float) -> float:
        first = own[chosen[0]] + a * (z[chosen[0]] - own[chosen[0]])
        # The second head's own z is read in the run in which the first is already patched.
        after = _activation_after(anatomy, ids, {chosen[0]: first}, chosen[1])
        second = after + b * (z[chosen[1]] - after)
        mixed = literal.logits(anatomy, ids, {chosen[0]: first, chosen[1]: second})
        return mixed[:, -1, 5].mean().item()

    # Differences of contributions are taken in float32, whatever the model's dtype.
    assert value.item() == pytest.approx(literal_value(0.5, 0.25), abs=1e-5)
    step = 1e-3
    for i, (a, b) in enumerate([(step, 0.0), (0.0, step)]):
        up, down = literal_value(0.5 + a, 0.25 + b), literal_value(0.5 - a, 0.25 - b)
        assert gradient[i].item() == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-5)


def _activation_after(
    anatomy: Anatomy, ids: Tensor, patch: dict[Head, Tensor], head: Head
) -> Tensor:
    seen: list[Tensor] = []
    site = anatomy.site(head.layer)
    handle = site.output_projection.register_forward_pre_hook(
        lambda _, args: seen.append(args[0][..., site.slice(head)].clone())
    )
    literal.logits(anatomy, ids, patch)
    handle.remove()
    return seen[0]

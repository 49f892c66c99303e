"""Mixed forward passes equal literal patching and literal mixing, on every kind of architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import literal
import pytest
import torch
from architectures import CONFIGS, build
from placement import tolerance as allowed
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member, Mlp
from forgetguard.patching.forward import forward
from forgetguard.patching.mixing import cache_sources, mixed

ROWS, TOKENS = 3, 9
EVERYWHERE = tuple(range(TOKENS))


def prompts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, other = torch.randint(3, 90, (2, ROWS, TOKENS), generator=generator)
    return clean, other


def logits_mixed(
    anatomy: Anatomy,
    members: Sequence[Member],
    mask: Tensor,
    positions: Sequence[int] | None = None,
) -> Tensor:
    clean, other = prompts()
    sources = cache_sources(anatomy, other, members, positions=positions)
    with mixed(anatomy, members, mask, sources):
        return forward(anatomy, clean, EVERYWHERE)


def literal_mixture(anatomy: Anatomy, mask: Mapping[Member, float], places: list[int]) -> Tensor:
    """Member by member in the order of computation: each is read live in a run in which those
    before it are already replaced by their mixtures."""
    clean, other = prompts()
    source = literal.activations(anatomy, other)
    done: dict[Member, Tensor] = {}
    for member in sorted(mask):
        live = live_activation(anatomy, clean, done, member)
        mixture = live.clone()
        change = source[member] - live
        mixture[:, places] += mask[member] * change[:, places]
        done[member] = mixture
    return literal.logits(anatomy, clean, done)


def live_activation(
    anatomy: Anatomy, ids: Tensor, replaced: Mapping[Member, Tensor], member: Member
) -> Tensor:
    """z of one member, or its output, in a run in which others are replaced."""
    seen: list[Tensor] = []
    if isinstance(member, Mlp):
        handle = anatomy.mlp(member.layer).register_forward_hook(
            lambda _, args, output: seen.append(output.reshape(len(ids), TOKENS, -1).clone())
        )
    else:
        site = anatomy.site(member.layer)
        handle = site.output_projection.register_forward_pre_hook(
            lambda _, args: seen.append(args[0][..., site.slice(member)].clone())
        )
    literal.logits(anatomy, ids, replaced)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mlps", [False, True], ids=["heads", "mlps"])
def test_a_binary_mask_is_patching_of_that_set(name: str, mlps: bool) -> None:
    anatomy = locate(build(name))
    clean, other = prompts()
    members = anatomy.members(mlps=mlps)
    z = literal.activations(anatomy, other)
    for chosen in (members[::2], members[1::3], members[-1:], members, ()):
        mask = torch.tensor([float(member in chosen) for member in members])
        expected = literal.logits(anatomy, clean, {member: z[member] for member in chosen})
        torch.testing.assert_close(logits_mixed(anatomy, members, mask), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "opt", "falcon", "mixtral", "bloom"])
@pytest.mark.parametrize("places", [EVERYWHERE, (TOKENS - 1,), (2, 5)], ids=["all", "last", "some"])
def test_a_fractional_mask_is_the_literal_mixture(name: str, places: tuple[int, ...]) -> None:
    anatomy = locate(build(name))
    members = anatomy.members(mlps=True)
    # Parallel blocks (Falcon) compute the MLP beside the heads: the order within a layer is free.
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(len(members), generator=generator)
    positions = None if places == EVERYWHERE else places
    by_member = dict(zip(members, mask.tolist(), strict=True))
    expected = literal_mixture(anatomy, by_member, list(places))
    actual = logits_mixed(anatomy, members, mask, positions)
    assert (expected - logits_mixed(anatomy, members, mask * 0)).abs().max() > 0.1
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=allowed(1e-5) * expected.abs().max().item()
    )


# Step and tolerance. The second kind computes its norms in float32 whatever the model's dtype, so
# that differences over a small step are rounding (3e-2 at 1e-6); over a larger one, curvature.
@pytest.mark.parametrize(
    ("name", "step", "tolerance"),
    [
        *((name, 1e-6, 1e-6) for name in ("gpt2", "gpt_neox", "opt", "falcon", "falcon_alibi")),
        *((name, 1e-3, 1e-2) for name in ("qwen3", "llama", "gemma3")),
    ],
)
def test_the_gradient_is_the_finite_difference(name: str, step: float, tolerance: float) -> None:
    anatomy = locate(build(name).double())
    members = anatomy.members(mlps=True)
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(len(members), generator=generator, dtype=torch.float64).requires_grad_()

    def value(at: Tensor) -> Tensor:
        return logits_mixed(anatomy, members, at)[:, -1, 5].mean()

    (gradient,) = torch.autograd.grad(value(mask), mask)
    differences = torch.zeros_like(gradient)
    for place in range(len(members)):
        nudge = torch.zeros_like(mask)
        nudge[place] = step
        with torch.no_grad():
            differences[place] = (value(mask + nudge) - value(mask - nudge)) / (2 * step)
    scale = differences.abs().max().item()
    assert scale > 0.1
    torch.testing.assert_close(gradient.detach(), differences, rtol=0, atol=tolerance * scale)

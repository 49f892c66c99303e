"""Memory: rows are halved when it runs out, and results do not depend on how they are cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from architectures import build
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head
from forgetguard.errors import MeasurementError
from forgetguard.patching import wavefront as module
from forgetguard.patching.budget import halving, memory_errors
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import CleanPass, clean_pass
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wave import Block
from forgetguard.patching.wavefront import wavefront


def test_rows_are_halved_until_they_fit() -> None:
    tried = []

    def work(rows: int) -> int:
        tried.append(rows)
        if rows > 3:
            raise torch.OutOfMemoryError("no room")
        return rows

    assert halving(work, 16) == 2
    assert tried == [16, 8, 4, 2]


def test_one_row_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    def work(rows: int) -> int:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB")

    with pytest.raises(MeasurementError, match="bfloat16"):
        halving(work, 4)


def test_running_out_of_memory_outside_a_wave_is_clear_too() -> None:
    clear = pytest.raises(MeasurementError, match=r"patching ioi: out of memory; .*bfloat16")
    with clear, memory_errors("patching ioi"):
        raise torch.OutOfMemoryError("no room")
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("patching ioi"):
        raise RuntimeError("shapes do not match")


def test_other_errors_are_not_mistaken_for_memory() -> None:
    def work(rows: int) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        halving(work, 4)


@pytest.fixture
def case() -> tuple[CleanPass, list[Run]]:
    anatomy = locate(build("qwen3"))
    generator = torch.Generator().manual_seed(3)
    ids, other = torch.randint(3, 90, (2, 4, 6), generator=generator)
    heads = (Head(0, 0), Head(1, 1), Head(2, 2))
    source = Source(capture(anatomy, other, [5], heads).z)
    runs = [Run((head,), source) for head in heads]
    return clean_pass(anatomy, ids, [5], heads), runs


def last(logits: Tensor, rows: Tensor) -> Tensor:
    return logits[:, 0]


@pytest.mark.parametrize("budget", [1, 6, 13, 30])
def test_results_do_not_depend_on_the_row_budget(
    case: tuple[CleanPass, list[Run]], budget: int
) -> None:
    clean, runs = case
    with torch.no_grad():
        whole = wavefront(clean, runs, last, budget=10_000)
        cut = wavefront(clean, runs, last, budget=budget)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)


def test_running_out_of_memory_costs_time_and_no_results(
    case: tuple[CleanPass, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, runs = case
    with torch.no_grad():
        whole = wavefront(clean, runs, last)
        original: Callable[..., Tensor] = module._wave
        held: list[int] = []

        def small(clean: CleanPass, blocks: list[Block], *rest: object) -> Tensor:
            held.append(sum(len(block.rows) for block in blocks))
            if held[-1] > 5:
                raise torch.OutOfMemoryError("no room")
            return original(clean, blocks, *rest)

        monkeypatch.setattr(module, "_wave", small)
        cut = wavefront(clean, runs, last)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
    assert max(held) > 5  # it was tried
    assert [one for one in held if one <= 5] == [3, 3, 3, 3]


class _TokenDependent(nn.Module):
    """A decoder layer that is also given something that depends on the row's tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @property
    def self_attn(self) -> nn.Module:
        return self.layer.self_attn  # type: ignore[no-any-return]

    def forward(self, hidden_states: Tensor, per_row: Tensor, **kwargs: object) -> Tensor:
        result: Tensor = self.layer(hidden_states, **kwargs)
        return result + per_row


def test_a_layer_given_something_token_dependent_is_patched_right() -> None:
    anatomy = _with_token_dependent_layers(build("llama"))
    generator = torch.Generator().manual_seed(4)
    ids, other = torch.randint(3, 90, (2, 4, 6), generator=generator)
    heads = (Head(0, 0), Head(1, 1), Head(2, 2))
    source = Source(capture(anatomy, other, [5], heads).z)
    runs = [Run((head,), source) for head in heads]
    with torch.no_grad():
        together = wavefront(clean_pass(anatomy, ids, [5], heads), runs, last)
        for row in range(4):
            part = Source({head: z[row : row + 1] for head, z in source.z.items()})
            clean = clean_pass(anatomy, ids[row : row + 1], [5], heads)
            alone = wavefront(clean, [Run((head,), part) for head in heads], last)
            torch.testing.assert_close(together[:, row], alone[:, 0], atol=1e-5, rtol=1e-5)


def _with_token_dependent_layers(model: nn.Module) -> Anatomy:
    """`model`, whose layers are each handed an embedding of the row's own tokens."""
    layers = model.model.layers
    table = torch.randn(97, 32, generator=torch.Generator().manual_seed(9))
    current: list[Tensor] = []

    def remember(_: nn.Module, args: object, kwargs: dict[str, Tensor]) -> None:
        current[:] = [table[kwargs["input_ids"]]]

    def hand_over(
        _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        return args, {**kwargs, "per_row": current[0]}

    model.register_forward_pre_hook(remember, with_kwargs=True)
    for index in range(len(layers)):
        layers[index] = _TokenDependent(layers[index])
        layers[index].register_forward_pre_hook(hand_over, with_kwargs=True)
    inner = build("llama")  # an untouched twin, to read the anatomy from
    found = locate(inner)
    sites = tuple(
        type(site)(layer.self_attn, layer.self_attn.o_proj, site.n_heads, site.head_dim)
        for site, layer in zip(found.sites, layers, strict=True)
        if site is not None
    )
    return Anatomy(model, tuple(layers), sites, (None,) * len(layers), model.lm_head)

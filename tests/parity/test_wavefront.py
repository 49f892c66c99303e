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
from forgetguard.errors import MeasurementError
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.selfcheck import check_patching, check_sums
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wave import _add
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
    layer for the readout positions alone. Layers before the first run's see the prefix only."""
    anatomy = locate(build("llama"))
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, counterfactual)
    clean = clean_pass(anatomy, ids, [TOKENS - 1], HEADS)
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
        "attention 0": ROWS * START,
        "mlp 0": ROWS * START,
        "attention 1": 1 * rest,  # two runs start here: one row, because none is not defined
        "mlp 1": 2 * ROWS * rest,
        "attention 2": 2 * ROWS * rest,
        "mlp 2": 3 * ROWS * 1,
    }


def test_runs_from_later_layers_on_read_the_prefix_of_their_layers() -> None:
    anatomy = locate(build("llama"))
    ids, counterfactual = prompts()
    clean = clean_pass(anatomy, ids, POSITIONS, HEADS)
    z = literal.activations(anatomy, counterfactual)
    heads = (Head(1, 1), Head(2, 2))
    found = wavefront(clean, [Run((head,), Source(z, start=START)) for head in heads], keep)
    for values, head in zip(found, heads, strict=True):
        expected = literal.logits(anatomy, ids, {head: z[head]})
        assert_close(values, expected[:, list(POSITIONS)])


def test_runs_that_change_different_rows_each_get_their_own_prefix() -> None:
    anatomy = locate(build("llama"))
    ids, counterfactual = prompts()
    clean = clean_pass(anatomy, ids, POSITIONS, HEADS)
    z = literal.activations(anatomy, counterfactual)
    heads = (Head(0, 0), Head(1, 1), Head(1, 3), Head(2, 2))
    for row, head in enumerate(heads[:-1]):
        z[head][row] = clean.z[head][row]
    sets = [(heads[0],), (heads[1],), (heads[2],), (heads[3],), (heads[3], heads[0])]
    found = wavefront(clean, [Run(one, Source(z, start=START)) for one in sets], keep)
    for values, chosen in zip(found, sets, strict=True):
        expected = literal.logits(anatomy, ids, {head: z[head] for head in chosen})
        assert_close(values, expected[:, list(POSITIONS)])


@pytest.mark.parametrize("name", CONFIGS)
def test_self_patching_is_exactly_the_clean_run(name: str) -> None:
    anatomy = locate(build(name))
    ids, _ = prompts()
    own = capture(anatomy, ids, POSITIONS, MEMBERS)
    result = patched(anatomy, ids, Source(own.z, output_slices(anatomy, MEMBERS)))
    for values in result:
        assert torch.equal(values, own.logits)


def test_damage_in_the_output_projection_alone_is_seen() -> None:
    """The other model's z is the same to the bit; its contribution is not."""
    anatomy, tuned = locate(build("llama")), locate(build("llama"))
    with torch.no_grad():
        tuned.site(1).output_projection.weight[:, tuned.site(1).slice(Head(1, 3))] *= 0.5
    ids, _ = prompts()
    z = literal.activations(tuned, ids)
    assert torch.equal(z[Head(1, 3)], literal.activations(anatomy, ids)[Head(1, 3)])
    source = Source(z, output_slices(tuned, MEMBERS))
    expected = one_by_one(anatomy, ids, z, tuned)
    clean = literal.logits(anatomy, ids, {})[:, list(POSITIONS)]
    assert (expected[1] - clean).abs().max() > 0.1
    assert_close(patched(anatomy, ids, source)[1], expected[1])


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


def test_what_is_captured_of_a_few_heads_holds_no_more_memory_than_they_do() -> None:
    anatomy = locate(build("llama"))
    captured = capture(anatomy, prompts()[0], POSITIONS, (Head(0, 0), Head(2, 1), Mlp(1)))
    for value in captured.z.values():
        assert value.untyped_storage().nbytes() == value.nbytes


def test_what_happens_between_the_last_norm_and_its_attention_is_kept() -> None:
    """There the last layer's attention cannot be given every position from its norm alone."""
    model = build("llama")
    anatomy = locate(model)
    anatomy.site(2).attention.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "hidden_states": 2 * kwargs["hidden_states"]}),
        with_kwargs=True,
    )
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, counterfactual)
    assert clean_pass(anatomy, ids, POSITIONS, MEMBERS).read is None
    assert_close(patched(anatomy, ids, Source(z)), one_by_one(anatomy, ids, z))


def test_a_patched_run_that_is_not_finite_is_no_number() -> None:
    anatomy = locate(build("llama"))
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, counterfactual)
    z[Head(1, 3)][1, -1] = torch.inf
    with pytest.raises(MeasurementError, match="a patched run"):
        patched(anatomy, ids, Source(z))


def test_a_small_change_is_added_before_rounding() -> None:
    """In bfloat16 1 + 2^-8 lies half-way and is rounded down; what exceeds it by little, up."""
    output = torch.ones(3, 1, 2, dtype=torch.bfloat16)
    change = torch.full((1, 1, 2), 2**-8 * (1 + 2**-10))
    changed = _add(output, slice(1, 2), change)
    assert changed[1].tolist() == [[1 + 2**-7] * 2]
    assert changed[0].tolist() == changed[2].tolist() == [[1.0] * 2]


def test_a_mean_serves_every_row() -> None:
    anatomy = locate(build("qwen3"))
    ids, counterfactual = prompts()
    z = literal.activations(anatomy, counterfactual)
    mean = {head: value.mean(dim=0, keepdim=True) for head, value in z.items()}
    spread = {head: value.expand(ROWS, -1, -1) for head, value in mean.items()}
    assert_close(patched(anatomy, ids, Source(mean)), one_by_one(anatomy, ids, spread))

"""Attribution patching and integrated gradients against plain hooks, one forward pass at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import literal
import pytest
import torch
from architectures import CONFIGS, VOCAB, build
from literal import placed
from placement import tolerance
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member
from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import Encoded, EncodedPair
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.discovery.attribution_patching import attribution_patching
from forgetguard.discovery.integrated_gradients import integrated_gradients
from forgetguard.errors import AnatomyError
from forgetguard.measures.ablation import ablation
from forgetguard.measures.interventions import Intervention, Passes, intervene
from forgetguard.patching.attention_inputs import (
    INPUTS,
    AttentionCall,
    check_watched,
    exchanged,
    linearised,
    watched_attention,
)
from forgetguard.patching.capture import capture

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS, TOKENS = 6, 7
WITHOUT_INTERFACE = ("bloom", "falcon", "falcon_alibi")
WITH_INTERFACE = [name for name in CONFIGS if name not in WITHOUT_INTERFACE]
PLAIN = partial(attribution_patching, verify=0, audit=0)


def capability() -> EncodedCapability:
    """Pairs of random tokens, of two lengths, that differ from the third position on."""
    generator = torch.Generator().manual_seed(2)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB, (n,), generator=generator).tolist())

    pairs = []
    for number in range(PAIRS):
        prefix, length = draw(2), TOKENS - 3 + number % 2
        text = PromptPair("", "", "", "")
        pairs.append(
            EncodedPair(text, prefix + draw(length), prefix + draw(length), draw(1), draw(1))
        )
    found = tuple(pairs)
    return EncodedCapability(Capability("random"), Encoded(found, {}), make_batches(found))


def attention_calls(anatomy: Anatomy, ids: Tensor) -> dict[int, AttentionCall]:
    with torch.no_grad(), watched_attention(anatomy) as calls:
        anatomy.model(input_ids=placed(anatomy, ids))
    check_watched(anatomy, calls)
    return calls


def projected(anatomy: Anatomy, ids: Tensor, layer: int, name: str) -> Tensor:
    """What the query, key or value projection of `layer` returns."""
    seen: list[Tensor] = []
    projection = getattr(anatomy.site(layer).attention, name)
    handle = projection.register_forward_hook(lambda _, args, output: seen.append(output))
    with torch.no_grad():
        anatomy.model(input_ids=placed(anatomy, ids))
    handle.remove()
    return seen[0]


def with_projected(
    anatomy: Anatomy, ids: Tensor, layer: int, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """z of all heads of `layer`, [row, pos, heads * head_dim], and the logits, when its projections
    return `values`."""
    seen: list[Tensor] = []
    site = anatomy.site(layer)
    handles = [
        getattr(site.attention, name).register_forward_hook(
            lambda _, args, output, value=value: value
        )
        for name, value in values.items()
    ]
    handles.append(
        site.output_projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    )
    with torch.no_grad():
        logits = anatomy.model(input_ids=placed(anatomy, ids)).logits
    for handle in handles:
        handle.remove()
    return seen[0], logits


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "mistral"])
@pytest.mark.parametrize("of", INPUTS)
def test_an_exchanged_input_is_the_counterfactuals_projection(
    name: str, of: str, implementation: str
) -> None:
    model = build(name)
    if name != "gemma2":  # whose softcap sdpa cannot do
        model.set_attn_implementation(implementation)
    anatomy = locate(model)
    batch = capability().batches[0]
    clean = attention_calls(anatomy, batch.clean)
    other = attention_calls(anatomy, batch.counterfactual)
    for layer in range(anatomy.n_layers):
        projection = f"{of[0]}_proj"
        value = projected(anatomy, batch.counterfactual, layer, projection)
        before, _ = with_projected(anatomy, batch.clean, layer, {})
        after, _ = with_projected(anatomy, batch.clean, layer, {projection: value})
        assert (after - before).abs().max() > 1e-3
        found = exchanged(clean[layer], other[layer], of).flatten(2)
        slack = tolerance(2e-5) * max(1.0, after.abs().max().item())
        torch.testing.assert_close(found, after - before, atol=slack, rtol=1e-4, check_dtype=False)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("of", INPUTS)
def test_a_linearised_input_is_the_finite_difference(of: str, implementation: str) -> None:
    """Rotation is linear, so a step at the projection is a step at the attention."""
    model = build("llama").double()
    model.set_attn_implementation(implementation)
    anatomy = locate(model)
    batch = capability().batches[0]
    clean = attention_calls(anatomy, batch.clean)
    other = attention_calls(anatomy, batch.counterfactual)
    step, layer, projection = 1e-3, 1, f"{of[0]}_proj"
    value = projected(anatomy, batch.clean, layer, projection)
    change = projected(anatomy, batch.counterfactual, layer, projection) - value
    up, down = (
        with_projected(anatomy, batch.clean, layer, {projection: value + sign * step * change})[0]
        for sign in (1, -1)
    )
    found = linearised(clean[layer], other[layer], of).flatten(2)
    torch.testing.assert_close(found, (up - down) / (2 * step), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", WITH_INTERFACE)
def test_the_interface_is_read_and_left_as_it_was(name: str) -> None:
    anatomy = locate(build(name))
    batch = capability().batches[0]
    registered = dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    everywhere = dict(ALL_ATTENTION_FUNCTIONS._global_mapping)
    clean = attention_calls(anatomy, batch.clean)
    other = attention_calls(anatomy, batch.counterfactual)
    assert registered == ALL_ATTENTION_FUNCTIONS._local_mapping
    assert everywhere == ALL_ATTENTION_FUNCTIONS._global_mapping
    for layer, call in clean.items():
        assert all(torch.equal(exchanged(call, call, of), 0 * call.output) for of in INPUTS)
        # The output is linear in the value: exchanged and linearised are the same.
        exact, linear = (way(call, other[layer], "value") for way in (exchanged, linearised))
        slack = tolerance(1e-5) * max(1.0, linear.abs().max().item())
        torch.testing.assert_close(exact, linear, atol=slack, rtol=1e-4)


@pytest.mark.parametrize("name", WITHOUT_INTERFACE)
def test_a_model_without_the_interface_names_the_way_out(name: str) -> None:
    anatomy = locate(build(name))
    with pytest.raises(AnatomyError, match='nodes="output"'):
        PLAIN(anatomy, capability(), anatomy.heads, nodes="qkv")
    assert len(PLAIN(anatomy, capability(), anatomy.heads).scores) == len(anatomy.heads)


def test_attention_that_goes_around_the_interface_is_noticed() -> None:
    model = build("gpt2")
    model.set_attn_implementation("eager")
    model.transformer.h[1].attn.reorder_and_upcast_attn = True
    with pytest.raises(AnatomyError, match="layer 1 did not attend"):
        PLAIN(locate(model), capability(), [Head(0, 0)], nodes="qkv")


def test_an_error_inside_leaves_the_interface_as_it_was() -> None:
    anatomy, other = locate(build("llama")), build("qwen3")
    ids = capability().batches[0].clean

    def broken() -> None:
        with watched_attention(anatomy) as calls:
            other(input_ids=placed(anatomy, ids))
            assert not calls, "another model's attention was noted"
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        broken()
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def test_blocks_within_blocks_keep_their_own_calls() -> None:
    first, second = locate(build("llama")), locate(build("llama", seed=1))
    ids = capability().batches[0].clean
    with torch.no_grad(), watched_attention(first) as outer:
        with watched_attention(second) as inner:
            second.model(input_ids=placed(second, ids))
        assert not outer
        first.model(input_ids=placed(first, ids))
    assert len(outer) == len(inner) == first.n_layers
    assert not torch.equal(outer[0].query, inner[0].query)
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def readouts(capability: EncodedCapability, logits: Callable[[int], Tensor]) -> Tensor:
    """The mean logit difference over all pairs; `logits` of the batch of that number."""
    parts = []
    for number, batch in enumerate(capability.batches):
        last = logits(number)[:, -1].cpu()
        parts.append(last.gather(1, batch.answer) - last.gather(1, batch.distractor))
    return torch.cat(parts).mean()


def test_the_three_nodes_of_a_layer_add_up_to_moving_all_its_inputs() -> None:
    """Without the QK fix all is linear, so the sum over a layer's heads and nodes is the derivative
    of the readout when its queries, keys and values all move to the counterfactual's."""
    anatomy, seen = locate(build("llama").double()), capability()
    ranking = PLAIN(anatomy, seen, anatomy.heads, nodes="qkv", qk_fix=False)
    names = ("q_proj", "k_proj", "v_proj")
    step = 1e-3
    for layer in range(anatomy.n_layers):

        def moved(number: int, sign: int, layer: int = layer) -> Tensor:
            batch = seen.batches[number]
            values = {}
            for name in names:
                own = projected(anatomy, batch.clean, layer, name)
                change = projected(anatomy, batch.counterfactual, layer, name) - own
                values[name] = own + sign * step * change
            return with_projected(anatomy, batch.clean, layer, values)[1]

        up, down = (readouts(seen, partial(moved, sign=sign)) for sign in (1, -1))
        total = sum(ranking.scores[head] for head in anatomy.heads if head.layer == layer)
        assert total == pytest.approx(-(up - down).item() / (2 * step), rel=5e-3, abs=1e-3)
        parts = ranking.findings["nodes"]
        head = Head(layer, 0)
        assert sum(parts[str(head)].values()) == pytest.approx(ranking.scores[head])


def naive_attributions(
    anatomy: Anatomy, seen: EncodedCapability, steps: int
) -> dict[Member, float]:
    """The formula of integrated gradients with plain hooks, prompt by prompt and member by member;
    with one step, of attribution patching."""
    sums = dict.fromkeys(anatomy.members(mlps=True), 0.0)
    for batch in seen.batches:
        for row in range(len(batch.clean)):
            clean, other = (
                placed(anatomy, ids[row : row + 1]) for ids in (batch.clean, batch.counterfactual)
            )
            before = literal.activations(anatomy, clean)
            after = literal.activations(anatomy, other)
            for k in range(1, steps + 1):
                taps, logits = _graph_at(anatomy, clean, other, k / steps)
                last = logits[0, -1]
                value = last[batch.answer[row, 0]] - last[batch.distractor[row, 0]]
                slopes = dict(
                    zip(taps, torch.autograd.grad(value, list(taps.values())), strict=True)
                )
                for member in sums:
                    slope = slopes[member.layer, isinstance(member, Head)]
                    slope = slope.reshape(1, clean.shape[1], -1)
                    if isinstance(member, Head):
                        slope = slope[..., anatomy.site(member.layer).slice(member)]
                    change = after[member] - before[member]
                    sums[member] -= (slope * change).sum().item() / steps / PAIRS
    return sums


def _graph_at(
    anatomy: Anatomy, clean: Tensor, other: Tensor, share: float
) -> tuple[dict[tuple[int, bool], Tensor], Tensor]:
    """Activations by layer and whether they are the heads', and logits, with their graph."""
    embedding = anatomy.model.get_input_embeddings()
    mixed = (share * embedding(clean) + (1 - share) * embedding(other)).detach().requires_grad_()
    taps: dict[tuple[int, bool], Tensor] = {}
    handles = [embedding.register_forward_hook(lambda *_: mixed * 1.0)]
    for layer in range(anatomy.n_layers):

        def at_heads(_: nn.Module, args: tuple[Tensor, ...], layer: int = layer) -> None:
            taps[layer, True] = args[0]

        def at_mlp(_: nn.Module, args: object, output: Tensor, layer: int = layer) -> Tensor:
            taps[layer, False] = output
            return output * 1.0

        projection = anatomy.site(layer).output_projection
        handles.append(projection.register_forward_pre_hook(at_heads))
        handles.append(anatomy.mlp(layer).register_forward_hook(at_mlp))
    logits = anatomy.model(input_ids=clean).logits
    for handle in handles:
        handle.remove()
    return taps, logits


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "opt", "falcon", "gemma2"])
@pytest.mark.parametrize("steps", [1, 3])
def test_integrated_gradients_are_the_naive_loops(name: str, steps: int) -> None:
    anatomy, seen = locate(build(name).double()), capability()
    expected = naive_attributions(anatomy, seen, steps)
    members = anatomy.members(mlps=True)
    found = integrated_gradients(anatomy, seen, members, steps=steps).scores
    scale = max(map(abs, expected.values()))
    assert {m: found[m] for m in members} == pytest.approx(expected, rel=1e-4, abs=1e-4 * scale)
    if steps == 1:
        plain = PLAIN(anatomy, seen, members).scores
        assert plain == pytest.approx(dict(found), rel=1e-6, abs=1e-9 * scale)


def test_heads_and_mlps_can_be_asked_for_apart() -> None:
    anatomy, seen = locate(build("qwen3").double()), capability()
    members = anatomy.members(mlps=True)
    mlps = [member for member in members if not isinstance(member, Head)]
    for nodes in ("output", "qkv"):
        whole = PLAIN(anatomy, seen, members, nodes=nodes).scores
        some = {**PLAIN(anatomy, seen, mlps, nodes=nodes).scores}
        some |= PLAIN(anatomy, seen, [Head(1, 2), Head(0, 3)], nodes=nodes).scores
        assert len(some) == len(mlps) + 2
        assert some == pytest.approx({member: whole[member] for member in some})


@pytest.mark.parametrize("name", CONFIGS)
def test_what_both_prompts_begin_with_is_run_once_and_read_the_same(name: str) -> None:
    """The counterfactual prompts, and gradients, from the clean pass's keys and values on."""
    anatomy, pairs = locate(build(name)), capability()
    members, passes = anatomy.heads, Passes(anatomy.heads)
    sources = ablation(anatomy, pairs, members)
    intervene(anatomy, pairs, [Intervention(members[:1])], sources, passes=passes)
    for number, batch in enumerate(pairs.batches):
        kept = passes.get(number)
        assert kept is not None
        assert kept[0].prefixes[batch.start] is not None
        whole = capture(anatomy, batch.counterfactual, batch.positions, members)
        for one, z in whole.z.items():
            torch.testing.assert_close(kept[1]["counterfactual"].z[one], z, rtol=1e-4, atol=1e-5)
    found = PLAIN(anatomy, pairs, members, passes=passes).scores
    scores = PLAIN(anatomy, pairs, members).scores
    assert [found[one] for one in members] == pytest.approx(
        [scores[one] for one in members], rel=1e-3, abs=1e-5
    )

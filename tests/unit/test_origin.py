"""Where a loss came from: closed forms, a literal table of tiny:sft, plants, and what is left."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_family import write_adapter, write_model
from plain_tiny import plain_model
from safetensors.torch import load_file
from tiny_copies import BASE, HEAD_DIM, copy_of_base, output_slice_zeroed
from torch import Tensor, nn

import forgetguard
from examples.studies.tiny.science import questions
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.cli import main
from forgetguard.errors import CheckpointError, MeasurementError
from forgetguard.measures.behaviour import behaviour
from forgetguard.measures.origin import GROUPS, PASSES, Origin, origin, shares
from forgetguard.measures.origin_parts import Group, Part, groups
from forgetguard.measures.origin_weights import Entries, Side, exchange
from forgetguard.measures.parameter_drift import weight_pairs
from forgetguard.recipes.data.substances import PROPERTIES

EMBEDDING = "model.embed_tokens.weight"
ROOT = Path(__file__).parents[2]


def pair_of(tuned: str | Path, base: str | Path = "tiny:base") -> ModelPair:
    return ModelPair([resolve(str(base), "base"), resolve(str(tuned), "tuned")])


def pairs_of(pair: ModelPair, count: int = 16, task: str = "induction") -> EncodedCapability:
    return Capability(task, task=task, count=count).encoded(pair.base.tokenizer)


def found(tuned: str | Path, base: str | Path = "tiny:base", count: int = 16) -> Origin:
    with pair_of(tuned, base) as pair:
        return origin(pair, pairs_of(pair, count))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in model.named_parameters()}


def same(model: nn.Module, before: Mapping[str, Tensor]) -> bool:
    now = dict(model.named_parameters())
    return now.keys() == before.keys() and all(
        torch.equal(now[name].view(torch.uint8), before[name].view(torch.uint8)) for name in now
    )


# --- Closed forms ---------------------------------------------------------------------------------

Value = Callable[[frozenset[int]], float]


def both_ways(value: Value, count: int) -> tuple[float, list[float], list[float]]:
    """The loss, what each part costs alone and what its return gives, of a game."""
    whole = frozenset(range(count))
    alone = [value(frozenset()) - value(frozenset({one})) for one in whole]
    back = [value(whole - {one}) - value(whole) for one in whole]
    return value(frozenset()) - value(whole), alone, back


def shapley(value: Value, count: int) -> list[float]:
    """By every order in which the parts may come in."""
    totals = [0.0] * count
    orders = list(itertools.permutations(range(count)))
    for order in orders:
        for at, one in enumerate(order):
            before = frozenset(order[:at])
            totals[one] += (value(before) - value(before | {one})) / len(orders)
    return totals


def test_parts_that_act_by_themselves_have_their_own_loss() -> None:
    losses = [3.0, 0.0, -1.0, 2.0]
    each, left = shares(*both_ways(lambda parts: 10 - sum(losses[one] for one in parts), 4))
    assert each == pytest.approx([one / 4 for one in losses])
    assert left == pytest.approx(0)


def test_what_two_parts_do_only_together_is_split_evenly() -> None:
    each, left = shares(*both_ways(lambda parts: -6.0 * ({0, 1} <= parts) - 2.0 * (2 in parts), 3))
    assert each == pytest.approx([3 / 8, 3 / 8, 2 / 8])
    assert left == pytest.approx(0)


@pytest.mark.parametrize("seed", range(5))
def test_with_pairs_alone_it_is_the_shapley_value(seed: int) -> None:
    drawn = random.Random(seed)
    single = [drawn.random() for _ in range(5)]
    double = {two: drawn.uniform(-0.1, 0.3) for two in itertools.combinations(range(5), 2)}

    def value(parts: frozenset[int]) -> float:
        together = sum(own for two, own in double.items() if {*two} <= parts)
        return -sum(single[one] for one in parts) - together

    loss, alone, back = both_ways(value, 5)
    each, left = shares(loss, alone, back)
    assert [one * loss for one in each] == pytest.approx(shapley(value, 5))
    assert left == pytest.approx(0)


def test_what_three_do_only_together_is_stated_and_the_shares_still_sum_to_the_whole() -> None:
    # Any one of three destroys everything; the fourth does nothing.
    loss, alone, back = both_ways(lambda parts: -8.0 * bool(parts & {0, 1, 2}), 4)
    each, left = shares(loss, alone, back)
    assert each == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert left == pytest.approx(-0.5)


def test_where_no_part_does_anything_by_itself_nothing_is_shared() -> None:
    assert shares(4.0, [0.0, 0.0], [0.0, 0.0]) == ([0.0, 0.0], 1.0)
    assert shares(0.0, [1.0, -1.0], [1.0, -1.0]) == ([0.0, 0.0], 0.0)


# --- tiny:sft -------------------------------------------------------------------------------------


def plain_read(model: nn.Module, pairs: EncodedCapability) -> tuple[float, float]:
    """(mean logit difference, top-1 accuracy), one prompt at a time."""
    margins, right = [], []
    with torch.inference_mode():
        for one in pairs.encoded.pairs:
            logits = model(torch.tensor([one.clean])).logits[0, -1]
            margins.append(float(logits[one.answer[0]] - logits[one.distractor[0]]))
            right.append(int(logits.argmax()) == one.answer[0])
    return math.fsum(margins) / len(margins), sum(right) / len(right)


def mixed(first: nn.Module, second: nn.Module, moves: Callable[[str], bool]) -> nn.Module:
    """`first` with the parameters of `second` whose name `moves`."""
    model, theirs = copy.deepcopy(first), dict(second.named_parameters())
    with torch.no_grad():
        for name, one in model.named_parameters():
            if moves(name):
                one.copy_(theirs[name])
    return model


def test_the_tied_embedding_carries_the_loss_of_tiny_sft_by_a_literal_exchange() -> None:
    base, tuned = plain_model("base"), plain_model("sft")
    with pair_of("tiny:sft") as pair:
        pairs = pairs_of(pair, 64)
        read = origin(pair, pairs)
    table = {
        "base": plain_read(base, pairs),
        "tuned": plain_read(tuned, pairs),
        "embedding moved": plain_read(mixed(base, tuned, lambda name: "embed" in name), pairs),
        "attention moved": plain_read(mixed(base, tuned, lambda name: "_proj" in name and
                                            "self_attn" in name), pairs),
        "embedding back": plain_read(mixed(tuned, base, lambda name: "embed" in name), pairs),
    }  # fmt: skip
    right = {name: round(one[1], 3) for name, one in table.items()}
    assert right == {
        "base": 0.969, "tuned": 0.688, "embedding moved": 0.75, "attention moved": 0.938,
        "embedding back": 0.938,
    }  # fmt: skip
    first = read.parts[0]
    assert (first.part.kind, read.lost, read.pairs) == ("tied_embedding", True, 64)
    for ours, theirs in (
        (read.base.readout, table["base"][0]),
        (read.tuned.readout, table["tuned"][0]),
        (read.base.readout - first.alone.readout, table["embedding moved"][0]),
        (read.tuned.readout + first.back.readout, table["embedding back"][0]),
    ):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert read.base.top1 - first.alone.top1 == pytest.approx(table["embedding moved"][1])
    assert first.share.readout > 0.75
    assert sum(one.share.readout for one in read.parts) == pytest.approx(1)
    assert sum(one.share.top1 for one in read.parts) == pytest.approx(1)
    assert first.random is not None
    assert first.random.readout < first.alone.readout / 4  # it moved harmfully, not only far
    rows = next(one for one in read.refined if one.part.kind == "rows")
    assert {one.id for one in read.tokens} == set(rows.part.tokens)
    assert rows.share.readout > 0.2


def science(count: int) -> Capability:
    """The new task of the tiny family as pairs: the same question about another property, an answer
    that is valid for each."""
    drawn = islice(questions(random.Random("held out 0")), count)
    pairs = []
    for one in drawn:
        asked = next(each for each, valid in PROPERTIES.items() if each in one.prompt)
        other = next(
            each for each, valid in PROPERTIES.items() if not {*valid} & {*PROPERTIES[asked]}
        )
        pairs.append(PromptPair(one.prompt, one.prompt.replace(asked, other), one.answer,
                                f" {PROPERTIES[other][0]}"))  # fmt: skip
    return Capability("science", pairs=tuple(pairs))


def test_what_giving_a_part_back_costs_the_new_task_is_a_literal_exchanges_loss() -> None:
    base, tuned = plain_model("base"), plain_model("sft")
    with pair_of("tiny:sft") as pair:
        new = science(32).encoded(pair.base.tokenizer)
        read = origin(pair, pairs_of(pair, 64), new_task=new)
        without = origin(pair, pairs_of(pair, 64))
    ends = [plain_read(model, new)[0] for model in (base, tuned)]
    assert read.new_task == pytest.approx(ends, abs=1e-4)
    assert ends[1] > ends[0] + 1  # it was trained for this
    costs = {one.part.kind: one.new_task for one in read.parts}
    assert len(costs) < len(read.parts)  # layers' parts share a kind
    back = plain_read(mixed(tuned, base, lambda name: "embed" in name), new)[0]
    assert read.parts[0].part.kind == "tied_embedding"
    assert read.parts[0].new_task == pytest.approx(ends[1] - back, abs=1e-4)
    assert without.new_task is None
    assert [replace(one, new_task=None) for one in read.parts] == list(without.parts)
    assert without.passes == read.passes


def test_no_more_than_forty_passes_are_made_and_all_are_counted() -> None:
    with pair_of("tiny:lora") as pair:
        pairs, calls = pairs_of(pair), []
        with pair.base.open() as model:
            layer = locate(model).layers[0]
            hook = layer.register_forward_hook(lambda *_: calls.append(1))
            read = origin(pair, pairs)
            hook.remove()
    assert len(calls) == read.passes * len(pairs.batches)
    assert 30 < read.passes <= PASSES
    assert len(read.parts) <= GROUPS


# --- Plants ---------------------------------------------------------------------------------------


def test_a_copy_of_the_base_lost_nothing_and_has_no_parts(tmp_path: Path) -> None:
    read = found(copy_of_base(tmp_path))
    assert (read.parts, read.refined, read.tokens, read.lost) == ((), (), (), False)
    assert (read.base, read.passes) == (read.tuned, 1)


def test_only_the_planted_head_is_named(tmp_path: Path) -> None:
    read = found(copy_of_base(tmp_path, output_slice_zeroed(Head(1, 0))))
    (part,) = read.parts
    assert part.part == Part("o", (1, 1))
    assert part.share.readout == pytest.approx(1)
    assert read.interaction.readout == pytest.approx(0)
    assert part.alone == part.back
    assert [one.part for one in read.refined] == [Part("o", (1, 1), 0)]
    assert read.refined[0].share.readout == pytest.approx(1)
    assert read.refined[0].inside == part.part


def test_of_several_changed_parts_the_planted_one_is_first_and_its_matrix_below(
    tmp_path: Path,
) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        for number, name in enumerate(sorted(tensors)):
            noise = torch.randn(
                tensors[name].shape, generator=torch.Generator().manual_seed(number)
            )
            tensors[name] += 0.01 * tensors[name].std() * noise if tensors[name].dim() == 2 else 0
        tensors["model.layers.1.self_attn.v_proj.weight"][HEAD_DIM : 2 * HEAD_DIM] = 0

    read = found(copy_of_base(tmp_path, damage))
    assert read.parts[0].part == Part("attention", (1, 1))
    assert [one.part for one in read.refined][:2] == [Part("v", (1, 1)), Part("v", (1, 1), 1)]
    assert read.refined[1].share.readout > 0.8


def test_an_unembedding_of_its_own_is_a_part_of_its_own_in_a_tied_base(tmp_path: Path) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        noise = torch.randn(tensors[EMBEDDING].shape, generator=torch.Generator().manual_seed(0))
        tensors["lm_head.weight"] = tensors[EMBEDDING] + 0.3 * noise * tensors[EMBEDDING].std()

    tuned = copy_of_base(tmp_path, damage)
    config = json.loads((tuned / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tuned / "config.json").write_text(json.dumps(config))
    with pair_of(tuned) as pair:
        read = origin(pair, pairs_of(pair))
        with pair.base.open() as model:
            ends: Any = model.get_input_embeddings(), model.get_output_embeddings()
            assert ends[0].weight is ends[1].weight
        with pair.tuned.open() as model:
            margin, _ = plain_read(model, pairs_of(pair))
    assert [one.part.kind for one in read.parts] == ["unembedding"]
    assert read.tuned.readout == pytest.approx(margin, abs=1e-4)
    with pair_of("tiny:base", tuned) as pair:  # and the other way round
        back = origin(pair, pairs_of(pair))
    assert [one.part.kind for one in back.parts] == ["unembedding"]
    assert back.base.readout == pytest.approx(read.tuned.readout, abs=1e-5)
    assert back.tuned.readout == pytest.approx(read.base.readout, abs=1e-5)


def test_rows_that_a_larger_vocabulary_added_are_left_out(tmp_path: Path) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        table = tensors[EMBEDDING]
        table[40:60] = table[40:60].flip(0)
        tensors[EMBEDDING] = torch.cat([table, 9 * torch.ones(7, table.shape[1])])

    tuned = copy_of_base(tmp_path, damage)
    config = json.loads((tuned / "config.json").read_text())
    config["vocab_size"] += 7
    (tuned / "config.json").write_text(json.dumps(config))
    with pair_of(tuned) as pair:
        read = forgetguard.origin(pair, forgetguard.capability("induction", pairs=16))
    assert [one.part.kind for one in read.parts] == ["tied_embedding"]
    assert {one.id for one in read.tokens} <= set(range(40, 60))


# --- LoRA -----------------------------------------------------------------------------------------


def merged_lora(directory: Path) -> Path:
    """tiny:lora added into tiny:base by its files alone."""
    adapter = Path(resolve("tiny:lora", "tuned").location)
    config = json.loads((adapter / "adapter_config.json").read_text())
    halves = load_file(adapter / "adapter_model.safetensors")

    def merge(tensors: dict[str, Tensor]) -> None:
        for name in halves:
            if name.endswith("lora_A.weight"):
                change = halves[name.replace("lora_A", "lora_B")] @ halves[name]
                plain = name.removeprefix("base_model.model.").replace(".lora_A", "")
                tensors[plain] += config["lora_alpha"] / config["r"] * change

    return copy_of_base(directory, merge)


def test_an_adapter_reads_as_the_checkpoint_that_it_would_be_merged_into(tmp_path: Path) -> None:
    whole = found(merged_lora(tmp_path))
    with pair_of("tiny:lora") as pair:
        pairs = pairs_of(pair)
        with pair.tuned.open() as model:  # so that it lies in the base's modules, switched off
            before = plain_read(model, pairs)
        read = origin(pair, pairs)
        with pair.tuned.open() as model:
            assert plain_read(model, pairs) == before
    assert read.tuned.readout == pytest.approx(before[0], abs=1e-4)
    assert [one.part for one in read.parts] == [one.part for one in whole.parts]
    for mine, theirs in zip(read.parts, whole.parts, strict=True):
        assert mine.alone.readout == pytest.approx(theirs.alone.readout, abs=1e-4)
        assert mine.back.readout == pytest.approx(theirs.back.readout, abs=1e-4)


def test_an_adapter_on_one_of_two_tied_embeddings_moves_that_one_alone(tmp_path: Path) -> None:
    adapter = write_adapter(
        BASE, tmp_path / "adapter", target_modules=["embed_tokens"], lora_alpha=1
    )
    with pair_of(adapter) as pair:
        pairs = pairs_of(pair)
        read = origin(pair, pairs)
        with pair.tuned.open() as model:
            margin, _ = plain_read(model, pairs)
    assert [one.part.kind for one in read.parts] == ["embedding"]
    assert read.tuned.readout == pytest.approx(margin, abs=1e-4)


# --- What is exchanged, and what is left ----------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 9, 20, None])
def test_the_base_is_restored_bit_for_bit_whatever_ends_it(stop: int | None) -> None:
    def progress(done: int, _: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pair_of("tiny:sft") as pair, pair.base.open() as model:
        before = state(model)
        try:
            origin(pair, pairs_of(pair), progress=progress)
        except KeyboardInterrupt:
            assert stop is not None
        assert same(model, before)
        assert not any(one.requires_grad or one.grad is not None for one in model.parameters())


def test_in_half_precision_too_the_base_is_what_it_was_and_tuned_what_it_is() -> None:
    specs = [resolve("tiny:base", "base"), resolve("tiny:sft", "tuned")]
    with ModelPair(specs, LoadOptions(dtype="bfloat16")) as pair:
        pairs = pairs_of(pair)
        with pair.tuned.open() as model:
            tuned = float(behaviour(locate(model), pairs).readout.mean())
        with pair.base.open() as model:
            before = state(model)
            read = origin(pair, pairs)
            assert same(model, before)
    assert read.tuned.readout == tuned


def entries(group: Group, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """How often each entry of each tensor lies in the group."""
    counted = {name: torch.zeros(one.shape, dtype=torch.int64) for name, one in parameters.items()}
    for name, chosen in group.slices.items():
        if chosen.columns is not None:
            counted[name][:, chosen.columns] += 1
        else:
            counted[name][slice(None) if chosen.rows is None else chosen.rows] += 1
    return counted


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("most", [7, 12])
def test_the_parts_hold_every_entry_once_and_what_is_inside_a_part_is_all_of_it(
    family: str, most: int, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    anatomy = locate(AutoModelForCausalLM.from_pretrained(write_model(tmp_path, family=family)))
    parameters = dict(anatomy.model.named_parameters())
    made = groups(anatomy, parameters, most)
    assert 4 < len(made) <= most
    total = {name: torch.zeros(one.shape, dtype=torch.int64) for name, one in parameters.items()}
    for group in made:
        for name, count in entries(group, parameters).items():
            total[name] += count
        waiting = [group]
        while waiting:
            outer = waiting.pop()
            waiting += outer.inside
            inner = [entries(one, parameters) for one in outer.inside]
            for name in outer.slices if inner else ():
                both = torch.stack([one[name] for one in inner]).sum(0)
                head_bias = outer.part.kind == "o" and parameters[name].dim() == 1
                assert torch.equal(both, entries(outer, parameters)[name]) or head_bias
    assert all(bool((count == 1).all()) for count in total.values())


def test_a_random_change_is_as_large_in_every_entry_and_of_another_direction() -> None:
    with pair_of("tiny:sft") as pair, pair.base.open() as model:
        ends = weight_pairs(pair.base.spec, pair.tuned.spec)
        base, tuned = state(model), dict(plain_model("sft").named_parameters())
        with exchange(model, ends) as weights:
            weights.put({EMBEDDING: Entries()}, Side.RANDOM, seed=3)
            moved = weights.parameters[EMBEDDING].detach() - base[EMBEDDING]
    change = (tuned[EMBEDDING] - base[EMBEDDING]).detach()
    assert torch.allclose(moved.abs(), change.abs(), atol=1e-6)
    assert abs(float(torch.cosine_similarity(moved.flatten(), change.flatten(), dim=0))) < 0.05


def test_first_order_sums_are_the_gradient_times_the_change() -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    with pair_of("tiny:sft") as pair, pair.base.open() as model:
        with exchange(model, weight_pairs(pair.base.spec, pair.tuned.spec)) as weights:
            parameter = weights.parameters[name]
            gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.grad = gradient.clone()
            rows, columns = weights.sums(name)
            assert parameter.grad is None
        change = dict(plain_model("sft").named_parameters())[name].detach() - parameter
    product = (gradient * change).double()
    assert torch.allclose(rows, product.sum(1), atol=1e-6)
    assert torch.allclose(columns, product.sum(0), atol=1e-6)


# --- Bad input ------------------------------------------------------------------------------------


def test_checkpoints_whose_weights_do_not_match_are_refused(tmp_path: Path) -> None:
    def lose(tensors: dict[str, Tensor]) -> None:
        tensors.pop("model.layers.3.mlp.up_proj.weight")

    with pytest.raises(CheckpointError, match="do not hold the same weights") as error:
        found(copy_of_base(tmp_path, lose))
    assert "\n" not in str(error.value)


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    def diverge(tensors: dict[str, Tensor]) -> None:
        tensors["model.norm.weight"][3] = float("nan")

    with pytest.raises(MeasurementError, match=r"model\.norm\.weight"):
        found(copy_of_base(tmp_path, diverge))


def test_a_base_whose_weights_are_not_those_of_its_files_is_refused() -> None:
    with pair_of("tiny:sft") as pair, pair.base.open() as model:
        ends = weight_pairs(pair.base.spec, pair.tuned.spec)
        locate(model).layers[0].mlp.up_proj.weight[0, 0] += 1  # as quantising would
        with pytest.raises(CheckpointError, match="not in the loaded base"), exchange(model, ends):
            pass


def test_too_few_passes_are_refused() -> None:
    with pair_of("tiny:sft") as pair, pytest.raises(MeasurementError, match="passes=3"):
        origin(pair, pairs_of(pair), passes=3)


# --- The command ----------------------------------------------------------------------------------


def test_the_command_prints_every_part_and_json_holds_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    circuit = str(ROOT / "circuits" / "tiny-induction.circuit.yaml")
    asked = ("origin", "base=tiny:base", "tuned=tiny:sft", circuit)
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert main((*asked, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    read = document["circuits"]["tiny-induction"]
    assert document["checkpoints"] == {"base": "tiny:base", "tuned": "tiny:sft"}
    assert read["parts"][0]["part"]["kind"] == "tied_embedding"
    assert sum(one["share"]["readout"] for one in read["parts"]) == pytest.approx(1)
    assert f"{100 * read['parts'][0]['share']['readout']:.3g} %" in text
    assert all(token["text"] in text for token in read["tokens"])
    assert main((*asked, "--new-task", circuit, "--json")) == 0
    read = json.loads(capsys.readouterr().out)["circuits"]["tiny-induction"]
    ends = read["base"]["readout"], read["tuned"]["readout"]
    assert read["new_task"] == pytest.approx(ends)  # the same prompts: giving back gains
    for one in read["parts"]:
        assert one["new_task"] == pytest.approx(-one["back"]["readout"])
    pairs = tmp_path / "pairs.circuit.yaml"  # nothing else, for nothing is judged
    pairs.write_text(
        "forgetguard: 1\ncapability: copying\nreadout: logit_diff\n"
        "pairs: {task: induction, count: 64, seed: 0}\n"
    )
    assert main((*asked[:3], str(pairs), "--new-task", str(pairs), "--json")) == 0
    alone = json.loads(capsys.readouterr().out)["circuits"]["pairs"]
    assert alone["new_task"] == pytest.approx([alone["base"]["readout"], alone["tuned"]["readout"]])


@pytest.mark.parametrize(
    "wrong",
    [
        ("base=tiny:base",),
        ("base=tiny:base", "tuned=./not-there"),
        ("base=tiny:base", "tuned=tiny:base"),
        ("base=tiny:base", "tuned=tiny:sft", "not-there.circuit.yaml"),
        ("base=tiny:base", "tuned=tiny:sft", "--new-task", "not-there.circuit.yaml"),
    ],
)
def test_misuse_is_told_before_a_model_is_loaded(
    wrong: tuple[str, ...], nothing_computed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("origin", *wrong)) == 2
    assert capsys.readouterr().err.startswith("forgetguard origin: ")

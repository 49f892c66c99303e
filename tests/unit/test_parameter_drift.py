"""The drift of weights is that of the tensors, whatever files they come in."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_family import (
    O_PROJ,
    Q_PROJ,
    VOCABULARY,
    WIDTH,
    copy,
    edit_json,
    edit_weights,
    nudge,
    write_adapter,
    write_merged,
    write_model,
    write_tokenizer,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.studies.drift.weights import by_kind, by_layer, changed_share
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CheckpointError, MeasurementError
from forgetguard.measures.parameter_drift import (
    Drift,
    ParameterDrift,
    parameter_drift,
    together,
    weight_pairs,
)

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("family")
    write_model(home / "base", seed=0)
    write_model(home / "tuned", seed=1)
    return home


def measure(base: Path, tuned: Path) -> ParameterDrift:
    return parameter_drift(resolve(str(base), "base"), resolve(str(tuned), "tuned"))


def by_name(found: ParameterDrift) -> dict[str, Drift]:
    return {one.name: one.drift for one in found.tensors}


def close(found: ParameterDrift, expected: ParameterDrift, rel: float = 1e-4) -> None:
    """The same tensors, moved by the same, up to the rounding of float32 weights."""
    ours, theirs = by_name(found), by_name(expected)
    assert ours.keys() == theirs.keys()
    assert found.total.change == pytest.approx(expected.total.change, rel=rel)
    for name in ours:
        assert ours[name].change == pytest.approx(theirs[name].change, rel=rel), name
        assert ours[name].size == pytest.approx(theirs[name].size, rel=1e-9), name


# --- Full checkpoints -----------------------------------------------------------------------------


def test_every_tensor_agrees_with_torch(home: Path) -> None:
    found = measure(home / "base", home / "tuned")
    ours, theirs = (load_file(home / name / "model.safetensors") for name in ("base", "tuned"))
    assert by_name(found).keys() == ours.keys()
    for name, drift in by_name(found).items():
        change = theirs[name].double() - ours[name].double()
        assert drift.change == pytest.approx(change.norm().item(), rel=1e-12)
        assert drift.size == pytest.approx(ours[name].double().norm().item(), rel=1e-12)
        assert drift.largest == change.abs().max().item()
        assert (drift.changed, drift.entries) == (int(change.count_nonzero()), change.numel())
    whole = torch.cat([(theirs[name].double() - ours[name].double()).flatten() for name in ours])
    assert found.total.change == pytest.approx(whole.norm().item(), rel=1e-12)
    assert found.total.entries == whole.numel()
    assert changed_share(found.total) == pytest.approx(whole.count_nonzero().item() / len(whole))


def test_a_copy_has_not_moved(home: Path, tmp_path: Path) -> None:
    found = measure(home / "base", copy(home / "base", tmp_path / "copy"))
    assert (found.total.change, found.total.relative, found.total.changed) == (0.0, 0.0, 0)
    assert found.total.largest == 0.0
    assert found.total.size > 0


def test_a_known_change_has_this_norm(home: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[Q_PROJ].fill_(2.0)

    def back(tensors: dict[str, Tensor]) -> None:
        change(tensors)
        tensors[Q_PROJ][:4] += 0.5

    base = edit_weights(copy(home / "base", tmp_path / "base"), change)
    found = measure(base, edit_weights(copy(base, tmp_path / "tuned"), back))
    drift = by_name(found)[Q_PROJ]
    assert drift.change == 0.5 * math.sqrt(4 * WIDTH)
    assert drift.relative == pytest.approx(0.25 * math.sqrt(4 / WIDTH))
    assert (changed_share(drift), drift.largest) == (4 / WIDTH, 0.5)
    assert found.total.change == drift.change


def test_one_bit_is_one_changed_entry(home: Path, tmp_path: Path) -> None:
    found = measure(home / "base", edit_weights(copy(home / "base", tmp_path / "copy"), nudge))
    assert {name: one.changed for name, one in by_name(found).items() if one.changed} == {Q_PROJ: 1}


def test_kinds_and_layers_share_out_the_whole(home: Path) -> None:
    found = measure(home / "base", home / "tuned")
    kinds = by_kind(found)
    assert {"self_attn.q_proj", "mlp.down_proj", "embed_tokens", "lm_head", "norm"} <= set(kinds)
    assert together(kinds.values()).change == pytest.approx(found.total.change)
    assert sum(one.entries for one in kinds.values()) == found.total.entries
    assert set(by_layer(found)) == {0, 1}
    inside = [one.drift for one in found.tensors if one.name.startswith("model.layers.1.")]
    assert by_layer(found)[1] == together(inside)
    assert kinds["self_attn.q_proj"].entries == 2 * WIDTH * WIDTH


def test_kinds_tell_attention_from_mlp_and_not_expert_from_expert(tmp_path: Path) -> None:
    write_model(tmp_path / "gpt2", family="gpt2")
    kinds = {one.kind for one in measure(tmp_path / "gpt2", tmp_path / "gpt2").tensors}
    assert {"attn.c_proj", "mlp.c_proj", "attn.c_proj.bias", "wte", "ln_1"} <= kinds
    name = "model.layers.0.mlp.experts.{}.up_proj.weight"
    for folder in ("one", "two"):
        copy(tmp_path / "gpt2", tmp_path / folder)
        tensors = {name.format(i): torch.ones(2, 2) for i in range(3)}
        save_file(tensors, tmp_path / folder / "model.safetensors")
    (kind,) = by_kind(measure(tmp_path / "one", tmp_path / "two"))
    assert kind == "mlp.experts.up_proj"


def test_shards_and_blocks_of_rows_change_nothing(home: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", seed=1, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert measure(home / "base", sharded) == measure(home / "base", home / "tuned")
    weights = weight_pairs(resolve(str(home / "base"), "base"), resolve(str(sharded), "tuned"))
    for pair in weights.pairs:
        (whole,), parts = pair.blocks(), list(pair.blocks(entries=3 * WIDTH))
        if pair.shape[1:] == (WIDTH,):
            assert [len(part.base) for part in parts][:2] == [3, 3]
        assert torch.equal(torch.cat([part.change for part in parts]), whole.change)
        assert sum(part.changed for part in parts) == whole.changed


def test_saving_in_a_coarser_format_is_no_change_of_entries(home: Path, tmp_path: Path) -> None:
    def halve(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    coarse = edit_weights(copy(home / "base", tmp_path / "coarse"), halve)
    for found in (measure(home / "base", coarse), measure(coarse, home / "base")):
        assert found.total.changed == 0
        assert 0 < found.total.relative < 2**-8  # type: ignore[operator]
    edit_weights(coarse, lambda tensors: tensors[Q_PROJ][:2].add_(1.0))
    assert measure(home / "base", coarse).total.changed == 2 * WIDTH


# --- Names, shapes, tied embeddings ---------------------------------------------------------------


def test_tied_embeddings_count_once(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", seed=0, tie_word_embeddings=True)
    tuned = write_model(tmp_path / "tuned", seed=1, tie_word_embeddings=True)
    once = measure(base, tuned)
    assert "lm_head.weight" not in by_name(once)

    def second_copy(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors[EMBEDDING].clone()

    twice = edit_weights(copy(tuned, tmp_path / "twice"), second_copy)
    assert measure(base, twice) == once
    base_twice = edit_weights(copy(base, tmp_path / "base_twice"), second_copy)
    assert measure(base_twice, twice) == once
    assert measure(base_twice, tuned) == once

    def untied(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"][0] += 1

    parted = edit_weights(copy(twice, tmp_path / "parted"), untied)
    assert "lm_head.weight" in by_name(measure(base_twice, parted))
    with pytest.raises(CheckpointError, match=r"only tuned=\S+ has lm_head\.weight"):
        measure(base, parted)


def test_names_that_do_not_match_are_named(home: Path, tmp_path: Path) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[f"language_{name}"] = tensors.pop(name)

    other = edit_weights(copy(home / "base", tmp_path / "other"), rename)
    with pytest.raises(CheckpointError) as error:
        measure(home / "base", other)
    assert "only base=" in str(error.value)
    assert "lm_head.weight, model.embed_tokens.weight" in str(error.value)
    assert "language_lm_head.weight" in str(error.value)
    assert "and 18 more" in str(error.value)


def test_saved_constants_and_integers_are_not_weights(home: Path, tmp_path: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
        tensors["position_ids"] = torch.arange(4)

    more = edit_weights(copy(home / "tuned", tmp_path / "more"), add)
    assert measure(home / "base", more) == measure(home / "base", home / "tuned")


def test_rows_of_a_grown_vocabulary_are_cut_and_told(home: Path, tmp_path: Path) -> None:
    def grow(tensors: dict[str, Tensor]) -> None:
        for name in (EMBEDDING, "lm_head.weight"):
            tensors[name] = torch.cat([tensors[name], torch.ones(3, WIDTH)])

    grown = edit_weights(copy(home / "base", tmp_path / "grown"), grow)
    found = measure(home / "base", grown)
    assert found.total.change == 0
    assert found.cut == {EMBEDDING: 3, "lm_head.weight": 3}
    assert measure(grown, home / "base").cut == {EMBEDDING: -3, "lm_head.weight": -3}
    assert by_name(found)[EMBEDDING].entries == VOCABULARY * WIDTH


def test_other_shapes_are_refused(home: Path, tmp_path: Path) -> None:
    def widen(tensors: dict[str, Tensor]) -> None:
        tensors[O_PROJ] = torch.ones(WIDTH + 1, WIDTH)

    other = edit_weights(copy(home / "base", tmp_path / "other"), widen)
    with pytest.raises(CheckpointError, match=r"o_proj\.weight has shape \[33, 32\] .*\[32, 32\]"):
        measure(home / "base", other)


def test_weights_that_are_not_finite_are_named(home: Path, tmp_path: Path) -> None:
    def diverge(tensors: dict[str, Tensor]) -> None:
        tensors[O_PROJ][1, 1] = math.nan

    bad = edit_weights(copy(home / "base", tmp_path / "bad"), diverge)
    with pytest.raises(MeasurementError, match=r"o_proj\.weight holds NaN"):
        measure(home / "base", bad)


def test_pickled_weights_are_refused(home: Path, tmp_path: Path) -> None:
    other = copy(home / "base", tmp_path / "pickled")
    torch.save(load_file(other / "model.safetensors"), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pickled and cannot be read one by one"):
        parameter_drift(
            resolve(str(home / "base"), "base"),
            resolve(str(other), "tuned"),
            LoadOptions(allow_pickle=True),
        )


# --- Adapters -------------------------------------------------------------------------------------

PLAIN: dict[str, dict[str, Any]] = {
    "alpha over rank": {"r": 4, "lora_alpha": 12},
    "rank stabilised": {"r": 4, "lora_alpha": 12, "use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 3, r"layers.1.mlp.up_proj": 1},
        "alpha_pattern": {"o_proj": 7},
    },
    "modules to save": {"modules_to_save": ["lm_head"]},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
}


@pytest.mark.parametrize("settings", PLAIN.values(), ids=PLAIN)
def test_an_adapter_moves_what_it_moves_when_merged(
    settings: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = write_adapter(home / "base", tmp_path / "lora", **settings)
        merged = write_merged(home / "base", lora, tmp_path / "merged")
    if "modules_to_save" in settings:

        def head(tensors: dict[str, Tensor]) -> None:
            tensors["base_model.model.lm_head.weight"] += 0.5

        edit_weights(lora, head, "adapter_model.safetensors")
        edit_weights(merged, lambda tensors: tensors["lm_head.weight"].add_(0.5))
    found = measure(home / "base", lora)
    close(found, measure(home / "base", merged))
    targets = settings.get("target_modules", ["q_proj", "o_proj", "up_proj"])
    moved = {one.kind.split(".")[-1] for one in found.tensors if one.drift.changed}
    assert moved == {*targets, *settings.get("modules_to_save", [])}


def test_an_adapter_of_transposed_weights_too(tmp_path: Path) -> None:
    """GPT-2 keeps its matrices as [in, out]; attn.c_proj is square, so its shape does not tell."""
    base = write_model(tmp_path / "base", family="gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = write_adapter(base, tmp_path / "lora", target_modules=["c_attn", "c_proj"])
        merged = write_merged(base, lora, tmp_path / "merged")
    weights = weight_pairs(resolve(str(base), "base"), resolve(str(lora), "tuned"))
    theirs = load_file(merged / "model.safetensors")
    ours = load_file(base / "model.safetensors")
    for pair in weights.pairs:
        (block,) = pair.blocks()
        expected = theirs[pair.name].double() - ours[pair.name].double()
        torch.testing.assert_close(block.change, expected, rtol=0, atol=1e-6)
    close(measure(base, lora), measure(base, merged))


def test_biases_that_an_adapter_trained_are_read(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", attention_bias=True)
    lora = write_adapter(base, tmp_path / "lora", bias="all")

    def shift(tensors: dict[str, Tensor]) -> None:
        (name,) = [n for n in tensors if "layers.1" in n and "q_proj" in n and "bias" in n]
        tensors[name] += 1.0

    edit_weights(lora, shift, "adapter_model.safetensors")
    drift = by_name(measure(base, lora))["model.layers.1.self_attn.q_proj.bias"]
    assert drift.change == pytest.approx(math.sqrt(WIDTH))
    close(measure(base, lora), measure(base, write_merged(base, lora, tmp_path / "merged")))


def test_an_untrained_adapter_has_not_moved_anything(home: Path, tmp_path: Path) -> None:
    lora = write_adapter(home / "base", tmp_path / "lora")

    def untrain(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            if "lora_B" in name:
                tensors[name].zero_()

    found = measure(home / "base", edit_weights(lora, untrain, "adapter_model.safetensors"))
    assert (found.total.change, found.total.changed) == (0.0, 0)
    assert found.total.size == measure(home / "base", home / "base").total.size


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"use_dora": True}, "it sets use_dora"),
        ({"lora_bias": True}, "changes .*lora_B.bias"),
        ({"trainable_token_indices": [3, 4]}, "changes .*token"),
    ],
    ids=["dora", "bias of B", "single tokens"],
)
def test_what_is_not_plain_lora_is_refused(
    settings: dict[str, Any], why: str, home: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = write_adapter(home / "base", tmp_path / "lora", **settings)
    with pytest.raises(CheckpointError, match=f"{why}(.|\n)*merge"):
        measure(home / "base", lora)


def test_other_kinds_of_adapter_and_starts_that_change_the_base_are_refused(
    home: Path, tmp_path: Path
) -> None:
    lora = write_adapter(home / "base", tmp_path / "lora")
    edit_json(lora, "adapter_config.json", init_lora_weights="pissa")
    with pytest.raises(CheckpointError, match="its start 'pissa' changed the base"):
        measure(home / "base", lora)
    edit_json(lora, "adapter_config.json", peft_type="IA3")
    with pytest.raises(CheckpointError, match="it is of type IA3"):
        measure(home / "base", lora)


def test_an_adapter_that_brings_another_embedding_beside_its_update_is_refused(
    home: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = write_adapter(home / "base", tmp_path / "lora", target_modules=["embed_tokens"])

    def other(tensors: dict[str, Tensor]) -> None:
        tensors["base_model.model.model.embed_tokens.base_layer.weight"][0] += 1

    edit_weights(lora, other, "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"brings a model\.embed_tokens\.weight of its own"):
        measure(home / "base", lora)


def test_an_adapter_of_another_base_is_refused(home: Path, tmp_path: Path) -> None:
    lora = write_adapter(home / "base", tmp_path / "lora")
    wide = write_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(CheckpointError, match="Give the base it was trained on"):
        measure(wide, lora)
    with quiet():
        short = write_model(tmp_path / "short", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"layers\.1\S+, which is not among the weights"):
        measure(short, lora)


def test_a_base_that_is_an_adapter_is_refused(home: Path, tmp_path: Path) -> None:
    lora = write_adapter(home / "base", tmp_path / "lora")
    with pytest.raises(CheckpointError, match="is an adapter and"):
        measure(lora, home / "tuned")
    with pytest.raises(CheckpointError, match="both adapters: give"):
        measure(lora, lora)


def test_a_base_that_was_saved_without_its_outer_name_is_found(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", family="gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = write_adapter(base, tmp_path / "lora", target_modules=["c_attn"])

    def inner(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    plain = edit_weights(copy(base, tmp_path / "plain"), inner)
    write_tokenizer(plain)
    assert measure(plain, lora).total == measure(base, lora).total

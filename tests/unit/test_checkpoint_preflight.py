"""Checkpoints that do not belong together are refused before any weights are loaded, by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_family import (
    O_PROJ,
    Q_PROJ,
    VOCABULARY,
    copy,
    edit_json,
    edit_weights,
    nudge,
    write_adapter,
    write_merged,
    write_model,
    write_tokenizer,
)

from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CheckpointError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, tuned (one bit away from it), wide (twice the hidden size), lora and merged."""
    home = tmp_path_factory.mktemp("family")
    write_model(home / "base")
    edit_weights(copy(home / "base", home / "tuned"), nudge)
    write_model(home / "wide", hidden_size=64)
    write_adapter(home / "base", home / "lora")
    write_merged(home / "base", home / "lora", home / "merged")
    return home


def _check(
    base: Path, tuned: Path, reference: Path | None = None, *, allow_same: bool = False,
    options: LoadOptions | None = None,
) -> tuple[str, ...]:  # fmt: skip
    third = None if reference is None else resolve(str(reference), "reference")
    return check(
        resolve(str(base), "base"), resolve(str(tuned), "tuned"), third,
        allow_same=allow_same, options=options,
    )  # fmt: skip


def _damaged(home: Path, tmp_path: Path) -> Path:
    return copy(home / "tuned", tmp_path / "damaged")


# --- What is fine -------------------------------------------------------------------------------


def test_a_fine_tune_its_adapter_and_its_merged_twin_pass_without_a_note(home: Path) -> None:
    assert _check(home / "base", home / "tuned") == ()
    assert _check(home / "base", home / "lora", home / "merged") == ()


def test_a_sharded_fine_tune_passes_without_a_note(home: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", seed=3, max_shard_size="20KB")
    assert _check(home / "base", sharded) == ()


# --- The same twice -----------------------------------------------------------------------------


def test_the_same_directory_twice_is_refused_even_through_a_link(
    home: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(home / "base")
    for again in (home / "base", link):
        with pytest.raises(CheckpointError, match=r"same directory.*allow_same"):
            _check(home / "base", again)


def test_a_byte_copy_elsewhere_is_refused_and_can_be_allowed(home: Path, tmp_path: Path) -> None:
    twin = copy(home / "base", tmp_path / "twin")
    with pytest.raises(CheckpointError, match=r"same checkpoint.*equal in every bit.*allow_same"):
        _check(home / "base", twin)
    assert _check(home / "base", twin, allow_same=True) == ()


def test_a_resharded_copy_is_refused_too(home: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", max_shard_size="20KB")
    with pytest.raises(CheckpointError, match="equal in every bit"):
        _check(home / "base", sharded)


def test_a_reference_that_is_the_tuned_one_is_refused(home: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tuned=.* and reference=.* same checkpoint"):
        _check(home / "base", home / "tuned", home / "tuned")


def test_an_adapter_of_tuned_as_base_looks_like_a_swap(home: Path) -> None:
    (note,) = _check(home / "lora", home / "base")
    assert "base and tuned in each other's place" in note


def test_an_untrained_adapter_is_refused_as_the_base_itself(home: Path, tmp_path: Path) -> None:
    def untrain(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            if "lora_B" in name:
                tensors[name].zero_()

    adapter = copy(home / "lora", tmp_path / "untrained")
    edit_weights(adapter, untrain, "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"the adapter changes nothing .*give the trained"):
        _check(home / "base", adapter)
    (note,) = _check(home / "base", adapter, allow_same=True)
    assert "the adapter changes nothing" in note


# Tensors that no llama loads: an unmerged adapter's, and a stray one.
LORA = {
    "model.layers.0.self_attn.q_proj.lora_A.default.weight": (2, 32),
    "model.layers.0.self_attn.q_proj.lora_B.default.weight": (32, 2),
}
STRAY = {"model.layers.9.stray.weight": (2, 2)}


def _grown(home: Path, target: Path, extra: dict[str, tuple[int, ...]]) -> Path:
    """The base with tensors more."""

    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: torch.ones(shape) for name, shape in extra.items()})

    return edit_weights(copy(home / "base", target), add)


def _logits(directory: Path) -> torch.Tensor:
    model = load_model(resolve(str(directory), "tuned"), LoadOptions(device="cpu"))
    return model(input_ids=torch.arange(6)[None]).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("extra", [LORA, STRAY], ids=["lora", "stray"])
def test_tensors_that_nothing_loads_do_not_make_another_model(
    extra: dict[str, tuple[int, ...]], home: Path, tmp_path: Path
) -> None:
    grown = _grown(home, tmp_path / "grown", extra)
    assert torch.equal(_logits(grown), _logits(home / "base"))
    with pytest.raises(CheckpointError, match=r"same checkpoint.*does not load") as refused:
        _check(home / "base", grown)
    assert all(name in str(refused.value) for name in extra)
    assert ("merge_and_unload" in str(refused.value)) == (extra is LORA)
    with pytest.raises(CheckpointError, match=r"tuned only lacks some \(model\.layers"):
        _check(grown, home / "base")
    assert "has tensors that" in _check(home / "base", grown, allow_same=True)[0]
    edit_weights(grown, nudge)  # trained all the same
    (note,) = _check(home / "base", grown)
    assert "has tensors that" in note


def test_biases_that_a_setting_switches_on_make_another_model(home: Path, tmp_path: Path) -> None:
    base = edit_json(copy(home / "base", tmp_path / "base"), "config.json")
    config = json.loads((base / "config.json").read_text())
    assert config.pop("attention_bias") is False
    (base / "config.json").write_text(json.dumps(config))
    shapes = {"q": 32, "k": 16, "v": 16, "o": 32}
    biases = {
        f"model.layers.{layer}.self_attn.{one}_proj.bias": (size,)
        for layer in (0, 1)
        for one, size in shapes.items()
    }
    tuned = _grown(home, tmp_path / "tuned", biases)
    edit_json(tuned, "config.json", attention_bias=True)
    assert not torch.allclose(_logits(tuned), _logits(base))
    (note,) = _check(base, tuned)
    assert "has tensors that" in note


@pytest.mark.parametrize("same", [True, False])
def test_an_output_embedding_beside_a_tied_one_counts_where_it_differs(
    same: bool, tmp_path: Path
) -> None:
    base = write_model(tmp_path / "base", tie_word_embeddings=True)

    def untie(tensors: dict[str, torch.Tensor]) -> None:
        assert "lm_head.weight" not in tensors
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        if not same:
            nudge(tensors, "lm_head.weight")
            tensors["lm_head.weight"] *= 2

    tuned = edit_weights(copy(base, tmp_path / "tuned"), untie)
    assert torch.equal(_logits(tuned), _logits(base)) == same
    if same:
        with pytest.raises(CheckpointError, match="equal in every bit"):
            _check(base, tuned)
    else:
        assert _check(base, tuned) == _check(tuned, base) == ()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_parameters": {"rope_theta": 77.0, "rope_type": "default"}}, "rope_theta"),
        ({"rms_norm_eps": 0.5}, "rms_norm_eps"),
    ],
)
def test_equal_weights_under_another_setting_are_another_model(
    changes: dict[str, object], named: str, home: Path, tmp_path: Path
) -> None:
    other = edit_json(copy(home / "base", tmp_path / "other"), "config.json", **changes)
    assert not torch.equal(_logits(other), _logits(home / "base"))
    notes = _check(home / "base", other)
    assert [f"only its configuration makes it another model ({changed}" in notes[0]
            for changed in (named, f"rope_parameters.{named}")].count(True) == 1  # fmt: skip
    assert named in notes[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_version": "4.0.0", "dtype": "bfloat16", "use_cache": False},
        {"attention_dropout": 0.5, "initializer_range": 0.5},
        {"a_default_of_another_version": True},
    ],
    ids=["who saved it", "training alone", "only there"],
)
def test_settings_that_change_no_output_do_not_make_another_model(
    changes: dict[str, object], home: Path, tmp_path: Path
) -> None:
    other = edit_json(copy(home / "base", tmp_path / "other"), "config.json", **changes)
    assert torch.equal(_logits(other), _logits(home / "base"))
    for one, two in ((home / "base", other), (other, home / "base")):
        with pytest.raises(CheckpointError, match="equal in every bit"):
            _check(one, two)


def test_a_refusal_tells_what_differs_beside_the_weights(home: Path, tmp_path: Path) -> None:
    twin = copy(home / "base", tmp_path / "twin")
    for file in twin.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"equal in every bit(.|\n)*has no tokenizer"):
        _check(home / "base", twin)


def test_an_adapter_with_another_scale_is_another_model(home: Path, tmp_path: Path) -> None:
    twin = copy(home / "lora", tmp_path / "twin")
    with pytest.raises(CheckpointError, match="equal in every bit"):
        _check(home / "base", home / "lora", twin)
    edit_json(twin, "adapter_config.json", lora_alpha=3)
    (note,) = _check(home / "base", home / "lora", twin)
    assert "(lora_alpha)" in note


def test_the_advice_is_for_who_asks(home: Path, tmp_path: Path) -> None:
    twin = copy(home / "base", tmp_path / "twin")
    base = resolve(str(home / "base"), "base")
    for tuned in (home / "base", twin):
        with pytest.raises(CheckpointError, match="Give tuned= the fine-tuned one") as refused:
            check(base, resolve(str(tuned), "tuned"), allowed_by=None)
        assert "allow" not in str(refused.value)
        with pytest.raises(CheckpointError, match=r"or allow it: so$"):
            check(base, resolve(str(tuned), "tuned"), allowed_by="so")


# --- Other architectures ------------------------------------------------------------------------


def test_another_size_is_refused_by_what_differs(home: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hidden size 64 against 32.*same architecture"):
        _check(home / "base", home / "wide")


def test_another_architecture_is_refused(home: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", family="qwen3")
    with pytest.raises(CheckpointError, match="model_type qwen3 against llama"):
        _check(home / "base", other)


def test_other_key_value_heads_are_refused(home: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", num_key_value_heads=4)
    with pytest.raises(CheckpointError, match="key-value heads 4 against 2"):
        _check(home / "base", other)


def test_shapes_that_differ_without_the_configuration_saying_so_are_refused(
    home: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", intermediate_size=24)
    with pytest.raises(CheckpointError, match=r"mlp\.down_proj\.weight has shape \[32, 24\]"):
        _check(home / "base", other)


def test_a_changed_setting_is_noted(home: Path, tmp_path: Path) -> None:
    other = edit_json(_damaged(home, tmp_path), "config.json", rms_norm_eps=0.5)
    (note,) = _check(home / "base", other)
    assert "rms_norm_eps 1e-06 -> 0.5" in note


def test_quantised_weights_are_refused(home: Path, tmp_path: Path) -> None:
    other = _damaged(home, tmp_path)
    edit_json(other, "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(CheckpointError, match=r"quantised .gptq.*before quantisation"):
        _check(home / "base", other)


# --- Vocabulary and tokenizer -------------------------------------------------------------------


def test_an_enlarged_vocabulary_is_noted(home: Path, tmp_path: Path) -> None:
    larger = write_model(tmp_path / "larger", seed=3, vocab_size=VOCABULARY + 4)
    (note,) = _check(home / "base", larger)
    assert "vocabulary 40 -> 44 rows; the added rows are not compared" in note


def test_a_vocabulary_cut_to_the_ids_in_use_is_noted(home: Path, tmp_path: Path) -> None:
    cut = write_model(tmp_path / "cut", seed=3, vocab_size=32)
    (note,) = _check(home / "base", cut)
    assert "vocabulary 40 -> 32 rows" in note
    assert "uses only 32 ids" in note


def test_a_vocabulary_cut_into_the_ids_in_use_is_refused(home: Path, tmp_path: Path) -> None:
    cut = write_model(tmp_path / "cut", seed=3, vocab_size=30)
    with pytest.raises(CheckpointError, match=r"uses 32 ids.*last 2"):
        _check(home / "base", cut)


def test_another_tokenizer_is_noted(home: Path, tmp_path: Path) -> None:
    other = _damaged(home, tmp_path)
    write_tokenizer(other, extra=("new",))
    (note,) = _check(home / "base", other)
    assert "another tokenizer" in note


def test_a_missing_tokenizer_is_noted_for_tuned_and_refused_for_base(
    home: Path, tmp_path: Path
) -> None:
    bare = _damaged(home, tmp_path)
    (bare / "tokenizer.json").unlink()
    (note,) = _check(home / "base", bare)
    assert "has no tokenizer; that of base=" in note
    with pytest.raises(CheckpointError, match=r"base=.* has no tokenizer.*save_pretrained"):
        _check(bare, home / "base")


# --- Files that are not whole -------------------------------------------------------------------


def test_a_truncated_file_is_refused_by_the_tensor_that_ends_beyond_it(
    home: Path, tmp_path: Path
) -> None:
    other = _damaged(home, tmp_path)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"tuned=.*model\.safetensors.*truncated.*ends at"):
        _check(home / "base", other)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"\xff" * 64, "header claims"),
        ((10).to_bytes(8, "little") + b"not json!!", "not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "not JSON"),
        ((9).to_bytes(8, "little") + b'{"a": {}}', "entry for a is malformed"),
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
    ],
)
def test_a_corrupt_file_is_refused_by_what_is_wrong_with_it(
    home: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    other = _damaged(home, tmp_path)
    (other / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{reason}.*(download|save) it again"):
        _check(home / "base", other)


def test_a_missing_shard_is_named(home: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", seed=3, max_shard_size="20KB")
    gone = sorted(sharded.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=rf"names the shard {gone.name}.*not there: copy it"):
        _check(home / "base", sharded)


def test_an_index_that_belongs_to_other_shards_is_refused(home: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", seed=3, max_shard_size="20KB")
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lost.weight"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tensor lost\.weight is in .* not there"):
        _check(home / "base", sharded)


def test_no_weights_at_all_is_refused_with_what_was_looked_for(home: Path, tmp_path: Path) -> None:
    other = _damaged(home, tmp_path)
    (other / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights: model\.safetensors was looked"):
        _check(home / "base", other)


def test_pickled_weights_are_refused_unless_allowed(home: Path, tmp_path: Path) -> None:
    other = _damaged(home, tmp_path)
    (other / "model.safetensors").unlink()
    torch.save({}, other / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"pytorch_model\.bin, a pickle.*--forgetguard-allow-pickle"
    ):
        _check(home / "base", other)
    (note,) = _check(home / "base", other, options=LoadOptions(allow_pickle=True))
    assert "pickled" in note


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_configuration_is_named(home: Path, tmp_path: Path, content: str) -> None:
    other = _damaged(home, tmp_path)
    (other / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        _check(home / "base", other)


def test_missing_tensors_are_noted(home: Path, tmp_path: Path) -> None:
    other = edit_weights(_damaged(home, tmp_path), lambda t: t.pop(Q_PROJ))
    edit_weights(other, lambda tensors: nudge(tensors, O_PROJ))
    (note,) = _check(home / "base", other)
    assert f"lacks tensors that base={home / 'base'} has: {Q_PROJ}" in note


# --- Adapters -----------------------------------------------------------------------------------


def test_an_adapter_for_a_wider_base_is_refused_by_its_first_tensor(
    home: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(home / "wide", tmp_path / "adapter")
    with pytest.raises(
        CheckpointError,
        match=r"adapter for another base.*layers\.0\.mlp\.up_proj\.lora_A\.weight has shape "
        r"\[2, 64\].*up_proj\.weight of shape \[48, 32\].*trained on .*wide",
    ):
        _check(home / "base", adapter)


def test_an_adapter_for_more_layers_is_refused(home: Path, tmp_path: Path) -> None:
    deep = write_model(tmp_path / "deep", num_hidden_layers=3)
    adapter = write_adapter(deep, tmp_path / "adapter")
    shutil.rmtree(deep)
    with pytest.raises(CheckpointError, match=r"module model\.layers\.2\.\S+ that the base does"):
        _check(home / "base", adapter)


def test_an_adapter_for_other_modules_is_refused(home: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "gpt2", family="gpt2")
    adapter = write_adapter(other, tmp_path / "adapter", target_modules=["c_attn", "c_proj"])
    assert _check(write_model(tmp_path / "b", family="gpt2"), adapter) == ()
    with pytest.raises(CheckpointError, match=r"another base.*transformer\.h\.0\.attn"):
        _check(home / "base", adapter)


def test_an_adapter_trained_on_other_weights_of_the_same_shape_is_refused(
    home: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(home / "merged", tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=f"trained on {home / 'merged'}, whose weights"):
        _check(home / "base", adapter)


def test_an_adapter_trained_on_a_copy_of_the_base_passes(home: Path, tmp_path: Path) -> None:
    twin = copy(home / "base", tmp_path / "elsewhere")
    assert _check(twin, home / "lora") == ()


@pytest.mark.parametrize("named", ["org/other", "/data/of/another/machine"])
def test_an_adapter_that_names_a_base_which_is_not_at_hand_is_noted(
    home: Path, tmp_path: Path, named: str
) -> None:
    adapter = copy(home / "lora", tmp_path / "adapter")
    edit_json(adapter, "adapter_config.json", base_model_name_or_path=named)
    (note,) = _check(home / "base", adapter)
    assert f"names the base {named}" in note


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "XLORA", None])
def test_an_adapter_that_does_not_live_in_the_modules_is_refused(
    home: Path, tmp_path: Path, kind: str | None
) -> None:
    adapter = edit_json(copy(home / "lora", tmp_path / "a"), "adapter_config.json", peft_type=kind)
    with pytest.raises(CheckpointError, match=rf"{str(kind).upper()}.*full checkpoint"):
        _check(home / "base", adapter)


# --- Hub ids ------------------------------------------------------------------------------------


def _into_cache(cache: Path, repository: str, source: Path) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    copy(source, folder / "snapshots" / "abc123")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc123")


def test_a_hub_id_is_read_from_the_cache_when_offline(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _into_cache(tmp_path, "org/base", home / "base")
    _into_cache(tmp_path, "org/lora", home / "lora")
    base, tuned = resolve("org/base", "base"), resolve("org/lora", "tuned")
    assert (base.kind, tuned.kind) == ("hub", "hub")
    assert check(base, tuned) == ()
    with pytest.raises(CheckpointError, match="same directory"):
        check(base, resolve("org/base@main", "tuned"))


def test_a_hub_id_that_is_not_in_the_cache_is_refused_when_offline(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"tuned=org/none: no such directory.*hf download"):
        check(resolve(str(home / "base"), "base"), resolve("org/none", "tuned"))

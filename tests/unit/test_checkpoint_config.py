"""What JSON files tell of a checkpoint is told before a weight is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_family import copy, edit_json, edit_weights, nudge, write_adapter, write_model
from checkpoint_family import write_tokenizer as write_words
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from forgetguard.checkpoints import preflight
from forgetguard.checkpoints.causal import unsuitable
from forgetguard.checkpoints.described import full_config, geometry
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.errors import CheckpointError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, and tuned: one bit away from it."""
    home = tmp_path_factory.mktemp("family")
    write_model(home / "base")
    edit_weights(copy(home / "base", home / "tuned"), nudge)
    return home


def _check(base: Path, tuned: Path) -> tuple[str, ...]:
    return check(resolve(str(base), "base"), resolve(str(tuned), "tuned"))


def _configured(directory: Path, kind: str, **changes: Any) -> Path:
    """The default config.json of a model type, beside weights that nobody may read."""
    directory.mkdir()
    CONFIG_MAPPING[kind](**changes).save_pretrained(directory)
    (directory / "model.safetensors").write_bytes(b"not weights")
    return directory


# --- Models without causal attention heads ------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("t5", {}, "encoder with a decoder"),
        ("bart", {}, "encoder with a decoder"),
        ("bert", {}, "both directions"),
        ("mamba", {}, "no attention heads"),
        ("mamba2", {}, "no attention heads"),  # though it counts heads
        ("rwkv", {}, "no attention heads"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "no next token"),
        ("bloom", {"pretraining_tp": 2, "slow_but_exact": True}, "tensor parallelism"),
    ],
)
def test_a_model_without_causal_heads_is_refused_before_its_weights_are_read(
    kind: str, changes: dict[str, Any], why: str, home: Path, tmp_path: Path
) -> None:
    other = _configured(tmp_path / kind, kind, **changes)
    for pair in ((other, home / "tuned"), (home / "base", other)):
        with pytest.raises(CheckpointError, match=f"cannot be measured: .*{why}"):
            _check(*pair)


def test_every_other_causal_type_of_transformers_is_let_through(tmp_path: Path) -> None:
    """Those that are refused, by name: a new one must be looked at."""
    refused = set()
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if kind == "gemma4_assistant":  # its default configuration does not validate
            continue
        CONFIG_MAPPING[kind]().save_pretrained(tmp_path / kind)
        config = full_config(CheckpointSpec("base", kind, "directory", str(tmp_path / kind)))
        if unsuitable(config, geometry(config)["query heads"]) is not None:
            refused.add(kind)
    encoders = {k for k in refused if CONFIG_MAPPING[k]().is_encoder_decoder}
    both_ways = {k for k in refused if "bert" in k or k in {"big_bird", "ernie", "roformer"}}
    rest = {"blt", "data2vec-text", "electra", "falcon_mamba", "mamba", "mamba2", "rwkv", "trocr"}
    assert refused - encoders - both_ways == {*rest, "xlstm", "xmod"}
    assert not unsuitable({"model_type": "bert", "is_decoder": True}, 12)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task_type": "SEQ_CLS"}, "task SEQ_CLS"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
    ],
)
def test_an_adapter_of_another_task_is_refused_before_its_base_is_read(
    changes: dict[str, Any], why: str, home: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(home / "base", tmp_path / "adapter")
    edit_json(adapter, "adapter_config.json", **changes)
    base = copy(home / "base", tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=f"adapter_config.json.*{why}"):
        _check(base, adapter)


# --- Indexes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_map", [None, [], {}, {"x": None}, {"x": ["a"]}, {"x": {"y": 1}}])
def test_an_index_without_a_map_of_shards_is_refused_in_one_line(
    weight_map: object, home: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", seed=3, max_shard_size="20KB")
    edit_json(other, "model.safetensors.index.json", weight_map=weight_map)
    with pytest.raises(CheckpointError, match=r"index\.json has no weight_map") as refused:
        _check(home / "base", other)
    assert "\n" not in str(refused.value)


def test_weights_left_over_beside_new_shards_are_refused(home: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", seed=3, max_shard_size="20KB")
    assert _check(home / "base", sharded) == ()
    shutil.copy(home / "tuned" / "model.safetensors", sharded)
    with pytest.raises(CheckpointError, match=r"holds its weights twice.*Move the older"):
        _check(home / "base", sharded)
    for shard in sharded.glob("model-*.safetensors"):  # then the index alone is left over
        shard.unlink()
    assert _check(home / "base", sharded) == ()


# --- Settings that one of the two lacks ---------------------------------------------------------


def test_a_rope_theta_that_was_lost_is_noted_and_makes_another_model(
    home: Path, tmp_path: Path
) -> None:
    rope = {"rope_theta": 1e6, "rope_type": "default"}
    base = edit_json(copy(home / "base", tmp_path / "base"), "config.json", rope_parameters=rope)
    for name in ("tuned", "base"):  # other weights, and the same
        lost = copy(home / name, tmp_path / f"lost-{name}")
        config = json.loads((lost / "config.json").read_text())
        del config["rope_parameters"]
        (lost / "config.json").write_text(json.dumps(config))
        assert "rope_theta 1000000.0 -> 10000.0" in _check(base, lost)[-1]
        assert "rope_theta 10000.0 -> 1000000.0" in _check(lost, base)[-1]


def test_rope_settings_in_the_words_of_two_versions_are_the_same(
    home: Path, tmp_path: Path
) -> None:
    new = {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}
    base = edit_json(copy(home / "base", tmp_path / "base"), "config.json", rope_parameters=new)
    old = copy(home / "tuned", tmp_path / "old")
    edit_json(old, "config.json", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    edit_json(old, "config.json", rope_parameters=None)
    assert _check(base, old) == ()
    edit_json(old, "config.json", rope_scaling={"type": "linear", "factor": 4.0})
    assert "factor 2.0 -> 4.0" in _check(base, old)[0]


def test_a_scale_that_only_one_has_is_noted(home: Path, tmp_path: Path) -> None:
    base = edit_json(copy(home / "base", tmp_path / "base"), "config.json", logit_scale=0.25)
    assert "logit_scale 0.25 -> nothing" in _check(base, home / "tuned")[0]
    edit_json(base, "config.json", logit_scale=1.0)
    assert _check(base, home / "tuned") == ()


def test_an_epsilon_that_was_lost_is_noted(home: Path, tmp_path: Path) -> None:
    lost = copy(home / "tuned", tmp_path / "lost")
    config = json.loads((lost / "config.json").read_text())
    before = config.pop("rms_norm_eps")
    (lost / "config.json").write_text(json.dumps(config))
    assert f"rms_norm_eps {json.dumps(before)} -> nothing" in _check(home / "base", lost)[0]


# --- Text alone ---------------------------------------------------------------------------------


def test_a_text_only_fine_tune_of_a_multimodal_base_is_compared(tmp_path: Path) -> None:
    from transformers import (
        AutoModelForCausalLM,
        Gemma3Config,
        Gemma3ForCausalLM,
        Gemma3TextConfig,
    )

    text = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
        "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 40, "eos_token_id": 1,
        "pad_token_id": 0, "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    whole = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    with quiet():
        AutoModelForCausalLM.from_config(whole).save_pretrained(tmp_path / "base")
        for name, width in (("tuned", 48), ("other", 24)):
            config = Gemma3TextConfig(**(text | {"intermediate_size": width}))
            Gemma3ForCausalLM(config).save_pretrained(tmp_path / name)
    for name in ("base", "tuned", "other"):
        write_words(tmp_path / name)
    (note,) = _check(tmp_path / "base", tmp_path / "tuned")
    assert "text part alone" in note
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    inner = {n.removeprefix("language_model."): t for n, t in tensors.items() if "vision" not in n}
    twin = copy(tmp_path / "tuned", tmp_path / "twin")
    save_file({n: inner[n] for n in load_file(twin / "model.safetensors")},
              twin / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(CheckpointError, match="equal in every bit"):
        _check(tmp_path / "base", twin)
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.down_proj\.weight has shape"):
        _check(tmp_path / "base", tmp_path / "other")
    specs = [resolve(str(tmp_path / name), name) for name in ("base", "tuned")]
    for checkpoint in ModelPair(specs, LoadOptions(device="cpu")).checkpoints:
        with checkpoint.open() as model:
            assert model.get_input_embeddings().weight.shape == (40, 32)


# --- What other libraries raise -----------------------------------------------------------------


@pytest.mark.parametrize("error", [TypeError("a\nb"), KeyError("x"), RecursionError("deep")])
def test_an_exception_of_a_library_in_preflight_becomes_ours(
    error: Exception, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(preflight, "describe", fail)
    with pytest.raises(CheckpointError, match=r"LlamaForCausalLM.*cannot be checked") as caught:
        _check(home / "base", home / "tuned")
    assert caught.value.__cause__ is error
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)

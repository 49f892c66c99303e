"""A loaded model is whole, finite, frozen and quiet; whatever is not is refused by name."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_family import (
    O_PROJ,
    Q_PROJ,
    copy,
    edit_json,
    edit_weights,
    write_adapter,
    write_merged,
    write_model,
    write_tokenizer,
)
from safetensors.torch import load_file, save_file

from forgetguard.checkpoints.loading import choose_device, load_model, load_tokenizer
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CheckpointError

CPU = LoadOptions(device="cpu")
IDS = torch.arange(2, 14)[None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("family")
    write_model(home / "base")
    write_adapter(home / "base", home / "lora")
    return home


def _load(directory: Path, options: LoadOptions = CPU, **settings: Any) -> Any:
    return load_model(resolve(str(directory), "tuned"), options, **settings)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


# --- What is loaded -----------------------------------------------------------------------------


def test_a_loaded_model_is_frozen_and_in_eval_mode(home: Path) -> None:
    model = _load(home / "base")
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(
        model.get_submodule("model.layers.1.self_attn.q_proj").weight,
        load_file(home / "base" / "model.safetensors")[Q_PROJ],
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_weight_is_loaded_in_the_number_format_asked_for(home: Path, dtype: str) -> None:
    for name in ("base", "lora"):
        model = _load(home / name, LoadOptions(dtype=dtype, device="cpu"))
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_shards_load_to_the_same_model(home: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", max_shard_size="20KB")
    assert torch.equal(_logits(_load(sharded)), _logits(_load(home / "base")))


def test_tied_embeddings_that_are_stored_once_are_not_missing(tmp_path: Path) -> None:
    tied = write_model(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    model = _load(tied)
    assert torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_an_adapter_is_loaded_switched_on_and_equals_its_merged_twin(
    home: Path, tmp_path: Path
) -> None:
    twin = _logits(_load(write_merged(home / "base", home / "lora", tmp_path / "merged")))
    toggled = _load(home / "lora")
    merged = _load(home / "lora", LoadOptions(device="cpu", merge_adapter=True))
    torch.testing.assert_close(_logits(toggled), twin, rtol=0, atol=1e-5)
    torch.testing.assert_close(_logits(merged), twin, rtol=0, atol=1e-6)
    assert not torch.allclose(_logits(_load(home / "base")), twin, rtol=0, atol=1e-2)
    assert not any("lora" in name for name, _ in merged.named_modules())
    assert not any(parameter.requires_grad for parameter in toggled.parameters())


def test_an_adapter_goes_onto_the_base_that_is_given_not_the_one_it_names(
    home: Path, tmp_path: Path
) -> None:
    adapter = copy(home / "lora", tmp_path / "adapter")
    edit_json(adapter, "adapter_config.json", base_model_name_or_path="/not/there")
    onto = resolve(str(home / "base"), "base")
    assert torch.equal(_logits(_load(adapter, base=onto)), _logits(_load(home / "lora")))
    with pytest.raises(CheckpointError, match="adapter of /not/there, which cannot be used"):
        _load(adapter)


def test_pickled_weights_are_loaded_only_where_allowed(home: Path, tmp_path: Path) -> None:
    pickled = copy(home / "base", tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="allow_pickle"):
        _load(pickled)
    model = _load(pickled, LoadOptions(device="cpu", allow_pickle=True))
    assert torch.equal(_logits(model), _logits(_load(home / "base")))


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_tensor(
    home: Path, tmp_path: Path, value: float
) -> None:
    broken = copy(home / "base", tmp_path / "broken")
    edit_weights(broken, lambda tensors: tensors[O_PROJ][3, 4:5].fill_(value))
    with pytest.raises(CheckpointError, match=rf"1 of 21 .*NaN or infinity: {O_PROJ}.*Save"):
        _load(broken)


def test_an_adapter_that_is_not_finite_is_refused(home: Path, tmp_path: Path) -> None:
    broken = copy(home / "lora", tmp_path / "broken")
    name = next(iter(load_file(broken / "adapter_model.safetensors")))
    edit_weights(broken, lambda t: t[name].fill_(float("nan")), "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        _load(broken)


def test_weights_too_large_for_float16_are_refused_with_another_format(
    home: Path, tmp_path: Path
) -> None:
    large = edit_weights(copy(home / "base", tmp_path / "l"), lambda t: t[Q_PROJ][0].fill_(1e5))
    assert _load(large) is not None
    with pytest.raises(CheckpointError, match="try bfloat16 or float32"):
        _load(large, LoadOptions(dtype="float16", device="cpu"))


def test_a_missing_weight_is_refused_and_not_made_up(home: Path, tmp_path: Path) -> None:
    lacking = edit_weights(copy(home / "base", tmp_path / "l"), lambda t: t.pop(Q_PROJ))
    with pytest.raises(CheckpointError, match=rf"1 weights .*random: {Q_PROJ}.*save_pretrained"):
        _load(lacking)


def test_a_configuration_of_another_size_is_refused_by_tensor(home: Path, tmp_path: Path) -> None:
    other = edit_json(copy(home / "base", tmp_path / "o"), "config.json", vocab_size=50)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has shape \[40, 32\].*\[50, 32\]"):
        _load(other)


def test_a_truncated_file_is_refused_without_preflight_too(home: Path, tmp_path: Path) -> None:
    cut = copy(home / "base", tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        _load(cut)


def test_an_unknown_architecture_is_refused(home: Path, tmp_path: Path) -> None:
    other = edit_json(copy(home / "base", tmp_path / "o"), "config.json", model_type="nonesuch")
    with pytest.raises(CheckpointError, match=r"tuned=.*cannot be loaded.*transformers"):
        _load(other)


def test_a_model_that_brings_code_is_refused_unless_trusted(home: Path, tmp_path: Path) -> None:
    own = copy(home / "base", tmp_path / "own")
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    edit_json(own, "config.json", model_type="nonesuch", auto_map=code)
    (own / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(CheckpointError, match="trust_remote_code=True"):
        _load(own)


def test_adapter_weights_without_a_place_are_refused(home: Path, tmp_path: Path) -> None:
    adapter = copy(home / "lora", tmp_path / "adapter")
    edit_json(adapter, "adapter_config.json", target_modules=["q_proj", "o_proj"])
    with pytest.raises(CheckpointError, match=r"4 of the adapter's weights have no place.*up_proj"):
        _load(adapter)


def test_missing_adapter_weights_are_refused(home: Path, tmp_path: Path) -> None:
    adapter = copy(home / "lora", tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "up_proj" not in name}
    save_file(kept, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing adapter keys.*up_proj"):
        _load(adapter)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
              RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")],
)  # fmt: skip
def test_out_of_memory_says_what_takes_less(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(
        CheckpointError, match=r"out of memory.*bfloat16.*device_map auto"
    ) as caught:
        _load(home / "base")
    assert caught.value.__cause__ is error


def test_a_gpu_that_is_not_there_is_refused() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(CheckpointError, match=f"torch sees {count} CUDA devices"):
        choose_device(LoadOptions(device=f"cuda:{count}"))


# --- Manners ------------------------------------------------------------------------------------


def test_loading_prints_nothing_and_leaves_the_settings_of_transformers(
    home: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging as settings

    before = (settings.get_verbosity(), settings.is_progress_bar_enabled())
    with caplog.at_level(logging.INFO):
        _load(home / "lora")
        load_tokenizer(resolve(str(home / "base"), "base"))
    assert (settings.get_verbosity(), settings.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_local_checkpoints_never_touch_the_network(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def note(*address: object, **_: object) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, note)
    monkeypatch.setattr(socket.socket, "connect", note)
    _load(home / "lora")
    load_tokenizer(resolve(str(home / "base"), "base"))
    assert asked == []


# --- Tokenizers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_a_word_level_tokenizer_yields_ids_beside_any_model(tmp_path: Path, family: str) -> None:
    """Beside qwen2, AutoTokenizer alone yields none (transformers 5.23)."""
    model = write_model(tmp_path / family, family=family)
    tokenizer = load_tokenizer(resolve(str(model), "base"))
    assert tokenizer("w1 w2 w3")["input_ids"] == [3, 4, 5]


def test_a_tokenizer_that_yields_nothing_is_refused(home: Path, tmp_path: Path) -> None:
    mute = copy(home / "base", tmp_path / "mute")
    edit_json(mute, "tokenizer.json", model={"type": "WordLevel", "vocab": {"<unk>": 0},
                                             "unk_token": "<unk>"}, added_tokens=[])  # fmt: skip
    with pytest.raises(CheckpointError, match=r"no known ids.*save the tokenizer again"):
        load_tokenizer(resolve(str(mute), "base"))


def test_a_broken_or_missing_tokenizer_is_named(home: Path, tmp_path: Path) -> None:
    broken = copy(home / "base", tmp_path / "broken")
    (broken / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be loaded"):
        load_tokenizer(resolve(str(broken), "base"))
    (broken / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer.*save_pretrained"):
        load_tokenizer(resolve(str(broken), "base"))


def test_a_tokenizer_of_another_size_still_loads(home: Path, tmp_path: Path) -> None:
    larger = copy(home / "base", tmp_path / "larger")
    write_tokenizer(larger, extra=("more",))
    assert load_tokenizer(resolve(str(larger), "base"))("more")["input_ids"] == [32]

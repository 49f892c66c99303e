"""Fingerprints: equal for the same tensors however they are stored, different for any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_family import (
    HEAD_DIM,
    O_PROJ,
    Q_PROJ,
    copy,
    edit_json,
    edit_weights,
    nudge,
    write_adapter,
    write_model,
    write_tokenizer,
)
from safetensors.torch import load_file, save_file

from forgetguard.checkpoints import fingerprint as fingerprints
from forgetguard.checkpoints.files import read_headers
from forgetguard.checkpoints.fingerprint import Fingerprint, fingerprint
from forgetguard.checkpoints.spec import resolve


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("family") / "base")


def _of(directory: Path) -> Fingerprint:
    return fingerprint(resolve(str(directory), "base"))


def test_a_byte_copy_has_the_same_fingerprint(base: Path, tmp_path: Path) -> None:
    assert _of(copy(base, tmp_path / "copy")) == _of(base)


def test_sharding_changes_no_fingerprint(base: Path, tmp_path: Path) -> None:
    sharded = write_model(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert _of(sharded) == _of(base)


def test_order_and_metadata_of_the_file_change_no_fingerprint(base: Path, tmp_path: Path) -> None:
    twin = copy(base, tmp_path / "twin")
    tensors = load_file(twin / "model.safetensors")
    backwards = {name: tensors[name] for name in reversed(tensors)}
    save_file(backwards, twin / "model.safetensors", {"format": "pt", "saved": "later"})
    assert (twin / "model.safetensors").read_bytes() != (base / "model.safetensors").read_bytes()
    assert _of(twin) == _of(base)


def test_one_bit_of_one_weight_changes_the_fingerprint(base: Path, tmp_path: Path) -> None:
    other = _of(edit_weights(copy(base, tmp_path / "bit"), nudge))
    assert other.weights != _of(base).weights
    assert (other.config, other.tokenizer) == (_of(base).config, _of(base).tokenizer)


def test_one_heads_slice_of_the_output_projection_changes_the_fingerprint(
    base: Path, tmp_path: Path
) -> None:
    def silence(tensors: dict[str, torch.Tensor]) -> None:
        tensors[O_PROJ][:, HEAD_DIM : 2 * HEAD_DIM] = 0

    assert _of(edit_weights(copy(base, tmp_path / "h"), silence)).weights != _of(base).weights


def test_weights_under_exchanged_names_have_another_fingerprint(base: Path, tmp_path: Path) -> None:
    def exchange(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q_PROJ], tensors[O_PROJ] = tensors[O_PROJ], tensors[Q_PROJ]

    assert _of(edit_weights(copy(base, tmp_path / "x"), exchange)).weights != _of(base).weights


def test_chunks_of_a_large_tensor_all_count(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "_CHUNK", 100)
    other = edit_weights(copy(base, tmp_path / "end"), lambda t: t[Q_PROJ][-1, -1:].add_(1))
    assert _of(other).weights != _of(base).weights
    ours, theirs = (read_headers([d / "model.safetensors"]) for d in (base, other))
    assert fingerprints.same_tensors(ours, ours)
    assert not fingerprints.same_tensors(ours, theirs)


def test_the_configuration_counts_without_who_saved_it(base: Path, tmp_path: Path) -> None:
    twin = edit_json(copy(base, tmp_path / "c"), "config.json", transformers_version="9.9")
    assert _of(twin).config == _of(base).config
    assert _of(edit_json(twin, "config.json", rms_norm_eps=0.1)).config != _of(base).config


def test_a_word_more_changes_the_tokenizers_fingerprint_but_truncation_does_not(
    base: Path, tmp_path: Path
) -> None:
    twin = copy(base, tmp_path / "t")
    edit_json(twin, "tokenizer.json", truncation={"max_length": 4}, padding=None)
    assert _of(twin).tokenizer == _of(base).tokenizer
    write_tokenizer(twin, extra=("more",))
    assert _of(twin).tokenizer != _of(base).tokenizer


def test_an_adapters_fingerprint_is_of_its_own_weights(base: Path, tmp_path: Path) -> None:
    one = write_adapter(base, tmp_path / "one", seed=1)
    two = write_adapter(base, tmp_path / "two", seed=2)
    assert _of(one).weights not in (_of(two).weights, _of(base).weights)
    assert _of(one).config == _of(two).config
    assert _of(one).tokenizer == "absent"
    assert _of(edit_json(two, "adapter_config.json", lora_alpha=99)).config != _of(one).config

"""Fingerprints: equal for the same tensors however they are stored, different for any other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
from forgetguard.checkpoints import known_hashes
from forgetguard.checkpoints.files import TensorEntry, read_headers
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


# --- One hash of each file a machine ------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The tensors that were hashed, call by call; hashes are kept of files of any size and age."""
    calls: list[int] = []

    def counted(tensors: Mapping[str, TensorEntry]) -> str:
        calls.append(len(tensors))
        return digest_tensors(tensors)

    digest_tensors = fingerprints.digest_tensors
    monkeypatch.setattr(fingerprints, "digest_tensors", counted)
    monkeypatch.setattr(known_hashes, "SMALL", 0)
    monkeypatch.setattr(known_hashes, "SETTLED", -1e9)
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    return calls


def test_weights_are_hashed_once_a_machine_through_any_name(
    base: Path, tmp_path: Path, hashed: list[int]
) -> None:
    first = _of(base)
    (tmp_path / "link").symlink_to(base)
    assert _of(base) == _of(tmp_path / "link") == first
    assert len(hashed) == 1
    _of(copy(base, tmp_path / "copy"))  # other files, whatever is in them
    assert len(hashed) == 2


def test_a_changed_file_is_hashed_anew_even_with_its_old_size_and_time(
    base: Path, tmp_path: Path, hashed: list[int]
) -> None:
    other = copy(base, tmp_path / "other")
    file = other / "model.safetensors"
    first, before = _of(other), file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    with file.open("r+b") as stream:  # in place: the same inode
        stream.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino, before.st_size, before.st_mtime_ns,
    )  # fmt: skip
    assert _of(other).weights != first.weights
    assert len(hashed) == 2


def test_a_file_that_has_just_changed_and_a_small_one_are_hashed_every_time(
    base: Path, tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_hashes, "SETTLED", 1e9)
    assert _of(base) == _of(base)
    monkeypatch.setattr(known_hashes, "SETTLED", -1e9)
    monkeypatch.setattr(known_hashes, "SMALL", 1 << 30)
    assert _of(base) == _of(base)
    assert len(hashed) == 4
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, b"g" * 64])
def test_a_damaged_entry_is_computed_again_and_mended(
    base: Path, tmp_path: Path, hashed: list[int], content: bytes
) -> None:
    first = _of(base)
    (entry,) = (tmp_path / "cache" / "hashes").iterdir()
    entry.write_bytes(content)
    assert _of(base) == _of(base) == first
    assert len(hashed) == 2


def test_without_a_folder_to_write_to_the_hash_is_computed(
    base: Path, tmp_path: Path, hashed: list[int]
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert _of(base) == _of(base)
    assert len(hashed) == 2


def test_runs_at_once_agree(base: Path, tmp_path: Path, hashed: list[int]) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: _of(base), range(16)))
    assert len(set(found)) == 1
    (entry,) = (tmp_path / "cache" / "hashes").iterdir()
    assert entry.read_text() == found[0].weights

"""What identifies a checkpoint: hashes of its weights, its tokenizer and its configuration."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.files import (
    TensorEntry,
    find_weights,
    read_headers,
    read_json,
    unreadable,
)
from forgetguard.checkpoints.foreign import foreign_errors
from forgetguard.checkpoints.known_hashes import known_hash
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import ADAPTER_CONFIG, CONFIG, CheckpointSpec

ABSENT = "absent"
TOKENIZER_FILES = (
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip

# Every byte is hashed. Sampling was considered and dropped: 64 bytes of every 4 KiB run 20 times
# faster, but see the same columns of every row where a row is a multiple of 4 KiB, and so miss a
# change of one head's slice of an output projection altogether. sha256 ran at 0.9 GB/s per core
# (with SHA instructions; about half without), in parallel over cores.
_CHUNK = 8 << 20
_THREADS = 8

# Written by whoever saved last; none of them changes what the model computes.
VOLATILE_CONFIG = frozenset(
    {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
)
VOLATILE_ADAPTER_CONFIG = frozenset(
    {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"}
)
_VOLATILE_TOKENIZER = frozenset({"truncation", "padding"})


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Three sha256 hashes, in hexadecimal (`absent` for a tokenizer that is not there).

    Attributes:
        weights: of every tensor's name, dtype, shape and bytes. The same for the same tensors in
            any order, in one file or in shards, with any file metadata; different when a single
            bit of one tensor differs, and also when only the dtype or a name does. An adapter's
            is of the adapter's own tensors, not of its base. Pickled weights are hashed file by
            file, so there sharding matters.
        tokenizer: of tokenizer.json (without its truncation and padding settings), else of the
            vocabulary and merges files. A chat template is not part of it.
        config: of config.json, or adapter_config.json, without fields that name who saved it.
    """

    weights: str
    tokenizer: str
    config: str


def fingerprint(spec: CheckpointSpec, options: LoadOptions | None = None) -> Fingerprint:
    """The fingerprint of a checkpoint; loads nothing.

    Every byte of it is read once on a machine: the hash of large weights is kept in the cache
    folder until a file changes. A hub id is looked up in, or fetched into, the local cache first.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    options = options or LoadOptions()
    with foreign_errors([spec], "hashed"):
        local = localise(spec, options)
        adapter = local.kind == "adapter"
        weights = find_weights(local.directory, adapter=adapter, allow_pickle=options.allow_pickle)
        return Fingerprint(
            weights=known_hash(
                weights.files,
                "pickles" if weights.pickled else "tensors",
                lambda: (
                    digest_files(weights.files)
                    if weights.pickled
                    else digest_tensors(read_headers(weights.files))
                ),
            ),
            tokenizer=tokenizer_fingerprint(local.directory),
            config=config_fingerprint(local.directory, adapter=adapter),
        )


def tokenizer_fingerprint(directory: Path) -> str:
    """sha256 of what turns text into ids, `absent` where the directory has no tokenizer."""
    whole = directory / "tokenizer.json"
    if whole.is_file():
        return _digest_json(read_json(whole), _VOLATILE_TOKENIZER)
    files = [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
    return digest_files(files) if files else ABSENT


def config_fingerprint(directory: Path, *, adapter: bool) -> str:
    """sha256 of the configuration, without the fields that change from save to save."""
    if adapter:
        return _digest_json(read_json(directory / ADAPTER_CONFIG), VOLATILE_ADAPTER_CONFIG)
    return _digest_json(read_json(directory / CONFIG), VOLATILE_CONFIG)


def digest_tensors(tensors: Mapping[str, TensorEntry]) -> str:
    """sha256 over name, dtype, shape and the hashes of the 8 MiB chunks of every tensor."""
    chunks = [
        (entry, at)
        for _, entry in sorted(tensors.items())
        for at in range(0, entry.end - entry.start, _CHUNK)
    ]
    total = hashlib.sha256()
    # hashlib lets go of the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(max(1, min(_THREADS, os.cpu_count() or 1, len(chunks)))) as pool:
        digests = pool.map(lambda one: hashlib.sha256(one[0].read(one[1], _CHUNK)).digest(), chunks)
        for name, entry in sorted(tensors.items()):
            total.update(json.dumps([name, entry.dtype, list(entry.shape)]).encode())
            for _ in range(entry.start, entry.end, _CHUNK):
                total.update(next(digests))
    return total.hexdigest()


def same_tensors(a: Mapping[str, TensorEntry], b: Mapping[str, TensorEntry]) -> bool:
    """Whether two checkpoints hold the same tensors, bit for bit.

    Stops at the first chunk that differs, so it is quick for all that are not copies.

    Raises:
        CheckpointError: a file cannot be read.
    """
    if _description(a) != _description(b):
        return False
    return all(
        entry.read(at, _CHUNK) == b[name].read(at, _CHUNK)
        for name, entry in sorted(a.items())
        for at in range(0, entry.end - entry.start, _CHUNK)
    )


def _description(tensors: Mapping[str, TensorEntry]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (entry.dtype, entry.shape) for name, entry in tensors.items()}


def _digest_json(content: dict[str, Any], without: frozenset[str]) -> str:
    kept = {key: _ordered(value) for key, value in content.items() if key not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _ordered(value: Any) -> Any:
    """peft writes sets (target_modules) as lists, in an order that changes from save to save."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return value


def digest_files(files: list[Path] | tuple[Path, ...]) -> str:
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        try:
            with file.open("rb") as stream:
                inner = hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise unreadable(file, error) from error
        total.update(file.name.encode() + b"\0" + inner)
    return total.hexdigest()

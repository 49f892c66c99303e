"""What lies in a checkpoint directory: its JSON files and the headers of its safetensors files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.errors import CheckpointError

FULL = ("model.safetensors", "pytorch_model.bin")
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
INDEX_SUFFIX = ".index.json"
INPUT_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
)
OUTPUT_EMBEDDINGS = ("lm_head.weight", "lm_head.bias", "embed_out.weight")

# safetensors: 8 bytes of little-endian header length, the header (JSON), then the tensors' bytes.
# https://huggingface.co/docs/safetensors ("Format"); 100 MB is that library's own header limit.
_LENGTH_BYTES = 8
_HEADER_LIMIT = 100_000_000
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor's bytes lie: `file[start:end]`, `dtype` as safetensors writes it (BF16)."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self, at: int = 0, most: int | None = None) -> bytes:
        """The tensor's bytes from `at` on, no more than `most` (raises CheckpointError)."""
        start = self.start + at
        length = self.end - start if most is None else min(most, self.end - start)
        try:
            with self.file.open("rb") as stream:
                stream.seek(start)
                data = stream.read(length)
        except OSError as error:
            raise unreadable(self.file, error) from error
        if len(data) < length:
            raise CheckpointError(f"{self.file} became shorter while it was read: try again")
        return data


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The weight files of one directory, in the order in which transformers would choose them."""

    files: tuple[Path, ...]
    pickled: bool


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file cannot be read, is not JSON or is not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): {_SAVE_AGAIN}") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a JSON {type(content).__name__} where an object is needed: {_SAVE_AGAIN}"
        )
    return content


def find_weights(directory: Path, *, adapter: bool, allow_pickle: bool) -> WeightFiles:
    """The files that hold the weights of a full checkpoint or of an adapter.

    Raises:
        CheckpointError: there are none, only pickled ones (and `allow_pickle` is off), or an
            index names a shard that is not there.
    """
    safe, pickled = ADAPTER if adapter else FULL
    for name, is_pickled in ((safe, False), (pickled, True)):
        files = _single_or_shards(directory, name)
        if not files:
            continue
        if is_pickled and not allow_pickle:
            raise CheckpointError(
                f"{directory} has its weights only as {files[0].name}, a pickle, which can run "
                f"code when it is read: save it again with save_pretrained, which writes "
                f"safetensors, or allow it if you trust its origin: --forgetguard-allow-pickle; in "
                f"Python allow_pickle=True"
            )
        return WeightFiles(files, is_pickled)
    gguf = gguf_in(directory)
    if gguf is not None:
        raise CheckpointError(f"{directory} holds no weights but {gguf.name}: {gguf_step(gguf)}")
    found = ", ".join(sorted(p.name for p in directory.iterdir())[:12]) or "nothing"
    raise CheckpointError(
        f"{directory} holds no weights: {safe} was looked for (or its shards with "
        f"{safe}{INDEX_SUFFIX}), found: {found}. Save the model there with save_pretrained"
    )


def gguf_in(directory: Path) -> Path | None:
    """The first GGUF file of a directory, if it has one."""
    return min(directory.glob("*.gguf"), default=None)


def gguf_step(file: Path) -> str:
    """What a GGUF file is, and how to go on from it."""
    return (
        f"GGUF is the format of llama.cpp, which no head can be patched in. Give the checkpoint it "
        f"was made from, or convert it once (pip install gguf): "
        f"AutoModelForCausalLM.from_pretrained({str(file.parent)!r}, gguf_file={file.name!r})"
        f".save_pretrained(FOLDER), and AutoTokenizer likewise"
    )


def read_headers(files: Iterable[Path]) -> dict[str, TensorEntry]:
    """Names, shapes, dtypes and places of all tensors, from the files' headers alone.

    Raises:
        CheckpointError: a file is truncated or corrupt, or a tensor is in two files.
    """
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"tensor {name} is in both {tensors[name].file} and {file}: leftover shards of "
                    f"an earlier save; {_SAVE_AGAIN}"
                )
            tensors[name] = entry
    return tensors


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file, every offset checked against the file's size.

    Raises:
        CheckpointError: the file is truncated or is not a safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(_LENGTH_BYTES)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < _LENGTH_BYTES:
                raise _corrupt(file, f"it has {size} bytes, too few for a header")
            if prefix.startswith(b"version "):
                raise _corrupt(file, "it is a git-lfs pointer, not the file itself (git lfs pull)")
            if length > min(size - _LENGTH_BYTES, _HEADER_LIMIT):
                raise _corrupt(file, f"its header claims {length} bytes, the file has {size}")
            raw = stream.read(length)
    except OSError as error:
        raise unreadable(file, error) from error
    try:
        header = json.loads(raw)
        entries = {k: v for k, v in header.items() if k != "__metadata__"}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise _corrupt(file, "its header is not JSON") from error
    offset = _LENGTH_BYTES + length
    return {name: _entry(file, name, value, offset, size) for name, value in entries.items()}


def _entry(file: Path, name: str, value: Any, offset: int, size: int) -> TensorEntry:
    try:
        dtype = str(value["dtype"])
        shape = tuple(int(n) for n in value["shape"])
        begin, end = (int(n) for n in value["data_offsets"])
    except (TypeError, KeyError, ValueError) as error:
        raise _corrupt(file, f"its header entry for {name} is malformed") from error
    bits = _BITS.get(dtype)
    if bits is not None and math.prod(shape) * bits != (end - begin) * 8:
        raise _corrupt(file, f"{name} is {dtype}{list(shape)} but has {end - begin} bytes")
    if begin < 0 or end < begin or offset + end > size:
        raise _corrupt(
            file, f"{name} ends at byte {offset + end}, but the file has only {size} bytes"
        )
    return TensorEntry(file, dtype, shape, offset + begin, offset + end)


def _single_or_shards(directory: Path, name: str) -> tuple[Path, ...]:
    """`name` itself, else the shards that its index names (the order of transformers)."""
    single = directory / name
    index = directory / f"{name}{INDEX_SUFFIX}"
    if not index.is_file():
        return (single,) if single.is_file() else ()
    weight_map = _weight_map(index)
    shards = tuple(directory / shard for shard in sorted(set(weight_map.values())))
    if single.is_file():
        if single not in shards and all(shard.is_file() for shard in shards):
            raise CheckpointError(
                f"{directory} holds its weights twice, in {name} and in the {len(shards)} shards "
                f"of {index.name}, one of them left over from an earlier save; transformers would "
                f"read {name}. Move the older of the two away"
            )
        return (single,)
    for shard in shards:
        if not shard.is_file():
            count = sum(value == shard.name for value in weight_map.values())
            raise CheckpointError(
                f"{index.name} in {directory} names the shard {shard.name} ({count} tensors), "
                f"which is not there: copy it, or save the checkpoint again"
            )
    return shards


def check_index(directory: Path, tensors: dict[str, TensorEntry]) -> None:
    """Hold a sharded checkpoint's index against what its shards really contain.

    Raises:
        CheckpointError: the index names a tensor that its shard does not hold.
    """
    index = directory / f"{FULL[0]}{INDEX_SUFFIX}"
    if not index.is_file() or (directory / FULL[0]).is_file():
        return
    for name, shard in _weight_map(index).items():
        if name not in tensors or tensors[name].file.name != shard:
            raise CheckpointError(
                f"{index} says that tensor {name} is in {shard}, but it is not there: {_SAVE_AGAIN}"
            )


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> shard, of an index."""
    found = read_json(index).get("weight_map")
    if not (
        isinstance(found, dict) and found and all(isinstance(one, str) for one in found.values())
    ):
        raise CheckpointError(
            f"{index} has no weight_map that names a shard for each tensor: {_SAVE_AGAIN}"
        )
    return found


def unreadable(file: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{file} cannot be read ({error.strerror}): check its permissions, or copy it again"
    )


def _corrupt(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is truncated or corrupt: {what}. Copy or download it again, or save it again"
    )


_SAVE_AGAIN = "copy the checkpoint again, or save it again with save_pretrained"

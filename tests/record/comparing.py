"""Holds a run against its record: bit for bit on the same arithmetic, else within a tolerance."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

# Where another processor or BLAS adds in another order. Readouts are of order 10 nats in float32.
ELSEWHERE = 2e-3


def load(path: Path) -> dict[str, Any]:
    """A record as `save` wrote it."""
    record: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    return record


def save(path: Path, record: dict[str, Any]) -> None:
    """Write a record; floats as the shortest decimals that read back as the same."""
    text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    path.write_bytes(lzma.compress(text.encode(), preset=9))


def arithmetic(base: Path) -> str:
    """A hash of what this machine and its libraries compute: the logits of plain transformers on
    fixed ids, one thread, in shapes like the gate's. Nothing of forgetguard is in it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model.eval()
        seen = hashlib.sha256()
        for rows, length in ((1, 9), (2, 16), (32, 21)):
            ids = torch.arange(rows * length).view(rows, length) * 7 % model.config.vocab_size
            with torch.inference_mode():
                seen.update(model(ids).logits.numpy().tobytes())
        return seen.hexdigest()
    finally:
        torch.set_num_threads(threads)


def differences(
    recorded: Any, found: Any, tolerance: float = 0.0, where: str = ""
) -> Iterator[str]:
    """Every value that is not as recorded, as `path: recorded, found`; exactly where `tolerance`,
    absolute and relative, is 0."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in [*recorded, *(key for key in found if key not in recorded)]:
            missing = "<absent>"
            yield from differences(
                recorded.get(key, missing), found.get(key, missing), tolerance, f"{where}/{key}"
            )
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for place, (one, other) in enumerate(zip(recorded, found, strict=True)):
            yield from differences(one, other, tolerance, f"{where}[{place}]")
    elif not _same(recorded, found, tolerance):
        yield f"{where}: {recorded!r}, {found!r}"


def _same(recorded: Any, found: Any, tolerance: float) -> bool:
    if tolerance and type(recorded) is float and type(found) is float:
        return abs(recorded - found) <= tolerance * max(1.0, abs(recorded))
    return type(recorded) is type(found) and repr(recorded) == repr(found)

"""Keeps between runs what depends on the base and the prompts alone: importance, what the base
reads on clean and on counterfactual prompts, and its clean run below the circuit
(measures/lower_layers.py).

An entry is found by everything that its numbers depend on, and beside that by what the base at hand
has just read on the clean prompts, bit for bit: no other model's numbers, and none of another
machine that rounds otherwise, can be taken for this one's. What it reads on the clean prompts
themselves is held against a batch of them, and serves the run's family alone, never a verdict's
numbers. Entries carry their hash: one that was damaged, or half written, is measured again. Nothing
here can fail a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from forgetguard.anatomy.locate import Anatomy
from forgetguard.measures.interventions import FloatArray
from forgetguard.whole_files import replacing

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint

ENGINE = 1  # raised where the engine's numbers change
MOST_BYTES = 256 << 20  # of one cache folder; the entries used least lately go first
_PACKAGES = ("forgetguard", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Kept:
    """The entries of one base, as loaded here; they lie in `folder` and begin with `name`."""

    folder: Path
    name: str

    @classmethod
    def of(cls, base: Checkpoint, anatomy: Anatomy, cache: Path) -> Kept | None:
        """Those of an open base; None where its files do not say what it computes: an adapter's
        are not all of it, nor are those of a model with code of its own."""
        if base.spec.kind == "adapter" or base.options.trust_remote_code:
            return None
        parameter = next(anatomy.model.parameters())
        device = parameter.device
        about = {
            "engine": ENGINE,
            "versions": [metadata.version(name) for name in _PACKAGES],
            "base": asdict(base.fingerprint),
            "options": asdict(base.options),
            "dtype": str(parameter.dtype),
            "device": device.type,
            "processor": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "attention": getattr(anatomy.model.config, "_attn_implementation", ""),
        }
        text = json.dumps(about, sort_keys=True, default=str)
        return cls(cache / "base", hashlib.sha256(text.encode()).hexdigest()[:32])

    def load(self, key: str) -> FloatArray | None:
        """An entry, or None where there is none or it is damaged."""
        place = self._place(key)
        try:
            stored = place.read_bytes()
            digest, content = stored[:32], stored[32:]
            if hashlib.sha256(content).digest() != digest:
                return None
            values = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            with contextlib.suppress(OSError):
                os.utime(place)
            return np.asarray(values, dtype=np.float64)
        except (OSError, ValueError):
            return None

    def save(self, key: str, values: FloatArray) -> None:
        """Keep an entry, where that is possible."""
        written = io.BytesIO()
        np.save(written, values, allow_pickle=False)
        content = written.getvalue()
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._place(key)) as file:
                file.write(hashlib.sha256(content).digest() + content)

    def _place(self, key: str) -> Path:
        return self.folder / f"{self.name}-{key}"


def make_room(cache: Path) -> None:
    """Remove the entries used least lately, of all bases, until half of `MOST_BYTES` is left, where
    there is more than that."""
    with contextlib.suppress(OSError):
        listed = [(one, one.stat()) for one in (cache / "base").iterdir()]
        total = sum(state.st_size for _, state in listed)
        if total <= MOST_BYTES:
            return
        for place, state in sorted(listed, key=lambda one: one[1].st_mtime_ns):
            if total <= MOST_BYTES // 2:
                break
            place.unlink(missing_ok=True)
            total -= state.st_size

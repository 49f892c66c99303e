"""Keeps what has been computed on a base, so that an interrupted discovery goes on where it
stopped and a finished one is not repeated.

One folder an identity: a hash over the weights, the prompts in the base's own ids, the method and
all of its settings. Every file is written whole or not at all.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from forgetguard.anatomy.members import Member
from forgetguard.cache_folder import cache_folder
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.discovery.circuit import Found
from forgetguard.errors import MeasurementError
from forgetguard.measures.interventions import FloatArray
from forgetguard.measures.saved import digest
from forgetguard.whole_files import replacing

_FOUND = "found.json"


@functools.cache  # slow to make
def _found() -> TypeAdapter[Found]:
    return TypeAdapter(Found)


def identity(
    base: Mapping[str, str],
    capability: EncodedCapability,
    members: Sequence[Member],
    settings: Mapping[str, Any],
) -> str:
    """A name for all that a result depends on: `base` (fingerprints, dtype, device), the prompts'
    ids and readout, the members searched, the method with its settings, forgetguard's version."""
    pairs = [pair.ids for pair in capability.encoded.pairs]
    asked = capability.capability.readout, pairs, list(map(str, members))
    version = metadata.version("forgetguard")
    return digest((version, sorted(base.items()), *asked, sorted(settings.items())))


@dataclass(frozen=True, slots=True)
class Store:
    """The parts and the result of one discovery, in a folder of their own."""

    folder: Path

    @classmethod
    def open(cls, name: str, cache: Path | None = None) -> Store:
        """The store of identity `name`; the folder is made when something is saved."""
        return cls((cache or cache_folder()) / "discovery" / name)

    def load(self, key: str) -> FloatArray | None:
        """A part that was saved, or None. A damaged file counts as none."""
        try:
            with self._part(key).open("rb") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)
            return np.asarray(values, dtype=np.float64)
        except Exception:  # numpy's header parser raises a dozen kinds, down to TokenError
            return None

    def save(self, key: str, values: FloatArray) -> None:
        """Keep a part.

        Raises:
            MeasurementError: it cannot be written.
        """
        self._write(self._part(key), lambda file: np.save(file, values, allow_pickle=False))

    def load_found(self) -> Found | None:
        """The finished result, or None. A damaged file counts as none."""
        try:
            return _found().validate_json((self.folder / _FOUND).read_bytes())
        except (OSError, ValidationError):
            return None

    def save_found(self, found: Found) -> None:
        """Keep the finished result; the parts are no longer needed and are removed.

        Raises:
            MeasurementError: it cannot be written.
        """
        text = json.dumps(_found().dump_python(found), indent=1, default=list)
        self._write(self.folder / _FOUND, lambda file: file.write(text.encode()))
        for part in self.folder.glob("*.npy"):
            part.unlink(missing_ok=True)

    def _part(self, key: str) -> Path:
        return self.folder / f"{digest(key)}.npy"

    def _write(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                write(file)
        except OSError as error:
            raise MeasurementError(
                f"cannot keep finished work in {self.folder}: {error.strerror or error}; set "
                "FORGETGUARD_CACHE to a folder with room that you may write to"
            ) from error

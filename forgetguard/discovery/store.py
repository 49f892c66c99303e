"""Keeps what has been computed on a base, so that an interrupted discovery goes on where it
stopped and a finished one is not repeated.

One folder an identity: a hash over the weights, the prompts in the base's own ids, the method and
all of its settings. Every file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from forgetguard.anatomy.members import Member, parse_member
from forgetguard.cache_folder import cache_folder
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.discovery.circuit import Found, Stability
from forgetguard.discovery.curve import Curve
from forgetguard.discovery.ranking import Ranking
from forgetguard.errors import MeasurementError
from forgetguard.measures.interventions import FloatArray
from forgetguard.whole_files import replacing

_FOUND = "found.json"


def identity(
    base: Mapping[str, str],
    capability: EncodedCapability,
    members: Sequence[Member],
    settings: Mapping[str, Any],
) -> str:
    """A name for all that a result depends on: `base` (fingerprints, dtype, device), the prompts'
    ids and readout, the members searched, the method with its settings, forgetguard's version."""
    pairs = [pair.ids for pair in capability.encoded.pairs]
    content = {
        "version": metadata.version("forgetguard"),
        "base": dict(base),
        "readout": capability.capability.readout,
        "pairs": pairs,
        "members": [str(member) for member in members],
        "settings": dict(settings),
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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
            return found_from_dict(json.loads((self.folder / _FOUND).read_text("utf-8")))
        except Exception:  # whatever an unexpected value makes of `found_from_dict`
            return None

    def save_found(self, found: Found) -> None:
        """Keep the finished result; the parts are no longer needed and are removed.

        Raises:
            MeasurementError: it cannot be written.
        """
        text = json.dumps(found_to_dict(found), indent=1)
        self._write(self.folder / _FOUND, lambda file: file.write(text.encode()))
        for part in self.folder.glob("*.npy"):
            part.unlink(missing_ok=True)

    def _part(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"

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


def found_to_dict(found: Found) -> dict[str, Any]:
    """The result in plain values."""
    ranking, selected = found.ranking, found.ranking.selected
    return {
        "method": ranking.method,
        "settings": dict(ranking.settings),
        "scores": {str(member): score for member, score in ranking.scores.items()},
        "selected": None if selected is None else [str(member) for member in selected],
        "findings": dict(ranking.findings),
        "patched": sorted(map(str, ranking.patched)),
        "curve": asdict(found.curve),
        "circuit": [str(member) for member in found.circuit],
        "faithful": found.faithful,
        "accuracy": found.accuracy,
        "pairs": found.pairs,
        "seed": found.seed,
        "signed": found.signed,
        "stability": None if found.stability is None else asdict(found.stability),
        "chosen": None if found.chosen is None else dict(found.chosen),
    }


def found_from_dict(data: Mapping[str, Any]) -> Found:
    """The inverse of `found_to_dict` (raises what reading an unexpected value raises)."""
    selected = data["selected"]
    ranking = Ranking(
        {parse_member(name): float(score) for name, score in data["scores"].items()},
        data["method"],
        data["settings"],
        None if selected is None else tuple(map(parse_member, selected)),
        data["findings"],
        frozenset(map(parse_member, data["patched"])),
    )
    read = dict(data["curve"])
    curve = Curve(**{**read, **{of: tuple(read[of]) for of in ("sizes", "faithfulness", "low")}})
    circuit = tuple(map(parse_member, data["circuit"]))
    numbers = float(data["faithful"]), float(data["accuracy"])
    stability = data["stability"]
    return Found(
        ranking,
        curve,
        circuit,
        *numbers,
        int(data["pairs"]),
        int(data["seed"]),
        bool(data["signed"]),
        None if stability is None else Stability(**stability),
        data["chosen"],
    )

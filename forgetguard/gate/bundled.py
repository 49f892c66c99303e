"""The circuit files that are installed with forgetguard, and which of them fit a base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.adapters import named_base
from forgetguard.checkpoints.described import full_config
from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.suitability import fits_base

PACKAGE = "forgetguard_circuits"


def bundled_files() -> Iterator[Path]:
    """Every installed circuit file, by name."""
    try:
        folder = resources.files(PACKAGE)
    except ModuleNotFoundError:
        return
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".circuit.yaml"):
            yield Path(str(entry))


def is_bundled(path: Path) -> bool:
    """Whether a file is one of those installed with forgetguard."""
    return any(path.resolve() == one.resolve() for one in bundled_files())


def bundled_for(
    base: CheckpointSpec, options: LoadOptions, *, reference: bool = False
) -> tuple[tuple[Path, GateSpec], ...]:
    """The bundled circuits made for `base`, or, where there are none, those that fit any base.

    Those with limits against a third checkpoint are among them only where there is a `reference`.

    Raises:
        CheckpointError: the base cannot be read.
    """
    config = _config(base, options)
    weights = cache(lambda: fingerprint(base, options).weights)
    files = [(path, load_gate_file(path)) for path in bundled_files()]
    fitting = [
        (path, spec)
        for path, spec in files
        if fits_base(spec, config, weights, alias=base.given)
        and (reference or all(limit.over != "reference" for limit in spec.limits))
    ]
    own = [one for one in fitting if one[1].fits is None or not one[1].fits.any_base]
    return tuple(own or fitting)


def divided(found: Sequence[tuple[Path, GateSpec]], *, core: bool) -> tuple[list[Path], list[str]]:
    """Of the bundled circuits of a base, the files to judge and the names of the others: where
    `core`, and some are marked so, those are judged; else all."""
    marked = [path for path, spec in found if spec.core] if core else []
    judged = marked or [path for path, _ in found]
    return judged, [spec.name for path, spec in found if path not in judged]


def _config(base: CheckpointSpec, options: LoadOptions) -> Mapping[str, Any]:
    local = localise(base, options, weights=False)
    if local.kind == "adapter":  # of the same architecture and size
        local = localise(named_base(local), options, weights=False)
    return full_config(local)

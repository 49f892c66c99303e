"""Copies of a checkpoint with some tensors changed: real checkpoints, loaded like any other; and
random changes as large as fine-tuning's: Gaussian directions, matched norm by norm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from forgetguard.checkpoints.described import Described, describe
from forgetguard.checkpoints.fingerprint import same_tensors
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec, resolve_directory
from forgetguard.errors import CheckpointError
from forgetguard.gate.resampling import derive_seed
from forgetguard.measures.parameter_drift import WeightPair, norms

Change = Callable[[Tensor], Tensor]  # from a tensor of the checkpoint to what stands in the copy


def describe_plain(base: CheckpointSpec, options: LoadOptions) -> Described:
    """What a full checkpoint's files hold, tensor by tensor.

    Raises:
        CheckpointError: it is an adapter, or its weights are pickled.
    """
    found = describe(localise(base, options), options)
    if found.is_adapter or found.weights.pickled:
        what = "an adapter" if found.is_adapter else "pickled"
        raise CheckpointError(
            f"{base} is {what}, so a copy with changed tensors cannot be made of it: give a full "
            "checkpoint in safetensors (merge_and_unload, then save_pretrained)"
        )
    return found


def changed_copy(
    base: CheckpointSpec,
    directory: Path,
    changes: Mapping[str, Change],
    options: LoadOptions | None = None,
    *,
    role: str = "tuned",
) -> CheckpointSpec:
    """Write a copy of `base` into `directory` (made here), the tensors in `changes` changed.

    Files that nothing changes in are linked, so that of a sharded checkpoint only the shards that
    change take room. A second copy of a tied embedding changes with the first.

    Raises:
        CheckpointError: `base` is no full safetensors checkpoint, or lacks a tensor in `changes`.
        OSError: the copy cannot be written.
    """
    described = describe_plain(base, options or LoadOptions())
    missing = sorted(changes.keys() - described.tensors.keys())
    if missing:
        raise CheckpointError(f"{base} has no tensor {missing[0]}: it has {len(described.tensors)}")
    changes = {**changes, **_tied(described, changes)}
    touched = {described.tensors[name].file for name in changes}
    directory.mkdir(parents=True)
    for file in sorted(described.directory.iterdir()):
        if file in touched:
            _rewrite(file, directory / file.name, changes)
        elif file.is_file():
            _link(file, directory / file.name)
    return resolve_directory(directory, given=str(directory), role=role)


@contextmanager
def temporary_copy(
    base: CheckpointSpec,
    changes: Mapping[str, Change],
    options: LoadOptions | None = None,
    *,
    role: str = "tuned",
) -> Iterator[CheckpointSpec]:
    """A `changed_copy` that is gone after the block ($TMPDIR says where it lies)."""
    with TemporaryDirectory(prefix="forgetguard-") as folder:
        try:
            copy = changed_copy(base, Path(folder) / "copy", changes, options, role=role)
        except OSError as error:
            raise CheckpointError(
                f"a changed copy of {base} cannot be written to {folder} ({error.strerror}): set "
                "TMPDIR to a folder with room for it"
            ) from error
        yield copy


def _tied(described: Described, changes: Mapping[str, Change]) -> dict[str, Change]:
    """Changes of tensors that are byte copies of one that changes, as tied embeddings saved twice
    are: transformers would not tie them any more if only one of them changed."""
    tables = {
        name: entry
        for name, entry in described.tensors.items()
        if len(entry.shape) == 2 and name not in changes
    }
    return {
        twin: change
        for name, change in changes.items()
        if len(described.tensors[name].shape) == 2
        for twin, entry in tables.items()
        if entry.shape == described.tensors[name].shape
        and same_tensors({"": entry}, {"": described.tensors[name]})
    }


def _rewrite(source: Path, target: Path, changes: Mapping[str, Change]) -> None:
    with safe_open(source, framework="pt") as opened:
        names = list(opened.keys())
        kept = opened.metadata() or {"format": "pt"}
        tensors = {name: opened.get_tensor(name) for name in names}
    for name in tensors.keys() & changes.keys():
        before = tensors[name]
        after = changes[name](before)
        if after.shape != before.shape:
            raise CheckpointError(
                f"{name} is {list(before.shape)}, its change {list(after.shape)}: keep the shape"
            )
        tensors[name] = after.contiguous()
    save_file(tensors, target, metadata=kept)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # a file system, or a user, without links
        shutil.copyfile(source, target)


@dataclass(frozen=True, slots=True)
class Moved:
    """How far tuning moved one tensor: the Frobenius norm of tuned - base (in the weights' units)
    over `shape`, which has fewer rows than the tensor where vocabularies differ."""

    norm: float
    shape: tuple[int, ...]


def moved(pairs: Iterable[WeightPair]) -> dict[str, Moved]:
    """The tensors that tuning changed, by their names in the base; norms in float64.

    Raises:
        MeasurementError: a change is not finite.
        CheckpointError: a file cannot be read.
    """
    found = {pair.name: Moved(norms(pair)[0], pair.shape) for pair in pairs}
    return {name: one for name, one in found.items() if one.norm > 0}


def matched(direction: Float[Tensor, "*shape"], norm: float) -> Float[Tensor, "*shape"]:
    """`direction` at Frobenius norm `norm`, float64 (0 where the direction is 0)."""
    direction = direction.double()
    size = torch.linalg.vector_norm(direction)
    return direction * (norm / size) if size > 0 else direction


def perturbation(changes: Mapping[str, Moved], seed: int) -> dict[str, Change]:
    """One random direction: for every tensor that tuning moved, a Gaussian one of its norm.

    Each tensor has draws of its own, told by `seed` and its name. Stored in float32 at least, so
    that rounding does not eat a small change.
    """
    return {name: _gaussian(one, derive_seed(seed, name)) for name, one in changes.items()}


def _gaussian(moved: Moved, seed: int) -> Change:
    def change(tensor: Tensor) -> Tensor:
        drawn = torch.randn(moved.shape, generator=torch.Generator().manual_seed(seed))
        result = tensor.to(torch.float64, copy=True)
        rows = result[: moved.shape[0]] if moved.shape else result
        rows += matched(drawn, moved.norm)
        return result.to(stored_dtype(tensor))

    return change


def stored_dtype(tensor: Tensor) -> torch.dtype:
    """The number format in which a changed tensor is written: its own, but at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)

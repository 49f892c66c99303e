"""From what a user writes (`base=...`) to what kind of checkpoint it is and where it lies."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from forgetguard.checkpoints.files import FULL, INDEX_SUFFIX, gguf_in, gguf_step, read_json
from forgetguard.errors import CheckpointError, some

Kind = Literal["directory", "hub", "adapter"]

TINY = ("base", "sft", "rl", "lora")
ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"
_FULL_WEIGHTS = {*FULL, *(f"{name}{INDEX_SUFFIX}" for name in FULL)}
_HUB_ID = re.compile(r"(?P<id>[\w][\w.-]*(?:/[\w][\w.-]*)?)(?:@(?P<revision>[\w][\w./-]*))?")
_OF_HUB_CACHE = "models--"
_LISTED = 12


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """One checkpoint, named but not loaded.

    Attributes:
        role: `base`, `tuned` or `reference`.
        given: what the user wrote, for messages.
        kind: `directory` (a full checkpoint on this disk), `adapter` (a peft adapter on this
            disk) or `hub` (a hub id; what it holds is only known once it is on this disk).
        location: absolute path of the directory, or the hub id without its revision.
        revision: branch, tag or commit of a hub id.
        base: for an adapter, the base its `adapter_config.json` names (None when it names none).
            When a pair is measured the user's own base is used, and this name only compared.
    """

    role: str
    given: str
    kind: Kind
    location: str
    revision: str | None = None
    base: str | None = None

    @property
    def directory(self) -> Path:
        """The directory of a checkpoint on this disk (raises ValueError for a hub id)."""
        if self.kind == "hub":
            raise ValueError(f"{self.given} is a hub id, not a directory")
        return Path(self.location)

    def __str__(self) -> str:
        return f"{self.role}={self.given}"


def resolve(given: str, role: str) -> CheckpointSpec:
    """Say what kind of checkpoint `given` is. Reads directories, never the network.

    In this order: an alias (`tiny:base`), a directory that exists, something that can only be
    a path (not there: an error), a hub id `org/name`, with `@revision` where wanted.

    Raises:
        CheckpointError: nothing is there, or a directory holds no checkpoint.
    """
    text = str(given).strip()
    if not text:
        raise CheckpointError(f"{role}= is empty: give a directory, a hub id or tiny:base")
    if text.startswith("tiny:"):
        return _resolve_alias(text, role)
    path = Path(text).expanduser()
    if path.is_dir():
        return resolve_directory(path, given=text, role=role)
    if path.suffix == ".gguf" and path.is_file():
        raise CheckpointError(f"{role}={text} is no checkpoint: {gguf_step(path.resolve())}")
    if path.exists():
        holds = any((path.parent / name).is_file() for name in (CONFIG, ADAPTER_CONFIG))
        step = f": give {role}={path.parent}" if holds else ""
        if path.suffix in (".yaml", ".yml"):
            step = "; a file of gates is called NAME.circuit.yaml or NAME.gate.yaml"
        raise CheckpointError(
            f"{role}={text} is a file; a checkpoint is the directory that holds config.json "
            f"and the weights{step}"
        )
    if _looks_like_a_path(text):
        raise CheckpointError(
            f"{role}={text}: no such directory (looked for {_absolute(path)}); {_nearest(path)}"
        )
    return _resolve_hub_id(text, role)


def resolve_directory(path: Path, *, given: str, role: str) -> CheckpointSpec:
    """The spec of a directory that exists: an adapter, or a full checkpoint.

    Raises:
        CheckpointError: it holds neither; the message lists what it does hold.
    """
    location = _absolute(path)
    names = sorted(entry.name for entry in path.iterdir())
    has_full_weights = CONFIG in names and not _FULL_WEIGHTS.isdisjoint(names)
    if ADAPTER_CONFIG in names and has_full_weights:
        raise CheckpointError(
            f"{role}={given}: {location} holds a full checkpoint and a peft adapter too "
            f"({ADAPTER_CONFIG}), and transformers would add the one to the other: move one of "
            f"them to a directory of its own"
        )
    if ADAPTER_CONFIG in names:
        named = read_json(path / ADAPTER_CONFIG).get("base_model_name_or_path")
        base = named if isinstance(named, str) and named else None
        return CheckpointSpec(role, given, "adapter", location, base=base)
    if CONFIG in names:
        return CheckpointSpec(role, given, "directory", location)
    raise CheckpointError(f"{role}={given}: {_no_checkpoint(path, names, role)}")


def _no_checkpoint(path: Path, names: list[str], role: str) -> str:
    """Why a directory is none, and what to give instead."""
    location, gguf = _absolute(path), gguf_in(path)
    if gguf is not None:
        return f"{location} holds no checkpoint but {gguf.name}: {gguf_step(gguf.resolve())}"
    ids = [_hub_id_of(name) for name in names if name.startswith(_OF_HUB_CACHE)]
    if ids:
        return (
            f"{location} is a cache of the Hugging Face hub: give the model by its hub id, such as "
            f"{role}={ids[0]} (there are {some(ids, _LISTED)})"
        )
    inner = _inner_checkpoint(path)
    if path.resolve().name.startswith(_OF_HUB_CACHE) and inner is not None:
        return (
            f"{location} is a model's folder in the cache of the Hugging Face hub: give the "
            f"snapshot in it, {role}={inner}, or {role}={_hub_id_of(path.resolve().name)}"
        )
    return (
        f"{location} holds no checkpoint. Found: {some(names, _LISTED)}. Needed: config.json with "
        f"model.safetensors (or its shards and index), or a peft adapter's {ADAPTER_CONFIG} with "
        f"adapter_model.safetensors{f'; did you mean {role}={inner}?' if inner else ''}"
    )


def _resolve_alias(text: str, role: str) -> CheckpointSpec:
    name = text.removeprefix("tiny:")
    if name not in TINY:
        known = ", ".join(f"tiny:{known}" for known in TINY)
        raise CheckpointError(f"{role}={text}: no such alias; the embedded checkpoints are {known}")
    path = Path(__file__).parent / "tiny" / name
    if not path.is_dir():
        raise CheckpointError(
            f"{role}={text}: this installation lacks the embedded checkpoints (no {path}); "
            f"install forgetguard again"
        )
    return resolve_directory(path, given=text, role=role)


def _resolve_hub_id(text: str, role: str) -> CheckpointSpec:
    match = _HUB_ID.fullmatch(text)
    if match is None:
        raise CheckpointError(
            f"{role}={text} is neither a directory that exists nor a hub id: give a directory, "
            f"org/name, or org/name@revision"
        )
    return CheckpointSpec(role, text, "hub", match["id"], revision=match["revision"])


def _looks_like_a_path(text: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    name = text.partition("@")[0]
    return (
        text.startswith((".", "~", *separators))
        or text.endswith(separators)
        or sum(map(name.count, separators)) > 1
        or Path(text).is_absolute()
    )


def _absolute(path: Path) -> str:
    return str(path.resolve())


def _nearest(path: Path) -> str:
    """The next step for a path that is not there: where it stops to exist."""
    parent = Path(_absolute(path)).parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    try:
        names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    except OSError:
        names = []
    if not names:
        return f"there are no directories in {parent}"
    return f"{parent} has the directories: {some(names, _LISTED)}"


def _hub_id_of(name: str) -> str:
    """`org/name` of the folder `models--org--name`."""
    return name.removeprefix(_OF_HUB_CACHE).replace("--", "/", 1)


def _inner_checkpoint(path: Path) -> Path | None:
    """`checkpoint-500/` and the like, when a training output directory was given; the snapshot that
    `main` is, or else the newest, of a model's folder in the hub's cache."""
    inner = [
        child
        for child in (*path.glob("*"), *path.glob("snapshots/*"))
        if child.is_dir() and ((child / CONFIG).is_file() or (child / ADAPTER_CONFIG).is_file())
    ]
    main = path / "refs" / "main"
    current = main.read_text(errors="replace").strip() if main.is_file() else ""
    return max(inner, key=lambda one: (one.name == current, one.stat().st_mtime), default=None)

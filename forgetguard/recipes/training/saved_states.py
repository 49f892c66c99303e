"""Checkpoints along the way: which of them are whole, and how much of each is kept.

The trainer writes a checkpoint file by file, so one that a kill cut short looks like any other. A
checkpoint counts only once its marker is there, written last, with the name and size of every file.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.whole_files import write_text

MARKER = "complete.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")
# What only going on from a checkpoint needs; the rest is the model as it stood there.
_RESUME_ONLY = re.compile(
    r"optimizer.*|scheduler\.pt|scaler\.pt|rng_state.*\.pth|trainer_state\.json|training_args\.bin"
    r"|global_step\d+|zero_to_fp32\.py|latest"
)
_NOT_THE_MODEL = re.compile(rf"{re.escape(MARKER)}|README\.md")


@dataclass(frozen=True, slots=True)
class SavedState:
    """A whole checkpoint: where it is, the updates behind it, the seconds that they took, and
    whether training can go on from it (old ones keep their weights alone)."""

    folder: Path
    step: int
    seconds: float
    resumable: bool

    def model_files(self) -> list[Path]:
        """The files of the model and its tokenizer."""
        return sorted(
            path
            for path in self.folder.iterdir()
            if not _RESUME_ONLY.fullmatch(path.name) and not _NOT_THE_MODEL.fullmatch(path.name)
        )


def mark(folder: Path, step: int, seconds: float, *, resumable: bool = True) -> None:
    """Say that the checkpoint in `folder` is whole as it is now.

    Raises:
        OSError: the marker cannot be written.
    """
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
        and (resumable or not _RESUME_ONLY.fullmatch(path.relative_to(folder).parts[0]))
    }  # fmt: skip
    content = {"step": step, "seconds": seconds, "resumable": resumable, "files": files}
    write_text(folder / MARKER, json.dumps(content, indent=1) + "\n")


def saved_states(run: Path) -> list[SavedState]:
    """The whole checkpoints in a run's folder, by their step."""
    if not run.is_dir():
        return []
    found = [_read(path) for path in run.iterdir() if _FOLDER.fullmatch(path.name)]
    return sorted((one for one in found if one is not None), key=lambda one: one.step)


def newest(run: Path) -> SavedState | None:
    """The last checkpoint from which training can go on."""
    resumable = [one for one in saved_states(run) if one.resumable]
    return resumable[-1] if resumable else None


def _read(folder: Path) -> SavedState | None:
    try:
        content: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        whole = all(
            (folder / name).stat().st_size == size for name, size in content["files"].items()
        )
        if not whole:
            return None
        return SavedState(
            folder, int(content["step"]), float(content["seconds"]), bool(content["resumable"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_incomplete(run: Path) -> None:
    """Take away what a kill cut short; the steps are trained again."""
    whole = {one.folder for one in saved_states(run)}
    for path in run.iterdir():
        if _FOLDER.fullmatch(path.name) and path not in whole:
            shutil.rmtree(path)


def strip(run: Path, *, keep: int) -> None:
    """Keep what resuming needs in the last `keep` checkpoints, and the model alone in the others.

    Raises:
        OSError: a marker cannot be written.
    """
    states = saved_states(run)
    for state in states[: len(states) - keep]:
        if state.resumable:  # the marker first: a kill in between leaves a checkpoint that is true
            mark(state.folder, state.step, state.seconds, resumable=False)
        for path in state.folder.iterdir():
            if _RESUME_ONLY.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

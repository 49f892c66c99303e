"""Whose folder a run writes to: what the folder says of the run in it, and what may go on there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.errors import CheckpointError, SpecificationError
from forgetguard.recipes.training.logs import LOSSES, ROLLOUTS
from forgetguard.recipes.training.settings import TrainingSettings, as_dict

FINAL = "final"
RUN = "run.json"
_CHECKPOINTS = ("base", "start")
_SHOWN = 4


def refuse_foreign(run: Path) -> None:
    """Raises SpecificationError where the folder holds something that no run has put there. Hidden
    files, such as .gitkeep or a lock, may be in it; in the folder of a run anything may."""
    try:
        found = sorted(path.name for path in run.iterdir() if not path.name.startswith("."))
    except OSError:
        return  # not there yet, or no folder: `alone` says it
    if not found or RUN in found:
        return
    if any(name == FINAL or name.startswith("checkpoint-") for name in found):
        raise SpecificationError(
            f"output {run} holds checkpoints of another program (there is no {RUN}): name "
            f"another folder"
        )
    shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    raise SpecificationError(
        f"output {run} holds something else than a run ({shown}; there is no {RUN}): name a "
        f"folder that is empty or not there yet"
    )


def identity(settings: TrainingSettings, data: str) -> dict[str, Any]:
    """All that the result depends on, in plain values."""
    plain = as_dict(settings)
    del plain["output"]
    base = full_base(settings.base)
    start = settings.start and localise(resolve(settings.start, "start"))
    return {
        "settings": plain,
        "data": data,
        "base": asdict(fingerprint(base)),
        "start": asdict(fingerprint(start)) if start else None,
    }


def full_base(given: str) -> CheckpointSpec:
    """The base that training starts from, on this disk (raises CheckpointError: it is not there, or
    an adapter)."""
    spec = localise(resolve(given, "base"))
    if spec.kind == "adapter":
        raise CheckpointError(
            f"{spec} is an adapter, and training needs a full checkpoint as its base: merge it "
            f"(merge_and_unload, then save_pretrained), or give the base and sft-rl's start"
        )
    return spec


def known(run: Path) -> dict[str, Any]:
    """What the folder says about the run in it; empty where it says nothing."""
    file = run / RUN
    if not file.exists():
        return {}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return {"settings": dict(known["settings"]), **known}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}), so the run in {run} cannot be gone on with: move "
            f"the folder away and train again"
        ) from error


def refuse_another(run: Path, asked: Mapping[str, Any]) -> None:
    """Raises SpecificationError where the folder holds another run than `asked` (`identity`), of
    which something has been trained."""
    there = known(run)
    if not there or not _begun(run):
        return
    different = [
        f"{key} was {_shown(there['settings'], key)} there and is {_shown(asked['settings'], key)}"
        for key in {**there["settings"], **asked["settings"]}
        if key not in _CHECKPOINTS and there["settings"].get(key) != asked["settings"].get(key)
    ]
    if there["data"] != asked["data"]:
        different.append("the training data are others")
    for key in _CHECKPOINTS:  # where they lie is no part of a run: folders are moved, and cached
        if there[key] != asked[key]:
            was, now = _shown(there["settings"], key), _shown(asked["settings"], key)
            different.append(
                f"the checkpoint given as {key} has changed"
                if was == now
                else f"{key} was {was} there and is {now}, which is another checkpoint"
            )
    if different:
        raise SpecificationError(
            f"output {run} holds another run: {'; '.join(different)}. Name another folder, or "
            f"move that one away"
        )


def _begun(run: Path) -> bool:
    """Whether there is anything that training left."""
    logged = any(
        (run / name).exists() and (run / name).stat().st_size for name in (LOSSES, ROLLOUTS)
    )
    return logged or (run / FINAL).exists() or any(run.glob("checkpoint-*"))


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key]) if key in settings else "not given"

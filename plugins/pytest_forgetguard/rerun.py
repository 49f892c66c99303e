"""The shell command that runs one gate again with the options in force."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from pytest_forgetguard.arguments import FLAG
from pytest_forgetguard.settings import Settings


def rerun_command(settings: Settings, path: Path, names: str, start: Path, family: int = 1) -> str:
    """`pytest --forgetguard base=... tuned=... file::circuit::limit`, quoted for a POSIX shell, to
    be run in `start`. The results file is left out: one gate must not overwrite all of them.
    `family`: the limits that shared the run's false-alarm rate; alone it must decide as it did."""
    words = ["pytest", FLAG, f"base={settings.base}", f"tuned={settings.tuned}"]
    if settings.reference is not None:
        words.append(f"reference={settings.reference}")
    words += _options(settings)
    words += [f"{FLAG}-family={family}"] * (family > 1 or settings.family is not None)
    relative = os.path.relpath(path, start)
    words.append(f"{path if relative.startswith('..') else relative}{names}")
    return shlex.join(words)


def _options(settings: Settings) -> list[str]:
    values = {
        "device": settings.device,
        "device-map": settings.device_map,
        "dtype": settings.dtype if settings.dtype != "float32" else None,
        "seed": str(settings.seed) if settings.seed else None,
        "prompt-seed": None if settings.prompt_seed is None else str(settings.prompt_seed),
        "controls": str(settings.controls) if settings.controls else None,
        "baseline": str(settings.baseline) if settings.baseline else None,
    }
    switches = {
        "allow-same": settings.allow_same,
        "trust-remote-code": settings.trust_remote_code,
        "allow-pickle": settings.allow_pickle,
        "merge-adapter": settings.merge_adapter,
        "allow-abstain": settings.allow_abstain,
    }
    words = [f"{FLAG}-{name}={value}" for name, value in values.items() if value is not None]
    return words + [f"{FLAG}-{name}" for name, on in switches.items() if on]

"""`forgetguard doctor`: whether this machine can run the gate, and what to mend where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from forgetguard.cache_folder import cache_folder
from forgetguard.cli.command import DONE, FAILED, STATUSES, Job, adder, command
from forgetguard.cli.inspect import show
from forgetguard.errors import SpecificationError, first_line

EPILOG = f"""\
Status 1: something would stop a run.

examples:
  forgetguard doctor
  forgetguard doctor --json

{STATUSES}"""
_LITTLE_DISK = 1e9  # bytes

Problems = list[dict[str, Any]]


def _options(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.usage = "forgetguard doctor [--json]"
    adder(parser)("--json", "", "as JSON")


def _prepare(asked: Namespace) -> Job:
    if asked.tokens:
        raise SpecificationError(f"takes no arguments, got {' '.join(asked.tokens)}")

    def job() -> int:
        found = examine()
        problems = found["problems"]
        if not asked.json:
            for one in found.pop("problems"):
                kind = "PROBLEM" if one["stops"] else "note"
                sys.stdout.write(f"{kind}: {one['what']}\n  next: {one['next']}\n\n")
        show(found, as_json=asked.json)
        return FAILED if any(one["stops"] for one in problems) else DONE

    return job


def examine() -> dict[str, Any]:
    """Versions, devices, cache and plugin in plain values. `problems`, those that stop a run first:
    `what` it is, whether it `stops` a run, and what to do `next`."""
    problems: Problems = []
    found = {
        "problems": problems,
        "forgetguard": metadata.version("forgetguard"),
        "python": sys.version.partition(" ")[0],
        "packages": _packages(problems),
        "devices": _devices(problems),
        "cache": _cache(problems),
        "pytest_plugin": _is_loaded(problems),
    }
    problems.sort(key=lambda one: not one["stops"])
    return found


def _add(problems: Problems, what: str, step: str, *, stops: bool = True) -> None:
    problems.append({"what": what, "stops": stops, "next": step})


def _packages(problems: Problems) -> dict[str, str]:
    """The versions of what forgetguard declares; of extras only what is installed."""
    found = {}
    for one in map(Requirement, metadata.requires("forgetguard") or ()):
        extra = one.marker is not None and not one.marker.evaluate({"extra": ""})
        if extra and 'extra == "dev"' in str(one.marker):
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            version = ""
        if extra and not version:
            continue
        found[one.name] = version or "not installed"
        if not version or not one.specifier.contains(version, prereleases=True):
            what = f"{one.name} is {found[one.name]}, and {one.specifier} is needed"
            step = f"pip install '{one.name}{one.specifier}'"
            _add(problems, what, step, stops=not extra)
    return found


def _devices(problems: Problems) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"cpu": f"{cores} cores"}
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        found["memory"] = size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        import torch

        for at in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(at)
            name = torch.cuda.get_device_name(at)
            found[f"cuda:{at}"] = f"{name}, {size(free)} of {size(total)} free"
        if torch.backends.mps.is_available():
            found["mps"] = "yes"
    except Exception as error:  # a broken installation raises anything
        step = "install torch for this machine: https://pytorch.org/get-started/locally"
        _add(problems, f"torch cannot be used ({first_line(error)})", step)
    return found


def _cache(problems: Problems) -> dict[str, str]:
    """A run goes on without a cache, more slowly."""
    try:
        folder = cache_folder()
    except RuntimeError as error:  # switched off, or no home folder
        return {"folder": str(error)}
    there = next(one for one in (folder, *folder.resolve().parents) if one.exists())
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(there).free
    try:  # root may write everywhere, if asked
        tempfile.TemporaryFile(dir=there).close()
    except OSError:
        what = f"the cache folder {folder} cannot be written: every run measures the base anew"
        _add(problems, what, "set FORGETGUARD_CACHE to another folder", stops=False)
    if free < _LITTLE_DISK:
        _add(problems, f"{size(free)} of disk are free at {there}", "make room", stops=False)
    return {"folder": str(folder), "size": size(used), "free_disk": size(free)}


def _is_loaded(problems: Problems) -> bool:
    """Whether pytest, as it starts in this folder, knows the gate."""
    command = [sys.executable, "-m", "pytest", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "--forgetguard" in done.stdout:
        return True
    why = f" ({done.stderr.strip().splitlines()[-1]})" if done.stderr.strip() else ""
    step = (
        "look for PYTEST_DISABLE_PLUGIN_AUTOLOAD or `-p no:forgetguard` in the environment and in "
        "pytest's ini file, or install forgetguard where this pytest is"
    )
    _add(problems, f"pytest does not load the plugin in this folder{why}", step)
    return False


def size(count: float) -> str:
    """Bytes, for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


COMMAND = command("doctor", _options, _prepare)

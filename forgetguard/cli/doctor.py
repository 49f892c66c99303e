"""`forgetguard doctor`: whether this machine can run the gate, and what to mend where it cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from importlib import metadata
from pathlib import Path
from typing import Any

from forgetguard.cache_folder import cache_folder, is_off
from forgetguard.cli.command import DONE, FAILED, STATUSES, Command, Job
from forgetguard.cli.inspect import listed
from forgetguard.errors import SpecificationError, first_line

EPILOG = f"""\
examples:
  forgetguard doctor
  forgetguard doctor --json

{STATUSES}"""
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?([^;]*)(?:;.*extra == ['\"]([\w-]+)['\"])?")
_LITTLE_DISK = 1e9  # bytes


def _options(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.usage = "forgetguard doctor [--json]"
    parser.add_argument("tokens", nargs="*", help="none")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _prepare(asked: Namespace) -> Job:
    if asked.tokens:
        raise SpecificationError(f"takes no arguments, got {' '.join(asked.tokens)}")

    def job() -> int:
        found = examine()
        problems = found["problems"]
        if asked.json:
            sys.stdout.write(json.dumps(found, indent=2) + "\n")
        else:
            told = [f"{'PROBLEM' if one['stops'] else 'note'}: {one['what']}\n  {one['next']}"
                    for one in problems]  # fmt: skip
            facts = {name: value for name, value in found.items() if name != "problems"}
            sys.stdout.write("\n".join([*told, *[""] * bool(told), *listed(facts)]) + "\n")
        return FAILED if any(one["stops"] for one in problems) else DONE

    return job


def examine() -> dict[str, Any]:
    """Versions, devices, cache and plugin in plain values. `problems`, those that stop a run first:
    what it is, whether it stops a run, and the next step."""
    packages, wrong = _packages()
    devices, no_torch = _devices()
    cache, of_cache = _cache()
    plugin, unloaded = _plugin()
    problems = [*wrong, *no_torch, *unloaded, *of_cache]
    return {
        "problems": sorted(problems, key=lambda one: not one["stops"]),
        "python": sys.version.partition(" ")[0],
        "packages": packages,
        "devices": devices,
        "cache": cache,
        "pytest_plugin": plugin,
    }


def _problem(what: str, step: str, *, stops: bool = True) -> dict[str, Any]:
    return {"what": what, "stops": stops, "next": step}


def _packages() -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The versions of what forgetguard declares, and those outside of the declared range."""
    found, problems = {}, []
    for line in metadata.requires("forgetguard") or ():
        name, wanted, extra = _REQUIREMENT.fullmatch(line.strip()).groups()  # type: ignore[union-attr]
        if extra == "dev":
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "not installed"
        needed = f" (needs {wanted.strip()})" if not _within(version, wanted) else ""
        found[name] = version + (needed or f" (for {extra})" * bool(extra))
        if needed and not (extra and version == "not installed"):
            problems.append(
                _problem(f"{name} is {version}, {wanted.strip()} is needed",
                         f"pip install '{name}{wanted.strip()}'", stops=not extra)
            )  # fmt: skip
        elif needed:
            found[name] = f"not installed (only for forgetguard[{extra}])"
    return found, problems


def _within(version: str, wanted: str) -> bool:
    """Whether a version is in a range of `>=` and `<`, by its numbers alone."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", re.split(r"[+a-z]", text)[0])]

    mine = numbers(version)
    return bool(mine) and all(
        (mine >= numbers(bound)) if kind == ">=" else (mine < numbers(bound))
        for kind, bound in re.findall(r"(>=|<)\s*([\d.]+)", wanted)
    )


def _devices() -> tuple[dict[str, str], list[dict[str, Any]]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {_size(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))} of memory"
    found = {"cpu": f"{cores} cores{memory}"}
    try:
        import torch

        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            found[f"cuda:{index}"] = f"{name}, {_size(free)} of {_size(total)} free"
        if torch.backends.mps.is_available():
            found["mps"] = "yes"
    except Exception as error:  # a broken installation raises anything
        step = "install torch for this machine: https://pytorch.org/get-started/locally"
        return found, [_problem(f"torch cannot be used ({first_line(error)})", step)]
    return found, []


def _cache() -> tuple[dict[str, str], list[dict[str, Any]]]:
    if is_off():
        return {"folder": "off (FORGETGUARD_CACHE=off)"}, []
    try:
        folder = cache_folder()
    except RuntimeError as error:
        return {"folder": str(error)}, [_problem(str(error), "set FORGETGUARD_CACHE", stops=False)]
    there = next(one for one in (folder, *folder.resolve().parents) if one.is_dir())
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(there).free
    problems = []
    if not os.access(there, os.W_OK | os.X_OK):
        problems.append(_problem(f"the cache folder {folder} cannot be written: every run "
                                 "measures the base anew", "set FORGETGUARD_CACHE to another folder",
                                 stops=False))  # fmt: skip
    if free < _LITTLE_DISK:
        problems.append(_problem(f"{_size(free)} of disk are free at {there}", "make room",
                                 stops=False))  # fmt: skip
    return {"folder": str(folder), "size": _size(used), "free disk": _size(free)}, problems


def _plugin() -> tuple[str, list[dict[str, Any]]]:
    """Whether pytest, as it starts in this folder, knows the gate."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=False
    )
    if "--forgetguard" in done.stdout:
        return f"loaded by pytest in {Path.cwd()}", []
    why = (done.stderr.strip().splitlines() or ["it is switched off"])[-1]
    step = (
        "look for PYTEST_DISABLE_PLUGIN_AUTOLOAD or `-p no:forgetguard` in the environment and in "
        "pytest's ini file, or install forgetguard into the environment of this pytest"
    )
    return "not loaded", [_problem(f"pytest does not load the plugin here: {why}", step)]


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


COMMAND = Command("doctor", "say whether this machine can run the gate, problems first", _options,
                  _prepare)  # fmt: skip

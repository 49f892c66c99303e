"""`forgetguard init [DIR] [base=CHECKPOINT]`: a starter folder of gates, the user's to edit."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from importlib import resources
from pathlib import Path

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import ADAPTER_CONFIG, CONFIG, CheckpointSpec
from forgetguard.cli import discover
from forgetguard.cli.checkpoints import add_load_options, read_asked, written
from forgetguard.cli.command import DONE, INTERRUPTED, STATUSES, Job, adder, command, say
from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.gate.bundled import bundled_files, bundled_for, divided
from forgetguard.gate.declaration import FilePairs, GateSpec, TaskPairs
from forgetguard.gate.schema import load_gate_file
from forgetguard.whole_files import write_text

_DIR = "gate"
_CHECKPOINT = (CONFIG, ADAPTER_CONFIG)
# By their place under DIR, as package data beside this file.
_STARTER = {
    "behaviour.gate.yaml": "behaviour.gate.yaml",
    "prompts/behaviour.jsonl": "behaviour.jsonl",
    "forgetguard.yml": "workflow.yml",
    "README.md": "README.md",
}
EPILOG = f"""\
Bundled circuits are copied: those that were made for base=, or without it those that fit any base.
For another base circuits are looked for (minutes; the same command goes on after Ctrl-C). Files
that are there already are left alone.

examples:
  forgetguard init
  forgetguard init release-gate base=Qwen/Qwen2.5-0.5B-Instruct

{STATUSES}"""


def _options(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.usage = f"forgetguard init [DIR] [base=CHECKPOINT] [options]; DIR: {_DIR} if not given"
    add = adder(parser)
    add("tokens", "[DIR] [base=CHECKPOINT]", "see above", nargs="*")
    add("--json", "", "what was written and left, as JSON")
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    specs, options, folders = read_asked(asked, (), ("base",))
    if len(folders) > 1:
        raise SpecificationError(f"takes one folder, got {' '.join(folders)}")
    folder = Path(folders[0] if folders else _DIR)
    if folders and (":" in folders[0] or any((folder / one).is_file() for one in _CHECKPOINT)):
        raise SpecificationError(
            f"{folders[0]} is a checkpoint, no folder for gates: forgetguard init base={folders[0]}"
        )
    return lambda: _write_all(folder, specs.get("base"), options, as_json=asked.json)


def _write_all(
    folder: Path, base: CheckpointSpec | None, options: LoadOptions, *, as_json: bool
) -> int:
    """Write what is not there yet, and say what was done; returns the exit status."""
    done: dict[str, list[str]] = {"written": [], "left": [], "not_had": []}
    named, circuits = base.given if base else "BASE", folder / "circuits"
    for under, name in _STARTER.items():
        text = resources.files("forgetguard.cli").joinpath("starter", name).read_text("utf-8")
        text = text.replace("@DIR@", folder.as_posix()).replace("@BASE@", named)
        _write(folder / under, text, done)
    every = [(path, load_gate_file(path)) for path in bundled_files()]
    any_base = [one for one in every if one[1].fits is not None and one[1].fits.any_base]
    judged, _ = divided(found := bundled_for(base, options) if base else any_base, core=True)
    for path, spec in [one for one in found if one[0] in judged]:
        if base is not None and spec.auto:
            _discover(circuits / f"{spec.capability}.circuit.yaml", base, options, spec, done)
            continue
        _write(circuits / path.name, path.read_text("utf-8"), done)
        if isinstance(spec.pairs, FilePairs):
            prompts = spec.pairs.path
            _write(circuits / "prompts" / prompts.name, prompts.read_text("utf-8"), done)
    if as_json:
        sys.stdout.write(json.dumps(done, indent=2) + "\n")
        return DONE
    labels = {"written": "wrote", "left": "left as it is", "not_had": "no circuit"}
    lines = [f"{labels[what]}: {one}" for what, places in done.items() for one in places]
    step = f"{folder}/README.md says what to edit; then: forgetguard check {named} TUNED {folder}"
    sys.stdout.write("\n".join([*lines, "", step]) + "\n")
    return DONE


def _write(place: Path, text: str, done: dict[str, list[str]]) -> None:
    if place.exists():
        done["left"].append(str(place))
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, text)
    except OSError as error:
        raise SpecificationError(
            f"{place} cannot be written ({error.strerror or error}): name another folder"
        ) from error
    done["written"].append(str(place))


def _discover(
    place: Path,
    base: CheckpointSpec,
    options: LoadOptions,
    spec: GateSpec,
    done: dict[str, list[str]],
) -> None:
    """`forgetguard discover` of the capability that a bundled `auto` circuit is of."""
    if place.exists():
        done["left"].append(str(place))
        return
    task = spec.pairs.task if isinstance(spec.pairs, TaskPairs) else spec.capability
    parser = ArgumentParser()
    discover.COMMAND.options(parser)
    say(f"forgetguard init: looking for the circuit of {task}")
    place.parent.mkdir(parents=True, exist_ok=True)
    arguments = [f"base={base.given}", "--task", task, "-o", str(place), *written({}, options)]
    try:
        if discover.COMMAND.prepare(parser.parse_args(arguments))() == INTERRUPTED:
            raise KeyboardInterrupt
    except CapabilityError as error:
        done["not_had"].append(f"{task}: {error}")
    else:
        done["written"].append(str(place))


COMMAND = command("init", _options, _prepare)

"""`forgetguard origin base=... tuned=...`: which parts of the checkpoint carry a loss."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.cli.checkpoints import (
    FILES,
    add_checkpoints,
    add_load_options,
    read_asked,
    read_circuits,
)
from forgetguard.cli.command import DONE, FAILED, Job, adder, command, say, whole_imports
from forgetguard.cli.progress import progress_bar
from forgetguard.errors import ForgetguardError, SpecificationError
from forgetguard.gate.declaration import GateSpec

if TYPE_CHECKING:
    from forgetguard.capabilities.capability import EncodedCapability

ROLES = ("base", "tuned")


def _options(parser: ArgumentParser) -> None:
    add_checkpoints(parser, ROLES)
    parser.epilog = f"circuits: {FILES}\n\n{parser.epilog}"
    add = adder(parser)
    new = "circuit or gate file with pairs of what tuned was trained for: what undoing costs it"
    add("--new-task", "FILE", new)
    add("--json", "", "print what was read as JSON")
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    specs, loading, files = read_asked(asked, ROLES)
    read = partial(read_circuits, base=specs["base"], options=loading, judged=False)
    circuits = [one for one in read(files) if one.has_pairs]
    if not circuits:
        raise SpecificationError("no prompt pairs: give a circuit file that has some")
    if asked.new_task and Path(asked.new_task).is_dir():
        raise SpecificationError(f"--new-task {asked.new_task} is a folder: name one circuit file")
    new_task = read([asked.new_task]) if asked.new_task else []
    if asked.new_task and not [one for one in new_task if one.has_pairs]:
        raise SpecificationError(f"--new-task {asked.new_task}: it has no prompt pairs")
    return lambda: _run(specs, loading, circuits, new_task[:1], as_json=asked.json)


def _run(
    specs: Mapping[str, CheckpointSpec],
    loading: LoadOptions,
    circuits: list[GateSpec],
    new_task: Sequence[GateSpec],
    *,
    as_json: bool,
) -> int:
    with whole_imports():
        from forgetguard.checkpoints.placement import ModelPair
        from forgetguard.gate.records import dump
        from forgetguard.gate.runner import capability_of
        from forgetguard.gate.session import check_base
        from forgetguard.gate.stages import encode
        from forgetguard.measures.origin import origin
    found: dict[str, Any] = {}
    failed = False
    with progress_bar() as bar, ModelPair(specs, loading) as pair:

        def pairs_of(spec: GateSpec) -> EncodedCapability:
            return capability_of(encode(spec, pair).parts[0])

        new = pairs_of(new_task[0]) if new_task else None
        for spec in circuits:
            try:
                check_base(spec, pair.base)
                read = origin(
                    pair,
                    pairs_of(spec),
                    new_task=new,
                    progress=partial(bar, f"origin of {spec.name}"),
                )
            except ForgetguardError as error:
                say(f"forgetguard origin: {spec.name}: {error}")
                failed = True
                continue
            found[spec.name] = dump(read)
            if not as_json:
                bar.close()
                sys.stdout.write(_told(spec.name, found[spec.name]))
    if as_json:
        checkpoints = {role: spec.given for role, spec in specs.items()}
        document = {"checkpoints": checkpoints, "circuits": found}
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    return FAILED if failed else DONE


def _told(name: str, found: Mapping[str, Any]) -> str:
    from forgetguard.report.terminal import aligned
    from forgetguard.report.wording import ORIGIN_COLUMNS, origin_ends, origin_line, origin_rows

    table = aligned(origin_rows(found))
    lines = [origin_line(found), "", *table, "", ORIGIN_COLUMNS, origin_ends(found)]
    return "\n".join([name, *(f"  {line}".rstrip() for line in lines), "", ""])


COMMAND = command("origin", _options, _prepare)

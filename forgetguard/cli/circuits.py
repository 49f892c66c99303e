"""Circuit files on the command line, beside `role=CHECKPOINT`; without any, the bundled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import SpecificationError
from forgetguard.gate.bundled import bundled_for
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import SUFFIXES, gate_files, load_gate_file
from forgetguard.gate.suitability import check_names

FILES = f"files that end in {SUFFIXES[0]}, or folders of them; default: those bundled for the base"


def split_tokens(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """(KEY=VALUE tokens, circuit files and folders), each in their order."""
    circuits = [one for one in tokens if "=" not in one or Path(one).exists()]
    return [one for one in tokens if one not in circuits], circuits


def read_circuits(
    given: Sequence[str], base: CheckpointSpec, options: LoadOptions, *, judged: bool = True
) -> tuple[GateSpec, ...]:
    """The circuits of the files and folders that were given, or those bundled for the base. Where
    none is `judged`, a file may hold prompt pairs without circuit and limits.

    Raises:
        SpecificationError: a file is not there or cannot be read, a folder holds none, two circuits
            have one name, or nothing was given and nothing bundled fits.
    """
    if not given:
        circuits = [spec for _, spec in bundled_for(base, options)]
        if not circuits:
            raise SpecificationError(
                f"no circuits: no circuit file was given, and none of those bundled fits {base}; "
                f"give *{SUFFIXES[0]} files (forgetguard discover writes them)"
            )
    else:
        files = {file.resolve(): file for path in given for file in gate_files(Path(path))}.values()
        circuits = [load_gate_file(file, judged=judged) for file in files]
    check_names(circuits)
    return tuple(circuits)

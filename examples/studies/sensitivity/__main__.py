"""`python -m examples.studies.sensitivity`: plant known damage in a base, and see
from which dose on the gate fails it."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from examples.studies.command import check_matplotlib
from forgetguard.anatomy.members import Head
from forgetguard.checkpoints.adapters import full_checkpoint_under
from forgetguard.checkpoints.described import full_config, geometry
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.cli import entry
from forgetguard.cli.checkpoints import (
    FILES,
    add_checkpoints,
    add_load_options,
    load_options,
    read_checkpoints,
    read_circuits,
    split_tokens,
    written,
)
from forgetguard.cli.command import DONE, INTERRUPTED, Command, Job, say, whole_imports
from forgetguard.cli.progress import progress_bar
from forgetguard.cli.values import read_whole
from forgetguard.errors import SpecificationError
from forgetguard.gate.declaration import GateSpec
from forgetguard.whole_files import write_text

if TYPE_CHECKING:
    from examples.studies.sensitivity.dose_response import Sensitivity

# As in planting.py and dose_response.py, which need torch; a test holds them equal.
PLANTS = ("mixture", "scale", "noise", "rank-one")
DOSES = "0,0.05,0.1,0.2,0.3,0.5,0.75,1"
DRAWS = 40
MOST_DRAWS = 10_000
RESULT = "sensitivity.json"
_PROGRAM = "python -m examples.studies.sensitivity"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and checked. `out`: the folder for JSON and figures; `command`: what
    measures the same again."""

    base: CheckpointSpec
    loading: LoadOptions
    circuits: tuple[GateSpec, ...]
    plants: tuple[str, ...]
    doses: tuple[float, ...]
    heads: tuple[Head, ...]
    draws: int
    seed: int
    out: Path | None
    figures: bool
    command: tuple[str, ...]


def _options(parser: ArgumentParser) -> None:
    add_checkpoints(parser, ("base",))
    add = parser.add_argument
    parser.epilog = f"circuits: {FILES}\n\n{parser.epilog}"
    add(
        "--plant",
        default=PLANTS[0],
        metavar="KIND",
        help=f"{PLANTS[0]} (default): the head's output mixed with its counterfactual's; scale, "
        "noise, rank-one: its output slice scaled, noised, edited; several by commas; all",
    )
    add("--doses", default=DOSES, metavar="D,D", help=f"from 0 to 1; default: {DOSES}")
    add(
        "--heads",
        metavar="L0H1,L2H3",
        help="to plant in, one after the other; default: each circuit's most important one",
    )
    add(
        "--draws",
        default=str(DRAWS),
        metavar="N",
        help=f"of the pairs at every dose, for the shares of pass and fail; default: {DRAWS}",
    )
    add("--seed", default="0", metavar="N", help="of all that is drawn; default: 0")
    add("--out", metavar="DIR", help="write sensitivity.json and a figure a circuit (SVG) there")
    add("--no-figures", action="store_true", help="with --out: numbers only")
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    plan = read_plan(asked)
    return lambda: plant_all(plan)


def read_plan(asked: Namespace) -> Plan:
    """What was asked for, as far as it can be checked before anything heavy is imported.

    Raises:
        ForgetguardError: it cannot be run.
    """
    tokens, files = split_tokens(asked.tokens)
    given = read_checkpoints(tokens, ("base",))
    plants, doses, heads = _plants(asked.plant), _doses(asked.doses), _heads(asked.heads)
    draws, seed = read_whole("--draws", asked.draws), read_whole("--seed", asked.seed)
    if not 1 <= draws <= MOST_DRAWS:
        raise SpecificationError(f"--draws: {draws}; give between 1 and {MOST_DRAWS}")
    loading, out = load_options(asked), _folder(asked.out, no_figures=asked.no_figures)
    base = resolve(given["base"], "base")
    check(base, None, options=loading)
    _check_heads(heads, base, loading)
    circuits = read_circuits(files, base, loading)
    options = {"plant": asked.plant, "doses": asked.doses, "draws": draws, "seed": seed}
    if asked.heads is not None:
        options["heads"] = asked.heads
    return Plan(
        base,
        loading,
        circuits,
        plants,
        doses,
        heads,
        draws,
        seed,
        out,
        figures=out is not None and not asked.no_figures,
        command=(*_PROGRAM.split(), *asked.tokens, *written(options, loading)),
    )


def _plants(text: str) -> tuple[str, ...]:
    names = [part.strip() for part in text.split(",")]
    if names == ["all"]:
        return PLANTS
    unknown = [name for name in names if name not in PLANTS]
    if unknown:
        raise SpecificationError(
            f"--plant: {unknown[0]!r} is none of {', '.join(PLANTS)}, all; choose some of them"
        )
    return tuple(dict.fromkeys(names))


def _doses(text: str) -> tuple[float, ...]:
    doses = []
    for part in text.split(","):
        try:
            dose = float(part)
        except ValueError:
            dose = math.nan
        if not 0 <= dose <= 1:
            raise SpecificationError(
                f"--doses: {part.strip()!r} is not from 0 (nothing) to 1 (all of it); write e.g. "
                f"{DOSES}"
            )
        doses.append(dose)
    if not any(doses):
        raise SpecificationError("--doses: 0 alone plants nothing; give a dose above 0")
    return tuple(sorted(set(doses)))


def _heads(text: str | None) -> tuple[Head, ...]:
    if text is None:
        return ()
    try:
        return tuple(dict.fromkeys(Head.parse(part.strip()) for part in text.split(",")))
    except SpecificationError as error:
        raise SpecificationError(f"--heads: {error}") from None


def _check_heads(heads: Sequence[Head], base: CheckpointSpec, loading: LoadOptions) -> None:
    """Raises SpecificationError where the base's configuration says that it has no such head."""
    own = localise(base, loading, weights=False)
    under = localise(full_checkpoint_under(own, own), loading, weights=False)
    sizes = geometry(full_config(under))
    layers, count = sizes["layers"], sizes["query heads"]
    for head in heads:
        if not (isinstance(layers, int) and isinstance(count, int)):
            return  # an architecture that says it in other words: known once it is loaded
        if head.layer >= layers or head.index >= count:
            raise SpecificationError(
                f"--heads: {base} has no {head}: its {layers} layers have {count} heads each, "
                f"L0H0 to L{layers - 1}H{count - 1}"
            )


def _folder(text: str | None, *, no_figures: bool) -> Path | None:
    if text is None:
        if no_figures:
            raise SpecificationError("--no-figures belongs to --out DIR: nothing is drawn without")
        return None
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise SpecificationError(f"--out: {path} is a file; name a folder")
    if not path.parent.is_dir():
        raise SpecificationError(f"--out: there is no folder {path.parent}; make it first")
    if not no_figures:
        check_matplotlib("--no-figures")
    return path


# --- the work ---------------------------------------------------------------------------------


def plant_all(plan: Plan) -> int:
    """Plant, print the tables, write JSON and figures; returns the exit status.

    Raises:
        ForgetguardError: it cannot be done; the message says why.
    """
    with whole_imports():
        from examples.studies.sensitivity.dose_response import sensitivity
        from examples.studies.sensitivity.table import sensitivity_text
        from forgetguard.checkpoints.placement import ModelPair
    try:
        with progress_bar() as bar, ModelPair({"base": plan.base}, plan.loading) as pair:
            found = sensitivity(
                pair,
                plan.circuits,
                plants=plan.plants,
                doses=plan.doses,
                heads=plan.heads,
                draws=plan.draws,
                seed=plan.seed,
                progress=bar,
            )
    except KeyboardInterrupt:
        say(f"{_PROGRAM}: interrupted; nothing was written")
        return INTERRUPTED
    for note in found.refused:
        say(f"{_PROGRAM}: {note}")
    sys.stdout.write(f"{sensitivity_text(found)}\n")
    if plan.out is not None:
        _write(plan, found)
    return DONE


def _write(plan: Plan, found: Sensitivity) -> None:
    from examples.studies.sensitivity.table import sensitivity_dict

    assert plan.out is not None
    asked = {"command": list(plan.command), "loading": asdict(plan.loading)}
    document = json.dumps(sensitivity_dict(found, asked), indent=2, allow_nan=False)
    try:
        plan.out.mkdir(exist_ok=True)
        write_text(plan.out / RESULT, f"{document}\n")
        written = [plan.out / RESULT, *(_draw(plan, found) if plan.figures else [])]
    except OSError as error:
        raise SpecificationError(f"--out: {plan.out} cannot be written: {error}") from None
    say(f"written: {', '.join(map(str, written))}")


def _draw(plan: Plan, found: Sensitivity) -> list[object]:
    from examples.studies.sensitivity.figure import draw

    assert plan.out is not None
    return list(draw(found.curves, plan.out))


COMMAND = Command(
    "sensitivity",
    "plant known doses of damage in a base, and see from which dose on the gate fails it",
    _options,
    _prepare,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant and read as `arguments` say (default: of this process); returns the exit status."""
    return entry.run(entry.parser_of(COMMAND, _PROGRAM), arguments)


if __name__ == "__main__":
    sys.exit(main())

"""Some pairs of a results file measured again, and compared with what is written."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.cli.progress import progress_bar
from forgetguard.errors import SpecificationError
from forgetguard.gate.certificate import BY_HEAD, FLAGS, NUMBERS
from forgetguard.gate.declaration import InlinePairs
from forgetguard.gate.measurement import Measurement
from forgetguard.gate.session import GateSession
from forgetguard.report.recheck import Measured, circuits_of

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a readout or a drop of it may be from what is written, in nats, and on which share of
    the pairs right and wrong may differ."""

    nats: float
    flips: float


# By number format. On one machine float32 reads up to 1.1e-5 nats differently when the same pairs
# run in batches of another size (tiny checkpoints; no difference with 4 threads instead of 1); 1e-3
# is meant to leave room for other processors and deeper models, which were not measured. In half
# precision another order of summation can move a number as far as the format itself does: against
# float32 up to 0.12 nats in float16 and 0.95 in bfloat16, on drops of up to 26 nats.
TOLERANCES = {
    "float32": Tolerance(1e-3, 0.0),
    "float16": Tolerance(0.15, 0.1),
    "bfloat16": Tolerance(1.0, 0.1),
}
_SHOWN_HASH = 12


def recompute(
    document: Mapping[str, Any],
    checkpoints: Mapping[str, str],
    loading: LoadOptions,
    *,
    count: int,
    seed: int,
) -> tuple[bool, list[str]]:
    """Measure `count` pairs of every circuit of the file again, drawn by `seed`; whether they hold,
    and the lines that say so.

    Raises:
        SpecificationError: a checkpoint is not the one that the file names.
        ForgetguardError: it cannot be measured.
    """
    circuits = [one for one in circuits_of(document).values() if one.measurement is not None]
    specs = {role: resolve(given, role) for role, given in checkpoints.items()}
    tolerance = TOLERANCES[loading.dtype]
    lines, held = [], True
    with ModelPair(specs, loading) as pair, progress_bar() as bar:
        _check_fingerprints(document.get("fingerprints", {}), pair, checkpoints)
        for one in circuits:
            found = _measured_again(pair, one, bar, count=count, seed=seed)
            problems = list(_compared(one, found, tolerance))
            held &= not problems
            word = "DIFFERS" if problems else "the same"
            lines.append(
                f"recomputed  {one.spec.name}: {len(found.pairs)} of "
                f"{len(one.measurement.pairs if one.measurement else ())} pairs, {word} within "
                f"{tolerance.nats:g} nats (largest difference {_largest(one, found):.2g})"
            )
            lines += [f"  {problem}" for problem in problems]
    return held, lines


def _check_fingerprints(
    written: Mapping[str, Mapping[str, str]], pair: ModelPair, checkpoints: Mapping[str, str]
) -> None:
    differing = []
    for role, fingerprint in pair.fingerprints().items():
        there = written.get(role, {})
        for part, value in asdict(fingerprint).items():
            if there.get(part) != value:
                differing.append(
                    f"{role}={checkpoints[role]} is not the {role} of the file: its {part} is "
                    f"{value[:_SHOWN_HASH]}..., written {str(there.get(part))[:_SHOWN_HASH]}...; "
                    f"give the right one with {role}=CHECKPOINT"
                )
    if differing:
        raise SpecificationError("\n".join(differing))


def _measured_again(
    pair: ModelPair, one: Measured, bar: object, *, count: int, seed: int
) -> Measurement:
    assert one.measurement is not None
    pairs = list(one.measurement.pairs)
    chosen = random.Random(seed).sample(pairs, min(count, len(pairs)))
    spec = replace(one.spec, pairs=InlinePairs(tuple(chosen)), auto=False)
    # `recording`: limits over a baseline ask nothing of the models.
    session = GateSession(pair, [spec], recording=True, progress=bar)  # type: ignore[arg-type]
    return session.measurement(spec)


def _compared(one: Measured, found: Measurement, tolerance: Tolerance) -> Iterator[str]:
    """Every number of every pair that was measured again and is not as written."""
    for what, written, again in _arrays(one, found):
        apart = np.abs(written - again)
        worst = int(np.argmax(apart))
        if not apart[worst] <= tolerance.nats:
            yield (
                f"{what}: {int((~(apart <= tolerance.nats)).sum())} of {len(apart)} pairs; written "
                f"{float(written[worst])!r}, found {float(again[worst])!r} on "
                f"{found.pairs[worst].clean!r}"
            )
    places = _places(one, found)
    for name in FLAGS:
        written, again = getattr(one.measurement, name)[places], getattr(found, name)
        flips = int((written != again).sum())
        if flips > tolerance.flips * len(places):
            yield f"{name}: {flips} of {len(places)} pairs"


def _largest(one: Measured, found: Measurement) -> float:
    return max(
        (float(np.abs(written - again).max()) for _, written, again in _arrays(one, found)),
        default=0.0,
    )


def _arrays(one: Measured, found: Measurement) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """(what, as written, as found) of the pairs that were measured again."""
    places = _places(one, found)
    for name in NUMBERS:
        written, again = getattr(one.measurement, name), getattr(found, name)
        if written is not None and again is not None:
            yield name, written[places], again
    for name in BY_HEAD:
        theirs: Mapping[Member, FloatArray] = getattr(one.measurement, name)
        ours: Mapping[Member, FloatArray] = getattr(found, name)
        for head in sorted(theirs.keys() & ours.keys()):
            yield f"{name} of {head}", theirs[head][places], ours[head]


def _places(one: Measured, found: Measurement) -> list[int]:
    assert one.measurement is not None
    places = {_texts(pair): place for place, pair in enumerate(one.measurement.pairs)}
    return [places[_texts(pair)] for pair in found.pairs]


def _texts(pair: PromptPair) -> tuple[str, str, str, str | None]:
    return pair.clean, pair.counterfactual, pair.answer, pair.distractor

"""Some pairs of a results file measured again, and compared with what is written."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetguard.capabilities.pairs import Prompt, PromptPair
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.cli.progress import Bar, progress_bar
from forgetguard.errors import SpecificationError
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit, Prompts
from forgetguard.gate.prompt_files import read_questions
from forgetguard.gate.session import GateSession
from forgetguard.measures.documents import SCORE, EvalTasks
from forgetguard.measures.samples import BASELINE, CORRECT, SAID, TOP1, Key, Samples, Unit, texts
from forgetguard.report.recheck import circuits_of

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a readout or a drop of it may be from what is written, in nats, and on which share of
    the pairs right and wrong, and the likeliest token, may differ."""

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
EXACT = 1e-6  # relative, of numbers that are not sampled: another machine's SVD
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
    circuits = circuits_of(document).values()
    specs = {role: resolve(given, role) for role, given in checkpoints.items()}
    tolerance = TOLERANCES[loading.dtype]
    lines, held = [], True
    with ModelPair(specs, loading) as pair, progress_bar() as bar:
        _check_fingerprints(document.get("fingerprints", {}), pair, checkpoints)
        for spec, samples in ((one.spec, one.samples) for one in circuits):
            if samples is None:
                continue
            found = _measured_again(pair, spec, samples, bar, count=count, seed=seed)
            problems = list(_compared(samples, found, tolerance))
            held &= not problems
            word = "DIFFERS" if problems else "the same"
            lines.append(
                f"recomputed  {spec.name}: {found.count} of {samples.count} prompts, {word} within "
                f"{tolerance.nats:g} nats (largest difference {_largest(samples, found):.2g})"
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
    pair: ModelPair, spec: GateSpec, samples: Samples, bar: Bar, *, count: int, seed: int
) -> Samples:
    units = list(samples.units)
    if any(limit.measure.needs_all for limit in spec.limits):
        count = len(units)
    chosen = random.Random(seed).sample(units, min(count, len(units)))
    # A gate in Python may have asked for numbers of the files that no limit is declared on.
    exact = {key.quantity for key in samples.exact}
    asked = {limit.measure.key for limit in spec.limits}
    more = tuple(Limit(key, 0.0) for key in sorted(exact - asked))
    given = _given(spec, chosen)
    spec = replace(spec, pairs=given, auto=False, limits=(*spec.limits, *more))
    # `recording`: limits over a baseline ask nothing of the models.
    session = GateSession(pair, [spec], recording=True, progress=bar)
    found = session.measurement(spec)
    there = {texts(unit)[:-1] for unit in units}
    if isinstance(given, EvalTasks) and not all(texts(one)[:-1] in there for one in found.units):
        raise SpecificationError(
            f"{spec.name}: its lm-eval tasks give other documents than those of the file: "
            "their files, or their data, were changed since"
        )
    return found


def _given(spec: GateSpec, units: Sequence[Unit]) -> InlinePairs | Prompts | EvalTasks | None:
    if isinstance(spec.pairs, EvalTasks):  # all of them: lm-eval makes its own prompts
        file = spec.pairs.questions_file
        questions = () if file is None else tuple(read_questions(file))
        return replace(spec.pairs, questions=questions)
    pairs = tuple(unit for unit in units if isinstance(unit, PromptPair))
    if pairs:
        return InlinePairs(pairs)
    prompts = tuple(unit for unit in units if isinstance(unit, Prompt))
    return Prompts(prompts) if prompts else None


_NO_AMOUNTS = (CORRECT, TOP1, SAID, SCORE, "lm_eval.drop", "lm_eval.flips", "lm_eval.calibration")


def _compared(samples: Samples, found: Samples, tolerance: Tolerance) -> Iterator[str]:
    """Every number of every unit that was measured again and is not as written."""
    for key, written, again in _arrays(samples, found):
        apart = np.abs(written - again)
        if key.quantity in _NO_AMOUNTS:
            flips = int((apart != 0).sum())
            if flips > tolerance.flips * len(apart):
                yield f"{key}: {flips} of {len(apart)} pairs"
            continue
        worst = int(np.argmax(apart))
        if not apart[worst] <= tolerance.nats:
            yield (
                f"{key}: {int((~(apart <= tolerance.nats)).sum())} of {len(apart)} pairs; written "
                f"{float(written[worst])!r}, found {float(again[worst])!r} on "
                f"{found.units[worst].clean!r}"
            )
    for key in samples.exact.keys() & found.exact.keys():
        numbers = samples.exact[key], found.exact[key]
        if not math.isclose(*numbers, rel_tol=EXACT, abs_tol=EXACT):
            yield f"{key}: written {numbers[0]!r}, found {numbers[1]!r}"


def _largest(samples: Samples, found: Samples) -> float:
    return max(
        (
            float(np.abs(written - again).max(initial=0.0))
            for key, written, again in _arrays(samples, found)
            if key.quantity not in _NO_AMOUNTS
        ),
        default=0.0,
    )


def _arrays(samples: Samples, found: Samples) -> Iterator[tuple[Key, FloatArray, FloatArray]]:
    """(what, as written, as found) of the units that were measured again."""
    places = {texts(unit)[:-1]: place for place, unit in enumerate(samples.units)}
    again = samples.at([places[texts(unit)[:-1]] for unit in found.units])
    for key, values in found.arrays.items():
        if key.role != BASELINE and key in again.arrays and values.size:
            yield key, again.arrays[key], values

"""How far the residual stream moved, layer by layer: linear CKA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage, boundaries, prompt_batches
from forgetguard.measures.prompt_pass import Reader, run

FloatArray = npt.NDArray[np.float64]
Gram = FloatArray  # [row, row], with a zero diagonal where it is named `hollow`

FEWEST = 5  # the unbiased estimator needs 4 rows, its jackknife one more
# Rows that differ by less than this, relative to their size, are taken as one row: prompts that end
# alike give the same numbers up to float32's rounding (6e-8).
_CONSTANT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """The residual stream after each decoder layer (before the final norm), at one position of each
    passage: the first that is compared, which is the prompt's last token. float32
    [layer, passage, d_model]."""

    passages: tuple[Passage, ...]
    residual: npt.NDArray[np.float32]


def capture_streams(anatomy: Anatomy, passages: Sequence[Passage]) -> Streams:
    """Run one model and keep its residual stream: layers x passages x d_model x 4 bytes.

    Raises:
        MeasurementError: no passages, or values that are not finite.
    """
    reader = capturing(passages)
    run(anatomy, prompt_batches(passages), [reader])
    return reader.found()


def capturing(passages: Sequence[Passage]) -> Reader[Streams]:
    """What does so in a pass that others share."""
    boundaries(passages)
    kept = np.empty((0, 0, 0), np.float32)

    def take(rows: Sequence[int], _: object, layers: Sequence[Tensor]) -> None:
        nonlocal kept
        if not kept.size:
            kept = np.empty((len(layers), len(passages), layers[0].shape[-1]), np.float32)
        for layer, found in enumerate(layers):
            kept[layer, list(rows)] = found.numpy()
        if not np.isfinite(kept[:, list(rows)]).all():
            raise MeasurementError(
                "the residual stream holds NaN or infinite values: try dtype float32 (float16 "
                "overflows in some models)"
            )

    return Reader(take, lambda: Streams(tuple(passages), kept), len(passages), layers=True)


def pseudo_values(base: Streams, tuned: Streams) -> FloatArray:
    """Compare two models' residual streams on the same passages, layer by layer: the jackknife
    pseudo-values of linear CKA from unbiased HSIC, float64 [layer, passage].

    Their mean estimates it: 1: the same up to a rotation and a scale; about 0: unrelated. Their
    standard deviation over sqrt(passages) is its standard error. (Resampling prompts with
    repetition would bias CKA upwards, for copies are alike.) Equal streams give exactly 1; NaN
    stands where a layer's rows do not differ from prompt to prompt.

    Raises:
        MeasurementError: other passages, other shapes, or fewer than 5 passages.
    """
    check_streams(base, tuned)
    check_rows(len(base.passages))
    layers = zip(base.residual, tuned.residual, strict=True)
    return np.array([cka(*(one.astype(np.float64) for one in layer))[1] for layer in layers])


def distances(base: Streams, tuned: Streams) -> FloatArray:
    """|tuned - base| / |base| of each prompt's residual stream, float64 [layer, passage]. Not blind
    to rotation and scale, as CKA is: a fine-tuned model shares its base's axes.

    Raises:
        MeasurementError: other passages, or other shapes.
    """
    check_streams(base, tuned)
    before, after = (one.residual.astype(np.float64) for one in (base, tuned))
    size = np.linalg.norm(before, axis=-1)
    moved: FloatArray = np.linalg.norm(after - before, axis=-1) / np.where(size > 0, size, np.nan)
    return moved


def check_streams(base: Streams, tuned: Streams) -> None:
    """Raises MeasurementError where two models' streams cannot be compared."""
    if base.passages != tuned.passages or base.residual.shape != tuned.residual.shape:
        raise MeasurementError(
            f"the streams are of other passages or models: {list(base.residual.shape)} against "
            f"{list(tuned.residual.shape)} [layer, passage, d_model]; capture both on the same "
            "passages, of a base and its fine-tune"
        )


def cka(first: FloatArray, second: FloatArray) -> tuple[float, FloatArray]:
    """Linear CKA of two representations of the same rows, [row, width] each, and its jackknife
    pseudo-values [row]; NaN where a side's rows do not differ.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the Gram matrices K = X X^T and L = Y Y^T with the
    unbiased HSIC_1 (Song et al., JMLR 13, 2012, equation 5), as for CKA by Nguyen et al. 2021
    (arXiv 2010.15327). The ratio of unbiased estimates is itself only nearly unbiased; from -1 to 1
    (HSIC_1 is an inner product of U-centred matrices: Szekely and Rizzo 2014).
    """
    one, other = centred(first), centred(second)
    count = len(first)
    if one is None or other is None:
        return math.nan, np.full(count, math.nan)
    whole, without = unbiased_hsic(hollow(one @ one.T), hollow(other @ other.T))
    found = ratio(*whole)
    return found, count * found - (count - 1) * np.array([ratio(*left) for left in without.T])


def unbiased_hsic(first: Gram, second: Gram) -> tuple[FloatArray, FloatArray]:
    """HSIC_1 of (K, L), (K, K) and (L, L) of hollow Gram matrices: of all rows, [3], and with each
    row left out, [3, row]."""
    pairs = ((first, second), (first, first), (second, second))
    found = [_hsic(one, other) for one, other in pairs]
    return np.array([whole for whole, _ in found]), np.array([left for _, left in found])


def _hsic(one: Gram, other: Gram) -> tuple[float, FloatArray]:
    """HSIC_1 of two hollow Gram matrices, and the same without each row in turn, [row].

    [ tr(K L) + sum(K) sum(L) / ((n-1)(n-2)) - 2 sum(K L) / (n-2) ] / (n (n-3)). Leaving out a row
    takes its own terms out of the three sums, so all n values cost no more than the one.
    """
    product = (one * other).sum(1)  # by row: of tr(K L)
    rows, other_rows = one.sum(1), other.sum(1)
    trace, total, other_total = product.sum(), rows.sum(), other_rows.sum()
    inner = rows @ other_rows  # sum(K L)
    whole = _hsic_from(trace, total * other_total, inner, len(one))
    inner_without = inner - rows * other_rows - one @ other_rows - other @ rows + product
    without = _hsic_from(
        trace - 2 * product,
        (total - 2 * rows) * (other_total - 2 * other_rows),
        inner_without,
        len(one) - 1,
    )
    return whole, without


def _hsic_from(trace: Any, totals: Any, inner: Any, n: int) -> Any:
    return (trace + totals / ((n - 1) * (n - 2)) - 2 * inner / (n - 2)) / (n * (n - 3))


def ratio(both: float, first: float, second: float) -> float:
    """CKA of HSIC(K, L), HSIC(K, K) and HSIC(L, L); NaN where a representation has no variance (its
    estimate is not above 0)."""
    if not (first > 0 and second > 0):
        return math.nan
    # Taken in this order, a representation against itself reads exactly 1.
    return float(both / np.sqrt(first * second))


def centred(rows: FloatArray) -> FloatArray | None:
    """The rows about their mean, scaled to norm 1 (squares of squares of large values overflow
    nothing then); None where they do not differ."""
    centred: FloatArray = rows - rows.mean(axis=0)
    size = float(np.linalg.norm(centred))
    if size <= _CONSTANT * float(np.linalg.norm(rows)):
        return None
    centred /= size
    return centred


def hollow(gram: Gram) -> Gram:
    """A Gram matrix without its diagonal."""
    return gram - np.diag(np.diag(gram))


def check_rows(count: int) -> None:
    """Raises MeasurementError where CKA of so few rows is not defined."""
    if count < FEWEST:
        raise MeasurementError(
            f"CKA of {count} prompts says nothing: give at least {FEWEST}, better 64"
        )

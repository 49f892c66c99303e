"""How far the residual stream moved, layer by layer: linear CKA, and plain distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage, batches
from forgetguard.patching.forward import forward
from forgetguard.patching.hooks import PostHook, first_output, hooked

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


@dataclass(frozen=True, slots=True, eq=False)
class RepresentationDrift:
    """Base against tuned, layer by layer.

    NaN stands where a layer's rows do not differ from prompt to prompt.

    Attributes:
        cka: linear CKA from unbiased HSIC, float64 [layer]. 1: the same up to a rotation and a
            scale; about 0: unrelated. May fall a little below 0.
        pseudo_values: jackknife pseudo-values of `cka`, float64 [layer, passage]: their mean
            estimates it, their standard deviation over sqrt(passages) is its standard error.
            (Resampling prompts with repetition would bias CKA upwards, for copies are alike.)
        biased: the usual linear CKA (Kornblith et al.), float64 [layer]. Near 1 for anything where
            d_model is not far below the number of prompts.
        chance, chance_biased: both with the tuned model's prompts permuted, float64 [layer, draw].
        top_share: of the base's HSIC with itself (the sum of squared eigenvalues of the
            covariance), the part of its leading direction, float64 [layer]. Near 1, CKA compares
            that one direction and hears nothing of the others.
        distance: |tuned - base| / |base| of each prompt's residual stream, [layer, passage]. Not
            blind to rotation, as CKA is: a fine-tuned model shares its base's axes.
    """

    cka: FloatArray
    pseudo_values: FloatArray
    biased: FloatArray
    chance: FloatArray
    chance_biased: FloatArray
    top_share: FloatArray
    distance: FloatArray


def capture_streams(anatomy: Anatomy, passages: Sequence[Passage]) -> Streams:
    """Run one model and keep its residual stream: layers x passages x d_model x 4 bytes.

    Raises:
        MeasurementError: no passages, or values that are not finite.
    """
    if not passages:
        raise MeasurementError("there are no passages to compare the models on: give some prompts")
    kept: list[list[Tensor]] = [[torch.empty(0)] * len(passages) for _ in anatomy.layers]

    def keeper(layer: int, rows: list[int], position: int) -> PostHook:
        def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            for row, found in zip(rows, first_output(output)[:, position].float(), strict=True):
                kept[layer][row] = found.cpu()

        return keep

    for rows in batches(passages):
        first = passages[rows[0]]
        after = [
            (layer, keeper(index, rows, first.positions[0]))
            for index, layer in enumerate(anatomy.layers)
        ]
        with torch.no_grad(), hooked(before=[], after=after):
            forward(anatomy, torch.tensor([passages[row].ids for row in rows]), first.positions[:1])
    residual = torch.stack([torch.stack(rows) for rows in kept]).numpy()
    if not np.isfinite(residual).all():
        raise MeasurementError(
            "the residual stream holds NaN or infinite values: try dtype float32 (float16 "
            "overflows in some models)"
        )
    return Streams(tuple(passages), residual)


def representation_drift(
    base: Streams, tuned: Streams, *, draws: int = 100, seed: int = 0
) -> RepresentationDrift:
    """Compare two models' residual streams on the same passages.

    Equal streams give a CKA of exactly 1 and distances of exactly 0.

    Args:
        draws: permutations for the chance level; the same for every layer.
        seed: of the permutations.

    Raises:
        MeasurementError: other passages, other shapes, or fewer than 5 passages.
    """
    if base.passages != tuned.passages or base.residual.shape != tuned.residual.shape:
        raise MeasurementError(
            f"the streams are of other passages or models: {list(base.residual.shape)} against "
            f"{list(tuned.residual.shape)} [layer, passage, d_model]; capture both on the same "
            "passages, of a base and its fine-tune"
        )
    count = len(base.passages)
    _check_rows(count)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(count) for _ in range(draws)]
    layers = [
        _layer(one.astype(np.float64), other.astype(np.float64), orders)
        for one, other in zip(base.residual, tuned.residual, strict=True)
    ]
    return RepresentationDrift(*(np.array(values) for values in zip(*layers, strict=True)))


def linear_cka(first: FloatArray, second: FloatArray, *, unbiased: bool = True) -> float:
    """Linear CKA of two representations of the same rows, [row, width] each; widths may differ.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the Gram matrices K = X X^T and L = Y Y^T.
    Biased: HSIC(K, L) = tr(K H L H) with the centring matrix H; then it equals |Y^T X|^2 /
    (|X^T X| |Y^T Y|) of centred columns (Kornblith et al. 2019, arXiv 1905.00414). Unbiased, the
    default: HSIC_1 (Song et al., JMLR 13, 2012, equation 5), as for CKA by Nguyen et al. 2021
    (arXiv 2010.15327). The ratio of unbiased estimates is itself only nearly unbiased.

    Returns:
        From 0 to 1 when biased, from -1 to 1 when not (HSIC_1 is an inner product of U-centred
        matrices: Szekely and Rizzo 2014); NaN where a side's rows do not differ.

    Raises:
        MeasurementError: fewer than 5 rows, or different numbers of rows.
    """
    if len(first) != len(second):
        raise MeasurementError(
            f"CKA compares representations of the same rows, got {len(first)} and {len(second)}"
        )
    _check_rows(len(first))
    one, other = _centred(first), _centred(second)
    if one is None or other is None:
        return float("nan")
    both = one @ one.T, other @ other.T
    if unbiased:
        return _ratio(*_unbiased(*(_hollow(gram) for gram in both))[0])
    return _ratio(*_biased(*both))


def _layer(
    base: FloatArray, tuned: FloatArray, orders: Sequence[npt.NDArray[np.int64]]
) -> tuple[Any, ...]:
    """The fields of RepresentationDrift of one layer, in their order."""
    size = np.linalg.norm(base, axis=1)
    distance = np.linalg.norm(tuned - base, axis=1) / np.where(size > 0, size, np.nan)
    one, other = _centred(base), _centred(tuned)
    if one is None or other is None:
        nothing = np.full(len(orders), np.nan)
        return np.nan, np.full(len(base), np.nan), np.nan, nothing, nothing, np.nan, distance
    first, second = one @ one.T, other @ other.T
    hollow = _hollow(first), _hollow(second)
    whole, without = _unbiased(*hollow)
    cka, count = _ratio(*whole), len(base)
    pseudo = count * cka - (count - 1) * np.array([_ratio(*left) for left in without.T])
    chance = [_ratio(*_unbiased(hollow[0], hollow[1][np.ix_(order, order)])[0]) for order in orders]
    chance_biased = [_ratio(*_biased(first, second[np.ix_(order, order)])) for order in orders]
    squares = np.linalg.eigvalsh(first) ** 2
    top_share = squares[-1] / squares.sum()
    return cka, pseudo, _ratio(*_biased(first, second)), chance, chance_biased, top_share, distance


def _biased(first: Gram, second: Gram) -> tuple[float, float, float]:
    """HSIC of (K, L), (K, K) and (L, L) up to one factor; the columns were centred before."""
    return (
        float((first * second).sum()),
        float((first * first).sum()),
        float((second * second).sum()),
    )


def _unbiased(first: Gram, second: Gram) -> tuple[FloatArray, FloatArray]:
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


def _ratio(both: float, first: float, second: float) -> float:
    """NaN where a representation has no variance (its estimate is not above 0)."""
    if not (first > 0 and second > 0):
        return float("nan")
    # Taken in this order, a representation against itself reads exactly 1.
    return float(both / np.sqrt(first * second))


def _centred(rows: FloatArray) -> FloatArray | None:
    """The rows about their mean, scaled to norm 1 (squares of squares of large values overflow
    nothing then); None where they do not differ."""
    centred: FloatArray = rows - rows.mean(axis=0)
    size = float(np.linalg.norm(centred))
    if size <= _CONSTANT * float(np.linalg.norm(rows)):
        return None
    centred /= size
    return centred


def _hollow(gram: Gram) -> Gram:
    return gram - np.diag(np.diag(gram))


def _check_rows(count: int) -> None:
    if count < FEWEST:
        raise MeasurementError(
            f"CKA of {count} prompts says nothing: give at least {FEWEST}, better 64"
        )

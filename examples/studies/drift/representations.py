"""The drift of the residual stream at length: CKA biased and not, beside chance, and distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetguard.errors import MeasurementError
from forgetguard.measures.representation_drift import (
    FloatArray,
    Gram,
    Streams,
    centred,
    check_rows,
    check_streams,
    cka,
    distances,
    hollow,
    ratio,
    unbiased_hsic,
)


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
        distance: as `distances`, [layer, passage].
    """

    cka: FloatArray
    pseudo_values: FloatArray
    biased: FloatArray
    chance: FloatArray
    chance_biased: FloatArray
    top_share: FloatArray
    distance: FloatArray


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
    check_streams(base, tuned)
    check_rows(len(base.passages))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(base.passages)) for _ in range(draws)]
    layers = [
        _layer(one.astype(np.float64), other.astype(np.float64), orders)
        for one, other in zip(base.residual, tuned.residual, strict=True)
    ]
    columns = [np.array(values) for values in zip(*layers, strict=True)]
    return RepresentationDrift(*[*columns, distances(base, tuned)])


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
    check_rows(len(first))
    if unbiased:
        return cka(first, second)[0]
    one, other = centred(first), centred(second)
    if one is None or other is None:
        return math.nan
    return ratio(*_biased(one @ one.T, other @ other.T))


def _layer(
    base: FloatArray, tuned: FloatArray, orders: Sequence[npt.NDArray[np.int64]]
) -> tuple[Any, ...]:
    """The fields of RepresentationDrift of one layer, in their order, but the last."""
    one, other = centred(base), centred(tuned)
    found, pseudo = cka(base, tuned)
    if one is None or other is None:
        nothing = np.full(len(orders), np.nan)
        return found, pseudo, np.nan, nothing, nothing, np.nan
    first, second = one @ one.T, other @ other.T
    inner = hollow(first), hollow(second)
    chance = [
        ratio(*unbiased_hsic(inner[0], inner[1][np.ix_(order, order)])[0]) for order in orders
    ]
    chance_biased = [ratio(*_biased(first, second[np.ix_(order, order)])) for order in orders]
    squares = np.linalg.eigvalsh(first) ** 2
    top_share = squares[-1] / squares.sum()
    both = ratio(*_biased(first, second))
    return found, pseudo, both, chance, chance_biased, top_share


def _biased(first: Gram, second: Gram) -> tuple[float, float, float]:
    """HSIC of (K, L), (K, K) and (L, L) up to one factor; the columns were centred before."""
    return (
        float((first * second).sum()),
        float((first * first).sum()),
        float((second * second).sum()),
    )

"""FLOW's weights (arXiv 2502.02797): training samples that are easy for the base count for more.

w_i = exp(-loss_i / tau), loss_i being the base's mean cross-entropy on sample i; scaled to a mean
of 1 over the data set, so that a learning rate means the same with and without them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.errors import MeasurementError


def easy_sample_weights(losses: Float[Tensor, "sample"], tau: float) -> Float[Tensor, "sample"]:
    """The weight of each sample, float64, 0 or more, with a mean of 1.

    Args:
        losses: the base's mean cross-entropy on each sample, in nats.
        tau: above 0, in nats; the larger, the more alike the weights.

    Raises:
        MeasurementError: a loss is not finite.
    """
    if not torch.isfinite(losses).all():
        raise MeasurementError(
            f"{int((~torch.isfinite(losses)).sum())} of {len(losses)} training samples have no "
            f"finite loss under the base, so they cannot be weighted: check the base's weights"
        )
    # A softmax is the same ratio, and does not underflow where all losses are large.
    return torch.softmax(-losses.double() / tau, dim=0) * len(losses)


def median_tau(losses: Float[Tensor, "sample"]) -> float:
    """The median of the base's losses: a temperature in the losses' own unit.

    Raises:
        MeasurementError: it is 0, so that no sample is easier than another.
    """
    tau = float(losses.double().median())
    if not tau > 0:
        raise MeasurementError(
            "the median loss of the base on the training samples is 0: it knows the new task "
            "already, so easy samples cannot be told apart; set flow_tau, or use recipe sft"
        )
    return tau


def effective_samples(weights: Float[Tensor, "sample"]) -> float:
    """How many samples of equal weight say as much: (sum w)^2 / sum w^2."""
    return float(weights.sum().square() / weights.square().sum())

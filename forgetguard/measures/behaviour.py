"""What one model does on a capability: its readout and its accuracy, pair by pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.capabilities.batches import Batch
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import LEAST_ACCURACY, READOUTS, correct, score
from forgetguard.errors import BaseCannotError, CapabilityError
from forgetguard.patching.forward import check_finite, forward


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """F(model, x) in nats, and whether the model answers right, float64 and bool [pair]."""

    readout: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]


def read_batch(
    capability: EncodedCapability,
    batch: Batch,
    logits: Float[Tensor, "row readout vocab"],
    vocabulary: int | None,
    into: Behaviour,
) -> None:
    """Score one batch's clean logits and put the results where its pairs stand in `into`.

    `vocabulary` cuts the logits to that many ids, so that rows added by fine-tuning do not change
    what is compared.
    """
    logits = logits[..., :vocabulary].float()
    check_finite(logits, "a clean prompt")
    where = list(batch.pairs)
    everything = torch.arange(len(where))
    readout = READOUTS[capability.capability.readout]
    into.readout[where] = score(readout, logits, batch, everything).double().cpu().numpy()
    into.correct[where] = correct(logits, batch.answer.to(logits.device)).cpu().numpy()


def empty_behaviour(n_pairs: int) -> Behaviour:
    """Room for `n_pairs` results; NaN until they are there."""
    return Behaviour(np.full(n_pairs, np.nan), np.zeros(n_pairs, dtype=np.bool_))


def behaviour(
    anatomy: Anatomy, capability: EncodedCapability, *, vocabulary: int | None = None
) -> Behaviour:
    """Run a model on every clean prompt of a capability.

    Raises:
        MeasurementError: logits are not finite.
    """
    result = empty_behaviour(capability.n_pairs)
    with torch.no_grad():
        for batch in capability.batches:
            logits = forward(anatomy, batch.clean, batch.positions)
            read_batch(capability, batch, logits, vocabulary, result)
    return result


def check_able(capability: EncodedCapability, base: Behaviour) -> float:
    """The base's accuracy, if it can do the capability at all: there is no circuit for what a model
    cannot do.

    Raises:
        BaseCannotError: its accuracy is below 50 %, or its mean logit difference not above 0.
    """
    accuracy, readout = float(base.correct.mean()), float(base.readout.mean())
    able = accuracy >= LEAST_ACCURACY
    if READOUTS[capability.capability.readout].signed:
        able = able and readout > 0
    if not able:
        raise BaseCannotError(
            f"THE BASE CANNOT DO {capability.capability.name!r}: it is right on {accuracy:.0%} of "
            f"{capability.n_pairs} pairs (mean {capability.capability.readout} {readout:.3g}), so "
            "it has no circuit for it: check the prompts, the chat template and the base"
        )
    return accuracy


def check_length(anatomy: Anatomy, name: str, lengths: Iterable[int]) -> None:
    """Prompts must fit the positions that the model has, or it would fail, or read garbage.

    Args:
        name: of the gate file or capability that gives them.
        lengths: of the prompts, in tokens; at least one.

    Raises:
        CapabilityError: one does not.
    """
    config = anatomy.model.config.get_text_config()  # type: ignore[operator, union-attr]
    most = getattr(config, "max_position_embeddings", None)
    longest = max(lengths)
    if isinstance(most, int) and longest > most:
        raise CapabilityError(
            f"{name}: a prompt has {longest} tokens and the model {most} positions; shorten the "
            "prompts"
        )

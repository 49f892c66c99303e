"""What one model does on a capability: its readout and its accuracy, pair by pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.capabilities.batches import Batch
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import READOUTS, Readout, most_likely, score
from forgetguard.errors import CapabilityError
from forgetguard.measures.prompt_pass import Reader, handing_to
from forgetguard.patching.forward import check_finite, forward


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """F(model, x), float64 [pair]; whether the model answers right, as the readout says, and
    whether the answer is the most likely of all tokens, bool [pair]; the most likely token where it
    first is another than the answer's, int64 [pair]."""

    readout: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]
    top1: npt.NDArray[np.bool_]
    said: npt.NDArray[np.int64]


def read_batch(
    capability: EncodedCapability,
    batch: Batch,
    logits: Float[Tensor, "row readout vocab"],
    into: Behaviour,
) -> None:
    """Score one batch's clean logits and put the results where its pairs stand in `into`."""
    logits = logits[..., : capability.vocabulary].float()
    where = list(batch.pairs)
    readout = READOUTS[capability.capability.readout]
    values = _scored(readout, batch, logits, "a clean prompt")
    valid = None if batch.answers is None else batch.answers.to(logits.device)
    top1, said = most_likely(logits, batch.answer.to(logits.device), valid)
    into.readout[where] = values.double().cpu().numpy()
    into.correct[where] = readout.right(values, top1).cpu().numpy()
    into.top1[where] = top1.cpu().numpy()
    into.said[where] = said.cpu().numpy()


def read_counterfactual(
    capability: EncodedCapability,
    batch: Batch,
    logits: Float[Tensor, "row readout vocab"],
    into: npt.NDArray[np.float64],
) -> None:
    """Score the answers to the clean prompts on one batch's counterfactual prompts, into [pair]."""
    readout = READOUTS[capability.capability.readout]
    logits = logits[..., : capability.vocabulary].float()
    values = _scored(readout, batch, logits, "a counterfactual prompt")
    into[list(batch.pairs)] = values.double().cpu().numpy()


def _scored(readout: Readout, batch: Batch, logits: Tensor, what: str) -> Float[Tensor, "row"]:
    check_finite(logits, what)
    return score(readout, logits, batch, torch.arange(len(batch.pairs)))


def empty_behaviour(n_pairs: int) -> Behaviour:
    """Room for `n_pairs` results; NaN until they are there."""
    no = np.zeros(n_pairs, np.bool_)
    return Behaviour(np.full(n_pairs, np.nan), no, no.copy(), np.full(n_pairs, -1))


def behaviour(
    anatomy: Anatomy, capability: EncodedCapability, readers: Sequence[Reader[Any]] = ()
) -> Behaviour:
    """Run a model on every clean prompt of a capability, for `readers` too.

    Raises:
        MeasurementError: logits are not finite.
    """
    result = empty_behaviour(capability.n_pairs)
    with torch.no_grad():
        for batch in capability.batches:
            with handing_to(readers, anatomy, batch.pairs, batch.positions):
                logits = forward(anatomy, batch.clean, batch.positions)
            read_batch(capability, batch, logits, result)
    return result


def counterfactual_readout(
    anatomy: Anatomy, capability: EncodedCapability
) -> npt.NDArray[np.float64]:
    """F(model, x') of the answers to the clean prompts, float64 [pair].

    Raises:
        MeasurementError: logits are not finite.
    """
    result = np.full(capability.n_pairs, np.nan)
    with torch.no_grad():
        for batch in capability.batches:
            logits = forward(anatomy, batch.counterfactual, batch.positions)
            read_counterfactual(capability, batch, logits, result)
    return result


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

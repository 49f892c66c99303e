"""SFTTrainer with the terms of the regularised recipes added to its loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from trl.trainer.sft_trainer import SFTTrainer

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.recipes.losses.circuit_regulariser import circuit_difference, reading_z
from forgetguard.recipes.losses.kl_to_base import token_kl
from forgetguard.recipes.training.models import FrozenBase, inner_model
from forgetguard.recipes.training.rows import IGNORED, collate
from forgetguard.recipes.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Logits where an answer's token is predicted in some row, the tokens there, and in which rows
    the loss counts them."""

    logits: Float[Tensor, "row pos vocabulary"]
    tokens: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row pos"]

    def cross_entropy(self) -> Float[Tensor, "row pos"]:
        """The negative log-probability of each token, in nats, 0 where the mask is false."""
        wide = self.logits.to(torch.promote_types(self.logits.dtype, torch.float32))
        loss = nn.functional.cross_entropy(
            wide.flatten(0, 1), self.tokens.flatten().clamp(min=0), reduction="none"
        )
        return loss.view_as(self.tokens).masked_fill(~self.mask, 0.0)


def answers(model: Any, plain: nn.Module, batch: dict[str, Tensor]) -> Answers:
    """Run `model` and keep the logits of answers alone; the vocabulary is large and prompts long.

    Args:
        model: what is called, wrapped or not.
        plain: the transformers model inside, to see whether it can leave logits out.
        batch: `input_ids`, `attention_mask`, `labels`, all [row, pos].
    """
    labels = batch["labels"][:, 1:]
    predicted = (labels != IGNORED).any(0).nonzero().squeeze(1)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    if "logits_to_keep" in inspect.signature(plain.forward).parameters:
        logits = model(**inputs, use_cache=False, logits_to_keep=predicted).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, predicted]
    tokens = labels[:, predicted]
    return Answers(logits, tokens, tokens != IGNORED)


def base_losses(
    model: nn.Module, columns: Mapping[str, Sequence[Any]], padding: int, at_once: int
) -> Float[Tensor, "row"]:
    """The mean cross-entropy of each row's answer under `model`, float64, in nats."""
    device = next(model.parameters()).device
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    losses = []
    model.eval()
    with torch.no_grad():
        for begin in range(0, len(rows), at_once):
            batch = collate(rows[begin : begin + at_once], padding)
            found = answers(model, model, {key: one.to(device) for key, one in batch.items()})
            mean = found.cross_entropy().double().sum(1) / found.mask.sum(1)
            losses.append(mean.cpu())
    return torch.cat(losses)


class SupervisedTrainer(SFTTrainer):
    """SFTTrainer whose loss is cross-entropy plus the recipe's terms; that of `sft` is SFTTrainer's
    own. `base`: what `sft-kl` and `sft-circuit` compare with."""

    def __init__(
        self, *, settings: TrainingSettings, base: FrozenBase | None, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self._settings, self._recipe, self._base = settings, settings.recipe, base
        self._anatomy: Anatomy | None = None
        self._base_anatomy: Anatomy | None = None
        if self._recipe == "sft-circuit" and base is not None:
            unwrapped = self.accelerator.unwrap_model(self.model)
            self._anatomy = locate(inner_model(unwrapped))
            self._base_anatomy = locate(base.inner(unwrapped))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a micro-batch, scaled so that the sum over an update's is that of its rows:
        cross-entropy and KL per answer token, the circuit term per micro-batch."""
        if self._recipe == "sft":
            plain_sft: Any = super().compute_loss  # has no annotations
            return plain_sft(model, inputs, return_outputs, num_items_in_batch)
        plain = inner_model(self.accelerator.unwrap_model(model))
        with self._reading(self._anatomy) as z:
            found = answers(model, plain, inputs)
        count = found.mask.sum() if num_items_in_batch is None else num_items_in_batch
        # The count is that of all processes, whose gradients are averaged.
        scale = 1 if num_items_in_batch is None else self.accelerator.num_processes
        per_token = scale / torch.as_tensor(count).clamp(min=1)
        loss = self._cross_entropy(found, inputs) * per_token
        if self._base is not None:
            loss = loss + self._against_base(model, inputs, found, z, per_token)
        return (loss, found) if return_outputs else loss

    def _reading(self, anatomy: Anatomy | None) -> Any:
        return nullcontext({}) if anatomy is None else reading_z(anatomy, self._settings.heads)

    def _cross_entropy(self, found: Answers, inputs: dict[str, Any]) -> Tensor:
        losses = found.cross_entropy()
        self._note("cross_entropy", losses.sum() / found.mask.sum().clamp(min=1))
        if self._recipe == "sft-replay":
            for name, rows in (("replayed", inputs["replayed"]), ("new", ~inputs["replayed"])):
                if rows.any():
                    mean = losses[rows].sum() / found.mask[rows].sum().clamp(min=1)
                    self._note(f"cross_entropy_{name}", mean)
        if self._recipe == "sft-flow":
            losses = losses * inputs["weight"].to(losses.dtype)[:, None]
            self._note("weighted_cross_entropy", losses.sum() / found.mask.sum().clamp(min=1))
        return losses.sum()

    def _against_base(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        found: Answers,
        z: dict[int, Tensor],
        per_token: Tensor,
    ) -> Tensor:
        assert self._base is not None
        unwrapped = self.accelerator.unwrap_model(model)
        plain = self._base.inner(unwrapped)
        with (
            self.accelerator.autocast(),  # as the model: they are to differ by weights alone
            self._base.running(model, unwrapped) as base,
            self._reading(self._base_anatomy) as at,
        ):
            reference = answers(base, plain, inputs)
        loss = torch.zeros((), device=found.logits.device)
        if self._recipe == "sft-kl":
            direction = self._settings.kl_direction
            kl = token_kl(found.logits[found.mask], reference.logits[found.mask], direction)
            self._note(f"{direction}_kl", kl.mean())
            loss = loss + (self._settings.kl_weight or 0.0) * kl.sum() * per_token
        if self._anatomy is not None:
            mask = inputs["attention_mask"].bool()
            term = circuit_difference(self._anatomy, self._settings.heads, z, at, mask)
            self._note("circuit_difference", term)
            steps = getattr(self, "current_gradient_accumulation_steps", 1)
            loss = loss + (self._settings.circuit_weight or 0.0) * term / steps
        return loss

    def _note(self, name: str, value: Tensor) -> None:
        """Keep a term for the log, which averages what is kept between two of its lines."""
        assert isinstance(self.model, nn.Module)
        mode = "train" if self.model.training else "eval"
        everywhere = self.accelerator.gather(value.detach().reshape(1))
        self._metrics[mode][name].append(everywhere.mean().item())

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the run card takes its place."""

"""KL between a model in training and its frozen base on completions, exact over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forgetguard.measures.divergence import token_divergence


@dataclass(frozen=True, slots=True, eq=False)
class Completions:
    """Sampled completions with their prompts, of ragged lengths, moved to the left edge.

    Padding stands on the right, where no token sees it, so that every token has the position that
    it has alone, in models with absolute positions too.

    Attributes:
        ids: [row, pos]; first a prompt, then its completion, then padding.
        mask: 1 where there is a token, [row, pos].
        prompt: tokens of each prompt, [row].
    """

    ids: Int[Tensor, "row pos"]
    mask: Int[Tensor, "row pos"]
    prompt: Int[Tensor, "row"]

    @property
    def predicting(self) -> Int[Tensor, "row pos"]:
        """1 at the positions whose prediction is a token of the completion."""
        at = torch.arange(self.ids.shape[1] - 1, device=self.ids.device)
        asked = (at >= self.prompt[:, None] - 1) & (self.mask[:, 1:] == 1)
        return torch.nn.functional.pad(asked, (0, 1)).long()


def left_aligned(
    prompt_ids: Int[Tensor, "row prompt"],
    prompt_mask: Int[Tensor, "row prompt"],
    completion_ids: Int[Tensor, "row completion"],
    completion_mask: Int[Tensor, "row completion"],
) -> Completions:
    """From prompts padded on the left and completions padded on the right, as TRL holds them."""
    ids = torch.cat([prompt_ids, completion_ids], dim=1)
    mask = torch.cat([prompt_mask, completion_mask], dim=1).long()
    order = mask.argsort(dim=1, descending=True, stable=True)
    length = int(mask.sum(1).max())
    return Completions(
        ids.gather(1, order)[:, :length],
        mask.gather(1, order)[:, :length],
        prompt_mask.sum(1),
    )


# (ids, mask, positions) -> logits at these positions, [row, position, vocabulary]
Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def completion_divergence(
    base: Run, tuned: Run, completions: Completions, *, rows: int
) -> Float[Tensor, "direction token"]:
    """KL(base || tuned) and KL(tuned || base), in nats, at every completion token, row by row,
    float64 [2, token]. Of the models' own distributions: no temperature.

    Args:
        base, tuned: run the models, without gradients.
        completions: of any lengths.
        rows: completions run at once. Where models are spread over processes these run them in
            step: give all the same.
    """
    predicting = completions.predicting.bool()
    positions = predicting.any(0).nonzero().squeeze(1)
    found = []
    for begin in range(0, len(completions.ids), rows):
        part = slice(begin, begin + rows)
        ids, mask = completions.ids[part], completions.mask[part]
        asked = predicting[part][:, positions]
        there, here = (run(ids, mask, positions)[asked] for run in (base, tuned))
        found.append(torch.stack(token_divergence(there, here)))
    return torch.cat(found, dim=1)


def running(model: Any) -> Run:
    """A transformers model, wrapped or not, as something to run."""

    def run(ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(
                input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=positions
            ).logits
        return logits

    return run

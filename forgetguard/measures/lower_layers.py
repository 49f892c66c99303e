"""The clean run below the first patched layer, kept between runs: it depends on the model and the
prompts alone, and no patched run ever goes through it.

What is kept is found by what the model at hand has just computed there on the first prompt, bit
for bit, beside all that `saved` tells apart: another model's, or another machine's, is not taken
up. And it is used only where that prompt's logits are the same to the last bit from there as from
the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import Batch
from forgetguard.measures.saved import Saved, digest
from forgetguard.patching.clean import Below, CleanPass, clean_pass

# Of all prompts of one capability; what takes more is computed again. (64 prompts of 40 tokens in
# float32, 4,096 wide, take 42 MB; all of the default run on SmolLM2 11 MB.)
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class LowerLayers:
    """What enters layer `layer` on the clean prompts of `batches`, by their numbers."""

    batches: Sequence[Batch]
    layer: int
    saved: Saved
    name: str
    width: int
    idle: Mapping[nn.Module, tuple[Any, ...] | None]

    @classmethod
    def of(
        cls, anatomy: Anatomy, batches: Sequence[Batch], first: Member, saved: Saved, name: str
    ) -> LowerLayers | None:
        """Those below `first`, the first of the members that are patched; None where there are
        none, they take too much room, or the model cannot be run from there on.

        `name`: tells these prompts from others in `saved`.
        """
        if not first.layer:
            return None
        ids, positions = batches[0].clean[:1], batches[0].positions
        whole = clean_pass(anatomy, ids, positions, [first])
        entered, idle = whole.residual[first.layer], whole.idle_before(first.layer)
        tokens, width = sum(one.clean.numel() for one in batches), entered.shape[-1]
        if len(idle) < first.layer or tokens * width * _stored(entered).itemsize > MOST_BYTES:
            return None
        below = Below(first.layer, entered, idle)
        resumed = clean_pass(anatomy, ids, positions, [first], below=below)
        if not torch.equal(resumed.logits, whole.logits):
            return None
        seen = _stored(entered).numpy().tobytes()
        return cls(batches, first.layer, saved, digest((name, first.layer, seen)), width, idle)

    def load(self, number: int) -> Below | None:
        """What a batch need not compute; None where that is not kept."""
        values = self.saved.load(self._key(number))
        if values is None or values.shape != (*self.batches[number].clean.shape, self.width):
            return None
        return Below(self.layer, torch.from_numpy(values), self.idle)

    def save(self, number: int, passed: CleanPass) -> None:
        """Keep what was computed of a batch."""
        self.saved.save(self._key(number), _stored(passed.residual[self.layer]).numpy())

    def _key(self, number: int) -> str:
        return digest((self.name, "lower layers", number, self.batches[number].pairs))


def _stored(values: Tensor) -> Tensor:
    """As it is kept: exactly, in a format that numpy has."""
    return values.detach().to("cpu", torch.promote_types(values.dtype, torch.float32))

"""A capability: prompt pairs and a readout, and what a tokenizer makes of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from forgetguard.capabilities.batches import Batch, make_batches
from forgetguard.capabilities.encoding import Encoded, encode
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import find_task
from forgetguard.capabilities.tasks.words import Fits
from forgetguard.errors import CapabilityError


@dataclass(frozen=True, slots=True)
class Capability:
    """A behaviour that a release must keep.

    Either `pairs` are given, or `task` names a generator (capabilities/tasks, or an entry point's)
    from which `count` pairs that suit the tokenizer are drawn with `seed`.
    """

    name: str
    readout: str = "logit_diff"
    pairs: tuple[PromptPair, ...] = ()
    task: str | None = None
    count: int = 64
    seed: int = 0
    chat_template: bool = False

    def encoded(self, tokenizer: Any) -> EncodedCapability:
        """The capability in the tokens of one model.

        Raises:
            CapabilityError: unknown readout or task, or too few pairs suit the tokenizer.
        """
        if self.readout not in READOUTS:
            raise CapabilityError(
                f"capability {self.name}: unknown readout {self.readout!r}; "
                f"there are {', '.join(READOUTS)}"
            )
        try:
            encoded = encode(
                self._source(tokenizer),
                tokenizer,
                count=self.count if self.task else None,
                chat_template=self.chat_template,
                single_token=self._single_token,
            )
        except CapabilityError as error:
            raise CapabilityError(f"capability {self.name}: {error}") from error
        return EncodedCapability(self, encoded, make_batches(encoded.pairs))

    def _source(self, tokenizer: Any) -> Iterable[PromptPair]:
        if self.task is None:
            return self.pairs
        fits = fits_tokenizer(tokenizer, single_token=self._single_token)
        return _distinct(self.task, find_task(self.task)(random.Random(self.seed), fits))

    @property
    def _single_token(self) -> bool:
        return READOUTS[self.readout].single_token


@dataclass(frozen=True, slots=True, eq=False)
class EncodedCapability:
    """A capability in one tokenizer's ids: what every model of a comparison runs on."""

    capability: Capability
    encoded: Encoded
    batches: tuple[Batch, ...]

    @property
    def n_pairs(self) -> int:
        return len(self.encoded.pairs)


def _distinct(task: str, pairs: Iterator[PromptPair]) -> Iterator[PromptPair]:
    # A pair drawn twice would count twice; a small task runs dry instead of repeating itself.
    seen, repeats = set(), 0
    for pair in pairs:
        if not isinstance(pair, PromptPair):
            raise CapabilityError(
                f"task {task!r} must yield forgetguard.capabilities.pairs.PromptPair, "
                f"got {type(pair).__name__}"
            )
        key = (pair.clean, pair.counterfactual)
        repeats = repeats + 1 if key in seen else 0
        if repeats > 1000:
            return
        if not repeats:
            seen.add(key)
            yield pair


def fits_tokenizer(tokenizer: Any, *, single_token: bool = True) -> Fits:
    """How many tokens a word is in place, as the task generators ask; with `single_token`, 0 for a
    word of several."""

    def fits(word: str, before: str | None = None, /) -> int:
        start, text = ("the", f"the {word}") if before is None else (before, before + word)
        ahead, whole = (
            tokenizer(one, add_special_tokens=False)["input_ids"] for one in (start, text)
        )
        added = whole[len(ahead) :]
        merged = whole[: len(ahead)] != ahead
        if merged or tokenizer.unk_token_id in added or (single_token and len(added) > 1):
            return 0
        return len(added)

    return fits

"""A capability: prompt pairs and a readout, and what a tokenizer makes of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from forgetguard.capabilities.batches import Batch, make_batches
from forgetguard.capabilities.encoding import Encoded, encode, is_blank
from forgetguard.capabilities.pairs import ChatTemplate, PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import find_task
from forgetguard.errors import CapabilityError


@dataclass(frozen=True, slots=True)
class Capability:
    """A behaviour that a release must keep.

    Either `pairs` are given, or `task` names a generator (capabilities/tasks, or an entry point's)
    from which `count` pairs that suit the tokenizer are drawn with `seed`: with `held_out` from all
    of its words and sentence frames, without from those that are public; none whose clean prompt is
    among `without`.
    """

    name: str
    readout: str = "logit_diff"
    pairs: tuple[PromptPair, ...] = ()
    task: str | None = None
    count: int = 64
    seed: int = 0
    chat_template: ChatTemplate = field(default=False, hash=False)
    held_out: bool = False
    without: frozenset[str] = frozenset()

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
        fits = TokenizerFits(
            tokenizer,
            single_token=self._single_token,
            held_out=self.held_out,
            chat=bool(self.chat_template),
        )
        drawn = _distinct(self.task, find_task(self.task)(random.Random(self.seed), fits))
        return (pair for pair in drawn if pair.clean not in self.without)

    @property
    def _single_token(self) -> bool:
        return READOUTS[self.readout].single_token


@dataclass(frozen=True, slots=True, eq=False)
class EncodedCapability:
    """A capability in one tokenizer's ids: what every model of a comparison runs on.

    vocabulary: so many ids count, where fine-tuning may have added rows to the logits; None: all.
    """

    capability: Capability
    encoded: Encoded
    batches: tuple[Batch, ...]
    vocabulary: int | None = None

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
        texts = (*pair.classes, *pair.classes.values())
        if not all(isinstance(one, str) and one for one in texts):
            raise CapabilityError(
                f"task {task!r} must give its pairs' classes as texts by name, got {pair.classes!r}"
            )
        key = (pair.clean, pair.counterfactual)
        repeats = repeats + 1 if key in seen else 0
        if repeats > 1000:
            return
        if not repeats:
            seen.add(key)
            yield pair


@dataclass(frozen=True, slots=True, eq=False)
class TokenizerFits:
    """A tokenizer as the task generators see it (tasks/words.py, `Fits`). With `single_token`, a
    word of several tokens does not fit. `held_out`: whether held-out words and frames are drawn,
    too. `chat`: whether prompts will be wrapped by a chat template."""

    tokenizer: Any
    single_token: bool = True
    held_out: bool = False
    chat: bool = False

    def __call__(self, word: str, before: str | None = None, /) -> int:
        start, text = ("the", f"the {word}") if before is None else (before, before + word)
        ahead, whole = self._ids(start), self._ids(text)
        added = whole[len(ahead) :]
        several = self.single_token and len(added) > 1
        if not added or whole[: len(ahead)] != ahead or several:
            return 0
        blank = is_blank(added[0], self.tokenizer)
        return 0 if blank or self.tokenizer.unk_token_id in added else len(added)

    def knows(self, text: str) -> bool:
        """Whether no piece of the text is unknown."""
        unknown = self.tokenizer.unk_token_id
        return unknown is None or unknown not in self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

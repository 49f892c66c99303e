"""From prompt pairs to token ids that align position by position, or a reason why not.

Ids of answers are sliced from the ids of the whole text and never tokenised apart: "12" and " 12"
are different tokens in many vocabularies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from forgetguard.capabilities.pairs import Prompt, PromptPair
from forgetguard.errors import CapabilityError

FEWEST_PAIRS = 8  # below this a bootstrap over pairs says nothing
LARGEST_LOSS = 0.5  # of the given pairs; more means that the prompts do not suit the tokenizer


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of one pair. `clean` and `counterfactual` have one length; `distractor` is empty
    where the pair has none."""

    pair: PromptPair
    clean: tuple[int, ...]
    counterfactual: tuple[int, ...]
    answer: tuple[int, ...]
    distractor: tuple[int, ...]

    @property
    def start(self) -> int:
        """The first position where clean and counterfactual differ."""
        return next(
            i
            for i, (a, b) in enumerate(zip(self.clean, self.counterfactual, strict=True))
            if a != b
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """The pairs that align, in order, and why the others were dropped (reason -> count). `asked`
    is how many were to be drawn, where they were drawn and not given."""

    pairs: tuple[EncodedPair, ...]
    dropped: dict[str, int]
    first_dropped: PromptPair | None = None
    asked: int | None = None

    @property
    def n_dropped(self) -> int:
        return sum(self.dropped.values())


class _UnfitError(Exception):
    """A pair that cannot be measured with this tokenizer; the message is the reason."""


def encode(
    pairs: Iterable[PromptPair],
    tokenizer: Any,
    *,
    count: int | None = None,
    chat_template: bool = False,
    single_token: bool = False,
) -> Encoded:
    """Tokenise pairs and keep those that align.

    Args:
        pairs: may be endless if `count` is given.
        tokenizer: a transformers tokenizer.
        count: stop once this many align (giving up after 20 times as many).
        chat_template: wrap each prompt as a user's turn, the answer being the assistant's.
        single_token: answers and distractors of several tokens are dropped (`logit_diff`).

    Raises:
        CapabilityError: too few pairs align, or too many do not.
    """
    kept: list[EncodedPair] = []
    dropped: Counter[str] = Counter()
    first_dropped: PromptPair | None = None
    for seen, pair in enumerate(pairs):
        if count is not None and (len(kept) == count or seen >= 20 * count):
            break
        try:
            kept.append(_encode_pair(pair, tokenizer, chat_template, single_token))
        except _UnfitError as reason:
            dropped[str(reason)] += 1
            first_dropped = first_dropped or pair
    encoded = Encoded(tuple(kept), dict(dropped), first_dropped, count)
    _check_loss(encoded)
    return encoded


def _encode_pair(
    pair: PromptPair, tokenizer: Any, chat_template: bool, single_token: bool
) -> EncodedPair:
    clean, answer = _in_place(pair.clean, pair.answer, tokenizer, chat_template)
    counterfactual, other = _in_place(pair.counterfactual, pair.answer, tokenizer, chat_template)
    distractor: tuple[int, ...] = ()
    if pair.distractor is not None:
        _, distractor = _in_place(pair.clean, pair.distractor, tokenizer, chat_template)
    if len(clean) != len(counterfactual):
        raise _UnfitError("clean and counterfactual have different numbers of tokens")
    if clean == counterfactual:
        raise _UnfitError("clean and counterfactual are the same tokens")
    if answer != other:
        raise _UnfitError("the answer's tokens differ between clean and counterfactual")
    if answer == distractor:
        raise _UnfitError("answer and distractor are the same tokens")
    if single_token and (len(answer) > 1 or len(distractor) > 1):
        raise _UnfitError(
            "answer or distractor is more than one token (readout logprob scores them all)"
        )
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in (*clean, *counterfactual, *answer, *distractor):
        raise _UnfitError("a word is unknown to the tokenizer")
    return EncodedPair(pair, clean, counterfactual, answer, distractor)


def encode_prompt(
    prompt: Prompt, tokenizer: Any, *, chat_template: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(ids of the prompt, ids of its completion as it stands after it; none where it has none).

    Raises:
        CapabilityError: the tokenizer gives none, or makes one token of the prompt's end and the
            completion's beginning.
    """
    if not prompt.completion:
        text = _chat(prompt.clean, tokenizer) if chat_template else prompt.clean
        ids = _ids(text, tokenizer, special=not chat_template)
        if not ids:
            raise CapabilityError(f"the tokenizer gives no tokens for {prompt.clean!r}")
        return ids, ()
    try:
        return _in_place(prompt.clean, prompt.completion, tokenizer, chat_template)
    except _UnfitError as error:
        raise CapabilityError(f"{prompt.clean!r} with {prompt.completion!r}: {error}") from None


def _in_place(
    prompt: str, answer: str, tokenizer: Any, chat_template: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the prompt, and ids of the answer as it stands after it."""
    if chat_template:
        prompt = _chat(prompt, tokenizer)
    before = _ids(prompt, tokenizer, special=not chat_template)
    whole = _ids(prompt + answer, tokenizer, special=not chat_template)
    if not before:
        raise CapabilityError(
            f"the tokenizer gives no tokens for {prompt!r}: its files do not fit its class; "
            "check tokenizer.json and tokenizer_config.json of its checkpoint"
        )
    if whole[: len(before)] != before:
        raise _UnfitError("the answer is tokenised together with the prompt's end")
    if len(whole) == len(before):
        raise _UnfitError("the answer has no tokens")
    return before, whole[len(before) :]


def _chat(prompt: str, tokenizer: Any) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise CapabilityError(
            "chat_template: true, but the tokenizer has no chat template; "
            "leave it out or use a checkpoint that has one"
        )
    turn = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def _ids(text: str, tokenizer: Any, *, special: bool) -> tuple[int, ...]:
    ids = list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
    end = tokenizer.eos_token_id
    # An end-of-text token that the tokenizer appends would stand between prompt and answer.
    if special and end is not None and len(ids) > 1 and ids[-1] == end:
        ids.pop()
    return tuple(ids)


def _check_loss(encoded: Encoded) -> None:
    kept, lost = len(encoded.pairs), encoded.n_dropped
    # What a task draws in vain costs nothing; what counts is whether it found what was asked for.
    wanted = kept + lost if encoded.asked is None else encoded.asked
    if kept >= max(FEWEST_PAIRS, (1 - LARGEST_LOSS) * wanted):
        return
    reasons = "; ".join(f"{n} x {why}" for why, n in sorted(encoded.dropped.items()))
    example = encoded.first_dropped
    shown = "" if example is None else f"; the first: {_shown(example)}"
    raise CapabilityError(
        f"{kept} of {wanted} prompt pairs can be measured with this tokenizer, and at least "
        f"{FEWEST_PAIRS} and {1 - LARGEST_LOSS:.0%} of them are needed"
        + (f" ({reasons}{shown})" if reasons else "")
        + "; give more pairs, or pairs whose prompts have the same number of tokens"
    )


def _shown(pair: PromptPair) -> str:
    line = f"line {pair.line}: " if pair.line else ""
    return f"{line}{pair.clean!r} against {pair.counterfactual!r}, answer {pair.answer!r}"


def check_same_ids(encoded: Encoded, other: Sequence[EncodedPair], whose: str) -> None:
    """Both tokenizers must give the same ids on every prompt; `whose` is the other.

    Raises:
        CapabilityError: naming the first prompt on which they do not.
    """
    for mine, theirs in zip(encoded.pairs, other, strict=False):
        same = (mine.clean, mine.counterfactual, mine.answer, mine.distractor) == (
            theirs.clean,
            theirs.counterfactual,
            theirs.answer,
            theirs.distractor,
        )
        if not same:
            raise CapabilityError(
                f"the tokenizer of {whose} gives other ids than the base's on "
                f"{mine.pair.clean!r}: {list(theirs.clean)} against {list(mine.clean)}; a circuit "
                "of the base cannot be compared across tokenizers: if it was fine-tuned with the "
                "base's, save that one beside it"
            )
    if len(encoded.pairs) != len(other):
        raise CapabilityError(
            f"the tokenizer of {whose} keeps {len(other)} of the prompt pairs, the base's "
            f"{len(encoded.pairs)}: they do not tokenise alike; if it was fine-tuned with the "
            "base's tokenizer, save that one beside it"
        )

"""From prompt pairs to token ids that align position by position, or a reason why not.

Ids of answers are sliced from the ids of the whole text and never tokenised apart: "12" and " 12"
are different tokens in many vocabularies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from forgetguard.capabilities.pairs import ChatTemplate, Prompt, PromptPair
from forgetguard.errors import CapabilityError

FEWEST_PAIRS = 8  # below this a bootstrap over pairs says nothing
# Templates that print today's date print this one: prompts are the same on every day.
THE_DATE = datetime(2025, 1, 1)
_TODAY = re.compile(r"""strftime_now\(\s*(['"])([^'"]*)\1\s*\)""")
# What a reply that thinks, or that names its channel, opens with, and what ends it.
REPLY_MARKERS = {
    "<think>": "</think>",
    "<|channel|>": "<|message|>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
LARGEST_LOSS = 0.5  # of the given pairs; more means that the prompts do not suit the tokenizer


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of one pair. `clean` and `counterfactual` have one length; `distractor` is empty
    where the pair has none. `answers` and `distractors`: one token for each further answer."""

    pair: PromptPair
    clean: tuple[int, ...]
    counterfactual: tuple[int, ...]
    answer: tuple[int, ...]
    distractor: tuple[int, ...]
    answers: tuple[int, ...] = ()
    distractors: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        """All that is run and scored: what makes two encoded pairs the same."""
        further = (self.answers, self.distractors) if self.answers or self.distractors else ()
        return (self.clean, self.counterfactual, self.answer, self.distractor, *further)

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
    is how many were to be drawn, where they were drawn and not given. `marker`: as of
    `reply_marker`."""

    pairs: tuple[EncodedPair, ...]
    dropped: dict[str, int]
    first_dropped: PromptPair | None = None
    asked: int | None = None
    marker: str = ""

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
    chat_template: ChatTemplate = False,
    single_token: bool = False,
) -> Encoded:
    """Tokenise pairs and keep those that align.

    Args:
        pairs: may be endless if `count` is given.
        tokenizer: a transformers tokenizer.
        count: stop once this many align (giving up after 20 times as many).
        chat_template: wrap each prompt as a user's turn, the answer being the assistant's; a
            mapping gives arguments to the template, e.g. {"enable_thinking": False}.
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
    marker = reply_marker(tokenizer, chat_template) if kept else ""
    encoded = Encoded(tuple(kept), dict(dropped), first_dropped, count, marker)
    _check_loss(encoded)
    return encoded


def _encode_pair(
    pair: PromptPair, tokenizer: Any, chat_template: ChatTemplate, single_token: bool
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
    answers = _further(pair.answers, pair, tokenizer, chat_template)
    distractors = _further(pair.distractors, pair, tokenizer, chat_template)
    scored = (*answer, *answers, *distractor, *distractors)
    if (answers or distractors) and len(set(scored)) < len(scored):
        raise _UnfitError("two of the pair's answers are the same token, or one has several")
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in (*clean, *counterfactual, *scored):
        raise _UnfitError("a word is unknown to the tokenizer")
    for first in (*answer[:1], *answers, *distractor[:1], *distractors):
        if is_blank(first, tokenizer):
            raise _UnfitError(
                "an answer's first token is white space alone (write it without its space, at the "
                "end of a prompt that needs none)"
            )
    if not single_token:
        pair = replace(pair, classes={**pair.classes, "answer tokens": str(len(answer))})
    return EncodedPair(pair, clean, counterfactual, answer, distractor, answers, distractors)


def is_blank(token: int, tokenizer: Any) -> bool:
    """Whether a token stands for white space and nothing else; what comes after it is then not
    what a readout of that token sees."""
    return not str(tokenizer.decode([token])).strip()


def _further(
    texts: Sequence[str],
    pair: PromptPair,
    tokenizer: Any,
    chat_template: ChatTemplate,
) -> tuple[int, ...]:
    """One id for each further answer, as it stands after both prompts."""
    found: list[tuple[int, ...]] = []
    for asked in (pair.clean, pair.counterfactual) if texts else ():
        before, *wholes = _ids(asked, ("", *texts), tokenizer, chat_template)
        if any(whole[:-1] != before for whole in wholes):
            raise _UnfitError("a further answer is not one token")
        found.append(tuple(whole[-1] for whole in wholes))
    if found and found[0] != found[1]:
        raise _UnfitError("a further answer's token differs between clean and counterfactual")
    return found[0] if found else ()


def encode_prompt(
    prompt: Prompt, tokenizer: Any, *, chat_template: ChatTemplate = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(ids of the prompt, ids of its completion as it stands after it; none where it has none).

    Raises:
        CapabilityError: the tokenizer gives none, or makes one token of the prompt's end and the
            completion's beginning.
    """
    if not prompt.completion:
        (ids,) = _ids(prompt.clean, ("",), tokenizer, chat_template)
        if not ids:
            raise CapabilityError(f"the tokenizer gives no tokens for {prompt.clean!r}")
        return ids, ()
    try:
        return _in_place(prompt.clean, prompt.completion, tokenizer, chat_template)
    except _UnfitError as error:
        raise CapabilityError(f"{prompt.clean!r} with {prompt.completion!r}: {error}") from None


def _in_place(
    prompt: str, answer: str, tokenizer: Any, chat_template: ChatTemplate
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the prompt, and ids of the answer as it stands after it."""
    before, whole = _ids(prompt, ("", answer), tokenizer, chat_template)
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


def _chat(prompt: str, tokenizer: Any, chat_template: ChatTemplate, *, reply: bool = True) -> str:
    """The prompt as a user's turn and, with `reply`, what the assistant's begins with."""
    if not getattr(tokenizer, "chat_template", None):
        raise CapabilityError(
            "chat_template is given, but the tokenizer has no chat template; "
            "leave it out or use a checkpoint that has one"
        )
    given = dict(chat_template) if isinstance(chat_template, Mapping) else {}
    turn = [{"role": "user", "content": prompt}]
    try:
        return str(
            tokenizer.apply_chat_template(
                turn,
                tokenize=False,
                add_generation_prompt=reply,
                **{**given, "chat_template": _dated(tokenizer, given.get("chat_template"))},
            )
        )
    except Exception as error:  # whatever a template may raise, itself or by jinja
        raise CapabilityError(
            f"the base's chat template fails on {prompt!r} with the arguments {given}: "
            f"{type(error).__name__}: {error}; look at chat_template: and the template's own"
        ) from error


def _dated(tokenizer: Any, chosen: str | None) -> str:
    """The tokenizer's template with every call for today's date answered by `THE_DATE`.

    In its text: transformers hands no function of ours to a template.
    """
    template = str(tokenizer.get_chat_template(chosen))
    dated = _TODAY.sub(lambda call: repr(THE_DATE.strftime(call[2])), template)
    if "strftime_now(" in dated:
        raise ValueError("it asks for today's date in a format that is no plain text")
    return dated


def reply_marker(tokenizer: Any, chat_template: ChatTemplate) -> str:
    """The marker of thinking or of a channel that replies are likely to begin with, because the
    template knows it and does not close it where the reply begins; else nothing.

    An answer that is scored in place of such a marker is not what the model would have said.
    """
    if not chat_template:
        return ""
    before, whole = (
        _chat("Hello", tokenizer, chat_template, reply=reply) for reply in (False, True)
    )
    opening = whole.removeprefix(before)
    for marker, end in REPLY_MARKERS.items():
        known = marker in str(tokenizer.chat_template)
        if known and end not in opening:
            return marker
    return ""


def _ids(
    prompt: str, after: Sequence[str], tokenizer: Any, chat_template: ChatTemplate
) -> list[tuple[int, ...]]:
    """The ids of the prompt with each of `after` behind it; one call is ten times as fast as one
    for each."""
    special = not chat_template  # a template writes its own
    start = _chat(prompt, tokenizer, chat_template) if chat_template else prompt
    texts = [start + text for text in after]
    every = tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
    # An end-of-text token that the tokenizer appends would stand between prompt and answer.
    end = tokenizer.eos_token_id
    return [
        tuple(ids[:-1] if special and len(ids) > 1 and ids[-1] == end else ids) for ids in every
    ]


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
        if mine.ids != theirs.ids:
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

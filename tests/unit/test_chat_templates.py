"""Chat templates: arguments, a date that stands still, and markers that replies open with."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from forgetguard.capabilities.encoding import encode, reply_marker
from forgetguard.capabilities.pairs import ChatTemplate, PromptPair
from forgetguard.errors import CapabilityError

PAIRS = [PromptPair(f"{c} x", f"{c} y", " yes", " no") for c in "abcdefgh"]
TURNS = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
REPLY = "{% if add_generation_prompt %}REPLY{% endif %}"
THINKING = (
    TURNS + "{% if add_generation_prompt %}REPLY{% if enable_thinking is defined and "
    "not enable_thinking %} <think> </think>{% endif %}{% endif %}"
)
OPENED = TURNS + "{% if add_generation_prompt %}REPLY <think> {% endif %}"
CHANNEL = TURNS + REPLY + "{% if 0 %}<|channel|>analysis<|message|>{% endif %}"


def chatting(template: str) -> Any:
    words = "<unk> a b c d e f g h x y yes no REPLY <think> </think> 01 Jan 2025".split()
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    wrapped.chat_template = template
    return wrapped


def prompt(template: str, chat_template: ChatTemplate) -> list[str]:
    tokenizer = chatting(template)
    found = encode(PAIRS, tokenizer, chat_template=chat_template)
    return list(tokenizer.convert_ids_to_tokens(list(found.pairs[0].clean)))


def test_arguments_reach_the_template() -> None:
    assert prompt(THINKING, True) == ["a", "x", "REPLY"]
    found = prompt(THINKING, {"enable_thinking": False})
    assert found == ["a", "x", "REPLY", "<think>", "</think>"]


def test_a_template_that_prints_the_date_prints_the_same_one_every_day() -> None:
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }} {% endif %}"
    assert prompt(dated + TURNS + REPLY, True) == ["01", "Jan", "2025", "a", "x", "REPLY"]
    given = '{% if day is not defined %}{% set day = strftime_now( "%b" ) %}{% endif %}{{ day }} '
    assert prompt(given + TURNS + REPLY, True)[0] == "Jan"
    assert prompt(given + TURNS + REPLY, {"day": "01"})[0] == "01"


def test_a_date_that_cannot_be_pinned_is_refused() -> None:
    with pytest.raises(CapabilityError, match="today's date in a format that is no plain text"):
        encode(PAIRS, chatting("{{ strftime_now('%d' + '%b') }}" + TURNS), chat_template=True)


def test_arguments_of_ones_own_reach_the_template() -> None:
    assert prompt("{{ day }} " + TURNS + REPLY, {"day": "Jan"})[:1] == ["Jan"]


@pytest.mark.parametrize(
    ("template", "chat_template", "marker"),
    [
        (TURNS + REPLY, True, ""),
        (THINKING, True, "<think>"),
        (THINKING, {"enable_thinking": False}, ""),
        (OPENED, True, "<think>"),
        (CHANNEL, True, "<|channel|>"),
        (CHANNEL, False, ""),
    ],
)
def test_a_marker_that_replies_may_open_with_is_found(template, chat_template, marker) -> None:
    assert reply_marker(chatting(template), chat_template) == marker


def test_the_marker_is_kept_with_the_pairs() -> None:
    assert encode(PAIRS, chatting(THINKING), chat_template=True).marker == "<think>"
    closed: ChatTemplate = {"enable_thinking": False}
    assert encode(PAIRS, chatting(THINKING), chat_template=closed).marker == ""


def test_a_template_that_fails_names_its_arguments() -> None:
    with pytest.raises(CapabilityError, match=r"fails on 'a x' with the arguments {'depth': 'x'}"):
        encode(PAIRS, chatting("{{ 1 + depth }}"), chat_template={"depth": "x"})

"""The tiny family's tokenizer: one token a word, the leading space a part of it.

Like GPT-2's, " Mary" (inside a text) and "Mary" (at its start) are different tokens, so text makes
the round trip unchanged and an answer that begins with a space is one token in place and alone.
"""

from __future__ import annotations

import re
from string import Formatter

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from examples.studies.tiny_prompts import DRAWN, FRAMES, KEY_VALUE_FRAMES
from forgetguard.recipes.data import substances

PIECES = r" ?[A-Za-z]+| ?[^A-Za-z ]"
END, PADDING, UNKNOWN = "<end>", "<pad>", "<unk>"


def tokenizer() -> PreTrainedTokenizerFast:
    """The family's tokenizer: no special token is added to a text, nothing is split or lost."""
    pieces = dict.fromkeys([PADDING, END, UNKNOWN, *(f" {word}" for word in DRAWN), *_of_frames()])
    model = Tokenizer(
        models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=UNKNOWN)
    )
    model.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    model.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=PADDING,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )


def _of_frames() -> list[str]:
    """Every piece of every sentence frame, with the slots left out."""
    texts = [
        *FRAMES,
        *substances.FRAMES.values(),
        *(f" {word}" for word in substances.PROPERTIES),
    ]
    for frame in KEY_VALUE_FRAMES:
        texts += frame.texts
    return [piece for text in texts for piece in _pieces(text)]


def _pieces(frame: str) -> list[str]:
    # A slot becomes a word and takes the space before it with it; the word is then dropped.
    parts = Formatter().parse(frame)
    text = "".join(literal + ("" if slot is None else "SLOT") for literal, slot, _, _ in parts)
    return [piece for piece in re.findall(PIECES, text) if piece.strip() != "SLOT"]

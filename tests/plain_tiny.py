"""What the tiny checkpoints compute, by plain transformers alone: to compare with."""

from __future__ import annotations

import functools

import torch
import transformers
from torch import Tensor

from forgetguard.checkpoints.spec import resolve


@functools.cache
def plain_model(name: str) -> transformers.PreTrainedModel:
    """tiny:NAME in float32, eval mode."""
    where = resolve(f"tiny:{name}", "base").location
    model = transformers.AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
    return model.eval()


@functools.cache
def plain_tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(resolve("tiny:base", "base").location)


def ids_of(text: str) -> Tensor:
    """Token ids of a text, [1, position]."""
    return torch.tensor([plain_tokenizer()(text).input_ids])


def logits_after(name: str, text: str) -> Tensor:
    """Logits of the token after the text, [vocabulary]."""
    with torch.inference_mode():
        return plain_model(name)(ids_of(text)).logits[0, -1]


def streams_after(name: str, text: str) -> Tensor:
    """The residual stream after each decoder layer at the text's last token, [layer, d_model];
    before the final norm, so read off the layers themselves."""
    model, kept = plain_model(name), []
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out: kept.append((out[0] if isinstance(out, tuple) else out)[0, -1])
        )
        for layer in model.model.layers
    ]
    with torch.inference_mode():
        model(ids_of(text))
    for hook in hooks:
        hook.remove()
    return torch.stack(kept)

"""Patches one prompt at a time by hooks on a plain Llama, with nothing of forgetguard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor

Heads = Mapping[tuple[int, int], Tensor]  # (layer, head): [position, d_model] to write instead


class Plain:
    """A Llama with its tokenizer, read by one prompt at a time. `adapter`: merged into it."""

    def __init__(self, base: Path, adapter: Path | None = None) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if adapter is not None:
            model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
        self.model = model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        self.width = model.config.head_dim

    def ids(self, text: str) -> Tensor:
        return torch.tensor([self.tokenizer(text).input_ids])

    def next_token(self, text: str, answer: str) -> int:
        """The one token that `answer` adds to `text`."""
        before, whole = self.tokenizer(text).input_ids, self.tokenizer(text + answer).input_ids
        assert whole[:-1] == before
        return int(whole[-1])

    def difference(
        self, text: str, answer: str, distractor: str, heads: Heads | None = None
    ) -> float:
        """Logit of the answer minus that of the distractor, `heads` writing something else."""
        with ExitStack() as hooks, torch.no_grad():
            for (layer, head), contribution in (heads or {}).items():
                projection = self._attention(layer).o_proj
                hooks.enter_context(projection.register_forward_pre_hook(self._silence(head)))
                hooks.enter_context(projection.register_forward_hook(_add(contribution)))
            logits = self.model(self.ids(text)).logits[0, -1].double()
        return float(
            logits[self.next_token(text, answer)] - logits[self.next_token(text, distractor)]
        )

    def contribution(self, text: str, layer: int, head: int) -> Tensor:
        """What a head adds to the residual stream, [position, d_model]."""
        return self._written(layer, head, lambda: self.model(self.ids(text)))

    def on_inputs_of(self, other: Plain, text: str, layer: int, head: int) -> Tensor:
        """What a head would add, given the residual stream that enters `other`'s layer."""
        seen: dict[str, Any] = {}
        entered: list[Tensor] = []

        def keep(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.update(kwargs)

        def enter(_: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
            entered.append(args[0])

        theirs, own = other.model.model.layers[layer], self.model.model.layers[layer]
        asked = theirs.self_attn.register_forward_pre_hook(keep, with_kwargs=True)
        with theirs.register_forward_pre_hook(enter), asked, torch.no_grad():
            other.model(other.ids(text), use_cache=False)
            seen["hidden_states"] = own.input_layernorm(entered[0])
        return self._written(layer, head, lambda: own.self_attn(**seen))

    def _written(self, layer: int, head: int, run: Callable[[], object]) -> Tensor:
        part = slice(head * self.width, (head + 1) * self.width)
        projection, z = self._attention(layer).o_proj, []

        def keep(_: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
            z.append(args[0][0, :, part])

        with projection.register_forward_pre_hook(keep), torch.no_grad():
            run()
            return z[0] @ projection.weight[:, part].T

    def _attention(self, layer: int) -> Any:
        return self.model.model.layers[layer].self_attn

    def _silence(self, head: int) -> Callable[..., tuple[Tensor]]:
        def zero(_: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            z = args[0].clone()
            z[..., head * self.width : (head + 1) * self.width] = 0
            return (z,)

        return zero


def literal(
    base: Plain, tuned: Plain, pair: tuple[str, str, str, str], heads: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """What the gate measures on one pair, under the gate's names: the readouts; importance, damage
    and own damage of every head alone; importance and damage of all of them together."""
    clean, counterfactual, answer, distractor = pair
    whole = base.difference(clean, answer, distractor)
    sources = {
        "importance": {head: base.contribution(counterfactual, *head) for head in heads},
        "damage": {head: tuned.contribution(clean, *head) for head in heads},
        "own_damage": {head: tuned.on_inputs_of(base, clean, *head) for head in heads},
    }
    found = {"base_readout": whole, "tuned_readout": tuned.difference(clean, answer, distractor)}
    for what, written in sources.items():
        for (layer, head), one in written.items():
            patched = base.difference(clean, answer, distractor, {(layer, head): one})
            found[f"head_{what}/L{layer}H{head}"] = whole - patched
        if what != "own_damage":
            found[f"circuit_{what}"] = whole - base.difference(clean, answer, distractor, written)
    return found


def _add(contribution: Tensor) -> Callable[..., Tensor]:
    return lambda _, args, output: output + contribution

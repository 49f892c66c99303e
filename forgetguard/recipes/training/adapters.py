"""The model in training, whole or through a LoRA adapter, and the frozen base beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import SpecificationError
from forgetguard.recipes.training.running import on_cpu
from forgetguard.recipes.training.settings import AdapterSettings, TrainingSettings

_SHOWN = 12


def device_of(settings: TrainingSettings) -> str:
    """Where this process trains: `cpu`, or its own CUDA device."""
    return "cpu" if on_cpu(settings) else f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"


def load_trainable(settings: TrainingSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base, ready to be trained, and its tokenizer with a padding token.

    Without an adapter every weight takes gradients and is float32. With one (which the trainer
    adds, from `lora`), the base stays frozen, in the settings' dtype.

    Raises:
        CheckpointError: the base cannot be read.
        SpecificationError: the adapter names modules that the base does not have.
    """
    spec = resolve(settings.base, "base")
    dtype = "float32" if settings.adapter is None else settings.dtype
    model: Any = load_model(spec, LoadOptions(dtype=dtype, device=device_of(settings)))
    model.requires_grad_(settings.adapter is None)
    if settings.adapter is not None:
        _check_modules(model, settings.adapter)
    tokenizer = load_tokenizer(spec)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def lora(adapter: AdapterSettings | None) -> LoraConfig | None:
    """peft's configuration of an adapter, without dropout and biases, so that it can be switched
    off exactly; None for none."""
    if adapter is None:
        return None
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=list(adapter.modules),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _check_modules(model: nn.Module, adapter: AdapterSettings) -> None:
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [name for name in adapter.modules if name.rpartition(".")[2] not in present]
    if missing:
        linear = sorted(
            {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
            }
        )
        raise SpecificationError(
            f"adapter: the base has no modules called {', '.join(missing)}; it has "
            f"{', '.join(linear[:_SHOWN])}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class FrozenBase:
    """The base beside the model in training: the model itself with its adapter switched off, or,
    where every weight is trained, a copy (which takes the memory of one more model)."""

    copy: PreTrainedModel | None

    @contextmanager
    def running(self, model: nn.Module, unwrapped: nn.Module) -> Iterator[Callable[..., Any]]:
        """Inside, what is given runs the base, without gradients and dropout.

        Args:
            model: the model in training, as the trainer has wrapped it.
            unwrapped: the same without wrappers (a PeftModel, unless there is a copy).
        """
        with torch.no_grad():
            if self.copy is not None:
                yield self.copy
                return
            assert isinstance(unwrapped, PeftModel)
            training = model.training
            model.eval()
            try:
                with unwrapped.disable_adapter():
                    yield model
            finally:
                model.train(training)

    def inner(self, unwrapped: nn.Module) -> nn.Module:
        """The transformers model whose modules run when the base does."""
        return self.copy if self.copy is not None else inner_model(unwrapped)


def inner_model(unwrapped: nn.Module) -> nn.Module:
    """The transformers model, adapters injected, within a model without wrappers."""
    return unwrapped.get_base_model() if isinstance(unwrapped, PeftModel) else unwrapped


def frozen_base(settings: TrainingSettings) -> FrozenBase:
    """The base to compare a model in training with (raises CheckpointError)."""
    if settings.adapter is not None:
        return FrozenBase(None)
    # float32 as the model in training is: rounded weights would be a difference from the start.
    options = LoadOptions(dtype="float32", device=device_of(settings))
    copy: Any = load_model(resolve(settings.base, "base"), options)
    return FrozenBase(copy)

"""The model in training, whole or through a LoRA adapter, from the base or an SFT checkpoint, and
the frozen base beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.errors import CheckpointError, SpecificationError
from forgetguard.recipes.training.settings import AdapterSettings, TrainingSettings
from forgetguard.recipes.training.surroundings import device_of

_SHOWN = 12


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


def load_policy(
    settings: TrainingSettings,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """The model to be trained, and the base's tokenizer.

    With an adapter, `rl` is given the base (the trainer adds the adapter), and `sft-rl` the base
    with the start's adapter, which goes on being trained. Without one, every weight takes
    gradients, a start's adapter having been added into the weights.

    Raises:
        CheckpointError: the base or the start cannot be read, or do not belong together.
        SpecificationError: the start is no adapter of the settings' shape.
    """
    if settings.start is None:
        return load_trainable(settings)
    start = localise(resolve(settings.start, "start"))
    base, tokenizer = load_trainable(settings)
    if settings.adapter is not None:
        return _with_adapter(base, start, settings.adapter), tokenizer
    vocabulary = base.config.get_text_config().vocab_size
    del base
    options = LoadOptions(device=device_of(settings), merge_adapter=start.kind == "adapter")
    model: Any = load_model(start, options, base=resolve(settings.base, "base"))
    if model.config.get_text_config().vocab_size != vocabulary:
        raise CheckpointError(
            f"{start} has a vocabulary of {model.config.get_text_config().vocab_size} and "
            f"base={settings.base} one of {vocabulary}: give the base that the start was made from"
        )
    model.requires_grad_(True)
    return model, tokenizer


def _with_adapter(
    base: PreTrainedModel, start: CheckpointSpec, wanted: AdapterSettings
) -> PeftModel:
    if start.kind != "adapter":
        raise SpecificationError(
            f"{start} is a full checkpoint, and an adapter trained on top of it would not fit the "
            f"base: give a start that was trained with the same adapter, or drop adapter"
        )
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            model = PeftModel.from_pretrained(base, start.location, is_trainable=True)
        except Exception as error:  # peft raises bare Warnings, RuntimeErrors and ValueErrors
            raise CheckpointError(
                f"{start} does not fit base={base.config.name_or_path}: {error}"
            ) from error
    given, asked = model.peft_config["default"], lora(wanted)
    different = [
        f"{name} is {_plain(given, key)} there and {_plain(asked, key)} here"
        for name, key in (("rank", "r"), ("alpha", "lora_alpha"), ("modules", "target_modules"))
        if _plain(given, key) != _plain(asked, key)
    ]
    if different:
        raise SpecificationError(
            f"{start} holds another adapter than the settings': {'; '.join(different)}. Reinforce "
            f"the start's own adapter: give its rank, alpha and modules"
        )
    return model


def _plain(config: Any, key: str) -> Any:
    value = getattr(config, key, None)
    return sorted(value) if isinstance(value, set | list | tuple) else value


# --- the base beside it -----------------------------------------------------------------------


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
    """The base to compare a model in training with: that model with its adapter off, or a copy.

    A copy's linear layers are kept in the dtype that autocast gives them anyway, so that a model
    with the base's weights is at a KL of exactly 0.

    Raises:
        CheckpointError: the base cannot be read.
    """
    if settings.adapter is not None:
        return FrozenBase(None)
    # float32 as the model in training is: rounded weights would be a difference from the start.
    options = LoadOptions(dtype="float32", device=device_of(settings))
    copy: Any = load_model(resolve(settings.base, "base"), options)
    if settings.dtype == "bfloat16":
        shared = copy.get_input_embeddings().weight
        for module in copy.modules():
            if isinstance(module, nn.Linear) and module.weight is not shared:
                module.to(torch.bfloat16)
    return FrozenBase(copy)

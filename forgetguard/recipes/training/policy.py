"""The model that reinforcement trains, from base or SFT checkpoint, and the base beside it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.errors import CheckpointError, SpecificationError
from forgetguard.recipes.training.adapters import (
    FrozenBase,
    device_of,
    frozen_base,
    load_trainable,
    lora,
)
from forgetguard.recipes.training.settings import AdapterSettings, TrainingSettings


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


def compared_base(settings: TrainingSettings) -> FrozenBase:
    """The base that the KL is measured to: the policy with its adapter off, or a copy.

    A copy's linear layers are kept in the dtype that autocast gives them anyway, so that a policy
    with the base's weights is at a KL of exactly 0.

    Raises:
        CheckpointError: the base cannot be read.
    """
    base = frozen_base(settings)
    copy: Any = base.copy
    if copy is not None and settings.dtype == "bfloat16":
        shared = copy.get_input_embeddings().weight
        for module in copy.modules():
            if isinstance(module, nn.Linear) and module.weight is not shared:
                module.to(torch.bfloat16)
    return base


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

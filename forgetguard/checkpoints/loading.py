"""Load a checkpoint's weights into a plain transformers model that can be trusted, or refuse."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from forgetguard.checkpoints.adapters import named_base
from forgetguard.checkpoints.described import Described, describe
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.merging import merged
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.checkpoints.tokenizers import load_tokenizer
from forgetguard.checkpoints.trusted import explained, frozen
from forgetguard.errors import CheckpointError, some

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["add_adapter", "choose_device", "load_model", "load_tokenizer"]


def load_model(
    spec: CheckpointSpec,
    options: LoadOptions | None = None,
    *,
    base: CheckpointSpec | None = None,
) -> PreTrainedModel | PeftModel:
    """Load a checkpoint: in eval mode, without gradients, every weight finite and from its files.

    Args:
        spec: a directory, a hub id or an adapter.
        options: number format, device and trust.
        base: for an adapter, the full checkpoint to put it on; without it, the one that its
            configuration names.

    Returns:
        The transformers model; for an adapter the PeftModel with the adapter switched on, or
        with `merge_adapter` the transformers model with the adapter added into its weights.

    Raises:
        CheckpointError: unreadable or incomplete weights, weights that the model needs and the
            files lack, NaN or infinite weights, an adapter that does not fit or that merges into
            another model than it is, out of memory.
    """
    options = options or LoadOptions()
    spec = localise(spec, options)
    if spec.kind != "adapter":
        return _load_full(describe(spec, options), options)
    under = localise(base or named_base(spec), options)
    model = add_adapter(_load_full(describe(under, options), options), spec, options)
    return merged(model, spec, options) if options.merge_adapter else model


def add_adapter(
    model: PreTrainedModel | PeftModel,
    spec: CheckpointSpec,
    options: LoadOptions,
    *,
    name: str = "default",
) -> PeftModel:
    """Put an adapter into a loaded model, in place, and switch it on.

    After an error the model may hold a part of the adapter: drop it.

    Raises:
        CheckpointError: the adapter does not fit, or some of its weights found no place.
    """
    from peft import PeftModel

    described = describe(spec, options)
    with explained(spec, options), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what they warn of is checked, here and later
        warnings.filterwarnings("error", message="Found missing adapter keys")
        # Without autocast the adapter is kept in the number format that was asked for.
        settings: dict[str, Any] = {"is_trainable": False, "autocast_adapter_dtype": False}
        if isinstance(model, PeftModel):
            result = model.load_adapter(spec.location, adapter_name=name, **settings)
            missing = [key for key in result.missing_keys if f".{name}." in key]
            _refuse_missing(spec, missing)
            peft_model = model
        else:
            peft_model = PeftModel.from_pretrained(
                model, spec.location, adapter_name=name, **settings
            )
        peft_model.set_adapter(name, inference_mode=True)
    _refuse_unused(described, peft_model, name)
    return cast("PeftModel", frozen(spec, peft_model, options))


def choose_device(options: LoadOptions) -> torch.device:
    """The device that the options ask for: cuda where there is one when they ask for none.

    Raises:
        CheckpointError: a device was asked for that this machine does not have.
    """
    if options.device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(options.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(
            f"device {options.device} was asked for, but torch sees {torch.cuda.device_count()} "
            f"CUDA devices: check the driver and the torch build, or use device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise CheckpointError("device mps was asked for, but is not there: use device cpu")
    return device


def _load_full(described: Described, options: LoadOptions) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM  # its annotations leave out output_loading_info

    spec = described.spec
    device = choose_device(options)
    placement: Any = options.device_map or (None if device.type == "cpu" else {"": device})
    with explained(spec, options), quiet():
        model, report = auto.from_pretrained(
            spec.location,
            dtype=getattr(torch, options.dtype),
            device_map=placement,
            use_safetensors=not described.weights.pickled,
            trust_remote_code=options.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the report names them; refused below
        )
    _refuse_mismatched(spec, report["mismatched_keys"])
    _refuse_missing(spec, report["missing_keys"])
    return cast("PreTrainedModel", frozen(spec, model, options))


# --- What makes a loaded model one that cannot be trusted ----------------------------------------


def _refuse_missing(spec: CheckpointSpec, missing: Sequence[str] | set[str]) -> None:
    if missing:
        raise CheckpointError(
            f"{spec}: {len(missing)} weights that the model needs are not in {spec.location}, and "
            f"would be random: {some(sorted(missing))}. Save the whole model with "
            f"save_pretrained, or check that config.json belongs to these weights"
        )


def _refuse_mismatched(spec: CheckpointSpec, mismatched: set[tuple[Any, ...]]) -> None:
    if mismatched:
        name, found, needed = sorted(mismatched, key=lambda item: str(item[0]))[0]
        raise CheckpointError(
            f"{spec}: config.json does not belong to the weights in {spec.location}: tensor {name} "
            f"has shape {list(found)}, the configuration needs {list(needed)} "
            f"({len(mismatched)} such tensors). Copy the config.json that was saved with them"
        )


def _refuse_unused(described: Described, model: torch.nn.Module, name: str) -> None:
    """Every LoRA tensor of the file must have arrived; peft drops those it has no place for."""
    there = model.state_dict().keys()
    unused = [
        tensor
        for tensor in described.tensors
        if (".lora_A." in tensor or ".lora_B." in tensor)
        and "expert" not in tensor  # fused by peft while loading, under other names
        and re.sub(r"\.(lora_[AB])\.", rf".\1.{name}.", tensor) not in there
    ]
    if unused:
        raise CheckpointError(
            f"{described.spec}: {len(unused)} of the adapter's weights have no place in the model "
            f"and would be left out: {some(sorted(unused))}. Check that its adapter_config.json "
            f"(target_modules) belongs to its weights"
        )

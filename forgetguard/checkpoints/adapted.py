"""A base in memory and the adapters put into it: switched on and off, and held to what it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import safe_open

from forgetguard.checkpoints.described import describe
from forgetguard.checkpoints.files import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, TensorEntry
from forgetguard.checkpoints.loading import add_adapter
from forgetguard.checkpoints.merging import IDLE, difference, merged, small_batch_logits
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.checkpoints.trusted import explained

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Names by which peft wraps a module of the base: a tuner's, and that of a module saved whole.
WRAPPED = ("base_layer", "original_module", "token_adapter")


class AdaptedModel:
    """A full checkpoint in memory, and what is put into it.

    Args:
        model: the checkpoint as it was loaded.
        spec: where it lies.

    Attributes:
        model: the plain transformers model, adapters inside its modules.
        adapters: the locations of the adapters that were put in.
    """

    def __init__(self, model: PreTrainedModel, spec: CheckpointSpec, options: LoadOptions) -> None:
        self.model = model
        self._spec, self._options = spec, options
        self._peft: PeftModel | None = None
        self._read: dict[str | None, Tensor] = {}  # logits by adapter; of the base under None

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(location for location in self._read if location is not None)

    def add(self, adapter: CheckpointSpec) -> None:
        """Put an adapter in and switch it on. After an error the model is to be dropped.

        Raises:
            CheckpointError: it does not fit.
        """
        if not self._read:
            self._read[None] = self._logits(self._spec)
        self._peft = add_adapter(
            self._peft or self.model, adapter, self._options, name=f"adapter{len(self._read)}"
        )
        self._read[adapter.location] = torch.empty(0)
        self.switch(adapter)
        self._read[adapter.location] = self._logits(adapter)

    def switch(self, adapter: CheckpointSpec | None) -> None:
        """Switch on an adapter that was put in, or (None) all off.

        Raises:
            CheckpointError: peft cannot.
        """
        if self._peft is not None:
            with explained(adapter or self._spec, self._options):
                self._switch(self._peft, None if adapter is None else adapter.location)
        self.model.requires_grad_(False)  # peft asks for gradients again when it switches
        self.model.train(False)

    def is_restored(self) -> bool:
        """Whether the base and every adapter read as before the last adapter was put in, and the
        weights under the adapters are, bit for bit, those of the base's files. Whatever cannot be
        held against the files (pickled, renamed or offloaded weights) counts as changed."""
        for location, before in self._read.items():
            with explained(self._spec, self._options):
                self._switch(cast("PeftModel", self._peft), location)
            if not torch.equal(before, self._logits(self._spec)):
                return False
        entries = describe(self._spec, self._options).tensors
        return all(_equals_its_file(name, here, entries) for name, here in _touched(self.model))

    def is_idle(self, adapter: CheckpointSpec) -> bool:
        """Whether the adapter leaves the logits where rounding alone could have moved them to."""
        return difference(self._read[None], self._read[adapter.location]) <= IDLE

    def merge(self, adapter: CheckpointSpec) -> None:
        """Add the adapter into the weights for good (raises CheckpointError, as `merged`)."""
        self.model = merged(cast("PeftModel", self._peft), adapter, self._options)
        self._peft = None

    def _switch(self, model: PeftModel, location: str | None) -> None:
        tuner = cast("BaseTuner", model.base_model)
        if location is None:
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            model.set_adapter(f"adapter{list(self._read).index(location)}", inference_mode=True)

    def _logits(self, spec: CheckpointSpec) -> Tensor:
        with explained(spec, self._options):
            return small_batch_logits(self.model)


def _touched(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name in the plain model and value of every parameter of the base that lies in a module which
    an adapter wraps. [its shape]"""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrappers: Any = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    wrapped = [name for name, module in model.named_modules() if isinstance(module, wrappers)]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        outer = max((w for w in wrapped if name.startswith(f"{w}.")), key=len, default=None)
        if outer is None:
            continue
        parts = name.removeprefix(f"{outer}.").split(".")
        if parts[0] in WRAPPED:
            kept = [p for p in (*outer.split("."), *parts) if p not in WRAPPED]
            yield ".".join(kept), parameter


def _equals_its_file(name: str, here: Tensor, entries: Mapping[str, TensorEntry]) -> bool:
    entry = _entry(name, entries)
    if entry is None or here.is_meta:
        return False
    stored, tensors = entry
    with safe_open(tensors.file, framework="pt") as file:
        there = file.get_tensor(stored).to(here.dtype)
    here = here.detach().cpu()
    return here.shape == there.shape and torch.equal(_bits(here), _bits(there))


def _entry(name: str, entries: Mapping[str, TensorEntry]) -> tuple[str, TensorEntry] | None:
    """A parameter's tensor in the files: under its name, that of the inner model alone (as `h.0`
    for `transformer.h.0`), or for a tied output embedding that of the input embedding."""
    found = [n for n in (name, name.partition(".")[2]) if n in entries]
    if not found and name.endswith(OUTPUT_EMBEDDINGS):
        found = [n for n in entries if n.endswith(INPUT_EMBEDDINGS)]
    return (found[0], entries[found[0]]) if len(found) == 1 else None


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)

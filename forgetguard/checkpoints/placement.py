"""Which models are in memory: base, tuned and reference, opened one at a time or kept."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch

from forgetguard.checkpoints.adapters import adapter_config, can_toggle, full_checkpoint_under
from forgetguard.checkpoints.fingerprint import Fingerprint, fingerprint
from forgetguard.checkpoints.loading import add_adapter, load_model
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.checkpoints.tokenizers import has_tokenizer, load_tokenizer
from forgetguard.errors import CheckpointError, SpecificationError

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Placement = Literal["sequential", "resident"]
_ROLES = ("base", "tuned", "reference")


class Checkpoint:
    """One checkpoint of a pair: nothing is loaded until it is opened.

    The model that `open` yields is plain transformers (adapters are inside its modules, and
    switched on or off); it must not be used after its `with` ends. In a `sequential` pair its
    weights are gone once another checkpoint is opened, whoever still holds the model; slices of
    weights that are to outlive it have to be cloned.
    """

    def __init__(self, pair: ModelPair, spec: CheckpointSpec) -> None:
        self._pair = pair
        self.spec = spec

    def __repr__(self) -> str:
        return f"<Checkpoint {self.spec}>"

    @property
    def role(self) -> str:
        return self.spec.role

    @property
    def options(self) -> LoadOptions:
        """How it is loaded."""
        return self._pair.options

    @contextmanager
    def open(self) -> Iterator[PreTrainedModel]:
        """The model, loaded if it is not in memory already; eval mode, no gradients.

        Raises:
            CheckpointError: it cannot be loaded, or another checkpoint is still open that would
                have to leave memory, or to be switched, for it.
        """
        with self._pair._opened(self) as model:
            yield model

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its own tokenizer, or the base's where it brings none (raises CheckpointError)."""
        return load_tokenizer(self._pair._tokenizer_source(self), self._pair.options)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Hashes of its files; reads each of them once (raises CheckpointError)."""
        return fingerprint(self.spec, self._pair.options)


@dataclass(frozen=True, slots=True)
class _View:
    """How a checkpoint is had: a model in memory (`key`), and the adapter switched on in it.

    `load` is what is loaded under that key, onto `base` when it is an adapter that cannot be
    toggled; `adapter` is put into the loaded model, and toggled.
    """

    key: tuple[str, ...]
    load: CheckpointSpec
    base: CheckpointSpec | None = None
    adapter: CheckpointSpec | None = None


@dataclass(slots=True)
class _Loaded:
    """A model in memory, and the adapters put into it: location -> the name peft knows it by."""

    model: PreTrainedModel
    peft: PeftModel | None = None
    adapters: dict[str, str] = field(default_factory=dict)


class ModelPair:
    """Base, tuned and perhaps a reference, with a rule for what is in memory.

    Args:
        specs: the checkpoints; role `base`, `tuned` unless nothing is compared (discovery), and
            `reference` where there is one.
        options: how they are loaded.
        placement: `sequential`: never two models at once, opening one frees the other.
            `resident`: each stays once it was opened. In both, a LoRA adapter shares the one
            load of its base and is switched on and off (not with `merge_adapter`, nor when it
            changed biases in place).

    Raises:
        SpecificationError: a role is missing, unknown or given twice; unknown placement.
    """

    def __init__(
        self,
        specs: Mapping[str, CheckpointSpec] | Iterable[CheckpointSpec],
        options: LoadOptions | None = None,
        placement: Placement = "sequential",
    ) -> None:
        if placement not in get_args(Placement):
            raise SpecificationError(
                f"placement {placement!r} is not known: choose sequential or resident"
            )
        listed = list(specs.values()) if isinstance(specs, Mapping) else list(specs)
        by_role = _by_role(listed)
        self.options = options or LoadOptions()
        self.placement = placement
        self.base = Checkpoint(self, by_role["base"])
        others = {role: Checkpoint(self, spec) for role, spec in by_role.items() if role != "base"}
        self._tuned, self.reference = others.get("tuned"), others.get("reference")
        self._views: dict[str, _View] = {}
        self._loaded: dict[tuple[str, ...], _Loaded] = {}
        self._open: list[_View] = []

    def __enter__(self) -> ModelPair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Base, tuned, and the reference, as far as they were given."""
        listed = (self.base, self._tuned, self.reference)
        return tuple(checkpoint for checkpoint in listed if checkpoint is not None)

    @property
    def tuned(self) -> Checkpoint:
        """The checkpoint under test.

        Raises:
            SpecificationError: none was given: there is nothing to compare.
        """
        if self._tuned is None:
            raise SpecificationError("tuned= is missing: give base= and tuned=")
        return self._tuned

    def fingerprints(self) -> dict[str, Fingerprint]:
        """The fingerprint of every checkpoint, by role."""
        return {checkpoint.role: checkpoint.fingerprint for checkpoint in self.checkpoints}

    def close(self) -> None:
        """Free every model. The pair can be used again: models are then loaded anew."""
        self._free()

    @contextmanager
    def _opened(self, checkpoint: Checkpoint) -> Iterator[PreTrainedModel]:
        view = self._view(checkpoint)
        self._refuse_conflict(checkpoint, view)
        model = self._ready(view)
        self._open.append(view)
        try:
            yield model
        finally:
            self._open.remove(view)

    def _refuse_conflict(self, checkpoint: Checkpoint, view: _View) -> None:
        for other in self._open:
            if other == view or (self.placement == "resident" and other.key != view.key):
                continue
            why = "they share one load of the base" if other.key == view.key else (
                "sequential placement never holds two models"
            )  # fmt: skip
            raise CheckpointError(
                f"{checkpoint.spec} cannot be opened inside the `with` of "
                f"{(other.adapter or other.load).given}: {why}. Leave that `with` first"
            )

    def _ready(self, view: _View) -> PreTrainedModel:
        loaded = self._loaded.get(view.key)
        if loaded is None:
            if self.placement == "sequential":
                self._free()
            loaded = _Loaded(_plain(load_model(view.load, self.options, base=view.base)))
            self._loaded[view.key] = loaded
        try:
            self._switch(loaded, view.adapter)
        except BaseException:
            # An adapter that broke off half-way has changed the model: no one may use it.
            self._free(view.key)
            raise
        return loaded.model

    def _switch(self, loaded: _Loaded, adapter: CheckpointSpec | None) -> None:
        """Switch to `adapter`, put in on first use, or to the plain base (None)."""
        if adapter is None:
            if loaded.peft is not None:
                cast("BaseTuner", loaded.peft.base_model).disable_adapter_layers()
        else:
            if adapter.location not in loaded.adapters:
                name = f"adapter{len(loaded.adapters)}"
                loaded.peft = add_adapter(
                    loaded.peft or loaded.model, adapter, self.options, name=name
                )
                loaded.adapters[adapter.location] = name
            peft_model = cast("PeftModel", loaded.peft)
            cast("BaseTuner", peft_model.base_model).enable_adapter_layers()
            peft_model.set_adapter(loaded.adapters[adapter.location], inference_mode=True)
        loaded.model.requires_grad_(False)  # peft asks for gradients again when it switches
        loaded.model.train(False)

    def _view(self, checkpoint: Checkpoint) -> _View:
        if checkpoint.role not in self._views:
            spec = localise(checkpoint.spec, self.options)
            base = localise(self.base.spec, self.options)
            full = localise(full_checkpoint_under(spec, base), self.options)
            key = ("full", os.path.realpath(full.location))
            if spec.kind != "adapter":
                view = _View(key, spec)
            elif self.options.merge_adapter or not can_toggle(adapter_config(spec.directory)):
                view = _View(("adapter", key[1], os.path.realpath(spec.location)), spec, full)
            else:
                view = _View(key, full, None, spec)
            self._views[checkpoint.role] = view
        return self._views[checkpoint.role]

    def _tokenizer_source(self, checkpoint: Checkpoint) -> CheckpointSpec:
        spec = localise(checkpoint.spec, self.options)
        base = localise(self.base.spec, self.options)
        candidates = [spec, base]
        if base.kind == "adapter":
            candidates.append(localise(full_checkpoint_under(base, base), self.options))
        found = (c for c in candidates if has_tokenizer(c.directory))
        return next(found, spec)

    def _free(self, key: tuple[str, ...] | None = None) -> None:
        """Let go of one model or of all, and of their memory, even if someone holds the model."""
        leaving = [key] if key is not None else list(self._loaded)
        if not leaving:
            return
        for gone in leaving:
            loaded = self._loaded.pop(gone, None)
            if loaded is not None:
                # `with ... as model` leaves `model` bound after its block: a reference alone
                # would keep gigabytes. Stale use then fails instead of measuring the wrong model.
                # (Called on the class, because accelerate puts another `to` on spread models.)
                torch.nn.Module.to(loaded.model, "meta")
            del loaded
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()


def _plain(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model itself, with the adapter inside its modules where there is one."""
    from peft import PeftModel

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast("PreTrainedModel", inner)


def _by_role(specs: list[CheckpointSpec]) -> dict[str, CheckpointSpec]:
    by_role: dict[str, CheckpointSpec] = {}
    for spec in specs:
        if spec.role not in _ROLES:
            raise SpecificationError(
                f"{spec.role!r} is not a role of a checkpoint: choose one of {', '.join(_ROLES)}"
            )
        if spec.role in by_role:
            raise SpecificationError(f"{spec.role}= was given twice: {by_role[spec.role]}, {spec}")
        by_role[spec.role] = spec
    if "base" not in by_role:
        raise SpecificationError("base= is missing: give base= and tuned=")
    return by_role

"""Which models are in memory: base, tuned and reference, opened one at a time or kept."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch

from forgetguard.checkpoints.adapted import AdaptedModel
from forgetguard.checkpoints.adapters import adapter_config, can_toggle, full_checkpoint_under
from forgetguard.checkpoints.described import full_config
from forgetguard.checkpoints.fingerprint import Fingerprint, fingerprint
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.checkpoints.tokenizers import has_tokenizer, load_tokenizer, tokenizer_files
from forgetguard.errors import CheckpointError, SpecificationError

if TYPE_CHECKING:
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
        return self._pair._tokenizer(self)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Hashes of its files; reads each of them once (raises CheckpointError)."""
        return fingerprint(self.spec, self._pair.options)


@dataclass(frozen=True, slots=True)
class _View:
    """How a checkpoint is had: the full checkpoint under it, and the adapter put into that.

    `key` names the model in memory. Views of one key share it, and switch their adapters on and
    off; an adapter whose base cannot be had back so has a key, and a load of the base, of its own.
    """

    key: tuple[str, ...]
    full: CheckpointSpec
    adapter: CheckpointSpec | None = None

    @property
    def apart(self) -> _View:
        adapter = "" if self.adapter is None else os.path.realpath(self.adapter.location)
        return replace(self, key=("adapter", self.key[1], adapter))

    @property
    def is_apart(self) -> bool:
        return self.key[0] == "adapter"


class ModelPair:
    """Base, tuned and perhaps a reference, with a rule for what is in memory.

    Args:
        specs: the checkpoints; role `base`, `tuned` unless nothing is compared (discovery), and
            `reference` where there is one.
        options: how they are loaded.
        placement: `sequential`: never two models at once, opening one frees the other.
            `resident`: each stays once it was opened. In both, a LoRA adapter shares the one
            load of its base and is switched on and off, where that was seen to give the base
            back bit for bit (not with `merge_adapter`).

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
        self._loaded: dict[tuple[str, ...], AdaptedModel] = {}
        self._open: list[_View] = []
        self._idle: dict[str, str] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}

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

    @cached_property
    def vocabulary(self) -> int | None:
        """The number of token ids that every model has logits for; None when not known.

        Fine-tuning may have added rows to the vocabulary; they are left out of every comparison.
        """
        specs = [one.spec for one in self.checkpoints if one.spec.kind != "adapter"]
        configs = [full_config(localise(one, self.options, weights=False)) for one in specs]
        sizes = [config.get("vocab_size") for config in configs]
        known = [size for size in sizes if isinstance(size, int)]
        return min(known) if known and len(known) == len(sizes) else None

    def fingerprints(self) -> dict[str, Fingerprint]:
        """The fingerprint of every checkpoint, by role."""
        return {checkpoint.role: checkpoint.fingerprint for checkpoint in self.checkpoints}

    @property
    def notes(self) -> tuple[str, ...]:
        """What loading has shown so far: adapters that change nothing."""
        return tuple(self._idle.values())

    def close(self) -> None:
        """Free every model. The pair can be used again: models are then loaded anew."""
        self._free()

    @contextmanager
    def _opened(self, checkpoint: Checkpoint) -> Iterator[PreTrainedModel]:
        self._refuse_conflict(checkpoint, self._view(checkpoint))
        model = self._ready(checkpoint)
        view = self._view(checkpoint)
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
                f"{(other.adapter or other.full).given}: {why}. Leave that `with` first"
            )

    def _ready(self, checkpoint: Checkpoint) -> PreTrainedModel:
        """The checkpoint's model, its adapter on."""
        view = self._view(checkpoint)
        if view.key not in self._loaded:
            if self.placement == "sequential":
                self._free()
            full = cast("PreTrainedModel", load_model(view.full, self.options))
            self._loaded[view.key] = AdaptedModel(full, view.full, self.options)
        held = self._loaded[view.key]
        alone = not held.adapters
        try:
            if view.adapter is None or view.adapter.location in held.adapters:
                held.switch(view.adapter)
            elif not self._put_in(view.adapter, held, view):
                self._views[checkpoint.role] = view.apart
                if not alone:
                    self._free(view.key)
                    return self._ready(checkpoint)
                self._loaded[view.apart.key] = self._loaded.pop(view.key)
        except BaseException:
            # An adapter that broke off half-way has changed the model: no one may use it.
            self._free(view.key)
            raise
        return held.model

    def _put_in(self, adapter: CheckpointSpec, held: AdaptedModel, view: _View) -> bool:
        """Put an adapter into a model and leave it switched on; False where the model is no longer
        what the others that share it need (it may then be the adapter's own)."""
        others = bool(held.adapters)
        try:
            held.add(adapter)
            restored = view.is_apart or held.is_restored()
        except CheckpointError:
            if not others:
                raise
            return False  # two that cannot be put into one model; each alone can
        if held.is_idle(adapter):
            self._idle[adapter.role] = (
                f"{adapter}: the adapter changes nothing: with it the logits of a small batch are "
                f"those of its base"
            )
        if self.options.merge_adapter:
            held.merge(adapter)
        else:
            held.switch(adapter)
        return restored

    def _view(self, checkpoint: Checkpoint) -> _View:
        if checkpoint.role not in self._views:
            spec = localise(checkpoint.spec, self.options)
            base = localise(self.base.spec, self.options)
            full = localise(full_checkpoint_under(spec, base), self.options)
            view = _View(("full", os.path.realpath(full.location)), full)
            if spec.kind == "adapter":
                view = replace(view, adapter=spec)
                if self.options.merge_adapter or not can_toggle(adapter_config(spec.directory)):
                    view = view.apart
            self._views[checkpoint.role] = view
        return self._views[checkpoint.role]

    def _tokenizer(self, checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
        """One for all checkpoints that bring the same files: loading one takes seconds."""
        spec = localise(checkpoint.spec, self.options)
        base = localise(self.base.spec, self.options)
        candidates = [spec, base]
        if base.kind == "adapter":
            candidates.append(localise(full_checkpoint_under(base, base), self.options))
        source = next((one for one in candidates if has_tokenizer(one.directory)), spec)
        files = tokenizer_files(source.directory)
        if files not in self._tokenizers:
            self._tokenizers[files] = load_tokenizer(source, self.options)
        return self._tokenizers[files]

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

"""Whether checkpoints belong together: everything that can be known without loading weights."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.adapters import (
    adapter_config,
    check_fit,
    full_checkpoint_under,
    is_idle,
    named_base,
)
from forgetguard.checkpoints.causal import unsuitable
from forgetguard.checkpoints.described import TEXT_TYPE, Described, describe, full_config, geometry
from forgetguard.checkpoints.files import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, TensorEntry
from forgetguard.checkpoints.fingerprint import (
    ABSENT,
    VOLATILE_CONFIG,
    tokenizer_fingerprint,
)
from forgetguard.checkpoints.foreign import foreign_errors
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.sameness import Same, changed_settings, same
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import CheckpointError, some

_EMBEDDINGS = (*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS)
# `model.language_model.layers.0.`, `language_model.model.layers.0.` and `model.layers.0.` are one.
_WRAPPINGS = re.compile(r"^(?:model\.|language_model\.|text_model\.)+")
_TEXT = re.compile(r"layers\.|norm\.|embed_tokens\.|lm_head\.")
_SHOWN = 4
_IDLE = (
    "the adapter changes nothing (one matrix of each of its products is zero, as before training)"
)
ALLOW = "--forgetguard-allow-same; in Python allow_same=True"


@dataclass(frozen=True, slots=True)
class _Side:
    """A checkpoint, and the full checkpoint under it (itself, unless it is an adapter)."""

    own: Described
    full: Described

    @property
    def spec(self) -> CheckpointSpec:
        return self.own.spec


def check(
    base: CheckpointSpec,
    tuned: CheckpointSpec | None,
    reference: CheckpointSpec | None = None,
    *,
    allow_same: bool = False,
    allowed_by: str | None = ALLOW,
    options: LoadOptions | None = None,
) -> tuple[str, ...]:
    """Refuse checkpoints that cannot be compared; return what is worth knowing of the others.

    Reads JSON files and safetensors headers; weights are read only to tell a copy from a
    fine-tune, up to the first difference. Hub ids are fetched into the local cache, their
    configurations first, so that a pair that cannot be compared costs no large download.

    Args:
        allow_same: let the same model be compared with itself.
        allowed_by: how whoever asks may allow that, for messages; None where there is no way.

    Raises:
        CheckpointError: a checkpoint is incomplete, corrupt or not safe to read; two are of
            different architecture or geometry, or of one without causal attention heads; an
            adapter is for another base; two are the same (unless `allow_same`); or a library
            raised something of its own.
    """
    options = options or LoadOptions()
    asked = [spec for spec in (base, tuned, reference) if spec is not None]
    with foreign_errors(asked, "checked"):
        return _check(asked, options, allow_same, allowed_by)


def _check(
    asked: Sequence[CheckpointSpec], options: LoadOptions, allow_same: bool, allowed_by: str | None
) -> tuple[str, ...]:
    specs = [localise(spec, options, weights=False) for spec in asked]
    if not allow_same:
        _refuse_same_place(specs, allowed_by)
    fulls = [localise(full_checkpoint_under(s, specs[0]), options, weights=False) for s in specs]
    for spec in specs:
        if spec.kind == "adapter":
            adapter_config(spec.directory)
    _refuse_other_geometry(specs, fulls)
    # The headers of every checkpoint; the weights of hub ids are fetched now too.
    sides = []
    for spec, under in zip(asked, fulls, strict=True):
        own = describe(localise(spec, options), options)
        full = describe(localise(under, options), options) if own.is_adapter else own
        sides.append(_Side(own, full))
    notes = [
        f"{sides[0].spec} is an adapter of {side.spec}: are base and {side.spec.role} in each "
        "other's place?"
        for side in sides[1:]
        if sides[0].own.is_adapter and sides[0].full.directory == side.own.directory
    ]
    for side in sides:
        if side.own.is_adapter:
            notes += _check_adapter(side, options)
    for side in sides[1:]:
        notes += _compare_tensors(sides[0], side)
    beside = [note for side in sides[1:] for note in _compare_configs(sides[0], side)]
    beside += _tokenizer_notes(sides)
    if allow_same:
        notes += [f"{side.spec}: {_IDLE}" for side in sides[1:] if _is_idle(side)]
    else:
        notes += _refuse_same_weights(sides, beside, allowed_by)
    return (*notes, *beside)


# --- The same checkpoint twice ------------------------------------------------------------------


def _refuse_same_place(specs: Sequence[CheckpointSpec], allowed_by: str | None) -> None:
    for a, b in combinations(specs, 2):
        if os.path.realpath(a.location) == os.path.realpath(b.location):
            why = "they are the same directory, so nothing could ever be found"
            raise _refusal(a, b, why, allowed_by)


def _refuse_same_weights(
    sides: Sequence[_Side], beside: Sequence[str], allowed_by: str | None
) -> list[str]:
    """Notes on those of equal weights that their settings make another model. `beside`: what else
    is known to differ, which a refusal tells too."""
    for side in sides[1:]:
        if _is_idle(side):
            raise CheckpointError(
                f"{side.spec}: {_IDLE}, so it is the same model as {sides[0].spec}: give the "
                f"trained adapter{_or_allow(allowed_by)}"
            )
    notes = []
    for a, b in combinations(sides, 2):
        found = same(*_alike(a.own, b.own)) if a.own.is_adapter == b.own.is_adapter else None
        if found is None:
            continue
        if not found.settings:
            raise _refusal(a.spec, b.spec, _why_same(a.spec, b.spec, found), allowed_by, beside)
        names = some([name for name, _, _ in found.settings], _SHOWN)
        notes.append(
            f"{b.spec}: its weights equal those of {a.spec} in every bit; only its configuration "
            f"makes it another model ({names})"
        )
    return notes


def _is_idle(side: _Side) -> bool:
    return side.own.is_adapter and is_idle(side.own.config, side.own.tensors)


def _alike(a: Described, b: Described) -> tuple[Described, Described]:
    """Of a multimodal and a text-only checkpoint, what both have."""
    if a.is_adapter or a.config["model_type"] == b.config["model_type"]:
        return a, b
    return replace(a, tensors=_of_text(a.tensors)), replace(b, tensors=_of_text(b.tensors))


def _why_same(a: CheckpointSpec, b: CheckpointSpec, found: Same) -> str:
    if found.larger is None:
        return "their weights are equal in every bit, so nothing could ever be found"
    extra = some(found.extra, _SHOWN)
    if found.larger.spec == a:
        return (
            f"every tensor of {b.role} is in {a.role} too, equal in every bit, and {b.role} only "
            f"lacks some ({extra}), so nothing could ever be found"
        )
    why = (
        f"every tensor of {a.role} is in {b.role} too, equal in every bit, and a model of this "
        f"architecture does not load what {b.role} has more ({extra}), so nothing could ever be "
        f"found"
    )
    if found.unmerged:
        why += (
            ". An adapter was saved unmerged into a full checkpoint: merge it (merge_and_unload, "
            "then save_pretrained), or give the directory of the adapter alone"
        )
    return why


def _refusal(
    a: CheckpointSpec,
    b: CheckpointSpec,
    why: str,
    allowed_by: str | None,
    beside: Sequence[str] = (),
) -> CheckpointError:
    also = "".join(f"\n  beside the weights: {note}" for note in beside)
    return CheckpointError(
        f"{a} and {b} are the same checkpoint: {why}. Give {b.role}= the fine-tuned one"
        f"{_or_allow(allowed_by)}{also}"
    )


def _or_allow(allowed_by: str | None) -> str:
    return "" if allowed_by is None else f", or allow it: {allowed_by}"


# --- Architecture and shapes --------------------------------------------------------------------


def _refuse_other_geometry(
    specs: Sequence[CheckpointSpec], fulls: Sequence[CheckpointSpec]
) -> None:
    configs = [full_config(full) for full in fulls]
    for spec, config in zip(specs, configs, strict=True):
        wrong = unsuitable(config, geometry(config)["query heads"])
        if wrong is not None:
            raise CheckpointError(f"{spec} cannot be measured: {wrong}")
    ours = geometry(configs[0])
    for spec, config in zip(specs[1:], configs[1:], strict=True):
        theirs = geometry(config)
        differences = [
            f"{meaning} {theirs[meaning]} against {value}"
            for meaning, value in ours.items()
            if value is not None and theirs[meaning] is not None and theirs[meaning] != value
        ]
        if differences:
            raise CheckpointError(
                f"{spec} is not a fine-tune of {specs[0]}: {', '.join(differences)}. Heads are "
                f"compared one to one: give checkpoints of the same architecture and size"
            )


def _compare_tensors(base: _Side, other: _Side) -> list[str]:
    """Shapes of tensors that both have must agree; only vocabularies may have grown."""
    if other.own.is_adapter and not base.own.is_adapter:
        return []
    ours, theirs = base.full.tensors, other.full.tensors
    if not ours or not theirs:
        return [f"{other.spec}: weights are pickled, so their shapes are checked only when loaded"]
    beside = []
    if base.full.config["model_type"] != other.full.config["model_type"]:
        ours, theirs = _of_text(ours), _of_text(theirs)
        beside = [f"{other.spec} and {base.spec} are compared in their text part alone"]
    for name, entry in sorted(ours.items()):
        there = theirs.get(name)
        if there is None or there.shape == entry.shape:
            continue
        if not (name.endswith(_EMBEDDINGS) and there.shape[1:] == entry.shape[1:]):
            raise CheckpointError(
                f"{other.spec} is not a fine-tune of {base.spec}: tensor {name} has shape "
                f"{list(there.shape)} against {list(entry.shape)}. Give checkpoints of the same "
                f"architecture and size"
            )
    return [
        *beside,
        *_vocabulary_notes(base, other),
        *_tensor_notes(base.spec, ours, other.spec, theirs),
    ]


def _of_text(tensors: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The tensors of the text model under the names that they have in every wrapping of it."""
    named = {_WRAPPINGS.sub("", name): entry for name, entry in tensors.items()}
    return {name: entry for name, entry in named.items() if _TEXT.match(name)}


def _vocabulary_notes(base: _Side, other: _Side) -> list[str]:
    before, after = _rows(base.full.tensors), _rows(other.full.tensors)
    if before is None or after is None or before == after:
        return []
    change = f"{other.spec}: vocabulary {before} -> {after} rows"
    if after > before:
        return [f"{change}; the added rows are not compared"]
    used = _ids_in_use(base.full.directory)
    if used is None:
        return [f"{change}; prompts with ids from {after} on cannot be measured"]
    if used > after:
        raise CheckpointError(
            f"{change}, but the tokenizer of {base.spec} uses {used} ids: the tuned model has no "
            f"embedding for the last {used - after}. Fine-tune without shrinking the vocabulary"
        )
    return [f"{change}; the tokenizer of {base.spec} uses only {used} ids, so none is lost"]


def _rows(tensors: Mapping[str, TensorEntry]) -> int | None:
    return next((e.shape[0] for n, e in tensors.items() if n.endswith(INPUT_EMBEDDINGS)), None)


def _ids_in_use(directory: Path) -> int | None:
    """One more than the largest id of tokenizer.json; None where that cannot be read off it."""
    try:
        content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else range(len(vocabulary))
        added = [token["id"] for token in content.get("added_tokens", [])]
        return int(max([*ids, *added])) + 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _tensor_notes(
    base: CheckpointSpec,
    ours: Mapping[str, TensorEntry],
    other: CheckpointSpec,
    theirs: Mapping[str, TensorEntry],
) -> list[str]:
    """Tensors that one of the two lacks, and those in another number format."""
    notes = []
    for here, there, text in (
        (ours, theirs, f"{other} lacks tensors that {base} has"),
        (theirs, ours, f"{other} has tensors that {base} lacks"),
    ):
        names = sorted(n for n in here.keys() - there.keys() if not n.endswith(_EMBEDDINGS))
        if names:
            notes.append(f"{text}: {some(names, _SHOWN)}")
    pairs = {(ours[n].dtype, theirs[n].dtype) for n in ours.keys() & theirs.keys()}
    changed = ", ".join(sorted(f"{a} -> {b}" for a, b in pairs if a != b))
    if changed:
        notes.append(f"{other} is stored in another number format than {base}: {changed}")
    return notes


def _compare_configs(base: _Side, other: _Side) -> list[str]:
    """Settings that change what a model computes and that training does not usually touch."""
    if other.own.is_adapter:
        return []
    skipped = {*VOLATILE_CONFIG, "architectures", "vocab_size", "text_config", "model_type"}
    skipped.add(TEXT_TYPE)
    changed = [
        f"{name} {_short(ours)} -> {_short(theirs)}"
        for name, ours, theirs in changed_settings(base.full.config, other.full.config)
        if name not in skipped and not name.endswith("_token_id")
    ]
    return [f"{other.spec}: config.json differs in {some(changed, _SHOWN)}"] if changed else []


# --- Adapters -----------------------------------------------------------------------------------


def _check_adapter(side: _Side, options: LoadOptions) -> list[str]:
    adapter, full = side.own, side.full
    if not adapter.weights.pickled and not full.weights.pickled:
        check_fit(adapter.spec, adapter.tensors, full.spec, full.tensors)
    named = adapter.spec.base
    if named is None or _same_name(named, full.spec):
        return []
    try:
        trained_on = named_base(adapter.spec)
    except CheckpointError:
        trained_on = None  # a path of the machine it was trained on
    if trained_on is None or trained_on.kind == "hub":
        return [
            f"{adapter.spec}: its adapter_config.json names the base {named}; it is used on "
            f"{full.spec.given}, whose shapes fit"
        ]
    if same(describe(trained_on, options), full) is None:
        raise CheckpointError(
            f"{adapter.spec} is an adapter for another base than {full.spec}: it was trained on "
            f"{named}, whose weights differ. Give base={named}"
        )
    return []


def _same_name(named: str, base: CheckpointSpec) -> bool:
    """Whether a name means the same checkpoint; a copy elsewhere under its last name counts."""
    if named == base.given or os.path.realpath(named) == os.path.realpath(base.location):
        return True
    return not Path(named).exists() and Path(named).name == Path(base.given).name


# --- Tokenizers ---------------------------------------------------------------------------------


def _tokenizer_notes(sides: Sequence[_Side]) -> list[str]:
    """The ids of the prompts are compared when they are made; here only what the files say."""
    ours = tokenizer_fingerprint(sides[0].own.directory)
    if ours == ABSENT:
        ours = tokenizer_fingerprint(sides[0].full.directory)
    if ours == ABSENT:
        raise CheckpointError(
            f"{sides[0].spec} has no tokenizer (no tokenizer.json and no vocabulary file): save "
            f"its tokenizer there with save_pretrained"
        )
    notes = []
    for side in sides[1:]:
        theirs = tokenizer_fingerprint(side.own.directory)
        if theirs == ABSENT and not side.own.is_adapter:
            notes.append(f"{side.spec} has no tokenizer; that of {sides[0].spec} is used for it")
        elif theirs not in (ABSENT, ours):
            notes.append(
                f"{side.spec} has another tokenizer than {sides[0].spec}; both must give the same "
                f"ids on every prompt"
            )
    return notes


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

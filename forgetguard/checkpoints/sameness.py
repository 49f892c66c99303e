"""Whether two checkpoints are one model: equal in what is loaded, and in the settings of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forgetguard.checkpoints.described import Described
from forgetguard.checkpoints.files import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, TensorEntry
from forgetguard.checkpoints.fingerprint import (
    VOLATILE_ADAPTER_CONFIG,
    VOLATILE_CONFIG,
    digest_files,
    same_tensors,
)

_UNMERGED = re.compile(r"\b(lora_|modules_to_save\b|base_layer\b|original_module\b)")

# Read in training, in generation or by nobody; a forward pass in eval mode is the same. Sizes of
# vocabularies are in the tensors' shapes.
_WITHOUT_EFFECT = re.compile(
    r"architectures|text_config|(text_)?model_type|"
    r"vocab_size|.*_token_id|.*dropout.*|.*_pdrop|.*layerdrop"
    r"|initializer_.*|init_lora_weights|target_modules|.*aux_loss_coef|gradient_checkpointing"
    r"|output_(hidden_states|attentions|router_logits)|return_dict.*|_?attn_implementation"
    r"|id2label|label2id|problem_type|task_specific_params|_commit_hash"
)


_ROPE = frozenset({"rope_theta", "rope_scaling", "rope_parameters"})
_ROPE_DEFAULTS = {"rope_theta": 10000.0, "rope_type": "default"}
# Settings that change the forward pass wherever they are set to more than nothing.
_FORWARD = frozenset(
    {
        "alibi", "attention_multiplier", "attn_logit_softcapping", "clip_qkv",
        "embedding_multiplier", "final_logit_softcapping", "logit_scale", "logits_scaling",
        "partial_rotary_factor", "query_pre_attn_scalar", "residual_multiplier",
        "rope_local_base_freq", "rotary_pct", "sliding_window",
        # Always written, and differing from family to family, so that a lost one is another's.
        "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "num_experts_per_tok",
        "rms_norm_eps", "routed_scaling_factor",
    }
)  # fmt: skip
_NEUTRAL = (None, False, 1)


@dataclass(frozen=True, slots=True)
class Same:
    """Two checkpoints whose loaded weights are equal in every bit.

    Attributes:
        larger: the one of the two that has tensors more, which nothing loads; None: neither.
        extra: their names.
        settings: the settings in which the two differ all the same, `key before -> after`.
    """

    larger: Described | None
    extra: tuple[str, ...]
    settings: tuple[tuple[str, Any, Any], ...]

    @property
    def unmerged(self) -> bool:
        """Whether the extra tensors look like an adapter's."""
        return any(_UNMERGED.search(name) for name in self.extra)


def same(a: Described, b: Described) -> Same | None:
    """What makes `b` the model that `a` is, or None where their weights differ.

    Both are full checkpoints, or both adapters. Reads weights up to the first difference.

    Raises:
        CheckpointError: a file cannot be read.
    """
    if a.weights.pickled or b.weights.pickled:
        return Same(None, (), _settings(a, b)) if _same_files(a, b) else None
    small, large = sorted((a, b), key=lambda side: len(side.tensors))
    extra = sorted(large.tensors.keys() - small.tensors.keys())
    counted = tuple(name for name in extra if not is_second_copy(name, large.tensors))
    if counted and (a.is_adapter or any(_is_loaded(name, large, small) for name in counted)):
        return None
    shared = {name: large.tensors[name] for name in small.tensors.keys() & large.tensors.keys()}
    if not shared or not same_tensors(small.tensors, shared):
        return None
    return Same(large if counted else None, counted, _settings(a, b))


def changed_settings(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """(name, ours, theirs) of every setting that differs, `outer.inner` within groups.

    What only one has is what another version of transformers writes as a default, but for what
    changes the forward pass wherever it is set: there None stands for the missing one. Settings of
    rotary embeddings are compared as what they say, wherever a version writes them.
    """
    plain = [{k: v for k, v in one.items() if k not in _ROPE} for one in (ours, theirs)]
    yield from _changed(plain[0], plain[1])
    for key in sorted((ours.keys() ^ theirs.keys()) & _FORWARD):
        if (ours.get(key) or theirs.get(key)) not in _NEUTRAL:
            yield key, ours.get(key), theirs.get(key)
    left, right = _rope(ours), _rope(theirs)
    by_layer = [any(isinstance(v, Mapping) for v in one.values()) for one in (left, right)]
    if by_layer[0] == by_layer[1]:
        for key in left.keys() ^ right.keys():
            left.setdefault(key, _ROPE_DEFAULTS.get(key))
            right.setdefault(key, _ROPE_DEFAULTS.get(key))
    yield from _changed(left, right)


def _changed(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(ours.keys() & theirs.keys()):
        left, right, name = ours[key], theirs[key], f"{path}{key}"
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from _changed(left, right, f"{name}.")
        elif left != right:
            yield name, left, right


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters`, as transformers 5 writes it; before it was rope_theta and rope_scaling."""
    groups = [config.get(name) for name in ("rope_scaling", "rope_parameters")]
    found = {k: v for group in groups if isinstance(group, Mapping) for k, v in group.items()}
    if config.get("rope_theta") is not None:
        found.setdefault("rope_theta", config["rope_theta"])
    if "type" in found:
        found.setdefault("rope_type", found.pop("type"))
    return found


def _settings(a: Described, b: Described) -> tuple[tuple[str, Any, Any], ...]:
    volatile = VOLATILE_ADAPTER_CONFIG if a.is_adapter else VOLATILE_CONFIG
    return tuple(
        (name, left, right)
        for name, left, right in changed_settings(a.config, b.config)
        if name not in volatile and not _WITHOUT_EFFECT.fullmatch(name)
    )


def _same_files(a: Described, b: Described) -> bool:
    sizes = [[file.stat().st_size for file in side.weights.files] for side in (a, b)]
    return sizes[0] == sizes[1] and digest_files(a.weights.files) == digest_files(b.weights.files)


def is_second_copy(name: str, tensors: Mapping[str, TensorEntry]) -> bool:
    """Whether it is an output embedding that says again what the input embedding says. Where the
    two differ transformers loads it, whatever the configuration says of tying."""
    if not name.endswith(OUTPUT_EMBEDDINGS):
        return False
    tied = next((e for n, e in tensors.items() if n.endswith(INPUT_EMBEDDINGS)), None)
    return tied is not None and same_tensors({name: tensors[name]}, {name: tied})


def _is_loaded(name: str, large: Described, small: Described) -> bool:
    """Whether a model of `large` takes a tensor that `small`, of the same architecture, lacks.

    Loading refuses a checkpoint that lacks a tensor its model needs, so with equal settings only
    what may be tied can be missing; biases are switched on by a setting that `small` may lack.
    """
    if name.endswith(OUTPUT_EMBEDDINGS):
        return True
    switches = large.config.keys() - small.config.keys()
    return name.endswith(".bias") and any(
        "bias" in key and large.config[key] is True for key in switches
    )

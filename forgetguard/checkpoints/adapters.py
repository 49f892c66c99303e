"""What a peft adapter's files tell: its base, whether it fits there, whether it does anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.causal import unsuitable_adapter
from forgetguard.checkpoints.files import INPUT_EMBEDDINGS, TensorEntry, read_json
from forgetguard.checkpoints.spec import ADAPTER_CONFIG, CheckpointSpec, resolve
from forgetguard.errors import CheckpointError

# Adapters that live inside the base's modules, so that the base model with them injected IS the
# tuned model. tests/unit/test_adapter_kinds.py makes each of them with the installed peft and reads
# both through the pair; a kind that is not here was not seen to be right.
SUPPORTED = frozenset(
    {
        "ADALORA", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA",
        "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "OFT", "OSF",
        "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA",
        "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
    }
)  # fmt: skip
# Prompts, prefixes, routers: they act in peft's own forward pass, which measuring on plain modules
# would leave out without a sign.
_OUTSIDE = frozenset(
    {
        "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING",
        "PROMPT_TUNING", "P_TUNING", "SHADOW", "XLORA",
    }
)  # fmt: skip
# Ways to initialise LoRA that change the base's weights by what the adapter's files do not hold:
# the gradients or activations of the start, or the randomness of a fast decomposition. Loaded
# again, peft 0.21 fails (CorDA), leaves the base's weights as they were (LoRA-GA), or draws others
# (PiSSA's fast one: logits of tiny:base were off by 8.7).
_NOT_REPEATABLE = re.compile(r"corda|lora_ga|pissa_niter_\d+", re.I)
# Those that leave the base's weights alone: a product B A of zero then changes nothing.
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_PREFIX = "base_model.model."
_A_SIDE = ("lora_A", "lora_embedding_A")
_OUTPUT_MODULES = ("lm_head", "embed_out")
_MERGED = "a full checkpoint (merge_and_unload, then save_pretrained)"


def adapter_config(directory: Path) -> dict[str, Any]:
    """The adapter's configuration, refused when peft cannot make the tuned model from its files.

    Raises:
        CheckpointError: unreadable, a kind that does not live inside the base's modules or that was
            never tried, another task, or an initialisation that cannot be repeated.
    """
    config = read_json(directory / ADAPTER_CONFIG)
    kind = str(config.get("peft_type", "missing")).upper()
    if kind not in SUPPORTED:
        why = (
            "which acts in peft's own forward pass and not inside the base's modules"
            if kind in _OUTSIDE
            else "which forgetguard has not been tested with"
        )
        raise CheckpointError(
            f"{directory} is a peft adapter of type {kind}, {why}: supported are "
            f"{', '.join(sorted(SUPPORTED))}. Where peft can merge it, give {_MERGED}"
        )
    for field in ("alora_invocation_tokens", "layer_replication", "arrow_config"):
        if config.get(field):
            raise CheckpointError(
                f"{directory}/{ADAPTER_CONFIG} sets {field}, which is not supported: give {_MERGED}"
            )
    wrong = unsuitable_adapter(config)
    if wrong is not None:
        raise CheckpointError(f"{directory}/{ADAPTER_CONFIG}: {wrong}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and _NOT_REPEATABLE.fullmatch(start):
        raise CheckpointError(
            f"{directory}/{ADAPTER_CONFIG} has init_lora_weights {start}, which changed the base's "
            f"weights in a way that these files cannot repeat: save it as plain LoRA (peft's "
            f"path_initial_model_for_weight_conversion), or give {_MERGED}"
        )
    return config


def can_toggle(config: Mapping[str, Any]) -> bool:
    """Whether it is worth trying to switch it off: LoRA that did not train biases in place."""
    return str(config.get("peft_type")).upper() == "LORA" and config.get("bias", "none") == "none"


def full_checkpoint_under(spec: CheckpointSpec, base: CheckpointSpec) -> CheckpointSpec:
    """The full checkpoint that `spec` is, or that it is an adapter of.

    An adapter given as tuned or reference is put on the user's base, whatever its
    configuration names. Where the base is itself an adapter, both have to name one checkpoint.

    Raises:
        CheckpointError: no base is named, it is not there, or the two adapters name two.
    """
    if spec.kind != "adapter":
        return spec
    if base.kind != "adapter":
        return base
    if base.base is not None and spec.base != base.base:
        raise CheckpointError(
            f"{base} is an adapter of {base.base}, but {spec} is an adapter of "
            f"{spec.base or 'an unnamed base'}: merge the base adapter into a full checkpoint "
            f"(merge_and_unload, then save_pretrained) and give that as base="
        )
    return named_base(base)


def named_base(adapter: CheckpointSpec) -> CheckpointSpec:
    """The full checkpoint that an adapter's configuration names, resolved.

    Raises:
        CheckpointError: none is named, or it is not there, or is an adapter itself.
    """
    if adapter.base is None:
        raise CheckpointError(
            f"{adapter} is an adapter whose {ADAPTER_CONFIG} names no base_model_name_or_path: "
            f"give the full base checkpoint as base="
        )
    beside = Path(adapter.location) / adapter.base
    relative = adapter.base.startswith(".") and beside.is_dir()
    try:
        found = resolve(str(beside.resolve()) if relative else adapter.base, adapter.role)
    except CheckpointError as error:
        raise CheckpointError(
            f"{adapter} is an adapter of {adapter.base}, which cannot be used ({error}): give the "
            f"full base checkpoint"
        ) from error
    if found.kind == "adapter":
        raise CheckpointError(
            f"{adapter} is an adapter of {adapter.base}, which is an adapter itself: merge that "
            f"into a full checkpoint first"
        )
    return found


def check_fit(
    adapter: CheckpointSpec,
    tensors: Mapping[str, TensorEntry],
    base: CheckpointSpec,
    base_tensors: Mapping[str, TensorEntry],
) -> None:
    """Hold every adapter tensor that belongs to a module against that module's weight in the base.

    Names are compared from the numbered layer on (`layers.0.self_attn.q_proj`), because the
    prefix before it depends on which class saved the checkpoint.

    Raises:
        CheckpointError: a module is not in the base, or a shape does not fit; names the tensor. Or
            a tensor is empty.
    """
    empty = next((name for name, entry in sorted(tensors.items()) if 0 in entry.shape), None)
    if empty is not None or not tensors:
        raise CheckpointError(
            f"{adapter} is empty ({f'its tensor {empty} has no numbers' if empty else 'no tensors'}"
            f"): a sharded training run (DeepSpeed ZeRO-3, FSDP) has to gather the weights before "
            f"they are saved. Save it again, or give an earlier checkpoint"
        )
    weights: dict[str, list[tuple[int, ...]]] = {}
    for name, entry in base_tensors.items():
        if name.endswith(".weight"):
            weights.setdefault(_local_name(name.removesuffix(".weight")), []).append(entry.shape)
    for name, entry in sorted(tensors.items()):
        module, part = lora_part(name)
        if part is None or "expert" in module:  # mixtures of experts are renamed when loaded
            continue
        shapes = weights.get(_local_name(module))
        if shapes is None and _local_name(module) in _OUTPUT_MODULES:  # tied: stored once
            shapes = [e.shape for n, e in base_tensors.items() if n.endswith(INPUT_EMBEDDINGS)]
        if not shapes:
            raise _other_base(adapter, base, f"its tensor {name} is for a module {module} that "
                              f"the base does not have")  # fmt: skip
        if not any(_fits(part, entry.shape, shape) for shape in shapes):
            raise _other_base(
                adapter, base,
                f"its tensor {name} has shape {list(entry.shape)}, which does not fit the base's "
                f"{module}.weight of shape {list(shapes[0])}",
            )  # fmt: skip


def is_idle(config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> bool:
    """Whether a LoRA adapter changes nothing at all: A or B of every module is zero.

    Only what the files alone can tell: not where the base's weights were changed at the start, nor
    where more than A and B is stored.
    """
    plain = config.get("init_lora_weights") in PLAIN_INITS and not config.get("kasa_config")
    if str(config.get("peft_type")).upper() != "LORA" or not plain:
        return False
    sides: dict[str, list[TensorEntry]] = {}
    for name, entry in tensors.items():
        module, part = lora_part(name)
        if part is None:
            return False
        sides.setdefault(module, []).append(entry)
    if not config.get("lora_alpha", 1):
        return True
    return bool(sides) and all(
        any(not any(entry.read()) for entry in entries) for entries in sides.values()
    )


def lora_part(name: str) -> tuple[str, str | None]:
    """Module and part (`lora_A`, ...) of an adapter's tensor; the part is None if it is not LoRA's,
    and the module then the whole name without peft's prefix."""
    inner = name.removeprefix(_PREFIX)
    match = re.fullmatch(r"(.+)\.(lora_A|lora_B)\.weight|(.+)\.(lora_embedding_[AB])", inner)
    return (inner, None) if match is None else (match[1] or match[3], match[2] or match[4])


def _local_name(module: str) -> str:
    """`model.layers.0.mlp.up_proj` -> `layers.0.mlp.up_proj`; `model.embed_tokens` -> the last."""
    parts = module.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[max(index - 1, 0) :])
    return parts[-1]


def _fits(part: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """LoRA: A is [rank, in], B [out, rank]; embeddings: A [rank, rows], B [width, rank].

    Linear weights are [out, in], GPT-2's Conv1D [in, out], embeddings [rows, width]: which of the
    two sides is meant is not written in the files, so either is accepted.
    """
    if len(shape) < 2 or len(weight) != 2:
        return True
    outer = shape[1] if part in _A_SIDE else shape[0]
    return outer in weight


def _other_base(adapter: CheckpointSpec, base: CheckpointSpec, why: str) -> CheckpointError:
    named = f" ({ADAPTER_CONFIG} names {adapter.base})" if adapter.base else ""
    return CheckpointError(
        f"{adapter} is an adapter for another base than {base}: {why}. Give the base it was "
        f"trained on{named}"
    )

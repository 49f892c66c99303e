"""Names the checkpoints to work on."""

from __future__ import annotations

from pathlib import Path

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair, Placement
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import resolve


def load(
    base: str | Path,
    tuned: str | Path | None = None,
    reference: str | Path | None = None,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    placement: Placement = "sequential",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_same: bool = False,
) -> ModelPair:
    """Name the checkpoints to compare. They are checked, but no weights are loaded yet.

    Each is a local Hugging Face directory, a peft adapter's directory, a hub id, or an alias
    (tiny:base, tiny:sft, tiny:rl, tiny:lora). Discovery needs no `tuned`. Placement `sequential`
    never holds two models in memory; `resident` keeps what it has opened.

    Raises:
        CheckpointError: one cannot be found or read, or they do not belong together (another
            architecture, the same weights unless `allow_same`, ...).
    """
    options = LoadOptions(
        dtype=dtype,
        device=device,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    given = {"base": base, "tuned": tuned, "reference": reference}
    specs = {role: resolve(str(at), role) for role, at in given.items() if at is not None}
    check(
        specs["base"],
        specs.get("tuned"),
        specs.get("reference"),
        allow_same=allow_same,
        options=options,
    )
    return ModelPair(specs, options, placement)

"""Names the checkpoints to work on."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.anatomy.bridge import is_bridge, unwrapped
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair, Placement
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CheckpointError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def load(
    base: str | Path | TransformerBridge,
    tuned: str | Path | TransformerBridge | None = None,
    reference: str | Path | TransformerBridge | None = None,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    placement: Placement = "sequential",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    merge_adapter: bool = False,
    allow_same: bool = False,
) -> ModelPair:
    """Name the checkpoints to compare. They are checked, but no weights are loaded yet.

    Each is a local Hugging Face directory, a peft adapter's directory, a hub id, or an alias
    (tiny:base, tiny:sft, tiny:rl, tiny:lora). Discovery needs no `tuned`. Placement `sequential`
    never holds two models in memory; `resident` keeps what it has opened. `merge_adapter` merges a
    LoRA adapter into its base instead of toggling it.

    A TransformerLens TransformerBridge may stand for a checkpoint: the Hugging Face model in it is
    written, as it is now, to a temporary folder that goes with the pair.

    Raises:
        CheckpointError: one cannot be found or read, or they do not belong together (another
            architecture, the same weights unless `allow_same`, ...).
        AnatomyError: a TransformerBridge whose plain model cannot be had.
    """
    options = LoadOptions(
        dtype=dtype,
        device=device,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        merge_adapter=merge_adapter,
    )
    given = {"base": base, "tuned": tuned, "reference": reference}
    with ExitStack() as written:
        specs = {
            role: resolve(str(_written(at, written) if is_bridge(at) else at), role)
            for role, at in given.items()
            if at is not None
        }
        check(
            specs["base"],
            specs.get("tuned"),
            specs.get("reference"),
            allow_same=allow_same,
            options=options,
        )
        pair = ModelPair(specs, options, placement)
        weakref.finalize(pair, written.pop_all().close)
    return pair


def _written(bridge: Any, folders: ExitStack) -> Path:
    """A folder with the plain model in a TransformerBridge and its tokenizer; `folders` removes
    it."""
    model: Any = unwrapped(bridge)
    folder = Path(tempfile.mkdtemp(prefix="forgetguard-bridge-"))
    folders.callback(shutil.rmtree, folder, ignore_errors=True)
    try:
        with quiet():
            model.save_pretrained(folder)
            if bridge.tokenizer is not None:
                bridge.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise CheckpointError(
            f"the model of a TransformerBridge cannot be written to {folder}: {error}; set TMPDIR "
            "to a folder with room"
        ) from error
    return folder

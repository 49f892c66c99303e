"""Bring a checkpoint named by a hub id onto this disk, and say what it then is."""

from __future__ import annotations

from pathlib import Path

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec, resolve_directory
from forgetguard.errors import CheckpointError, first_line

_DESCRIPTION = ("*.json", "*.txt", "*.model", "*.jinja")
_WEIGHTS = ("*.safetensors",)
# Folders hold other formats (onnx/, original/); consolidated.* is a second copy of the weights.
_IGNORED = ("*/*", "consolidated*")


def localise(
    spec: CheckpointSpec, options: LoadOptions | None = None, *, weights: bool = True
) -> CheckpointSpec:
    """The same checkpoint as a directory on this disk; a spec that is one already is returned.

    A hub id is downloaded into the Hugging Face cache, or only looked up there when
    `HF_HUB_OFFLINE` is set. `weights=False` fetches the small files alone, so that checkpoints
    that cannot be compared are refused before gigabytes are fetched.

    Raises:
        CheckpointError: the hub does not have it, cannot be reached, or is not to be asked.
    """
    if spec.kind != "hub":
        return spec
    options = options or LoadOptions()
    patterns = list(_DESCRIPTION)
    if weights:
        patterns += _WEIGHTS
        patterns += ["*.bin"] if options.allow_pickle else []
    if options.trust_remote_code:
        patterns.append("*.py")
    return resolve_directory(_snapshot(spec, patterns), given=spec.given, role=spec.role)


def _snapshot(spec: CheckpointSpec, patterns: list[str]) -> Path:
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        return Path(
            huggingface_hub.snapshot_download(
                spec.location,
                revision=spec.revision,
                allow_patterns=patterns,
                ignore_patterns=list(_IGNORED),
                local_files_only=bool(HF_HUB_OFFLINE),
            )
        )
    except (OSError, ValueError) as error:  # hub errors are OSErrors; bad ids are ValueErrors
        if HF_HUB_OFFLINE:
            what = "it is not in the local Hugging Face cache, and HF_HUB_OFFLINE is set"
            step = "unset HF_HUB_OFFLINE, fetch it once with `hf download`"
        else:
            what = f"the Hugging Face hub did not give it ({first_line(error)})"
            step = "check its name and revision, and log in with `hf auth login` if it is gated"
        raise CheckpointError(
            f"{spec.role}={spec.given}: no such directory here, and as a hub id {what}: {step}, "
            f"or give a directory"
        ) from error

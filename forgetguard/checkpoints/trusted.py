"""What every loaded model is held to (frozen, finite), and what foreign errors are turned into."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import CheckpointError, first_line, some

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.I)


def frozen(spec: CheckpointSpec, model: torch.nn.Module, options: LoadOptions) -> torch.nn.Module:
    """The model itself, in eval mode and without gradients (raises CheckpointError: weights that
    are NaN or infinite)."""
    with explained(spec, options):
        model.eval()
        model.requires_grad_(False)
        _refuse_not_finite(spec, model, options)
    return model


def _refuse_not_finite(spec: CheckpointSpec, model: torch.nn.Module, options: LoadOptions) -> None:
    """aminmax carries NaN and infinities through, without a copy the size of the tensor."""
    names, extremes = [], []
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel() and not parameter.is_meta:
            names.append(name)
            extremes.append(torch.stack(torch.aminmax(parameter.detach())).to("cpu", torch.float64))
    if not names:
        return
    finite = torch.stack(extremes).isfinite().all(dim=1).tolist()
    bad = [name for name, fine in zip(names, finite, strict=True) if not fine]
    if bad:
        step = "Save the checkpoint again from a run that did not diverge"
        if options.dtype == "float16":
            step = f"float16 ends at 65504: try bfloat16 or float32. If that fails too: {step}"
        raise CheckpointError(
            f"{spec}: {len(bad)} of {len(names)} weight tensors hold NaN or infinity: "
            f"{some(bad)}. {step}"
        )


@contextmanager
def explained(spec: CheckpointSpec, options: LoadOptions) -> Iterator[None]:
    """Turn whatever the loading libraries raise into an error that says what to do."""
    try:
        yield
    except CheckpointError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(spec, options) from error
    except Exception as error:  # any of transformers', peft's, safetensors', accelerate's
        if _OUT_OF_MEMORY.search(str(error)):
            raise _out_of_memory(spec, options) from error
        raise CheckpointError(
            f"{spec}: {spec.location} cannot be loaded ({type(error).__name__}: "
            f"{first_line(error)}). {_next_step(error, options)}"
        ) from error


def _out_of_memory(spec: CheckpointSpec, options: LoadOptions) -> CheckpointError:
    steps = []
    if options.dtype == "float32":
        steps.append("dtype bfloat16 (half the memory)")
    if options.device_map is None:
        steps.append("device_map auto (spreads the model over all devices)")
    steps.append("a device with more memory")
    return CheckpointError(
        f"{spec}: out of memory while loading it as {options.dtype}: try {', or '.join(steps)}"
    )


def _next_step(error: Exception, options: LoadOptions) -> str:
    text = str(error)
    if "trust_remote_code" in text and not options.trust_remote_code:
        return (
            "It brings its own code: read it, and allow it if you trust it: "
            "--forgetguard-trust-remote-code; in Python trust_remote_code=True"
        )
    if "Unrecognized configuration class" in text or "does not recognize this architecture" in text:
        return "A decoder-only language model of an architecture that transformers knows is needed"
    if "accelerate" in text:
        return "Install accelerate"
    return "Check that it loads with transformers alone; if not, save or download it again"

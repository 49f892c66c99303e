"""`forgetguard inspect PATH`: what a checkpoint is, and what the gate can do with it."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from forgetguard.checkpoints import preflight
from forgetguard.checkpoints.adapters import can_toggle, named_base
from forgetguard.checkpoints.described import describe, geometry
from forgetguard.checkpoints.files import (
    OUTPUT_EMBEDDINGS,
    TensorEntry,
    find_weights,
    read_headers,
    read_json,
)
from forgetguard.checkpoints.fingerprint import ABSENT, fingerprint, tokenizer_fingerprint
from forgetguard.checkpoints.foreign import foreign_errors
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import ADAPTER_CONFIG, CONFIG, CheckpointSpec, resolve
from forgetguard.cli.command import DONE, STATUSES, Command, Job
from forgetguard.errors import CheckpointError, SpecificationError
from forgetguard.gate.bundled import bundled_for
from forgetguard.report.terminal import aligned

EPILOG = f"""\
examples:
  forgetguard inspect ./science-sft
  forgetguard inspect Qwen/Qwen2.5-3B-Instruct --json

{STATUSES}"""


def _options(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.usage = "forgetguard inspect CHECKPOINT [--json]"
    parser.add_argument("tokens", nargs="*", metavar="CHECKPOINT",
                        help="directory, hub id, peft adapter directory, or tiny:base")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="as JSON")


def _prepare(asked: Namespace) -> Job:
    if len(asked.tokens) != 1:
        raise SpecificationError(f"takes one checkpoint, got {' '.join(asked.tokens) or 'none'}")
    spec = resolve(asked.tokens[0], "checkpoint")

    def job() -> int:
        # Nothing of a pickle is read here but its bytes.
        found = inspect(spec, LoadOptions(allow_pickle=True))
        if asked.json:
            sys.stdout.write(json.dumps(found, indent=2) + "\n")
        else:
            sys.stdout.write("\n".join(listed(found)) + "\n")
        return DONE

    return job


def listed(found: Mapping[str, Any]) -> list[str]:
    """Plain values as aligned lines, a line for each entry of a list or mapping."""
    rows = []
    for name, value in found.items():
        texts = [f"{key} {_text(one)}" for key, one in value.items()] if isinstance(
            value, Mapping) else [_text(one) for one in value] if isinstance(
            value, list) else [_text(value)]  # fmt: skip
        rows += [(name.replace("_", " ") if at == 0 else "", one) for at, one in enumerate(texts)]
    return aligned(rows)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def inspect(asked: CheckpointSpec, options: LoadOptions) -> dict[str, Any]:
    """What the files of a checkpoint say, in plain values; weights are hashed and never loaded.

    Raises:
        CheckpointError: its files cannot be read.
    """
    with foreign_errors([asked], "read"):
        spec = localise(asked, options)
        adapter = spec.kind == "adapter"
        config = read_json(spec.directory / (ADAPTER_CONFIG if adapter else CONFIG))
        weights = find_weights(spec.directory, adapter=adapter, allow_pickle=True)
        tensors = {} if weights.pickled else read_headers(weights.files)
        found = {
            "checkpoint": asked.given,
            "directory": str(spec.directory),
            **(_adapter(spec, config) if adapter else _model(config, tensors)),
            **_weights(weights.files, tensors),
            **_tokenizer(spec, options),
            "fingerprint": asdict(fingerprint(spec, options)),
            "gate": list(_gate(asked, spec, config, options, pickled=weights.pickled)),
        }
    return {name: value for name, value in found.items() if value is not None}


def _model(config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    text = config.get("text_config")
    inner = {**config, **text} if isinstance(text, dict) else config
    sizes = geometry(inner)
    quantisation = config.get("quantization_config")
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation
    own = any(name.endswith(OUTPUT_EMBEDDINGS[::2]) for name in tensors)
    return {
        "architecture": (config.get("architectures") or [config.get("model_type")])[0],
        "layers": sizes["layers"],
        "heads": sizes["query heads"],
        "key_value_heads": sizes["key-value heads"],
        "width": sizes["hidden size"],
        "tied_embeddings": None if not tensors else not own,
        "quantisation": method or "none",
    }


def _adapter(spec: CheckpointSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    kind, rank = str(config.get("peft_type")).upper(), config.get("r")
    how = "switched on and off in one load of the base" if can_toggle(config) else (
        "loaded after the base"
    )  # fmt: skip
    return {
        "adapter": f"{kind}{f', rank {rank}' if rank else ''}; {how}",
        "base": spec.base or "none is named",
    }


def _weights(files: Sequence[Path], tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    sizes: Counter[str] = Counter()
    for one in tensors.values():
        sizes[one.dtype] += math.prod(one.shape)
    return {
        "dtype": ", ".join(dtype for dtype, _ in sizes.most_common()) or "pickled",
        "parameters": sizes.total() or None,
        "bytes": sum(file.stat().st_size for file in files),
        "files": len(files),
    }


def _tokenizer(spec: CheckpointSpec, options: LoadOptions) -> dict[str, Any]:
    """Loads the tokenizer: what its files say and what transformers makes of them may differ."""
    if tokenizer_fingerprint(spec.directory) == ABSENT:
        return {"tokenizer": "none of its own (tuned: the base's is used)"}
    from forgetguard.capabilities.encoding import reply_marker
    from forgetguard.checkpoints.tokenizers import load_tokenizer

    try:
        tokenizer = load_tokenizer(spec, options)
    except CheckpointError as error:
        return {"tokenizer": str(error)}
    template: str | bool = False
    if getattr(tokenizer, "chat_template", None):
        try:
            marker = reply_marker(tokenizer, True)
        except Exception as error:  # a template is a program of somebody's own
            marker = f"nothing that can be told ({type(error).__name__})"
        template = f"yes; a reply opens with {marker}" if marker else True
    return {
        "tokenizer": f"{type(tokenizer).__name__}, {len(tokenizer):,} ids",
        "chat_template": template,
    }


def _gate(
    asked: CheckpointSpec,
    spec: CheckpointSpec,
    config: Mapping[str, Any],
    options: LoadOptions,
    *,
    pickled: bool,
) -> Iterator[str]:
    """What would be refused, what has to be allowed, and which circuits there are for it."""
    if pickled:
        yield "its weights are pickled: give --allow-pickle (pytest: --forgetguard-allow-pickle)"
    if config.get("auto_map"):
        yield "it may need code that it brings along: --trust-remote-code, if you trust it"
    try:
        if spec.kind == "adapter":
            base = localise(replace(named_base(spec), role="base"), options)
            notes = preflight.check(base, replace(spec, role="tuned"), options=options)
        else:
            describe(spec, options)
            base = replace(spec, role="base", given=asked.given)
            notes = preflight.check(base, None, options=options)
    except CheckpointError as error:
        yield f"refused: {error}"
        return
    yield from notes
    circuits = bundled_for(base, options)
    made = [one for _, one in circuits if not (one.fits and one.fits.any_base)]
    as_base = f"{base.given} as base" if spec.kind == "adapter" else "as base"
    if made:
        yield f"{as_base}: {len(made)} bundled circuits were made for it"
    else:
        yield f"{as_base}: {len(circuits)} bundled circuits fit any base; heads are searched first"


COMMAND = Command("inspect", "say what a checkpoint is, and what the gate can do with it", _options,
                  _prepare)  # fmt: skip

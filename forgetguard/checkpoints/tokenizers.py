"""Load a checkpoint's tokenizer, and make sure that it turns text into ids at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.checkpoints.files import read_json
from forgetguard.checkpoints.fingerprint import TOKENIZER_FILES, digest_files
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import CONFIG, CheckpointSpec
from forgetguard.errors import CheckpointError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE_WORDS = 200
_PLAIN = "the When Mary and John went to a store , 7 x"


def has_tokenizer(directory: Path) -> bool:
    """Whether a checkpoint directory brings its own tokenizer."""
    return any((directory / name).is_file() for name in ("tokenizer.json", *TOKENIZER_FILES))


def tokenizer_files(directory: Path) -> str:
    """A hash of all that a directory's tokenizer is made from: the same, the same tokenizer."""
    names = [*TOKENIZER_FILES, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
             "added_tokens.json", "chat_template.jinja"]  # fmt: skip
    own = sorted(directory.glob("*.py"))  # a checkpoint's own tokenizer class
    files = [file for name in names if (file := directory / name).is_file()]
    try:
        kind = str(read_json(directory / CONFIG).get("model_type"))
    except CheckpointError:
        kind = ""
    return f"{kind} {digest_files([*files, *own])}"


def load_tokenizer(
    spec: CheckpointSpec, options: LoadOptions | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, which yields ids on words of its own vocabulary.

    `AutoTokenizer` picks a class by the checkpoint's model_type, and some classes do not read a
    tokenizer.json of another kind: transformers 5.23 turns every text into no ids at all for a
    word-level tokenizer beside a qwen2 model. The general fast tokenizer is then used instead.

    Raises:
        CheckpointError: there is none, it cannot be read, or it yields nothing.
    """
    options = options or LoadOptions()
    directory = localise(spec, options).directory
    if not has_tokenizer(directory):
        raise CheckpointError(
            f"{spec} has no tokenizer in {directory}: save its tokenizer there with save_pretrained"
        )
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kinds: list[Any] = [AutoTokenizer]
    where = f"the tokenizer in {directory}"
    step = (
        ", or allow the code that it brings, if you trust it: --forgetguard-trust-remote-code; "
        "in Python trust_remote_code=True"
    )
    if (directory / "tokenizer.json").is_file():
        kinds.append(PreTrainedTokenizerFast)
        where, step = f"{directory / 'tokenizer.json'}", ""  # which needs no code
    probe, tried, errors = _probe_text(directory), [], []
    for kind in kinds:
        try:
            with quiet():
                tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(
                    str(directory),
                    trust_remote_code=options.trust_remote_code,
                    local_files_only=True,
                )
        except Exception as error:  # transformers and tokenizers raise bare Exceptions here
            errors.append(error)
            continue
        if _yields(tokenizer, probe):
            return tokenizer
        tried.append(type(tokenizer).__name__)
    if tried:
        raise CheckpointError(
            f"{spec}: its tokenizer in {directory} turns text into no known ids (tried "
            f"{' and '.join(tried)} on {probe[:40]!r}...): save the tokenizer again with the "
            f"transformers version that made it"
        )
    raise CheckpointError(
        f"{spec}: {where} cannot be loaded ({first_line(errors[-1])}): save the tokenizer again "
        f"with save_pretrained{step}"
    ) from errors[-1]


def _yields(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return any(index != tokenizer.unk_token_id for index in ids)


def _probe_text(directory: Path) -> str:
    """Words of the tokenizer's own vocabulary, as far as its file shows them, and plain ones."""
    try:
        content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
        special = {token["content"] for token in content.get("added_tokens") or []}
        vocabulary = content["model"]["vocab"]
        words = [word if isinstance(word, str) else word[0] for word in vocabulary]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return _PLAIN
    own = [word for word in words if word not in special][:_PROBE_WORDS]
    return " ".join([*own, _PLAIN])

"""Tiny random checkpoints written at test time, and ways to damage them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from forgetguard.checkpoints.quiet import quiet

HEAD_DIM = 8
HEADS = 4
WIDTH = 32
VOCABULARY = 40
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
O_PROJ = "model.layers.1.self_attn.o_proj.weight"


def write_model(directory: Path, *, family: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A random model with its tokenizer; `changes` go into its configuration."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "head_dim": HEAD_DIM,
        "intermediate_size": 48,
        "vocab_size": VOCABULARY,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    if family == "gpt2":
        sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "vocab_size": VOCABULARY}
        sizes |= {"bos_token_id": 1, "eos_token_id": 1}
    shards = {k: changes.pop(k) for k in ("max_shard_size",) if k in changes}
    torch.manual_seed(seed)
    with quiet():
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**(sizes | changes)))
        model.save_pretrained(directory, **shards)
    write_tokenizer(directory)
    return directory


def write_tokenizer(directory: Path, *, extra: tuple[str, ...] = ()) -> None:
    """Word level: <unk>, <eos>, w0, w1, ... and the extra words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<eos>", *(f"w{i}" for i in range(30)), *extra]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>"
    ).save_pretrained(directory)


def write_adapter(base: Path, directory: Path, *, seed: int = 1, **changes: Any) -> Path:
    """A LoRA adapter of `base`, as if it had been trained (B is not zero)."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {
        "r": 2,
        "target_modules": ["q_proj", "o_proj", "up_proj"],
        "lora_dropout": 0.1,
    }
    torch.manual_seed(seed)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base)
        adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **(settings | changes)))
        adapted.save_pretrained(str(directory))
    return directory


def write_merged(base: Path, adapter: Path, directory: Path) -> Path:
    """The full checkpoint that the adapter merged into its base gives."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with quiet():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
        model.merge_and_unload().save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def copy(source: Path, target: Path) -> Path:
    """A byte copy."""
    return Path(shutil.copytree(source, target))


def edit_weights(
    directory: Path,
    change: Callable[[dict[str, torch.Tensor]], object],
    name: str = "model.safetensors",
) -> Path:
    """Change the tensors of a checkpoint in place."""
    tensors = load_file(directory / name)
    change(tensors)
    save_file(tensors, directory / name, metadata={"format": "pt"})
    return directory


def edit_json(directory: Path, name: str, **changes: Any) -> Path:
    """Set keys of one of its JSON files."""
    content = json.loads((directory / name).read_text())
    (directory / name).write_text(json.dumps(content | changes))
    return directory


def nudge(tensors: dict[str, torch.Tensor], name: str = Q_PROJ) -> None:
    """The smallest change: one bit of one number."""
    flat = tensors[name].view(-1).view(torch.int32)
    flat[5] ^= 1

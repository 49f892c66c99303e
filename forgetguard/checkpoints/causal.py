"""What a configuration tells of a model whose attention heads cannot be measured. [light]"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Model types of transformers 5.23: those that read a text in both directions unless `is_decoder` is
# set, and those that mix tokens without attention though some of them count heads.
_BIDIRECTIONAL = frozenset(
    {
        "albert", "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "deberta",
        "deberta-v2", "distilbert", "electra", "ernie", "esm", "eurobert", "megatron-bert",
        "modernbert", "mpnet", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer",
        "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip
_WITHOUT_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"})
# A class named after what it is for: `LlamaForSequenceClassification`. Models of text and images
# generate text under ForConditionalGeneration.
_FOR_SOMETHING_ELSE = re.compile(r".*For(?!CausalLM|ConditionalGeneration)[A-Z]\w+")
_OTHER_TASKS = frozenset({"QUESTION_ANS", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS"})
_STEP = "give a decoder-only language model"


def unsuitable(config: Mapping[str, Any], heads: object) -> str | None:
    """Why a model of this config.json cannot be measured, with the next step; None where it may.

    Args:
        heads: the number of query heads that it tells, None where none was found.
    """
    kind = config.get("model_type")
    classes = [name for name in config.get("architectures") or [] if isinstance(name, str)]
    if config.get("is_encoder_decoder"):
        return f"{kind} is an encoder with a decoder: {_STEP}"
    if kind in _BIDIRECTIONAL and not config.get("is_decoder"):
        return f"{kind} reads a text in both directions (is_decoder is not set): {_STEP}"
    if classes and all(_FOR_SOMETHING_ELSE.fullmatch(name) for name in classes):
        return f"it is a {classes[0]}, which gives no next token: {_STEP}"
    if kind in _WITHOUT_ATTENTION or (heads is None and not config.get("auto_map")):
        return (
            f"{kind} has no attention heads that its configuration counts: {_STEP} with attention"
        )
    if (config.get("pretraining_tp") or 1) != 1 and config.get("slow_but_exact"):
        return (
            "slow_but_exact adds the output projection up in slices (tensor parallelism), past the "
            "module that heads are read from: set it to false in config.json"
        )
    return None


def unsuitable_adapter(config: Mapping[str, Any]) -> str | None:
    """The same of an adapter_config.json."""
    task = config.get("task_type")
    if task in _OTHER_TASKS:
        return f"it was trained for the task {task}: give an adapter of a causal language model"
    if config.get("megatron_config"):
        return (
            "megatron_config splits its layers over devices (tensor parallelism): save it as plain "
            "LoRA, or merged into a full checkpoint"
        )
    return None

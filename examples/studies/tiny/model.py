"""The tiny family's architecture: a Qwen3 decoder with grouped key/value heads, untrained."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


def untrained(
    *, vocabulary: int, end: int, padding: int, seed: int, std: float, rope_theta: float
) -> Qwen3ForCausalLM:
    """4 layers of 6 heads over 3 key/value heads, d_model 96; float32, embeddings tied."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=16,
        max_position_embeddings=128,
        initializer_range=std,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=padding,
        use_cache=False,
    )
    return Qwen3ForCausalLM(config)

"""Small random models of many Hugging Face architectures, for the parity tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from placement import DEVICE, DTYPE

VOCAB = 97
LAYERS = 3

_LLAMA_LIKE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT_LIKE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
}

# head_dim is set apart from hidden_size // heads wherever the architecture lets it be.
CONFIGS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "qwen2": lambda: transformers.Qwen2Config(**_LLAMA_LIKE),
    "qwen3": lambda: transformers.Qwen3Config(**_LLAMA_LIKE, head_dim=16),
    "llama": lambda: transformers.LlamaConfig(**_LLAMA_LIKE, head_dim=16),
    "mistral": lambda: transformers.MistralConfig(**_LLAMA_LIKE, head_dim=16, sliding_window=5),
    "gemma2": lambda: transformers.Gemma2Config(
        **_LLAMA_LIKE, head_dim=16, sliding_window=5, query_pre_attn_scalar=16
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_LLAMA_LIKE,
        head_dim=16,
        sliding_window=5,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    "phi3": lambda: transformers.Phi3Config(**_LLAMA_LIKE),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=64
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(
        **_GPT_LIKE, intermediate_size=48, max_position_embeddings=64
    ),
    "opt": lambda: transformers.OPTConfig(
        **_GPT_LIKE, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32
    ),
    "falcon": lambda: transformers.FalconConfig(**_GPT_LIKE, alibi=False),
    "falcon_alibi": lambda: transformers.FalconConfig(
        **_GPT_LIKE, alibi=True, multi_query=False, parallel_attn=False
    ),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=VOCAB, hidden_size=32, n_layer=LAYERS, n_head=4
    ),
    "olmo2": lambda: transformers.Olmo2Config(**_LLAMA_LIKE),
    "mixtral": lambda: transformers.MixtralConfig(
        **_LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **_LLAMA_LIKE,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
    ),
}

# Only the places of their modules, and the self-checks, are tested on these.
_PLACED: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "gemma": lambda: transformers.GemmaConfig(**_LLAMA_LIKE, head_dim=16),
    "phi": lambda: transformers.PhiConfig(**_LLAMA_LIKE),
    "gptj": lambda: transformers.GPTJConfig(
        vocab_size=VOCAB, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=64, rotary_dim=4
    ),
    "codegen": lambda: transformers.CodeGenConfig(
        vocab_size=VOCAB, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=64, rotary_dim=4
    ),
    "gpt_bigcode": lambda: transformers.GPTBigCodeConfig(
        vocab_size=VOCAB, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=64
    ),
    "stablelm": lambda: transformers.StableLmConfig(**_LLAMA_LIKE),
    "cohere": lambda: transformers.CohereConfig(**_LLAMA_LIKE),
    "starcoder2": lambda: transformers.Starcoder2Config(**_LLAMA_LIKE),
    "granite": lambda: transformers.GraniteConfig(**_LLAMA_LIKE),
    "olmo": lambda: transformers.OlmoConfig(**_LLAMA_LIKE),
    "smollm3": lambda: transformers.SmolLM3Config(**_LLAMA_LIKE),
    "glm4": lambda: transformers.Glm4Config(**_LLAMA_LIKE, head_dim=16),
    "mpt": lambda: transformers.MptConfig(
        vocab_size=VOCAB, d_model=32, n_layers=LAYERS, n_heads=4, max_seq_len=64
    ),
    "deepseek_v3": lambda: transformers.DeepseekV3Config(
        **{**_LLAMA_LIKE, "num_key_value_heads": 4},
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=12,  # what a head hands to the output projection
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=24,
        first_k_dense_replace=1,
    ),
}
# A layer with a second mixer beside its attention, one that is given something for each token, one
# without attention.
_HYBRID: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "falcon_h1": lambda: transformers.FalconH1Config(
        **_LLAMA_LIKE,
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_n_groups=1,
    ),
    "gemma4": lambda: transformers.Gemma4TextConfig(
        **_LLAMA_LIKE, head_dim=16, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCAB
    ),
    "lfm2": lambda: transformers.Lfm2Config(
        **_LLAMA_LIKE, layer_types=["conv", "full_attention", "full_attention"]
    ),
}
PLACED = (*CONFIGS, *_PLACED)
HYBRID = tuple(_HYBRID)


# Their routers choose other experts by a rounding, so that no tolerance holds: float32, always.
ROUTED = ("mixtral", "qwen3_moe")


def build(name: str, *, seed: int = 0, std: float = 0.3) -> transformers.PreTrainedModel:
    """A random model in eval mode, where and in the format that `placement` says. Weights are drawn
    wide (`std`), so that every head moves the logits far more than rounding does."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config((CONFIGS | _PLACED | _HYBRID)[name]())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(std=std)
                else:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    model.tie_weights()
    model.to(DEVICE, torch.float32 if name in ROUTED else DTYPE)
    return model.eval().requires_grad_(False)

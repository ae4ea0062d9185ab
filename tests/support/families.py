"""Tiny causal language models, one configuration for each family: sizes that are multiples of nothing."""

from collections.abc import Mapping
from typing import Any

import torch

VOCABULARY = 97
_SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "norm_topk_prob": True}
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("Llama", _GROUPED),
    "gpt2": ("GPT2", _GPT2),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 16}),
    "mistral": ("Mistral", {**_GROUPED, "sliding_window": None}),
    "opt": ("OPT", {**_SIZES, "ffn_dim": 72, "word_embed_proj_dim": 48}),
    "gpt_neox": ("GPTNeoX", _SIZES),
    "gemma2": ("Gemma2", {**_GROUPED, "head_dim": 16, "sliding_window": 512}),
    "gemma3": ("Gemma3Text", {**_GROUPED, "head_dim": 16, "sliding_window": 512}),
    "phi3": ("Phi3", _GROUPED),
    "smollm": ("Llama", {**_GROUPED, "num_attention_heads": 6, "num_key_value_heads": 3, "tie_word_embeddings": True}),
    "falcon": ("Falcon", {**_SIZES, "multi_query": True, "alibi": False, "new_decoder_architecture": False}),
    "cohere": ("Cohere", {**_GROUPED, "num_hidden_layers": 1}),
    "glm": ("Glm", {**_GROUPED, "num_hidden_layers": 1, "head_dim": 12, "partial_rotary_factor": 0.5}),
    "stablelm": ("StableLm", {**_GROUPED, "partial_rotary_factor": 0.5}),
    "olmo": ("Olmo", _GROUPED),
    "mixtral": ("Mixtral", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": ("Qwen2Moe", {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 56}),
    "qwen3_moe": ("Qwen3Moe", {**_GROUPED, **_EXPERTS, "head_dim": 16, "num_hidden_layers": 1}),
    "olmoe": ("Olmoe", {**_GROUPED, "num_experts": 8, "num_experts_per_tok": 3, "num_hidden_layers": 1}),
    "bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 1, "n_head": 6}),
    "mpt": ("Mpt", {"vocab_size": VOCABULARY, "d_model": 48, "n_layers": 1, "n_heads": 6, "max_seq_len": 64}),
    "falcon_alibi": ("Falcon", {**_SIZES, "num_hidden_layers": 1, "multi_query": True, "alibi": True}),
    "gptj": ("GPTJ", {**_GPT2, "n_layer": 1, "rotary_dim": 8}),
    "codegen": ("CodeGen", {**_GPT2, "n_layer": 1, "rotary_dim": 8}),
    "gpt_neo": (
        "GPTNeo",
        {
            **_SIZES,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 7,
        },
    ),
    "xglm": (
        "XGLM",
        {**_SIZES, "d_model": 48, "ffn_dim": 72, "num_layers": 1, "attention_heads": 4, "max_position_embeddings": 64},
    ),
    "granite": (
        "Granite",
        {**_GROUPED, "attention_multiplier": 0.25, "logits_scaling": 2.0, "residual_multiplier": 0.5},
    ),
}


def tiny(family: str, seed: int = 0, **changes: Any) -> Any:
    """A model of the family with random weights."""
    import transformers

    name, sizes = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**sizes, **changes})
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).eval()

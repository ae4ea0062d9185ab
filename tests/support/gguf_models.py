"""GGUF files of small models of transformers, written as llama.cpp's converters do; nothing of the reader is in here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from decoders import VOCABULARY, decoder
from grouped_models import random_rows
from numpy.typing import NDArray
from transformers import GPT2Config, GPT2LMHeadModel

from compiler.frontend.gguf.blocks import WEIGHT_TYPES
from fuzz.gguf import gguf, pair

FAMILIES = {
    "llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma", "gemma2": "Gemma2", "gemma3": "Gemma3",
    "phi3": "Phi3", "gpt2": "GPT2",
}  # fmt: skip
_PLACES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv", "attn.c_attn": "attn_qkv", "self_attn.o_proj": "attn_output",
    "attn.c_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "input_layernorm": "attn_norm", "ln_1": "attn_norm",
    "ln_2": "ffn_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
_OUTSIDE = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "lm_head": "output",
}  # fmt: skip
SIZES: Mapping[str, Any] = {"head_dim": 16, "num_key_value_heads": 2, "pad_token_id": 0}
Tensors = dict[str, tuple[Sequence[int], int, bytes]]


def small(architecture: str, **sizes: Any) -> Any:
    """A model of random weights."""
    if architecture == "gpt2":
        torch.manual_seed(0)
        sizes = {"vocab_size": VOCABULARY, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_inner": 96, "n_positions": 128}
        return GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    more = {"sliding_window": 8, "query_pre_attn_scalar": 16} if architecture in ("gemma2", "gemma3") else {}
    return decoder(FAMILIES[architecture], **SIZES, **more, **sizes)


def metadata(architecture: str, model: Any) -> list[bytes]:
    """What the file says of the model."""
    c = model.config
    numbers = {
        "block_count": c.num_hidden_layers, "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size, "attention.head_count": c.num_attention_heads,
    }  # fmt: skip
    floats: dict[str, float] = {}
    if architecture == "gpt2":
        floats["attention.layer_norm_epsilon"] = c.layer_norm_epsilon
    else:
        numbers |= {
            "attention.head_count_kv": c.num_key_value_heads,
            "attention.key_length": c.head_dim,
            "attention.value_length": c.head_dim,
        }
        rope = c.rope_parameters.get("full_attention", c.rope_parameters)
        floats |= {"attention.layer_norm_rms_epsilon": c.rms_norm_eps, "rope.freq_base": rope["rope_theta"]}
    if architecture in ("gemma2", "gemma3"):
        numbers["attention.sliding_window"] = c.sliding_window
    if architecture == "gemma2":
        floats |= {"attn_logit_softcapping": c.attn_logit_softcapping}
        floats |= {"final_logit_softcapping": c.final_logit_softcapping}
    return [
        pair("general.architecture", "text", architecture),
        *(pair(f"{architecture}.{key}", "u32", value) for key, value in numbers.items()),
        *(pair(f"{architecture}.{key}", "f32", value) for key, value in floats.items()),
        pair("tokenizer.ggml.eos_token_id", "u32", 5),
    ]


def tensors(architecture: str, model: Any, kind: str | None = None) -> Tensors:
    """All weights, float32; with a `kind` linears and the embedding have random ones of that block format."""
    found: Tensors = {}
    for name, value in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if module == "lm_head" and model.config.tie_word_embeddings:
            continue
        array = value.numpy()
        if type(model.get_submodule(module)).__name__ == "Conv1D" and leaf == "weight":
            array = array.T
        if architecture == "llama" and re.search(r"\.[qk]_proj$", module):
            array = _turned(array, model.config.head_dim)
        if architecture.startswith("gemma") and array.ndim == 1:
            array = array + np.float32(1)
        place = f"{_place(architecture, module)}.{leaf}"
        if kind is not None and array.ndim == 2 and not place.startswith("position"):
            row = WEIGHT_TYPES[kind]
            found[place] = (
                array.shape,
                row.number,
                random_rows(row, array.shape[0], array.shape[1], len(found)).tobytes(),
            )
        else:
            found[place] = (array.shape, 0, np.ascontiguousarray(array).tobytes())
    return found


def file_of(architecture: str, model: Any, kind: str | None = None) -> NDArray[np.uint8]:
    """The bytes of the whole file, uint8."""
    return np.frombuffer(gguf(metadata(architecture, model), tensors(architecture, model, kind)), np.uint8)


def _place(architecture: str, module: str) -> str:
    if module in _OUTSIDE:
        return _OUTSIDE[module]
    match = re.fullmatch(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.*)", module)
    assert match is not None, module
    number, inner = match.groups()
    if inner == "post_attention_layernorm":  # of four norms the second; of two the one in front of the rest
        four = architecture in ("gemma2", "gemma3")
        return f"blk.{number}.{'post_attention_norm' if four else 'ffn_norm'}"
    return f"blk.{number}.{_PLACES[inner]}"


def _turned(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Rows of a head as pairs of neighbours, where transformers has them as halves."""
    found = np.empty_like(array)
    for row in range(len(array)):
        head, at = divmod(row, size)
        half, place = divmod(at, size // 2)
        found[head * size + 2 * place + half] = array[row]
    return found

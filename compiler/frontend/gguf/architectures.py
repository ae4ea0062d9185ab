"""Which module of transformers a GGUF architecture is, and where its tensors belong. One row per architecture.

Names are those of the file: `blk.3.attn_q.weight` is the part `attn_q` of layer 3. Numbers are the file's metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compiler.frontend.gguf.numbers import Numbers

Parts = Mapping[str, str]
_ATTENTION: Parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
_OUT: Parts = {"attn_output": "self_attn.o_proj", "ffn_down": "mlp.down_proj"}
_GATED: Parts = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
_NORMS: Parts = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_HEAD_NORMS: Parts = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_FOUR_NORMS: Parts = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_LAYER: Parts = {**_ATTENTION, **_OUT, **_GATED, **_NORMS}
_GPT2: Parts = {
    "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Architecture:
    """`name` is the file's word, `model` the class in transformers and `config` that of its configuration.

    `layer` and `outside` say which submodule has a part of a layer, and a tensor outside of the layers; `layers` is
    where the layers are. `turned`: queries and keys are turned by pairs of neighbours, in transformers by halves.
    `offset`: norms multiply by 1 + weight, and the file has the sum. `optional` are parts that a file may lack.
    """

    name: str
    model: str
    config: str
    layer: Parts = field(default_factory=lambda: _LAYER)
    outside: Parts = field(
        default_factory=lambda: {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    )
    layers: str = "model.layers"
    turned: tuple[str, ...] = ()
    offset: bool = False

    def settings(self, numbers: Numbers) -> dict[str, Any]:
        """Arguments of the configuration. Raises ModelError for numbers that are missing or do not fit the tensors."""
        if self.name == "gpt2":
            return _gpt2(numbers)
        return _common(numbers) | _OWN.get(self.name, _nothing)(numbers)


ARCHITECTURES: Mapping[str, Architecture] = {
    row.name: row
    for row in (
        Architecture("llama", "LlamaForCausalLM", "LlamaConfig", turned=("attn_q", "attn_k")),
        Architecture("qwen2", "Qwen2ForCausalLM", "Qwen2Config"),
        Architecture("qwen3", "Qwen3ForCausalLM", "Qwen3Config", {**_LAYER, **_HEAD_NORMS}),
        Architecture("gemma", "GemmaForCausalLM", "GemmaConfig", offset=True),
        Architecture("gemma2", "Gemma2ForCausalLM", "Gemma2Config", {**_LAYER, **_FOUR_NORMS}, offset=True),
        Architecture(
            "gemma3",
            "Gemma3ForCausalLM",
            "Gemma3TextConfig",
            {**_LAYER, **_FOUR_NORMS, **_HEAD_NORMS},
            offset=True,
        ),
        Architecture(
            "phi3",
            "Phi3ForCausalLM",
            "Phi3Config",
            {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj", **_OUT, **_NORMS},
        ),
        Architecture(
            "gpt2",
            "GPT2LMHeadModel",
            "GPT2Config",
            _GPT2,
            {
                "token_embd": "transformer.wte",
                "position_embd": "transformer.wpe",
                "output_norm": "transformer.ln_f",
                "output": "lm_head",
            },
            "transformer.h",
        ),
    )
}


def _common(n: Numbers) -> dict[str, Any]:
    """What models with rotary embeddings and a root mean square norm have in common."""
    vocabulary, hidden = n.shape("token_embd.weight")
    heads = n.whole("attention.head_count", hidden)
    grouped = n.whole("attention.head_count_kv", heads, heads)
    size = n.whole("attention.key_length", n.largest, hidden // heads)
    n.check(heads % grouped == 0 and size % 2 == 0, "the sizes of its heads do not fit one another")
    n.check(n.whole("rope.dimension_count", size, size) == size, "its rotary embedding turns a part of a head only")
    n.check(n.whole("attention.value_length", n.largest, size) == size, "its values are of another size than its keys")
    n.check(n.metadata.get("expert_count", 0) == 0, "it is a mixture of experts")
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": n.shape("blk.0.ffn_down.weight")[1],
        "num_hidden_layers": n.whole("block_count", n.tensors),
        "num_attention_heads": heads,
        "num_key_value_heads": grouped,
        "head_dim": size,
        "max_position_embeddings": n.whole("context_length", 1 << 24),
        "rms_norm_eps": n.positive("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(n),
        "attention_bias": n.has("blk.0.attn_q.bias"),
    }


def _rope(n: Numbers) -> dict[str, Any]:
    kind = n.metadata.get("rope.scaling.type", "none")
    parameters = {"rope_type": "default", "rope_theta": n.positive("rope.freq_base", 1e4)}
    if kind == "linear":
        return parameters | {"rope_type": "linear", "factor": n.positive("rope.scaling.factor")}
    n.check(kind == "none", f"its rotary embedding is scaled in a way that is not read ({n.text('rope.scaling.type')})")
    return parameters


def _nothing(n: Numbers) -> dict[str, Any]:
    return {}


def _gemma2(n: Numbers) -> dict[str, Any]:
    """Every second layer sees a window. The largest model scales queries by the width of its heads."""
    large = n.whole("block_count", n.tensors) == 46
    return {
        "sliding_window": n.whole("attention.sliding_window", 1 << 24),
        "attn_logit_softcapping": n.positive("attn_logit_softcapping"),
        "final_logit_softcapping": n.positive("final_logit_softcapping"),
        "query_pre_attn_scalar": _hidden(n) // n.whole("attention.head_count", _hidden(n)) if large else _size(n),
    }


def _gemma3(n: Numbers) -> dict[str, Any]:
    """Five of six layers see a window and turn by a base of their own; the largest as with Gemma 2."""
    large = n.whole("block_count", n.tensors) == 62
    return {
        "sliding_window": n.whole("attention.sliding_window", 1 << 24),
        "rope_parameters": {
            "full_attention": _rope(n),
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        "query_pre_attn_scalar": _hidden(n) // n.whole("attention.head_count", _hidden(n)) if large else _size(n),
    }


def _phi3(n: Numbers) -> dict[str, Any]:
    window = n.whole("attention.sliding_window", 1 << 24, 1 << 24)
    return {"sliding_window": None if window == 1 << 24 else window}


def _qwen2(n: Numbers) -> dict[str, Any]:
    n.check(n.has("blk.0.attn_q.bias"), "a model of this kind without biases of its queries")
    return {"use_sliding_window": False}


def _hidden(n: Numbers) -> int:
    return n.shape("token_embd.weight")[1]


def _size(n: Numbers) -> int:
    return n.whole("attention.key_length", n.largest, _hidden(n) // n.whole("attention.head_count", _hidden(n)))


_OWN = {"gemma2": _gemma2, "gemma3": _gemma3, "phi3": _phi3, "qwen2": _qwen2}


def _gpt2(n: Numbers) -> dict[str, Any]:
    vocabulary, hidden = n.shape("token_embd.weight")
    heads = n.whole("attention.head_count", hidden)
    n.check(hidden % heads == 0, "the sizes of its heads do not fit one another")
    return {
        "vocab_size": vocabulary,
        "n_embd": hidden,
        "n_inner": n.shape("blk.0.ffn_down.weight")[1],
        "n_layer": n.whole("block_count", n.tensors),
        "n_head": heads,
        "n_positions": n.shape("position_embd.weight")[0],
        "layer_norm_epsilon": n.positive("attention.layer_norm_epsilon"),
    }

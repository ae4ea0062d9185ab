"""A language model of a GGUF file as a module of transformers: quantized linears stay as they are.

    with open_gguf("model.gguf") as file:
        model = causal_lm(file)            LlamaForCausalLM, its linears GroupedLinear

Only what the file's own tensors have room for is made: the numbers in its metadata are held against their shapes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.frontend.gguf.blocks import WeightType
from compiler.frontend.gguf.file import GgufFile
from compiler.frontend.gguf.linear import GroupedLinear
from isa.errors import ModelError
from isa.shown import shown

ARCHITECTURES = ("llama",)
_EMBEDDING, _NORM, _HEAD = "token_embd.weight", "output_norm.weight", "output.weight"
_LINEARS: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMS: Mapping[str, str] = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def causal_lm(file: GgufFile) -> Any:
    """The model, a LlamaForCausalLM in eval mode. Raises ModelError for an architecture that is not known, for tensors
    that are missing, and for shapes other than the metadata say."""
    from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRotaryEmbedding

    config = _config(file)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    used = {_EMBEDDING, _NORM}
    embedding = torch.from_numpy(_values(file, _EMBEDDING, (config.vocab_size, config.hidden_size)))
    model.model.embed_tokens.weight = _frozen(embedding)
    model.model.norm.weight = _frozen(torch.from_numpy(_values(file, _NORM, (config.hidden_size,))))
    head = _HEAD if _HEAD in file.tensors else _EMBEDDING
    used.add(head)
    model.lm_head = _linear(file, head, model.lm_head)
    for number, layer in enumerate(model.model.layers):
        for part, place in _NORMS.items():
            name = f"blk.{number}.{part}.weight"
            used.add(name)
            layer.get_submodule(place).weight = _frozen(torch.from_numpy(_values(file, name, (config.hidden_size,))))
        for part, place in _LINEARS.items():
            name = f"blk.{number}.{part}.weight"
            used.add(name)
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(part, 0)
            layer.set_submodule(place, _linear(file, name, layer.get_submodule(place), heads))
    if left := sorted(set(file.tensors) - used):
        raise ModelError(f"the file has tensor {shown(left[0])}, which a model of this kind does not", file.where)
    return model.eval()


def _config(file: GgufFile) -> Any:
    """The configuration that metadata and shapes give."""
    from transformers import LlamaConfig

    kind = file.metadata.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"its architecture is {shown(str(kind))[:80]}", file.where, f"llmchip reads {', '.join(ARCHITECTURES)}"
        )
    if file.metadata.get("llama.rope.scaling.type", "none") != "none":
        raise ModelError("its rotary embedding is scaled, which llmchip does not read from GGUF", file.where)
    (vocabulary, hidden), (inner, _) = _shape(file, _EMBEDDING), _shape(file, "blk.0.ffn_up.weight")
    heads = _number(file, "llama.attention.head_count", hidden)
    grouped = _number(file, "llama.attention.head_count_kv", heads, heads)
    size = _number(file, "llama.attention.key_length", hidden, hidden // heads)
    if _number(file, "llama.rope.dimension_count", hidden, size) != size or size % 2 or heads % grouped:
        raise ModelError("the sizes of its heads do not fit one another", file.where)
    ends = _tokens(file, vocabulary, "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    (begin,), (pad,) = (
        _tokens(file, vocabulary, f"tokenizer.ggml.{name}_token_id") or (None,) for name in ("bos", "padding")
    )
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=_number(file, "llama.block_count", len(file.tensors)),
        num_attention_heads=heads,
        num_key_value_heads=grouped,
        head_dim=size,
        max_position_embeddings=_number(file, "llama.context_length", 1 << 24),
        rms_norm_eps=_float(file, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _float(file, "llama.rope.freq_base", 1e4)},
        bos_token_id=begin,
        eos_token_id=list(ends) or None,
        pad_token_id=pad,
        tie_word_embeddings=False,  # the head is a linear of its own, as ggml has it
    )


def _linear(file: GgufFile, name: str, like: nn.Module, heads: int = 0) -> nn.Module:
    """The linear of a tensor, in the place of `like`. Queries and keys of `heads` heads are turned by pairs of
    neighbours in ggml, by halves in transformers: their rows are put in that order."""
    assert isinstance(like, nn.Linear)
    wanted = (like.out_features, like.in_features)
    _check_shape(file, name, wanted)
    order = np.arange(wanted[0])
    if heads:
        order = order.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
    kind = file.tensors[name].type
    if isinstance(kind, WeightType):
        return GroupedLinear(kind, file.rows(name)[order])
    made = nn.Linear(wanted[1], wanted[0], bias=False, device="meta")
    made.weight = _frozen(torch.from_numpy(file.values(name)[order]))
    return made


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.float().contiguous(), requires_grad=False)


def _values(file: GgufFile, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    _check_shape(file, name, shape)
    return np.array(file.values(name))  # the file may be closed before the model is gone


def _check_shape(file: GgufFile, name: str, shape: tuple[int, ...]) -> None:
    if (found := _shape(file, name, len(shape))) != shape:
        raise ModelError(f"tensor {shown(name)} is {list(found)}, the metadata mean {list(shape)}", file.where)


def _shape(file: GgufFile, name: str, dims: int = 2) -> tuple[int, ...]:
    info = file.tensors.get(name)
    if info is None or len(info.shape) != dims or not all(info.shape):
        raise ModelError(f"the file has no tensor {shown(name)} of {dims} dimensions", file.where)
    return info.shape


def _number(file: GgufFile, key: str, most: int, default: int | None = None) -> int:
    value = file.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ModelError(f"{key} is {shown(str(value))[:80]}, not a number from 1 to {most}", file.where)
    return value


def _float(file: GgufFile, key: str, default: float | None = None) -> float:
    value = file.metadata.get(key, default)
    if not isinstance(value, float) or not 0 < value < 1e12:
        raise ModelError(f"{key} is {shown(str(value))[:80]}, not a positive number", file.where)
    return value


def _tokens(file: GgufFile, vocabulary: int, *keys: str) -> tuple[int, ...]:
    """Numbers of tokens, those that the file names."""
    given = [file.metadata[key] for key in keys if key in file.metadata]
    return tuple(dict.fromkeys(token for token in given if isinstance(token, int) and 0 <= token < vocabulary))

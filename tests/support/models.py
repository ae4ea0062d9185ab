"""Small models and helpers for the compiler's tests."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig

from compiler.frontend.capture import capture
from compiler.lower import Lowered, lower

IDS = torch.tensor([[3, 14, 15, 92, 65, 35, 89], [79, 32, 38, 46, 26, 43, 38]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])


def tiny_bert(kind: type[Any], implementation: str = "sdpa", seed: int = 0, **config: Any) -> Any:
    """A BERT whose sizes are multiples of nothing."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 97, "hidden_size": 36, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 50,
        "max_position_embeddings": 40,
    }  # fmt: skip
    return kind._from_config(BertConfig(**{**sizes, **config}), attn_implementation=implementation).eval()


class Function(torch.nn.Module):
    """A function of (module, tensors) as a module with one linear of 8 features."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.lin = function, torch.nn.Linear(8, 8)

    def forward(self, *args: Tensor) -> Any:
        return self.function(self, *args)


def lowered_of(module: torch.nn.Module, *args: Tensor, **kwargs: Any) -> Lowered:
    return lower(capture(module.eval(), args, kwargs))


def results(lowered: Lowered, *args: Tensor, **kwargs: Any) -> tuple[Tensor, ...]:
    """What the frozen graph computes for these inputs."""
    return lowered.run(lowered.captured.flatten(args, kwargs), lowered.pack_weights())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten().float(), b.flatten().float(), 0))


def operations(lowered: Lowered) -> list[str]:
    """Names of the operations of the frozen graph, in order."""
    return [
        str(node.target).removesuffix(".default") for node in lowered.main.graph.nodes if node.op == "call_function"
    ]


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal including the sign of zero; every NaN is the same NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    width = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return bool(((a.contiguous().view(width) == b.contiguous().view(width)) | (a.isnan() & b.isnan())).all())

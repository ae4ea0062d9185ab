"""Mixtures of experts of transformers, captured so that their weights are read as little as can be.

transformers' own extension point is used, a function in place of the configured one while a model is captured: its
"eager" one counts tokens in Python, and its "grouped_mm" one, the default, takes products of lengths that only the data
know, in an order that is sorted first and restored afterwards.

    few tokens     each with the experts that it chose: nobody else's weights leave DRAM
    many tokens    every expert for every token, and what was chosen is looked up: no weight is read twice

Both are the same products of the same rows, so a token has the same bits whoever its neighbours are.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

NAME = "llmchip"  # of the function, in transformers' table
_alone = threading.RLock()  # who captures changes the model's configuration for that time


def _forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """What transformers calls for a module of experts: hidden_states [T, H], both others [T, choices]."""
    from transformers.integrations.moe import batched_mm_experts_forward

    if top_k_index.numel() <= self.num_experts:
        result: Tensor = batched_mm_experts_forward(self, hidden_states, top_k_index, top_k_weights)
        return result
    return _every(self, hidden_states, top_k_index, top_k_weights)


def _every(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """All experts of all tokens, of which each token takes those that it chose."""
    tokens = hidden_states.shape[0]
    first = "gate_up_proj" if self.has_gate else "up_proj"
    y = _linear(self, hidden_states.unsqueeze(0), first)
    y = self._apply_gate(y) if self.has_gate else self.act_fn(y)
    y = _linear(self, y, "down_proj")
    if self.has_post_expert_norm:
        y = self.post_expert_norm(y)
    places = top_k_index.to(torch.int32) * tokens + torch.arange(tokens, dtype=torch.int32).unsqueeze(-1)
    chosen = y.reshape(-1, y.shape[-1])[places] * top_k_weights.unsqueeze(-1)
    return chosen.sum(1).to(hidden_states.dtype)


def _linear(self: Any, x: Tensor, name: str) -> Tensor:
    """x [1 or E, T, K] times the weights [E, N, K] called `name`, plus their bias if they have one."""
    weight = getattr(self, name)
    y = torch.matmul(x, weight if self.is_transposed else weight.transpose(-1, -2))
    return y + getattr(self, f"{name}_bias").unsqueeze(1) if self.has_bias else y


@contextmanager
def experts(model: nn.Module) -> Iterator[None]:
    """With our function for the experts of a model of transformers."""
    table = sys.modules.get("transformers.integrations.moe")
    found = [getattr(module, "config", None) for module in model.modules()]
    configs: dict[int, Any] = {id(c): c for c in found if hasattr(c, "_experts_implementation")}
    if table is None or not configs:
        yield
        return
    with _alone:
        table.ExpertsInterface.register(NAME, _forward)
        before = [(config, config._experts_implementation) for config in configs.values()]
        for config in configs.values():
            config._experts_implementation = NAME
        try:
            yield
        finally:
            for config, implementation in before:
                config._experts_implementation = implementation

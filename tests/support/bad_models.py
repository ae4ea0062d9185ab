"""Factories for the tests of bad input: `llmcc verify bad_models:train_mode`, and so on."""

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


class Second(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.kthvalue(x, 2).values


def good() -> tuple[nn.Module, dict[str, Tensor]]:
    return Linear().eval(), {"x": torch.randn(3, 8)}


def no_example() -> nn.Module:
    return Linear().eval()


def train_mode() -> tuple[nn.Module, dict[str, Tensor]]:
    return Linear().train(), {"x": torch.randn(3, 8)}


def unsupported() -> tuple[nn.Module, dict[str, Tensor]]:
    return Second().eval(), {"x": torch.randn(3, 8)}


def double() -> tuple[nn.Module, dict[str, Tensor]]:
    return Linear().double().eval(), {"x": torch.randn(3, 8, dtype=torch.float64)}


def complex_input() -> tuple[nn.Module, dict[str, Tensor]]:
    return nn.Identity().eval(), {"input": torch.randn(3, dtype=torch.complex64)}


def sparse() -> tuple[nn.Module, dict[str, Tensor]]:
    return Linear().eval(), {"x": torch.eye(8).to_sparse()}


def nan_weight() -> tuple[nn.Module, dict[str, Tensor]]:
    model = Linear().eval()
    with torch.no_grad():
        model.linear.weight[0, 0] = float("nan")
    return model, {"x": torch.randn(3, 8)}


def raises() -> nn.Module:
    raise RuntimeError("the factory is broken")


def wrong() -> int:
    return 3


number = 3

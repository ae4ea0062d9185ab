"""Resident weights: what many products read comes from DRAM once."""

import pytest
import torch
from torch import nn

import llmchip
from compiler.frontend.capture import capture
from compiler.fuse import resident
from compiler.lower import lower

CLONE = torch.ops.aten.clone.default


class Again(nn.Module):
    """One linear layer, several times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.times, self.linear = times, nn.Linear(48, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            x = torch.tanh(self.linear(x))
        return x


def _copies(times: int) -> list[str]:
    graph = lower(capture(Again(times).eval(), (torch.randn(2, 48),))).main.graph
    resident.keep_weights(graph)
    return [str(node.args[0]) for node in graph.find_nodes(op="call_function", target=CLONE)]


def test_what_many_products_read_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the weights of few products are copied, those of many are not, or there are more than there is room
    for."""
    assert not _copies(resident.MANY - 1)
    assert len(_copies(resident.MANY)) == 2  # the weights, and their scales
    monkeypatch.setattr(resident, "ROOM", 48 * 48)
    assert len(_copies(resident.MANY)) == 1  # the smaller ones, and nothing behind what has no room


def test_they_are_loaded_once() -> None:
    """Breaks when each product loads them again: then the loads, of 1-byte weights, are several times their bytes."""
    x = torch.randn(2, 48)
    program = llmchip.compile(Again(8).eval(), (x,))
    assert program.verify(x).bit_exact
    text = [line for line in program.disassemble().splitlines() if line.startswith("ldw") and " i8 " in line]
    assert len(text) == 1

"""Recurrent layers and cells: the chip's bits are the reference's, and every result is near PyTorch's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import llmchip
from compiler.passes import recurrent

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(5, 7),
    "lstm, two layers, both ways": lambda: nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True),
    "lstm without biases": lambda: nn.LSTM(5, 7, bias=False),
    "lstm that projects": lambda: nn.LSTM(5, 7, 2, proj_size=3, bidirectional=True),
    "gru": lambda: nn.GRU(5, 7),
    "gru, two layers, both ways": lambda: nn.GRU(5, 7, 2, batch_first=True, bidirectional=True),
    "gru without biases": lambda: nn.GRU(5, 7, bias=False),
    "rnn": lambda: nn.RNN(5, 7),
    "rnn, relu, both ways": lambda: nn.RNN(5, 7, nonlinearity="relu", bidirectional=True),
}
STATES = {"lstm": 2, "gru": 1, "rnn": 1}
CELLS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTMCell(5, 7),
    "gru": lambda: nn.GRUCell(5, 7),
    "gru without biases": lambda: nn.GRUCell(5, 7, bias=False),
    "rnn": lambda: nn.RNNCell(5, 7),
    "rnn, relu": lambda: nn.RNNCell(5, 7, nonlinearity="relu"),
}


def check(model: nn.Module, *args: Any, bound: float = 0.02) -> None:
    model.eval()
    program = llmchip.compile(model, args)
    assert program.verify(*args).bit_exact
    close(program(*args), model(*args), bound)


def close(found: Any, wanted: Any, bound: float = 0.02) -> None:
    """Every result by itself: int8 products of one step after the other."""
    assert pytree.tree_structure(found) == pytree.tree_structure(wanted)
    for a, b in zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True):
        assert a.shape == b.shape and a.dtype is b.dtype
        assert torch.allclose(a, b, atol=bound, rtol=0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    """Breaks when gates change places, a direction runs the wrong way, a layer gets another's weights or a state is
    another step's."""
    check(LAYERS[name](), torch.randn(4, 3, 5))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_states_from_outside(name: str) -> None:
    """Breaks when a state to begin with is ignored, or belongs to another layer."""
    both = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[name](5, 7, 2, bidirectional=True)
    states = tuple(torch.randn(4, 2, 7) for _ in range(STATES[name]))
    check(Called(both), torch.randn(3, 2, 5), states if len(states) > 1 else states[0])


class Called(nn.Module):
    """What takes its state by position."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.layer(x, state)


@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str) -> None:
    """Breaks when a cell is another step than a layer's."""
    check(CELLS[name](), torch.randn(3, 5))
    state = torch.randn(3, 7)
    check(Called(CELLS[name]()), torch.randn(3, 5), (state, -state) if name == "lstm" else state)


def test_without_a_batch_and_in_half_types() -> None:
    """Breaks when a sequence alone has a batch, or a half type is left."""
    check(nn.LSTM(5, 7), torch.randn(4, 5))
    check(nn.GRUCell(5, 7), torch.randn(5))
    check(nn.LSTM(5, 7).bfloat16(), torch.randn(4, 2, 5).bfloat16(), bound=0.04)


@pytest.mark.parametrize("name", ["lstm, two layers, both ways", "gru", "rnn"])
def test_under_torch_compile(name: str) -> None:
    """Breaks when Dynamo breaks the graph at a recurrent layer, or the chip leaves it to PyTorch: strict, and one
    graph."""
    model, x = LAYERS[name]().eval(), torch.randn(3, 2, 5)
    with torch.no_grad():
        close(torch.compile(model, backend="llmchip", fullgraph=True)(x), model(x))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(5, 7, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed, _ = self.layer(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return pad_packed_sequence(packed, batch_first=True)[0]


def test_what_is_refused_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a packed sequence, dropout or too many steps are refused in other words than the model's."""
    with pytest.raises(llmchip.UnsupportedError, match="packed sequence"):
        llmchip.compile(Packed().eval(), (torch.randn(2, 3, 5), torch.tensor([3, 2])))
    drops = nn.Sequential(nn.LSTM(5, 7, 2, dropout=0.5)).eval()
    drops[0].train()
    with pytest.raises(llmchip.UnsupportedError, match="drops out"):
        llmchip.compile(drops, (torch.randn(2, 3, 5),))
    monkeypatch.setattr(recurrent, "MOST", 2)
    with pytest.raises(llmchip.UnsupportedError, match="takes 3 steps"):
        llmchip.compile(nn.RNN(2, 2).eval(), (torch.randn(3, 1, 2),))

"""Operands by place and by name."""

import pytest
import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Argument

from compiler.graph import arguments as given

aten = torch.ops.aten


def graph_of(target: OpOverload, *args: Argument, **kwargs: Argument) -> tuple[fx.Node, fx.Node]:
    """A graph's placeholder, and a call of `target` on it and the arguments."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    return x, graph.call_function(target, (x, *args), kwargs)


def test_an_operand_is_found_wherever_it_is_given() -> None:
    """Breaks when a name finds something else than PyTorch would take."""
    for args, kwargs, expected in (((2,), {}, 2), ((), {"dim": 2}, 2), ((), {}, 0)):
        _, node = graph_of(aten.slice.Tensor, *args, **kwargs)
        assert given.integer(node, "dim") == expected
    x, node = graph_of(aten.slice.Tensor)
    assert given.tensor(node, 0) is given.tensor(node, "self") is x
    assert given.argument(node, "start") is None


def test_one_of_several_names() -> None:
    """Breaks when an operation with another name for its operand is not understood."""
    _, clamp = graph_of(aten.clamp_min.default, 2)
    _, tanh = graph_of(aten.hardtanh.default)
    assert given.first_of(clamp, "min", "min_val") == 2
    assert given.first_of(tanh, "min", "min_val") == -1
    assert given.first_of(clamp, "max", "max_val") is None


def test_another_type_names_the_node() -> None:
    """Breaks when a mistake of ours says only that some attribute is missing."""
    _, node = graph_of(aten.permute.default, [0, "one"])
    with pytest.raises(AssertionError, match=r"operand 1 of permute_default is \[0, 'one'\], not whole numbers"):
        given.integers(node, 1)
    with pytest.raises(AssertionError, match=r"operand dims of permute_default is .*, not a tensor"):
        given.tensor(node, "dims")
    with pytest.raises(AssertionError, match="operand self of permute_default is x, not a number"):
        given.scalar(node, "self")

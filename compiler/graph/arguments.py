"""Operands of FX nodes in the types that they are known to have.

PyTorch's own type of an operand is everything that a graph can hold. Here each is asked for as what it must be, by its
place or by its name in the schema. One that is something else is a mistake of ours: an AssertionError names the node.
"""

from functools import cache
from operator import getitem
from typing import TypeVar

from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Argument, Target

Number = int | float | complex  # or a truth; complex ones only in what is computed when packing
Operand = fx.Node | Number  # of an elementwise operation
Place = int | str  # of an operand: its number among those that are given, or its name in the schema
T = TypeVar("T")


def argument(node: fx.Node, place: Place) -> Argument:
    """An operand; the schema's default for one that is named and left out."""
    if isinstance(place, int):
        assert place < len(node.args), f"{node.name} has no operand {place}"
        return node.args[place]
    number, default = _schema(node.target)[place]
    return node.args[number] if number < len(node.args) else node.kwargs.get(place, default)


def by_name(node: fx.Node) -> dict[str, Argument]:
    """Every operand by its name in the schema, in order, defaults too."""
    return {name: argument(node, name) for name in _schema(node.target)}


def first_of(node: fx.Node, *names: str) -> Argument:
    """The operand with the first of these names that the schema has; None where it has none of them."""
    known = _schema(node.target)
    return next((argument(node, name) for name in names if name in known), None)


@cache
def _schema(target: Target) -> dict[str, tuple[int, Argument]]:
    """Place and default of every operand by name; what takes a part of a tuple has no schema of PyTorch's."""
    if target is getitem:
        return {"of": (0, None), "index": (1, None)}
    assert isinstance(target, OpOverload), f"{target} has no schema"
    return {given.name: (number, given.default_value) for number, given in enumerate(target._schema.arguments)}


def tensor(node: fx.Node, place: Place) -> fx.Node:
    value = argument(node, place)
    assert isinstance(value, fx.Node), _wrong(node, place, value, "a tensor")
    return value


def optional_tensor(node: fx.Node, place: Place) -> fx.Node | None:
    return None if argument(node, place) is None else tensor(node, place)


def tensors(node: fx.Node, place: Place) -> list[fx.Node]:
    """Several tensors: what `cat` joins, or (of an output node) a graph's results."""
    return _several(node, place, fx.Node, "several tensors")


def integer(node: fx.Node, place: Place) -> int:
    value = argument(node, place)
    assert isinstance(value, int), _wrong(node, place, value, "a whole number")
    return value


def integers(node: fx.Node, place: Place) -> list[int]:
    """Sizes, or dimensions."""
    return _several(node, place, int, "whole numbers")


def _several(node: fx.Node, place: Place, kind: type[T], wanted: str) -> list[T]:
    value = argument(node, place)
    assert isinstance(value, (list, tuple)), _wrong(node, place, value, wanted)
    found = [item for item in value if isinstance(item, kind)]
    assert len(found) == len(value), _wrong(node, place, value, wanted)
    return found


def scalar(node: fx.Node, place: Place) -> Number:
    value = argument(node, place)
    assert isinstance(value, Number), _wrong(node, place, value, "a number")
    return value


def number(node: fx.Node, place: Place) -> float:
    """A number that is not complex."""
    value = argument(node, place)
    assert isinstance(value, (int, float)), _wrong(node, place, value, "a real number")
    return value


def operand(node: fx.Node, place: Place) -> Operand:
    """A tensor or a number."""
    value = argument(node, place)
    assert isinstance(value, Operand), _wrong(node, place, value, "a tensor or a number")
    return value


def _wrong(node: fx.Node, place: Place, value: Argument, wanted: str) -> str:
    return f"operand {place} of {node.name} is {value!r}, not {wanted}"

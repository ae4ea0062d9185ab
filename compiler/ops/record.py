"""What an operation of a frozen graph is, for every pass that has to know: one frozen record for each, in
`compiler.ops.table`."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, Flag
from typing import TypedDict

from torch.fx.node import Target


class Role(Enum):
    """How the tile passes treat an operation."""

    ELEMENTWISE = "elementwise"
    ROWS = "rows"  # needs the last dimension whole
    DOWN = "down"  # needs the last two dimensions whole; or the last one, as its `dim` says
    MATMUL = "matmul"
    WINDOW = "window"  # sees several places of its first operand
    DEQUANTIZE = "dequantize"
    GATHER = "gather"
    VIEW = "view"
    CAT = "cat"
    ATTENTION = "attention"  # over a cache that it changes: a kernel of its own


class Domain(Enum):
    """On which types an operation exists (compiler/graph/legal.py)."""

    ANY = "whatever its operands are"
    NUMBERS = "one type of numbers; integers as long as they fit in 32 bits"
    BITS = "one type of integers or truths"
    CHOICE = "a truth, and two values of one type"
    COMPARISON = "two values of one type"
    SINGLE = "floats, and integers that float32 holds"
    CAST = "any two types, but no float becomes an integer"


class Affine(Flag):
    """Where the steps of a `vaff` make an operation cheaper (runtime/profile/roofline.py)."""

    NONE = 0
    STEP = 1  # is one of the steps: sub, rs, cs, bi, res
    MADE = 2  # is made by a vaff, so that a reduction of its result rides along
    BEFORE = 4  # is made by an instruction with steps to spare for the consumer
    AFTER = 8  # has a scale or a bias of its own for the producer


class Limit(Enum):
    """What an operation asks of the engines at the least (runtime/profile/roofline.py)."""

    NOTHING = "DMA, strides, or part of a neighbour"
    ELEMENTS = "one pass of VEC over the elements, shared in a chain of affine steps"
    OWN = "a rule of its own"


class Facts(TypedDict, total=False):
    """What need not be said of every operation: fields of `ChipOp`."""

    affine: Affine
    in_place: bool
    moves: bool


@dataclass(frozen=True, slots=True)
class ChipOp:
    """One operation that may remain in a frozen graph.

    `name` is the base name of its overloads (`add` of aten.add.Tensor), `targets` are those that may remain. An
    operation of the chip's own has an `implementation`, the reference of docs/numerics.md; of the others eager PyTorch
    is the reference. `in_place`: it has read an element when it writes it, so that the result may take the operand's
    place.
    """

    name: str
    targets: tuple[Target, ...]
    role: Role = Role.ELEMENTWISE
    domain: Domain = Domain.ANY
    limit: Limit = Limit.ELEMENTS
    affine: Affine = Affine.NONE
    in_place: bool = False
    moves: bool = False  # a view that may be a copy of its operand, too
    implementation: Callable[..., object] | None = None
    extension: str = ""  # that brought it, see compiler/extensions.py

    @property
    def emitted(self) -> bool:
        """Whether instructions compute it; views are a matter of addresses."""
        return self.moves or self.role is not Role.VIEW

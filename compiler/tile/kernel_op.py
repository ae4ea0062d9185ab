"""KernelOp: one operation of the frozen graph, as everything behind it sees it. Made once from FX.

    %linear = matmul_i8(a=%q, b=%weight, transpose_b=True) : int32 [128, 768]

Inputs, constants and the outputs of the graph are of the same class, so that whoever follows operands or users meets
one kind of thing. Arguments are named as in the operator's schema, and all are there, defaults too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import getitem
from typing import TypeAlias, TypeVar

import torch
from torch import fx
from torch.fx.node import Argument as FxArgument

from compiler.graph.arguments import by_name
from compiler.graph.source import SourceLine
from compiler.ops.record import Role
from compiler.ops.table import BY_TARGET, OPS
from compiler.types import STORAGE
from isa.architecture import Dtype
from isa.errors import UnsupportedError

INPUT, OUTPUT, GETITEM = "input", "output", "getitem"  # kinds that compute nothing
CHOSEN = "matmul_chosen"  # a product that takes, of its right operand, the blocks that an operand names

Argument: TypeAlias = "KernelOp | bool | int | float | str | tuple[object, ...] | None"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """Shape and type of a value."""

    shape: tuple[int, ...]
    type: torch.dtype

    def __str__(self) -> str:
        return f"{str(self.type).removeprefix('torch.')} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an operation comes from: a line of the model, the operations that the model called there, and the passes
    that made it what it is."""

    source: SourceLine
    calls: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()


NOWHERE = Origin(SourceLine("", 0, ""))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KernelOp:
    """`kind` is the name of the operation in `compiler.ops.table`, or INPUT or OUTPUT; `role` how the tile passes treat
    it, None for these two.

    `results` are several where the operation gives a tuple, of which each part that is used is a GETITEM. `users` are
    those who read it, each once; they are known when the graph has been read to its end. `static` is all of the
    arguments that is no value.
    """

    name: str
    kind: str
    role: Role | None = None
    results: tuple[Result, ...] = ()
    target: Callable[..., object] | None = None
    args: Mapping[str, Argument] = field(default_factory=dict)
    operands: tuple["KernelOp", ...] = ()
    static: tuple[object, ...] = ()
    gives_tuple: bool = False
    is_weight: bool = False
    is_state: bool = False  # a weight that the chip keeps, and changes
    limits: tuple[int, int] | None = None  # of the elements of an input that steers the program
    viewed: "KernelOp | None" = None  # the value that a view, of any number of steps, looks at
    origin: Origin = NOWHERE
    users: list["KernelOp"] = field(default_factory=list)

    # ---- what it is

    @property
    def is_operation(self) -> bool:
        return self.role is not None

    @property
    def is_view(self) -> bool:
        """Whether it only says where the elements of another value are, or is a part of a tuple."""
        return self.role is Role.VIEW

    @property
    def copies(self) -> bool:
        """Whether it is a view that was made a copy of its operand."""
        return self.kind in OPS and OPS[self.kind].moves and not self.is_view

    @property
    def base(self) -> "KernelOp":
        """The value that this one is a view of; itself, unless it is a view. A part of a tuple is a value of its
        own."""
        return self.viewed or self

    @property
    def maker(self) -> "KernelOp":
        """The operation that computes the value that this one is, or is a view of."""
        base = self.base
        return base.operands[0] if base.kind == GETITEM else base

    @property
    def first(self) -> "KernelOp":
        """Its first operand; what a view is a view of."""
        return self.operands[0]

    # ---- its value, the first of several

    @property
    def shape(self) -> tuple[int, ...]:
        return self.results[0].shape

    @property
    def type(self) -> torch.dtype:
        return self.results[0].type

    @property
    def dtype(self) -> Dtype:
        """How the chip stores the value. Raises UnsupportedError for a type that it does not have."""
        if self.type not in STORAGE:
            raise UnsupportedError(f"type {self.type} does not exist on the chip", self.name)
        return STORAGE[self.type]

    @property
    def is_empty(self) -> bool:
        """Whether there is no element at all, so that there is nothing to compute, to store or to read."""
        return self.kind != OUTPUT and all(0 in result.shape for result in self.results)

    @property
    def row_domain(self) -> tuple[int, ...]:
        """The leading sizes over which the operation can be cut into blocks without changing a bit: all for
        elementwise work, all but the last for rows that are reduced, normalised or quantized."""
        match self.role:
            case Role.ROWS:
                return self.operands[0].shape[:-1]
            case Role.DOWN:
                return self.operands[0].shape[:-2]
            case Role.ATTENTION:
                return self.shape[:2]
            case Role.MATMUL | Role.WINDOW | Role.DEQUANTIZE | Role.GATHER:
                return self.shape[:-1]
            case Role.CAT:
                return self.shape[: self.axis]
            case _:
                return self.shape

    @property
    def axis(self) -> int:
        """The dimension along which a `cat` joins."""
        return self.integer("dim") % len(self.shape)

    # ---- its arguments, by name

    def tensor(self, name: str) -> "KernelOp":
        """The argument `name`, which is a value."""
        return _given(self, name, KernelOp)

    def optional(self, name: str) -> "KernelOp | None":
        """The argument `name`, which is a value or left out."""
        return None if self.args[name] is None else self.tensor(name)

    def operand(self, name: str) -> "KernelOp | int | float | None":
        """The argument `name`, which is a value, a number or left out."""
        found = self.args[name]
        return found if found is None or isinstance(found, KernelOp) else self.number(name)

    def number(self, name: str) -> float:
        found = self.args[name]
        return found if isinstance(found, int) else _given(self, name, float)

    def integer(self, name: str) -> int:
        return _given(self, name, int)

    def integers(self, name: str) -> tuple[int, ...]:
        found = self.args[name]
        assert isinstance(found, tuple), f"{name} of {self} is no tuple"
        numbers = tuple(n for n in found if isinstance(n, int))
        assert numbers == found, f"{name} of {self} are not integers"
        return numbers

    def flag(self, name: str) -> bool:
        return _given(self, name, bool)

    def text(self, name: str) -> str:
        return _given(self, name, str)

    def parts(self) -> "dict[int, KernelOp]":
        """The used parts of a tuple, by their numbers."""
        return {user.integer("index"): user for user in self.users if user.kind == GETITEM}

    def __str__(self) -> str:
        given = ", ".join(f"{name}={_shown(value)}" for name, value in self.args.items() if value is not None)
        return f"%{self.name} = {self.kind}({given}) : {', '.join(map(str, self.results))}"

    __repr__ = __str__


def _given(op: KernelOp, name: str, kind: type[T]) -> T:
    found = op.args[name]
    assert isinstance(found, kind), f"{name} of {op} is no {kind.__name__}"
    return found


def _shown(value: object) -> str:
    if isinstance(value, KernelOp):
        return f"%{value.name}"
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, tuple) else str(value)


def kernel_ops(graph: fx.Graph) -> tuple[KernelOp, ...]:
    """The operations of a frozen graph in its order; its outputs are the last."""
    made: dict[fx.Node, KernelOp] = {}
    for node in graph.nodes:
        op = made[node] = _kernel_op(node, made)
        for operand in dict.fromkeys(op.operands):
            operand.users.append(op)
    return tuple(made.values())


def _kernel_op(node: fx.Node, made: Mapping[fx.Node, KernelOp]) -> KernelOp:
    if node.op == "placeholder":
        given = node.meta
        return KernelOp(
            node.name,
            INPUT,
            results=_results(node),
            is_weight=bool(given.get("weight")),
            is_state=bool(given.get("state")),
            limits=given.get("limits"),
            origin=_origin(node),
        )
    args: dict[str, Argument]
    if node.op == "output":
        args = {"results": _argument(node.args[0], made)}
        return KernelOp(node.name, OUTPUT, args=args, operands=tuple(_values(args)))
    row = BY_TARGET[node.target]
    args = {name: _argument(given, made) for name, given in by_name(node).items()}
    operands = tuple(_values(args))
    role = row.role
    if row.moves and node.meta.get("copy"):
        role = Role.ELEMENTWISE
    elif role is Role.DOWN:
        rank, dim = len(operands[0].shape), args["dim"]
        assert isinstance(dim, int)
        role = Role.DOWN if rank > 1 and dim % rank == rank - 2 else Role.ROWS
    viewed = operands[0].base if role is Role.VIEW and node.target is not getitem else None
    static = tuple((name, _plain(value)) for name, value in args.items())
    assert callable(node.target)
    return KernelOp(
        node.name,
        row.name,
        role,
        _results(node),
        node.target,
        args,
        operands,
        static,
        gives_tuple=isinstance(node.meta["val"], tuple | list),
        viewed=viewed,
        origin=_origin(node),
    )


def _origin(node: fx.Node) -> Origin:
    given = node.meta
    return Origin(
        given.get("source") or NOWHERE.source, tuple(given.get("origins", ())), tuple(given.get("passes", ()))
    )


def _results(node: fx.Node) -> tuple[Result, ...]:
    val = node.meta["val"]
    return tuple(Result(tuple(v.shape), v.dtype) for v in (val if isinstance(val, tuple | list) else (val,)))


def _argument(given: FxArgument, made: Mapping[fx.Node, KernelOp]) -> Argument:
    if isinstance(given, fx.Node):
        return made[given]
    if isinstance(given, tuple | list):
        return tuple(_argument(item, made) for item in given)
    return given if given is None or isinstance(given, bool | int | float | str) else str(given)


def _values(given: object) -> Iterator[KernelOp]:
    """The values among arguments, each as often as it is there."""
    if isinstance(given, KernelOp):
        yield given
    elif isinstance(given, tuple | dict):
        for item in given.values() if isinstance(given, dict) else given:
            yield from _values(item)


def _plain(given: object) -> object:
    """An argument with every value replaced by a mark, so that equal ones are alike: 1 is not 1.0, nor True."""
    if isinstance(given, KernelOp):
        return "value"
    return tuple(map(_plain, given)) if isinstance(given, tuple) else (type(given).__name__, str(given))

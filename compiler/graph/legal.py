"""What the chip computes: the operations that may remain in a frozen graph, and on which types."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.node import Argument, Target

from compiler.graph.arguments import operand, tensor
from compiler.graph.editor import aten, common_type, dtype_of
from compiler.graph.ranges import INT32, interval
from compiler.ops.record import ChipOp, Domain, Role
from compiler.ops.table import BY_TARGET
from compiler.types import STORAGE

FROZEN = BY_TARGET.keys()
SINGLE = 1 << 24  # integers up to here are float32 numbers


def moves(target: Target) -> bool:
    """Whether an operation only says where elements are: views and joins."""
    op = BY_TARGET.get(target)
    return op is not None and op.role in (Role.VIEW, Role.CAT)


_SUMS = (aten.cumsum.default, aten.sum.default, aten.sum.dim_IntList)


def frozen(node: fx.Node) -> str | None:
    """Why `node` may not stay in the graph that the chip computes."""
    if node.op == "placeholder":
        return _missing_type([node]) if node.users else None
    op = BY_TARGET.get(node.target)
    if op is None and node.target in _SUMS and dtype_of(node) is torch.int64:
        return "adds up integers that may need more than 32 bits (a mask of truths does not)"
    if op is None:
        return "is not something the chip can do"
    if node.target is aten.slice.Tensor and len(node.args) > 4 and node.args[4] != 1:
        return "takes every n-th element, which the chip cannot"
    return _missing_type([*node.all_input_nodes, node]) or (None if op.domain is Domain.ANY else _typed(node, op))


def _missing_type(nodes: list[fx.Node]) -> str | None:
    """The first type among these values that the chip does not have."""
    for node in nodes:
        values = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else (node.meta["val"],)
        for value in values:
            if isinstance(value, Tensor) and value.dtype not in STORAGE:
                return f"has to do with {_name(value.dtype)}, which the chip does not have"
    return None


def _typed(node: fx.Node, op: ChipOp) -> str | None:
    """Why the chip cannot do this elementwise operation on operands of these types: it computes in one type, which it
    has."""
    if op.domain is Domain.CAST:
        floats = [dtype.is_floating_point for dtype in (dtype_of(tensor(node, 0)), dtype_of(node))]
        to_bool = dtype_of(node) is torch.bool
        return (
            "converts a float to an integer, which the chip cannot" if floats == [True, False] and not to_bool else None
        )
    if op.domain is Domain.SINGLE:
        return _held(tensor(node, 0))
    result, operands = dtype_of(node), list(node.args)
    if op.domain is Domain.CHOICE:
        del operands[0]
        if dtype_of(tensor(node, 0)) is not torch.bool:
            return "chooses by something else than truth, which the chip cannot"
    elif op.domain is Domain.COMPARISON:
        result = common_type(operand(node, 0), operand(node, -1))  # of one operand, its own
    if any(isinstance(value, fx.Node) and dtype_of(value) is not result for value in operands) or node.kwargs:
        return f"mixes types in a way that the chip cannot ({_name(result)} is the result's)"
    return _computed(node, op.domain, result, operands)


def _held(x: fx.Node) -> str | None:
    """Why the chip cannot compare these elements, which it does as float32."""
    if dtype_of(x).is_floating_point:
        return None
    low, high = interval(x) or INT32
    return None if low >= -SINGLE and high <= SINGLE else "compares integers as float32, which does not hold them all"


def _computed(node: fx.Node, domain: Domain, dtype: torch.dtype, operands: list[Argument]) -> str | None:
    """Why the chip cannot do this operation in `dtype`."""
    numbers = [value for value in operands if isinstance(value, (int, float))]
    if not dtype.is_floating_point and not all(INT32[0] <= number <= INT32[1] for number in numbers):
        return f"computes with {next(n for n in numbers if not INT32[0] <= n <= INT32[1])}; the chip keeps integers in 32 bits"
    if domain is Domain.NUMBERS and dtype is torch.bool:
        return "computes with truths, which the chip cannot"
    if domain is Domain.BITS and dtype.is_floating_point:
        return "computes with the bits of floats, which the chip cannot"
    if domain is Domain.NUMBERS and dtype is torch.int64 and interval(node) is None:
        return "computes with 64-bit integers, which the chip keeps in 32 bits"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def random(node: fx.Node) -> bool:
    """Whether `node` draws random numbers: it may neither be folded nor repeated."""
    return node.op == "call_function" and draws(node.target, node.args, node.kwargs)


def draws(target: object, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether this call of an operator draws random numbers: one of PyTorch's random operators, not told to leave them
    (attention and recurrent layers are marked as random, too)."""
    if not isinstance(target, OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    declared = target._schema.arguments
    given = {argument.name: argument.default_value for argument in declared}
    given |= {**dict(zip((argument.name for argument in declared), args, strict=False)), **kwargs}
    drawing = all(given.get(switch, True) is not False for switch in ("train", "training"))
    return drawing and all(given.get(share, 1.0) != 0 for share in ("dropout_p", "dropout"))

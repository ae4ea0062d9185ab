"""What in-place writes reach, settled before PyTorch turns the graph into one of values.

Functionalization trusts schemas, and leaves composite operators whole. Where such an operator gives its operand or a
view of it, of which its schema says nothing (type_as, einsum, broadcast_tensors, dropout in eval mode, ...), a later
write would be lost. So in graphs that write, every operator is asked on meta tensors: what gives its operand is
replaced by it, what gives a view is decomposed into views.

Nor is it right where elements share memory: it adds up what is written to an expanded tensor, and clears what `unfold`
does not cover (torch 2.13). Such writes are refused.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.node import Argument
from torch.utils import _pytree as pytree

from isa.errors import UnsupportedError

Table = dict[OpOverload, Callable[..., object]]


def settle_aliases(gm: fx.GraphModule) -> Table:
    """Operators to decompose, so that writes reach what they do in eager PyTorch. Replaces what gives its operand. Only
    where the graph writes.

    Raises UnsupportedError where a write goes to elements that share memory, or through what PyTorch does not follow.
    """
    writes = [
        node
        for node in gm.graph.nodes
        if (schema := _schema(node)) is not None and schema.is_mutable and schema.name != "aten::detach_"
    ]
    for node in writes:
        _check_write(node)
    table: Table = {}
    for node in list(gm.graph.nodes) if writes else ():
        if _says_nothing(node):
            operand, aliases = _asked(node)
            if operand is not None:
                node.replace_all_uses_with(operand)
                gm.graph.erase_node(node)
            elif aliases:
                table[node.target] = _composite(node.target)
    gm.recompile()
    return table


def _says_nothing(node: fx.Node) -> bool:
    """Whether the schema takes tensors, and has results that share no memory with them. Where no tensor is taken there
    is nothing to share: such an operator may draw random numbers, and is never called."""
    schema = _schema(node)
    if schema is None or schema.is_mutable or any(result.alias_info for result in schema.returns):
        return False
    return any(isinstance(operand.meta.get("val"), Tensor) for operand in node.all_input_nodes)


# Views that PyTorch keeps no account of, also below composite operators.
_UNTRACKED = frozenset({"unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"})


@cache
def _composite(op: OpOverload) -> Callable[..., object]:
    """PyTorch's own decomposition of a composite operator; the same object each time, since tables of them are
    remembered."""
    if not op._can_decompose():
        raise UnsupportedError(
            f"{op} gives a view, and its schema does not say so", hint="use a view that PyTorch follows"
        )
    return partial(op._op_dk, torch._C.DispatchKey.CompositeImplicitAutograd)


def _schema(node: fx.Node) -> torch._C.FunctionSchema | None:
    return node.target._schema if isinstance(node.target, OpOverload) else None


def _asked(node: fx.Node) -> tuple[fx.Node | None, bool]:
    """The operand that the operator gives as it is, if it does; and whether any of its results shares memory with an
    operand."""
    meta: dict[fx.Node, Tensor] = {}
    target = node.target
    assert callable(target)

    def value(operand: fx.Node) -> Argument:
        val = operand.meta.get("val")
        if isinstance(val, Tensor) and operand not in meta:
            meta[operand] = torch.empty_strided(val.shape, val.stride(), dtype=val.dtype, device="meta")
        return meta.get(operand, val)

    try:
        with torch.no_grad():
            args, kwargs = fx.map_arg((node.args, node.kwargs), value)
            results = [leaf for leaf in pytree.tree_leaves(target(*args, **kwargs)) if isinstance(leaf, Tensor)]
    except Exception:  # no meta kernel, or sizes that depend on data: such operators compute, they do not pass on
        return None, False
    if (
        len(results) == 1
        and (same := next((operand for operand, given in meta.items() if given is results[0]), None)) is not None
    ):
        return same, True
    places = {given.untyped_storage()._cdata for given in meta.values()}
    return None, any(result.untyped_storage()._cdata in places for result in results)


def _check_write(node: fx.Node) -> None:
    for argument, given in _arguments(node).items():
        if argument.alias_info is not None and argument.alias_info.is_write:
            for written in given if isinstance(given, list | tuple) else (given,):
                _check_written(node, written)


def _check_written(node: fx.Node, written: Argument) -> None:
    """Follow what is written to through the views that it comes from."""
    base = written
    while isinstance(base, fx.Node):
        if base.target is operator.getitem:
            base = base.args[0]
            continue
        schema = _schema(base)
        if base.target is torch.ops.aten.unfold.default or (
            isinstance(val := base.meta.get("val"), Tensor) and overlaps(val.shape, val.stride())
        ):
            what = f"{node.target} writes to a view of which elements share memory, or do not cover what it views"
            raise UnsupportedError(what, base.name, "write to a copy of it")
        if schema is not None and schema.name.split("::")[-1] in _UNTRACKED:
            raise UnsupportedError(
                f"{node.target} writes through {base.target}, which PyTorch does not follow",
                base.name,
                "use a view that it follows",
            )
        passes_on = schema is not None and (
            any(result.alias_info for result in schema.returns) or (_says_nothing(base) and _asked(base)[1])
        )
        base = base.args[0] if passes_on and base.args else None
        base = base[0] if isinstance(base, list | tuple) and base else base


def _arguments(node: fx.Node) -> Mapping[torch._C.Argument, Argument]:
    """What is given for each argument of the schema."""
    schema = _schema(node)
    arguments = [] if schema is None else schema.arguments
    given = dict(zip(arguments, node.args, strict=False))
    return given | {argument: node.kwargs[argument.name] for argument in arguments if argument.name in node.kwargs}


def overlaps(size: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether two elements of a strided tensor may lie in one place."""
    reach = 0
    for step, extent in sorted((abs(step), extent) for step, extent in zip(stride, size, strict=True) if extent > 1):
        if step <= reach:
            return True
        reach += step * (extent - 1)
    return False

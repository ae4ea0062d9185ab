"""Channels last: what is computed element by element between two convolutions is computed in their order.

    before   %y = llmchip.dequantize(…); %p = permute(%y, [0, 3, 1, 2]); %z = clamp(%p, 0, 6); %q = permute(%z, [0, 2, 3, 1])
    after    %y = llmchip.dequantize(…); %z = clamp(%y, 0, 6)

Convolutions work on [B, spatial …, C] and the model's own operations on [B, C, spatial …], so that operations between
them would be blocks of other rows, in kernels of their own.
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor, fx
from torch.fx.node import Target

from compiler.graph.arguments import integers, tensor
from compiler.graph.editor import Editor, aten, is_static, shape_of
from compiler.ops.record import Role
from compiler.ops.table import BY_TARGET


@dataclass(frozen=True)
class ChannelsLast:
    name: ClassVar[str] = "channels-last"
    changes_bits: ClassVar[bool] = False
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        editor = Editor(gm, self.name)
        wanted = _wanted(gm.graph)
        for node in list(gm.graph.nodes):
            if node.target is aten.permute.default:
                editor.replace(node, editor.permute(node, tensor(node, 0), integers(node, 1)))
            elif node in wanted and (new := _moved(editor, node)) is not None:
                editor.replace(node, new)
        return editor.finish()


def _wanted(graph: fx.Graph) -> set[fx.Node]:
    """Elementwise operations whose result somebody reads with the channels last, maybe behind others of them."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if _is_elementwise(node) and any(
            user in found or _is_permute(user, _last(len(shape_of(node)))) for user in node.users
        ):
            found.add(node)
    return found


def _moved(editor: Editor, node: fx.Node) -> fx.Node | None:
    """The operation on operands with the channels last, and its result as it was; None where an operand does not come
    that way."""
    rank = len(shape_of(node))
    if not any(_is_permute(x, _first(rank)) for x in node.all_input_nodes):
        return None
    if not all(_is_permute(x, _first(rank)) or is_static(x) or _is_small(x, node) for x in node.all_input_nodes):
        return None

    def turned(x: fx.Node) -> fx.Node:
        missing = rank - len(shape_of(x))
        whole = editor.reshape(node, x, (*[1] * missing, *shape_of(x))) if missing and shape_of(x) else x
        return editor.permute(node, whole, _last(rank)) if shape_of(x) else x

    args, kwargs = fx.map_arg((node.args, node.kwargs), turned)
    assert isinstance(args, tuple) and isinstance(kwargs, dict)
    return editor.permute(node, editor.emit(node, node.target, *args, **kwargs), _first(rank))


def _is_elementwise(node: fx.Node) -> bool:
    op = BY_TARGET.get(node.target)
    if op is None or op.role is not Role.ELEMENTWISE or is_static(node):
        return False
    value = node.meta["val"]
    return isinstance(value, Tensor) and value.ndim > 2


def _is_small(x: fx.Node, node: fx.Node) -> bool:
    """One number for each channel of a sample, or fewer."""
    sizes = shape_of(x)
    return len(sizes) == len(shape_of(node)) and prod(sizes[2:]) == 1


def _is_permute(node: fx.Node, order: list[int]) -> bool:
    return node.target is aten.permute.default and integers(node, 1) == order


def _last(rank: int) -> list[int]:
    return [0, *range(2, rank), 1]


def _first(rank: int) -> list[int]:
    return [0, rank - 1, *range(1, rank - 1)]

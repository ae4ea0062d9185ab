"""Fold what is empty: a tensor without elements is a constant, and so is what is computed of nothing else. Memory that
nobody has written is zero: it holds whatever was there, which would be another thing each time that constants are packed.

before   %s = sum(%z, [0])                                  where %z is an input of shape [0, 3]
after    %f = full([0, 3], 0); %s = sum(%f, [0])            which is computed when packing, by PyTorch

before   %e = empty([2, 3]); %s = slice_scatter(%e, ...)
after    %e = empty([2, 3]); %z = zeros_like(%e); %s = slice_scatter(%z, ...)
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, fx
from torch.fx.node import Target

from compiler.graph.editor import Editor, aten, dtype_of, is_static, provenance, shape_of

_UNWRITTEN = frozenset(
    {
        aten.empty.memory_format,
        aten.empty_like.default,
        aten.empty_permuted.default,
        aten.empty_strided.default,
        aten.new_empty.default,
        aten.new_empty_strided.default,
    }
)


@dataclass(frozen=True)
class FoldEmpty:
    name: ClassVar[str] = "fold-empty"
    changes_bits: ClassVar[bool] = False
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        editor = Editor(gm, self.name)
        for node in list(gm.graph.nodes):
            if node.op in ("placeholder", "call_function") and _is_empty(node) and node.users and not is_static(node):
                node.replace_all_uses_with(_constant(editor, node))
            elif node.target in _UNWRITTEN:
                with editor.on_behalf_of(provenance(node)):
                    zeros = editor.emit(node.next, aten.zeros_like.default, node)
                node.replace_all_uses_with(zeros, delete_user_cb=lambda user, zeros=zeros: user is not zeros)
        return editor.finish()


def _is_empty(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.numel() == 0


def _constant(editor: Editor, node: fx.Node) -> fx.Node:
    at = node
    while at.op == "placeholder":
        at = at.next
    return editor.emit(at, aten.full.default, list(shape_of(node)), 0, dtype=dtype_of(node))

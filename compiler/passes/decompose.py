"""Decompose what no later pass knows, with PyTorch's own decompositions, and ours (`composed`, `functions`) where it has
none, or one that the chip does not have either.

    before   %y = einsum("bqhd,bkhd->bhqk", [%q, %k])        %z = leaky_relu(%x, 0.1)
    after    %p = permute(...); %y = bmm(...); ...           %m = mul(%x, 0.1); %g = gt(%x, 0); %z = where(%g, %x, %m)

What has no decomposition stays, and is refused by name when the graph is frozen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, fx
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import Target
from torch.utils import _pytree as pytree

from compiler.graph.arguments import integer
from compiler.graph.editor import Editor, aten, is_static
from compiler.graph.legal import FROZEN, frozen
from compiler.passes import (
    canonical_matmul,
    canonicalize,
    composed,
    distances,
    functions,
    recognise_experts,
    recurrent,
    resize,
    select,
    windows,
)
from compiler.passes import recognise_attention as recognise

OURS: Mapping[OpOverload, composed.Composed] = {
    **composed.DECOMPOSITIONS,
    **distances.DECOMPOSITIONS,
    **functions.DECOMPOSITIONS,
}
# torch 2.13: their decompositions are not what they compute. Of multilabel_margin_loss the terms of padded labels are
# added, too: 3.5113 for eager's 2.6893. They stay whole, are refused by name, and run in PyTorch.
_WRONG = frozenset({aten.multilabel_margin_loss_forward.default})
_EXTRA = frozenset({aten._assert_tensor_metadata.default, aten.sym_size.int})


@dataclass(frozen=True)
class Decompose:
    name: ClassVar[str] = "decompose"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        editor = Editor(gm, self.name)
        for node in list(gm.graph.nodes):
            if node.op != "call_function" or is_static(node):
                continue
            ours = node.target in OURS and (node.target not in FROZEN or frozen(node) is not None)
            whole = recognise_experts.RULES.get(node.target) if ours else None
            if whole and (new := whole(editor, node)):  # what is taken apart is not recognised behind
                editor.replace(node, new)
            elif ours or node.target not in known_operations():
                _inline(editor, node)
        return editor.finish()


@cache
def known_operations() -> frozenset[Target]:
    """Every operation for which some pass has a rule, or which the chip has."""
    tables = (
        canonicalize.RULES,
        recurrent.RULES,
        windows.RULES,
        resize.RULES,
        recognise_experts.RULES,
        canonical_matmul.RULES,
        recognise.RULES,
        select.RULES,
    )
    return frozenset((*FROZEN, *(target for rules in tables for target in rules), *_EXTRA))


@cache
def _table() -> dict[OpOverload, Callable[..., object]]:
    known = known_operations()
    theirs = {
        op: rule
        for op, rule in decomposition_table.items()
        if isinstance(op, OpOverload) and op not in known | _WRONG and not _makes_constants(op)
    }
    return {**theirs, **OURS}


def _makes_constants(op: OpOverload) -> bool:
    """Whether it takes no tensor: what it makes is computed when packing."""
    return not any("Tensor" in str(given.type) for given in op._schema.arguments)


def _inline(editor: Editor, node: fx.Node) -> None:
    """Replace `node` by its decomposition, if it has one made of other operations."""
    target = node.target
    assert callable(target)
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, fx.Node)]

    def call(*values: Tensor) -> object:
        given = iter(values)
        args, kwargs = pytree.tree_unflatten(
            [next(given) if isinstance(leaf, fx.Node) else leaf for leaf in leaves], spec
        )
        return target(*args, **kwargs)

    try:
        with torch.no_grad(), editor.mode:
            body = make_fx(torch.func.functionalize(call), decomposition_table=_table())(
                *(n.meta["val"] for n in tensors)
            )
    except Exception:  # no decomposition for these operands: the legality check names the operation
        return
    calls = [inner for inner in body.graph.nodes if inner.op == "call_function"]
    itself = any(inner.target is target for inner in calls) and (len(calls) == 1 or target not in OURS)
    if not itself and all(map(_is_usable, body.graph.nodes)):
        _copy(editor, node, body, tensors)


def _is_usable(inner: fx.Node) -> bool:
    """No constants, no in-place operations (their effect is lost in a graph of values), nothing lower than aten
    or the chip's own."""
    if inner.op != "call_function":
        return inner.op != "get_attr"
    schema = getattr(inner.target, "_schema", None)
    return (
        schema is not None and not schema.is_mutable and getattr(inner.target, "namespace", "") in ("aten", "llmchip")
    )


def _copy(editor: Editor, node: fx.Node, body: fx.GraphModule, operands: list[fx.Node]) -> None:
    given = iter(operands)
    remap: dict[fx.Node, fx.Node] = {}
    for inner in body.graph.nodes:
        if inner.op == "placeholder":
            remap[inner] = next(given)
        elif inner.op == "call_function":
            args, kwargs = fx.map_arg((inner.args, inner.kwargs), lambda old: remap[old])
            remap[inner] = editor.emit(node, inner.target, *args, **kwargs)
    result = body.graph.output_node().args[0]
    if isinstance(result, fx.Node):
        editor.replace(node, remap[result])
        return
    assert isinstance(result, (list, tuple))
    for user in list(node.users):
        part = result[integer(user, 1)]
        assert isinstance(part, fx.Node)
        editor.replace(user, remap[part])

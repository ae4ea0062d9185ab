"""Canonicalize: one preferred form for what can be written in many ways, without changing a bit.

Two tables of rules: `views` (also drops copies, dropout and assertions) and `arithmetic`.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from torch import fx
from torch.fx.node import Target

from compiler.graph.editor import Editor, aten
from compiler.graph.rules import Rule, apply_rules
from compiler.passes import arithmetic, views

RULES: dict[Target, Rule] = {**views.RULES, **arithmetic.RULES}


@dataclass(frozen=True)
class Canonicalize:
    name: ClassVar[str] = "canonicalize"
    changes_bits: ClassVar[bool] = False
    gone: ClassVar[frozenset[Target]] = frozenset(
        {aten.view.default, aten.transpose.int, aten.t.default, aten.clone.default, aten.unsqueeze.default}
    )

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES)


@dataclass(frozen=True)
class ShareEqual:
    """Common subexpressions: equal calls of equal operands become one, so q, k and v share one quantization."""

    name: ClassVar[str] = "share-equal"
    changes_bits: ClassVar[bool] = False
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        editor = Editor(gm, self.name)
        seen: dict[Hashable, fx.Node] = {}
        for node in list(gm.graph.nodes):
            if node.op == "call_function":
                first = seen.setdefault(_key(node), node)
                if first is not node:
                    editor.replace(node, first)
        return editor.finish()


def _key(node: fx.Node) -> Hashable:
    return node.target, _frozen(node.args), _frozen(node.kwargs)


def _frozen(value: object) -> Hashable:
    """A hashable stand-in. Numbers carry their type, because 1 == 1.0 == True, and repr, because 0.0 == -0.0."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _frozen(item)) for key, item in sorted(value.items()))
    return value if isinstance(value, fx.Node) else (type(value).__name__, repr(value))

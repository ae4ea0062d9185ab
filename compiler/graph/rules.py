"""A pass made of rewrite rules: one function per operation, applied to every node once, in order."""

from collections.abc import Callable, Mapping

from torch import fx
from torch.fx.node import Target

from compiler.graph.editor import Editor, strongest
from compiler.graph.legal import frozen
from compiler.ops.table import BY_TARGET

Rule = Callable[[Editor, fx.Node], fx.Node | None]


def apply_rules(
    gm: fx.GraphModule, name: str, rules: Mapping[Target, Rule], skip_static: bool = False
) -> fx.GraphModule:
    """Give each node to the rule of its operation; the rule returns its replacement, or None to leave it alone.

    Nodes are visited in order, so a rule sees operands that are rewritten already.
    """
    editor = Editor(gm, name)
    for node in list(gm.graph.nodes):
        rule = rules.get(node.target) if node.op == "call_function" and not _of_extension(node) else None
        if rule is None or (skip_static and node.meta["depends"] < 2):
            if node.op == "call_function":
                node.meta["depends"] = strongest(node, node.meta["depends"])
            continue
        new = rule(editor, node)
        if new is not None:
            editor.replace(node, new)
    return editor.finish()


def _of_extension(node: fx.Node) -> bool:
    """An operation that an extension computes as it stands is not rewritten into others."""
    op = BY_TARGET.get(node.target)
    return op is not None and op.extension != "" and frozen(node) is None

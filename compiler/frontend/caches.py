"""Caches: buffers that a captured model changes, where they become state of the chip.

exported     %a = attention_with_cache(%q, …, %keys, …); %new = getitem(%a, 1) is the new value of buffer `keys`
captured     %a = attention_in_cache(%q, …, %keys, …), which changes `keys` itself
"""

from operator import getitem

from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from compiler.graph.arguments import integer, tensor
from compiler.ops import library as ops


def cache_outputs(program: ExportedProgram) -> dict[int, str]:
    """Outputs of an exported program that are nothing but new values of caches: number among all outputs, and the name
    of the buffer."""
    holders = {
        spec.target: spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.BUFFER
    }
    nodes = {node.name: node for node in program.graph.nodes}
    found: dict[int, str] = {}
    for number, spec in enumerate(program.graph_signature.output_specs):
        if spec.kind is OutputKind.BUFFER_MUTATION and spec.target is not None:
            node = nodes[spec.arg.name]
            if node.target is getitem and (made := tensor(node, 0)).target is ops.attention_with_cache:
                part = integer(node, 1)  # behind the result come the caches, in the order of the operands
                if part and tensor(made, ops.CACHES[part - 1]).name == holders[spec.target]:
                    found[number] = spec.target
    return found


def read_caches(program: ExportedProgram) -> set[str]:
    """Buffers that hold what is only read of caches: others have put it there."""
    holders = {
        spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.kind is InputKind.BUFFER
    }
    nodes = program.graph.find_nodes(op="call_function", target=ops.attention_over_cache)
    return {str(holders[tensor(node, name).name]) for node in nodes for name in ops.CACHES}


def settle_caches(graph: fx.Graph) -> None:
    """Let attention change its caches itself. The new values must have no reader any more."""
    for node in graph.find_nodes(op="call_function", target=ops.attention_with_cache):
        with graph.inserting_before(node):
            inside = graph.call_function(ops.attention_in_cache, node.args, node.kwargs)
        for part in list(node.users):
            if integer(part, 1) == 0:
                inside.meta = {**node.meta, "val": part.meta["val"], "origins": (inside.name,)}
                part.replace_all_uses_with(inside)
            graph.erase_node(part)
        graph.erase_node(node)

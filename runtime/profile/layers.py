"""Which layer of the model a node belongs to, told by the names of the weights that it reads.

A weight `encoder_layer_3_output_dense_weight_q` belongs to `encoder_layer_3`, one without a number to its first word
(`pooler`). A node belongs where its weights belong; without any, where the latest of its operands does.
"""

import re

from torch import fx

_NUMBERED = re.compile(r"^(.*?(?:layers?|blocks?|h)_\d+)_")
_WEIGHT = re.compile(r"_(?:weight|bias)(?:_[qs])?$")


def layers_of(graph: fx.Graph) -> dict[str, str]:
    """Layer of each node's name; nodes before any weight are left out."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    found: dict[fx.Node, str] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            label = _label(node.name)
        else:
            inputs = sorted((n for n in node.all_input_nodes if n in found), key=lambda n: order[n])
            own = [found[n] for n in inputs if n.op == "placeholder"]
            label = (own or [found[n] for n in inputs] or [""])[-1]
        if label and node.op != "output":
            found[node] = label
    return {node.name: label for node, label in found.items()}


def _label(name: str) -> str:
    numbered = _NUMBERED.match(name)
    if numbered:
        return numbered[1]
    return name.split("_")[0] if _WEIGHT.search(name) else ""

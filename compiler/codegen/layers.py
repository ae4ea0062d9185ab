"""Which layer of the model a node belongs to, told by the names of the weights that it reads.

A weight `encoder_layer_3_output_dense_weight_q` belongs to `encoder_layer_3`, one without a number to its first word
(`pooler`). A node belongs where its weights belong; without any, where the latest of its operands does.
"""

import re
from collections.abc import Sequence

from compiler.tile.kernel_op import INPUT, OUTPUT, KernelOp

_NUMBERED = re.compile(r"^(.*?(?:layers?|blocks?|h)_\d+)_")
_WEIGHT = re.compile(r"_(?:weight|bias)(?:_[qs])?$")


def layers_of(ops: Sequence[KernelOp]) -> dict[str, str]:
    """Layer of each node's name; nodes before any weight are left out. `ops` are in the order of the graph."""
    order = {op.name: i for i, op in enumerate(ops)}
    found: dict[str, str] = {}
    for op in ops:
        if op.kind == INPUT:
            label = _label(op.name)
        else:
            inputs = sorted((o for o in op.operands if o.name in found), key=lambda o: order[o.name])
            own = [found[o.name] for o in inputs if o.kind == INPUT]
            label = (own or [found[o.name] for o in inputs] or [""])[-1]
        if label and op.kind != OUTPUT:
            found[op.name] = label
    return found


def _label(name: str) -> str:
    numbered = _NUMBERED.match(name)
    if numbered:
        return numbered[1]
    return name.split("_")[0] if _WEIGHT.search(name) else ""

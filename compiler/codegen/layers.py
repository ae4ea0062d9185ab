"""Which layer of the model a node belongs to, told by the names of the weights that it reads.

A weight `encoder_layer_3_output_dense_weight_q` belongs to `encoder_layer_3`, one without a number to its first word
(`pooler`). A constant that was computed and has no such name belongs to the module that asked for it. A node belongs
where its weights belong; without any, where the latest of its operands does; without these, to its module.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from compiler.tile.kernel_op import INPUT, OUTPUT, KernelOp

_NUMBERED = re.compile(r"^(.*?(?:layers?|blocks?|h)_\d+)_")
_WEIGHT = re.compile(r"_(?:weight|bias)(?:_[qs])?$")


def layers_of(ops: Sequence[KernelOp], modules: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Layer of each node's name; nodes before any weight are left out. `ops` are in the order of the graph; `modules`
    are those of the captured nodes."""
    order = {op.name: i for i, op in enumerate(ops)}
    found: dict[str, str] = {}
    for op in ops:
        if op.kind == INPUT:
            label = _label(op.name) or _of_module(*modules_of(op, modules)[:1])
        else:
            inputs = sorted((o for o in op.operands if o.name in found), key=lambda o: order[o.name])
            own = [found[o.name] for o in inputs if o.kind == INPUT]
            label = (own or [found[o.name] for o in inputs] or [_of_module(*modules_of(op, modules)[:1])])[-1]
        if label and op.kind != OUTPUT:
            found[op.name] = label
    return found


def modules_of(op: KernelOp, modules: Mapping[str, str]) -> tuple[str, ...]:
    """The modules of the captured nodes that an operation comes from, as far as they are known, its own first."""
    return tuple(dict.fromkeys(modules[name] for name in op.origin.calls if name in modules))


def _of_module(path: str = "") -> str:
    name = path.replace(".", "_")
    numbered = _NUMBERED.match(f"{name}_")
    return numbered[1] if numbered else name.split("_")[0]


def _label(name: str) -> str:
    numbered = _NUMBERED.match(name)
    if numbered:
        return numbered[1]
    return name.split("_")[0] if _WEIGHT.search(name) else ""

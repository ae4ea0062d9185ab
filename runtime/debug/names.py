"""What a user may call nodes beside their own names: what the model and PyTorch call what they were made of.

conv1, layer1.0.bn2        a module, by its path or the end of it; also one whose work is folded into another's
max_pool2d, conv2d_1       a call, as capture numbers them
batch_norm, aten.conv2d    an operation, or what nn.MaxPool2d calls: all calls of it
encoder_layer_3            a layer, as profiles have them
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isa.image.records import BY_LINE, DebugMap, DebugNode

_SAME = {
    "convolution": ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    "interpolate": ("upsample",),
}
_NUMBER, _CASE = re.compile(r"_\d+$"), re.compile(r"(?<=[a-z])(?=[A-Z])")
_OPERATOR = re.compile(r"^(?:torch\.)?(?:ops\.)?(?:aten|nn\.functional|F|nn)\.")
_OVERLOAD = re.compile(r"\.(?:default|Tensor|Scalar|dim|int)$")


@dataclass(frozen=True)
class Meaning:
    """One thing that a name means: its nodes, in the order of the graph."""

    name: str
    numbers: tuple[int, ...]


def meanings(debug: DebugMap, name: str) -> list[Meaning]:
    """What a name means that is no node's own; nothing for a name that means nothing."""
    nodes = {n: node for n, node in enumerate(debug.nodes) if _is_made(node)}
    for found in (_calls(nodes, name), _modules(nodes, name), _layers(nodes, name), _operations(nodes, name)):
        if found:
            return found
    return []


def known(debug: DebugMap) -> list[str]:
    """Every module and call that a name can be."""
    made = [node for node in debug.nodes if _is_made(node)]
    modules = (module for node in made for module in modules_of(node))
    return list(dict.fromkeys((*modules, *(call for node in made for call in node.origins))))


def modules_of(node: DebugNode) -> tuple[str, ...]:
    """The modules whose work a node does, its own first."""
    return tuple(module for module in (node.module, *node.also) if module)


def value_of(debug: DebugMap, meaning: Meaning) -> int:
    """The node that holds the value: the last, or what that is a view of."""
    numbers = {node.name: n for n, node in enumerate(debug.nodes)}
    last = meaning.numbers[-1]
    while (base := debug.nodes[last].base) in numbers:
        last = numbers[base]
    return last


def said(debug: DebugMap, name: str, number: int) -> str:
    """What a node that was called by another name than its own is, in one line; "" for its own."""
    node = debug.nodes[number]
    found = [meaning for meaning in meanings(debug, name) if value_of(debug, meaning) == number]
    if node.name == name or not found:
        return ""
    made = found[0].numbers
    shared = [other for other in _beside(node, found[0].name) if not f"{other}.".startswith(f"{found[0].name}.")]
    first, last = debug.nodes[made[0]].name, debug.nodes[made[-1]].name
    of = f"node {first}" if len(made) == 1 else f"{len(made)} nodes, {first} to {last}"
    together = f", together with that of {', '.join(shared)}," if shared else ""
    before = f", before {last}" if made[-1] != number and last != node.name else ""
    return f"{name} is {of}; its value{together} is {node.name} {list(node.shape)}{before}"


def _beside(node: DebugNode, name: str) -> tuple[str, ...]:
    """The calls whose work is in a node's value, if `name` is one; else the modules."""
    if name not in node.origins:
        return modules_of(node)
    return tuple(call for call in node.origins if _NUMBER.sub("", call) != "getitem")


def _is_made(node: DebugNode) -> bool:
    """Whether instructions compute it: neither an input, nor a constant, nor a line of a hand-written program."""
    return node.op not in ("placeholder", "constant") and node.status != BY_LINE


def _grouped(pairs: Iterable[tuple[str, int]]) -> list[Meaning]:
    groups: dict[str, list[int]] = {}
    for name, number in pairs:
        groups.setdefault(name, []).append(number)
    return [Meaning(name, tuple(dict.fromkeys(numbers))) for name, numbers in groups.items()]


def _calls(nodes: Mapping[int, DebugNode], name: str) -> list[Meaning]:
    return _grouped((name, n) for n, node in nodes.items() if name in node.origins)


def _modules(nodes: Mapping[int, DebugNode], name: str) -> list[Meaning]:
    """The module of this path, with all that is inside it; else those whose path ends so."""
    paths = [(module, n) for n, node in nodes.items() for module in modules_of(node) if f".{name}." in f".{module}."]
    own = [(name, n) for module, n in paths if f"{module}.".startswith(f"{name}.")]
    return _grouped(own or [(_above(module, name), n) for module, n in paths])


def _above(path: str, name: str) -> str:
    """The part of a path that ends with `name`."""
    return f".{path}."[1 : f".{path}.".index(f".{name}.") + len(name) + 1]


def _layers(nodes: Mapping[int, DebugNode], name: str) -> list[Meaning]:
    return _grouped((name, n) for n, node in nodes.items() if node.layer == name)


def _operations(nodes: Mapping[int, DebugNode], name: str) -> list[Meaning]:
    """The calls of an operation: its words stand in theirs, as batch_norm in _native_batch_norm_legit_no_training."""
    plain = _OVERLOAD.sub("", _OPERATOR.sub("", name)).strip("_")
    words = _CASE.sub("_", plain).lower()  # MaxPool2d is max_pool2d, and BatchNorm2d batch_norm
    wanted = {plain.lower(), re.sub(r"_norm\dd$", "_norm", words), *_SAME.get(plain, ())}
    wanted |= {general for general, own in _SAME.items() if wanted.intersection(own)}
    wanted -= {""}
    return _grouped((call, n) for n, node in nodes.items() for call in node.origins if _calls_one(call, wanted))


def _calls_one(call: str, wanted: Iterable[str]) -> bool:
    own = f"_{_NUMBER.sub('', call)}_"
    return any(f"_{one}_" in own for one in wanted)


def first_instructions(debug: DebugMap, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The pc at which instructions begin to work for each of these nodes that has any, with the node, in order."""
    wanted = set(numbers)
    return sorted((span.first, n) for span in debug.spans for n in span.nodes if n in wanted)

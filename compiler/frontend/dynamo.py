"""Capture inside a torch.compile backend: Dynamo's graph, exported again with its weights kept apart.

Dynamo hands over torch-level functions and every parameter as a placeholder. Exporting that graph once more gives
the same form as ahead of time, so everything after capture is shared. Weights stay inputs of the packing graph,
never constants: the same code runs again with other weights (CAPTURE.md says why).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from compiler.frontend.capture import Captured, Leaf, TensorInfo, Weight, export, from_exported
from compiler.frontend.checks import check_tensor
from compiler.frontend.torchao import is_quantized
from isa.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Role:
    """What an argument of Dynamo's function is: `kind` is input, param, buffer or number."""

    name: str
    kind: str


@dataclass(frozen=True)
class DynamoCapture:
    """The captured graph, and which of the call's arguments are what.

    `inputs` and `weights` are positions among the arguments of Dynamo's function: of `captured.inputs`, and of the
    first of `captured.weights`. The remaining weights are constants of the code, in `captured.tensors`.
    """

    captured: Captured
    inputs: tuple[int, ...]
    weights: tuple[int, ...]


def roles(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> tuple[Role, ...]:
    """To be asked while the backend is called: afterwards Dynamo forgets where its inputs came from."""
    holders = gm.graph.find_nodes(op="placeholder")
    found = [_role(node, example) for node, example in zip(holders, example_inputs, strict=True)]
    taken: set[str] = set()
    for index, role in enumerate(found):
        name, count = role.name, 1
        while name in taken:
            count += 1
            name = f"{role.name}_{count}"
        taken.add(name)
        found[index] = replace(role, name=name)
    return tuple(found)


_ITEM = re.compile(r"\['(\w+)'\]$")


def _role(node: fx.Node, example: Any) -> Role:
    source = getattr(node.meta.get("grapharg"), "source", None)
    place = getattr(source, "name", "")
    place = str(place() if callable(place) else place)
    own = str(node.name).lower().removeprefix("l_").strip("_")
    if not isinstance(example, Tensor):
        return Role(own, "number")
    if "_buffers[" in place:
        return Role(own, "buffer")
    if isinstance(example, torch.nn.Parameter) or "_parameters[" in place:
        return Role(own, "param")
    item = _ITEM.search(place)
    return Role(item[1] if item else own, "input")


def capture_dynamo(gm: fx.GraphModule, arguments: Sequence[Any], known: Sequence[Role]) -> DynamoCapture:
    """Capture the graph of one Dynamo frame for these arguments, as they come when it is called.

    Sizes are taken as they are now. (What a backend gets beforehand may be symbolic, which export would guard on.)
    """
    examples = [argument.detach() if isinstance(argument, Tensor) else argument for argument in arguments]
    for role, example in zip(known, examples, strict=True):
        if is_quantized(example):
            hint = "compile ahead of time with llmchip.compile, which takes torchao's weights as they are"
            raise UnsupportedError(f"{role.kind} '{role.name}' is a torchao tensor", hint=hint)
        if isinstance(example, Tensor):
            check_tensor(f"{role.kind} '{role.name}'", example)
    exported = from_exported(export(_Replay(gm), tuple(examples)))
    return _separate(exported, known, examples)


class _Replay(torch.nn.Module):
    """Dynamo's graph as a module that keeps the user's source lines on what is traced through it."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__()
        self.replayed = gm
        self.eval()

    def forward(self, *args: Any) -> Any:
        with fx.traceback.preserve_node_meta():
            return fx.Interpreter(self.replayed).run(*args)


def _separate(exported: Captured, known: Sequence[Role], examples: Sequence[Any]) -> DynamoCapture:
    """Sort the exported inputs into the user's and the model's."""
    order = [position for position, example in enumerate(examples) if isinstance(example, Tensor)]
    holders = exported.gm.graph.find_nodes(op="placeholder")[: len(order)]
    inputs: list[TensorInfo] = []
    weights: list[Weight] = []
    tensors = dict(exported.tensors)
    for position, node, info in zip(order, holders, exported.inputs, strict=True):
        role = known[position]
        if role.kind == "input":
            inputs.append(replace(info, name=role.name))
        else:
            node.meta["weight"] = True
            weights.append(Weight(role.name, node.name, role.kind))
            tensors[role.name] = examples[position]
    _order(exported.gm, [node for node in holders if not node.meta["weight"]])
    names = {info.name: Leaf(number) for number, info in enumerate(inputs)}
    everything = (*weights, *exported.weights)
    captured = Captured(exported.gm, tuple(inputs), exported.outputs, everything, tensors, names, exported.result)
    return DynamoCapture(
        captured,
        tuple(p for p in order if known[p].kind == "input"),
        tuple(p for p in order if known[p].kind != "input"),
    )


def _order(gm: fx.GraphModule, users: list[fx.Node]) -> None:
    """The user's placeholders before the weights', as passes expect."""
    for node in reversed(users):
        first = next(iter(gm.graph.nodes))
        if node is not first:
            first.prepend(node)
    gm.recompile()

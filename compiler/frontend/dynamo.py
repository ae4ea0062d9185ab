"""Capture inside a torch.compile backend: Dynamo's graph, exported again with its weights kept apart.

Dynamo hands over torch-level functions and every parameter as a placeholder. Exporting that graph once more gives
the same form as ahead of time, so everything after capture is shared. Weights stay inputs of the packing graph,
never constants: the same code runs again with other weights (CAPTURE.md says why).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, fx
from torch.fx.node import Argument, Target
from torch.utils import _pytree as pytree

from compiler.frontend.capture import Captured, Leaf, TensorInfo, Weight, export, from_exported
from compiler.frontend.leftovers import forgotten
from compiler.frontend.torchao import FIELDS, check_quantized, is_quantized, quantized_linear
from isa.errors import UnsupportedError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Role:
    """What an argument of Dynamo's function is: `kind` is input, param, buffer or number."""

    name: str
    kind: str


Place = tuple[int, str]  # an argument, and which of its tensors: a name for one of torchao's two, else ""


@dataclass(frozen=True)
class DynamoCapture:
    """The captured graph, and which of the call's arguments are what.

    `inputs` and `weights` are positions among the arguments of Dynamo's function: of `captured.inputs`, and of the
    first of `captured.weights`. The remaining weights are constants of the code, in `captured.tensors`. `changed` are
    arguments that the frame changes in place, each with the number of the result that is its new value; they count as
    inputs. With `places`, all these positions are among `pick(arguments, places)` instead; `replay` is the frame called
    with these.
    """

    captured: Captured
    inputs: tuple[int, ...]
    weights: tuple[int, ...]
    changed: tuple[tuple[int, int], ...] = ()
    places: tuple[Place, ...] = ()
    replay: Callable[..., pytree.PyTree] = tuple


def roles(gm: fx.GraphModule, example_inputs: Sequence[object]) -> tuple[Role, ...]:
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


def _role(node: fx.Node, example: object) -> Role:
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


def capture_dynamo(gm: fx.GraphModule, arguments: Sequence[object], known: Sequence[Role]) -> DynamoCapture:
    """Capture the graph of one Dynamo frame for these arguments, as they come when it is called.

    Sizes are taken as they are now. (What a backend gets beforehand may be symbolic, which export would guard on.)
    Raises UnsupportedError for derivatives taken inside the frame.
    """
    _check_transforms(gm)
    examples = [argument.detach() if isinstance(argument, Tensor) else argument for argument in arguments]
    for role, example in zip(known, examples, strict=True):
        if is_quantized(example):
            check_quantized(role.name, example)
    places = _places(examples)
    flat = tuple(pick(examples, places))
    named = [replace(known[p], name=f"{known[p].name}.{field}") if field else known[p] for p, field in places]
    replay = _Replay(gm, places)
    with forgotten():
        exported = from_exported(export(replay, flat), changing=True)
    found = _separate(exported, named, flat)
    return replace(found, places=places if any(field for _, field in places) else (), replay=replay)


_ENTERS = ("_grad_increment_nesting", "_jvp_increment_nesting", "_enter_dual_level")


def _check_transforms(gm: fx.GraphModule) -> None:
    """Refuse what torch.func does inside the frame, but for a single vmap, before it is traced: a trace that fails
    between enter and exit would leave a level entered."""
    depth = 0
    for node in gm.graph.nodes:
        name = getattr(node.target, "__name__", "")
        depth += (name == "_vmap_increment_nesting") - (name == "_vmap_decrement_nesting")
        nested = depth > 1 or (depth and isinstance(node.target, torch._ops.HigherOrderOperator))
        if name in _ENTERS or nested:
            what = "a transform of a transform" if nested else "a derivative by torch.func"
            raise UnsupportedError(
                f"the chip cannot do {what} inside the compiled function",
                node.name,
                "compile the function that it is taken of",
            )
    for _, inner in gm.named_children():
        if isinstance(inner, fx.GraphModule):
            _check_transforms(inner)


def _places(examples: Sequence[object]) -> tuple[Place, ...]:
    """All tensors (and numbers) among the arguments. A torchao weight is two: int8 numbers and their scales."""
    return tuple(
        (p, field) for p, example in enumerate(examples) for field in (FIELDS if is_quantized(example) else ("",))
    )


def pick(arguments: Sequence[T], places: Sequence[Place]) -> list[T]:
    """What lies at these places."""
    return [getattr(arguments[p], field) if field else arguments[p] for p, field in places]


class _Replay(torch.nn.Module):
    """Dynamo's graph as a module that keeps the user's source lines on what is traced through it."""

    def __init__(self, gm: fx.GraphModule, places: Sequence[Place]) -> None:
        super().__init__()
        self.replayed, self.places = gm, places
        self.eval()

    def forward(self, *flat: object) -> object:
        args: list[object] = []
        for (_, field), value in zip(self.places, flat, strict=True):
            if field and field == FIELDS[-1]:
                q = args.pop()
                assert isinstance(q, Tensor) and isinstance(value, Tensor)
                args.append(_Quantized(q, value))
            else:
                args.append(value)
        with fx.traceback.preserve_node_meta():
            return _Interpreter(self.replayed).run(*args)


@dataclass(frozen=True)
class _Quantized:
    """A torchao weight while its graph is replayed."""

    q: Tensor
    s: Tensor


class _Interpreter(fx.Interpreter):
    """Replays linears of torchao weights as the chip's operations on the very same integers."""

    def call_function(self, target: Target, args: tuple[Argument, ...], kwargs: dict[str, Any]) -> object:
        if not any(isinstance(value, _Quantized) for value in (*args, *kwargs.values())):
            return super().call_function(target, args, kwargs)
        named: dict[str, Any] = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
        weight = named["weight"]
        if target is not torch.nn.functional.linear or not isinstance(weight, _Quantized):
            raise UnsupportedError(
                f"{getattr(target, '__name__', target)} of a torchao weight", hint="the chip computes linears with it"
            )
        return quantized_linear(named["input"], weight.q, weight.s, named.get("bias"))


def _separate(exported: Captured, known: Sequence[Role], examples: Sequence[object]) -> DynamoCapture:
    """Sort the exported inputs into the user's and the model's."""
    given = {position: example for position, example in enumerate(examples) if isinstance(example, Tensor)}
    changed = dict(exported.changed)
    holders = exported.gm.graph.find_nodes(op="placeholder")[: len(given)]
    inputs: list[TensorInfo] = []
    weights: list[Weight] = []
    tensors = dict(exported.tensors)
    for position, node, info in zip(given, holders, exported.inputs, strict=True):
        role = known[position]
        if role.kind == "input" or node.name in changed:
            inputs.append(replace(info, name=role.name))
        else:
            node.meta["weight"] = True
            weights.append(Weight(role.name, node.name, role.kind))
            tensors[role.name] = given[position]
    _order(exported.gm, [node for node in holders if not node.meta["weight"]])
    names = {info.name: Leaf(number) for number, info in enumerate(inputs)}
    everything = (*weights, *exported.weights)
    captured = Captured(exported.gm, tuple(inputs), exported.outputs, everything, tensors, names, exported.result)
    of_user = [not node.meta["weight"] for node in holders]
    return DynamoCapture(
        captured,
        tuple(p for p, is_input in zip(given, of_user, strict=True) if is_input),
        tuple(p for p, is_input in zip(given, of_user, strict=True) if not is_input),
        tuple((p, changed[node.name]) for p, node in zip(given, holders, strict=True) if node.name in changed),
    )


def _order(gm: fx.GraphModule, users: list[fx.Node]) -> None:
    """The user's placeholders before the weights', as passes expect."""
    for node in reversed(users):
        first = next(iter(gm.graph.nodes))
        if node is not first:
            first.prepend(node)
    gm.recompile()

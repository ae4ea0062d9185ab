"""The torch.compile backend, found through the entry point `llmchip` of group torch_dynamo_backends.

    torch.compile(model, backend="llmchip", options={"chip": "server", "fallback": False})

Nothing is compiled when Dynamo asks: each combination of shapes is compiled when it is first called. So sizes are concrete,
and errors reach the caller as they are, not wrapped in Dynamo's own.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compiler.frontend import dynamo
from compiler.frontend.capture import Leaf
from compiler.frontend.checks import check_tensor
from compiler.frontend.dynamo import Role, capture_dynamo, roles
from compiler.options import Options
from isa.chip import Chip, load_chip
from isa.errors import CompileError, Error, UnsupportedError
from runtime.fallback import split, symbolic, warn_once
from runtime.part import Part
from runtime.threads import alone
from runtime.weights import refresh

__all__ = ["backend", "refresh"]

Runner = Callable[..., tuple[Any, ...]]


def backend(
    gm: fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, mode: str | None = None
) -> "Frame":
    """Called by Dynamo with a graph of torch operations, the weights among its inputs."""
    return Frame(gm, roles(gm, example_inputs), options or {}, mode)


class Frame:
    """One of Dynamo's graphs, compiled per combination of shapes. Returns a tuple."""

    def __init__(self, gm: fx.GraphModule, known: Sequence[Role], options: Mapping[str, Any], mode: str | None) -> None:
        self._gm, self._floats = _numbers_for_tensors(gm, known)
        self._roles = tuple(known)
        self._given, self._mode = dict(options), mode
        self._settings: tuple[Options, Chip] | None = None
        self._runners: dict[tuple[Any, ...], Runner] = {}

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        values = [arg.item() if index in self._floats else arg for index, arg in enumerate(args)] if self._floats else args
        key = _key(values)
        runner = self._runners.get(key)
        with torch.no_grad():
            if runner is None:
                with alone():
                    runner = self._runners.get(key) or self._compile(values)
                    self._runners[key] = runner
            results = runner(*values)
        return _not_differentiable(results, args)

    def _compile(self, values: Sequence[Any]) -> Runner:
        with torch.inference_mode(False), torch.no_grad():
            options, chip = self._checked()
            for role, value in zip(self._roles, values, strict=True):
                if isinstance(value, Tensor):
                    _check(role, value)
            try:
                return _compiled(self._gm, values, self._roles, options, chip)
            except UnsupportedError as error:  # nothing that could be split: the graph was not even captured
                if not options.fallback:
                    raise
                warn_once("this graph", str(error))
                return self._gm

    def _checked(self) -> tuple[Options, Chip]:
        """Options and mode as the user gave them, and the train mode that would make results random."""
        if self._settings is None:
            if self._mode is not None:
                raise CompileError(f"there is no mode '{self._mode}'", hint="use options={...}; 'llmcc compile --help' lists them")
            for node in self._gm.graph.nodes:
                if _trains(node):
                    raise CompileError("the model is in train mode", f"{node.name}", "call model.eval() first")
            given = self._given.get("chip", "edge")
            chip = load_chip(given)
            named = {**self._given, "chip": given if isinstance(given, str) else chip.name}
            self._settings = Options.from_strings(named), chip
        return self._settings


def _key(values: Sequence[Any]) -> tuple[Any, ...]:
    """Equal for arguments that one program serves: the same shapes and types of tensors, the same numbers."""
    try:
        return tuple(map(Tensor.size, values)), tuple(map(_DTYPE, values)), ()
    except TypeError:  # not tensors alone
        tensors = [value for value in values if isinstance(value, Tensor)]
        numbers = tuple((n, type(v), v) for n, v in enumerate(values) if not isinstance(v, Tensor))
        return tuple(map(Tensor.size, tensors)), tuple(map(_DTYPE, tensors)), numbers


_DTYPE = operator.attrgetter("dtype")


def _compiled(gm: fx.GraphModule, values: Sequence[Any], known: Sequence[Role], options: Options, chip: Chip) -> Runner:
    """The whole graph on the chip, or, where that cannot be and the options allow it, split."""
    found = capture_dynamo(gm, values, known)
    captured = found.captured
    constants = tuple(captured.tensors[weight.name] for weight in captured.weights[len(found.weights) :])
    try:
        if symbolic(captured):
            raise UnsupportedError("a size in this graph depends on data")
        program: Callable[..., tuple[Tensor, ...]] = Part(captured, options, chip)
    except UnsupportedError:
        if not options.fallback:
            raise
        program = split(captured, options, chip)
    if isinstance(captured.tensors, dict):
        captured.tensors.clear()  # weights come with every call; these would keep the first instance's alive
    chosen = (*found.inputs, *found.weights)
    select = operator.itemgetter(*chosen) if len(chosen) > 1 else lambda args: tuple(args[index] for index in chosen)
    places = [leaf.index for leaf in captured.result if isinstance(leaf, Leaf)]
    flat = len(places) == len(captured.result)  # nearly always: a list of tensors

    def run(*args: Any) -> tuple[Any, ...]:
        whole, args = args, tuple(dynamo.pick(args, found.places)) if found.places else args
        if found.changed and _overlap(args, [position for position, _ in found.changed]):
            return tuple(gm(*whole))
        results = program(*select(args), *constants)
        for position, number in found.changed:
            args[position].copy_(results[number])
        return tuple(results[place] for place in places) if flat else tuple(captured.unflatten(results))

    return run


def _overlap(args: Sequence[Any], changed: Sequence[int]) -> bool:
    """Whether an argument that is changed in place shares memory with another one, which would have to change with it."""
    memory = [arg.untyped_storage().data_ptr() if isinstance(arg, Tensor) else None for arg in args]
    return any(memory.count(memory[position]) > 1 for position in changed)


def _check(role: Role, tensor: Tensor) -> None:
    what = f"{role.kind} '{role.name}'"
    check_tensor(what, tensor)
    if tensor.device.type != "cpu":
        raise UnsupportedError(f"{what} is on {tensor.device}", hint="the emulated chip takes CPU tensors: call .cpu()")


def _numbers_for_tensors(gm: fx.GraphModule, known: Sequence[Role]) -> tuple[fx.GraphModule, frozenset[int]]:
    """With dynamic=True Dynamo passes Python floats as 0-d float64 tensors and calls item(). Give the graph the numbers instead.

    Returns a copy of the graph, and the positions of these arguments.
    """
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, remap))
    for old, new in remap.items():
        new.meta = {key: value for key, value in old.meta.items() if key != "grapharg"}  # that one holds the example's memory
    found = set()
    for index, node in enumerate(graph.find_nodes(op="placeholder")):
        value = node.meta.get("example_value")
        only_items = bool(node.users) and all(user.op == "call_method" and user.target == "item" for user in node.users)
        if isinstance(value, Tensor) and value.dtype is torch.float64 and not value.shape and only_items and known[index].kind != "param":
            found.add(index)
            for user in list(node.users):
                user.replace_all_uses_with(node)
                graph.erase_node(user)
    return fx.GraphModule(gm, graph), frozenset(found)


_TRAINED: Mapping[Any, tuple[int, str]] = {
    torch.nn.functional.dropout: (2, "training"),
    torch.nn.functional.batch_norm: (5, "training"),
    torch.dropout: (2, "train"),
}


def _trains(node: fx.Node) -> bool:
    """Whether this call does something else in train mode than in eval mode, and is in train mode."""
    if node.target is torch.nn.functional.scaled_dot_product_attention:
        return bool(node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0))
    if node.op != "call_function" or node.target not in _TRAINED:
        return False
    position, name = _TRAINED[node.target]
    training = node.args[position] if len(node.args) > position else node.kwargs.get(name, name == "training" and position == 2)
    return bool(training)


class _NoGradient(torch.autograd.Function):
    """Results that know where they come from, so that a backward pass fails with a reason instead of giving no gradient."""

    @staticmethod
    def forward(ctx: Any, results: tuple[Tensor, ...], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.mark_non_differentiable(*(result for result in results if not result.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise Error(
            "a model on the chip cannot be trained: there is no backward pass", hint="use torch.no_grad(), or train with another backend"
        )


def _not_differentiable(results: tuple[Any, ...], args: Sequence[Any]) -> tuple[Any, ...]:
    sources = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad] if torch.is_grad_enabled() else []
    places = [index for index, result in enumerate(results) if isinstance(result, Tensor)]
    if not sources or not places:
        return results
    attached = _NoGradient.apply(tuple(results[index] for index in places), *sources)  # type: ignore[no-untyped-call]
    tracked = dict(zip(places, attached, strict=True))
    return tuple(tracked.get(index, result) for index, result in enumerate(results))

"""A Dynamo frame on the chip: what comes in, what the pieces compute, what goes out, as eager PyTorch would have it."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad

from compiler.frontend.capture import Captured
from compiler.frontend.dynamo import DynamoCapture, Role, capture_dynamo, pick
from isa.errors import Error, UnsupportedError
from runtime.pieces import Runs, Setting, whole
from runtime.results import Made, Plan, observe, plan

Runner = Callable[..., tuple[Any, ...]]


def compiled(gm: fx.GraphModule, values: Sequence[Any], known: Sequence[Role], setting: Setting) -> Runner:
    """The frame for arguments like these. Raises what the capture raises, and what may not fall back."""
    tracking = torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in values)
    with torch.inference_mode(False), torch.no_grad():
        found = capture_dynamo(gm, values, known)
        with torch.set_grad_enabled(tracking):
            observed = observe(found.replay, pick(values, found.places) if found.places else values)
        captured, how = plan(found.captured, [number for _, number in found.changed], observed)
        captured, sources = _only_used(captured, found)
        runs = any(node.op == "call_function" for node in captured.gm.graph.nodes)
        program = whole(captured, setting) if runs or captured.outputs else lambda *tensors: ()
    call = Call(gm, found, program, sources, how, setting, tracking)
    if isinstance(captured.tensors, dict):
        captured.tensors.clear()  # weights come with every call; these would keep the first instance's alive
    return call.run


def _only_used(captured: Captured, found: DynamoCapture) -> tuple[Captured, list["int | Tensor"]]:
    """The graph without placeholders that nothing reads, and where the tensors for the others are: arguments or constants of the code."""
    sources: list[int | Tensor] = [*found.inputs, *found.weights]
    sources += [captured.tensors[weight.name] for weight in captured.weights[len(found.weights) :]]
    holders = captured.gm.graph.find_nodes(op="placeholder")
    used = [bool(node.users) for node in holders]
    for node, is_used in zip(holders, used, strict=True):
        if not is_used:
            captured.gm.graph.erase_node(node)
    captured.gm.recompile()
    count = len(captured.inputs)
    inputs = tuple(info for info, is_used in zip(captured.inputs, used[:count], strict=True) if is_used)
    weights = tuple(weight for weight, is_used in zip(captured.weights, used[count:], strict=True) if is_used)
    return replace(captured, inputs=inputs, weights=weights), [source for source, is_used in zip(sources, used, strict=True) if is_used]


class Call:
    """One compiled frame. `run` is what every call goes through, so it does only what this frame needs."""

    def __init__(
        self, gm: fx.GraphModule, found: DynamoCapture, program: Runs, sources: Sequence["int | Tensor"], how: Plan, setting: Setting, tracking: bool
    ) -> None:
        self._gm, self._program, self._how, self._setting = gm, program, how, setting
        self._places, self._changed = found.places, found.changed
        self._select = _selecting([source for source in sources if isinstance(source, int)])
        self._constants = tuple(source for source in sources if isinstance(source, Tensor))
        self._lays = how.lays if any(how.lays) else None
        self._tracking = tracking and bool(how.tracked)
        self._autocast = torch.is_autocast_enabled("cpu")
        self._dtype = torch.get_autocast_dtype("cpu")
        views = any(isinstance(source, Made) and source.view is not None for source in how.results)
        self._eager_gradients = tracking and bool(found.changed or (views and how.tracked))
        if self._eager_gradients:
            raise UnsupportedError("gradients of arguments that are changed, or of results that share memory", hint="use torch.no_grad()")

    def run(self, *args: Any) -> tuple[Any, ...]:
        if forward_ad._current_level >= 0 and _carry_tangents(args):
            self._setting.policy.accept(_TANGENTS)
            self._setting.teller.tell(_TANGENTS)
            return tuple(self._gm(*args))
        flat = pick(args, self._places) if self._places else args
        if self._changed and _overlap(flat, [position for position, _ in self._changed]):
            return tuple(self._gm(*args))
        with torch.no_grad():
            computed = self._computed(flat)
            for position, number in self._changed:
                flat[position].copy_(computed[number])
        if self._tracking:
            computed = _tracked(self, computed, args)
        return computed if self._how.simple else self._how.assemble(computed, flat)

    def _computed(self, flat: Sequence[Any]) -> tuple[Tensor, ...]:
        """What the chip and PyTorch compute, in its strides."""
        if self._autocast:  # what it casts is in the graph already
            with torch.autocast("cpu", enabled=False):
                computed: tuple[Tensor, ...] = self._program(*self._select(flat), *self._constants)
        else:
            computed = self._program(*self._select(flat), *self._constants)
        if self._lays is not None:
            computed = tuple(lay(result) if lay else result for lay, result in zip(self._lays, computed, strict=True))
        return computed

    def tracked(self) -> frozenset[int]:
        return self._how.tracked

    def gradients(self, args: Sequence[Any], gradients: Sequence["Tensor | None"]) -> list["Tensor | None"]:
        """Gradients of all arguments from those of the computed results: the float graph, run once more by PyTorch."""
        if not self._setting.policy.refusals:
            raise Error(
                "a model on the chip cannot be trained: there is no backward pass", hint="use torch.no_grad(), or train with another backend"
            )
        self._setting.teller.tell(_BACKWARD)
        with torch.enable_grad(), torch.autocast("cpu", self._dtype, enabled=self._autocast):
            results = self._gm(*args)
        places = {source.number: place for place, source in reversed(list(enumerate(self._how.results))) if isinstance(source, Made)}
        pairs = [(results[places[number]], gradient) for number, gradient in enumerate(gradients) if number in places and gradient is not None]
        pairs = [(result, gradient) for result, gradient in pairs if result.requires_grad]
        sources = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
        if not pairs:
            return [None] * len(args)
        outputs, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, sources, given, create_graph=torch.is_grad_enabled(), allow_unused=True))
        return [next(found) if isinstance(arg, Tensor) and arg.requires_grad else None for arg in args]


_TANGENTS = UnsupportedError("an argument carries a tangent (forward-mode differentiation), which the chip would lose")
_BACKWARD = UnsupportedError("the chip has no backward pass: gradients are those of the float model, run once more in PyTorch")


def _selecting(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(positions) > 1:
        return operator.itemgetter(*positions)
    return lambda args: tuple(args[position] for position in positions)


def _carry_tangents(args: Sequence[Any]) -> bool:
    return any(isinstance(arg, Tensor) and forward_ad.unpack_dual(arg).tangent is not None for arg in args)  # type: ignore[no-untyped-call]


def _overlap(args: Sequence[Any], changed: Sequence[int]) -> bool:
    """Whether an argument that is changed in place shares memory with another one, which would have to change with it."""
    memory = [arg.untyped_storage().data_ptr() if isinstance(arg, Tensor) else None for arg in args]
    return any(memory.count(memory[position]) > 1 for position in changed)


class _Tracked(torch.autograd.Function):
    """Results that know where they come from."""

    @staticmethod
    def forward(ctx: Any, call: Call, computed: tuple[Tensor, ...], args: tuple[Any, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call, ctx.others = call, [None if isinstance(arg, Tensor) else arg for arg in args]
        ctx.tensors = [isinstance(arg, Tensor) for arg in args]
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*(result for number, result in enumerate(computed) if number not in call.tracked()))
        ctx.set_materialize_grads(False)
        return computed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        saved = iter(ctx.saved_tensors)
        args = [next(saved) if is_tensor else other for is_tensor, other in zip(ctx.tensors, ctx.others, strict=True)]
        found = ctx.call.gradients(args, gradients)
        return (None, None, None, *(gradient for gradient, is_tensor in zip(found, ctx.tensors, strict=True) if is_tensor))


def _tracked(call: Call, computed: tuple[Tensor, ...], args: Sequence[Any]) -> tuple[Tensor, ...]:
    """The computed results as results of the arguments, for autograd."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    found: tuple[Tensor, ...] = _Tracked.apply(call, computed, tuple(args), *tensors)  # type: ignore[no-untyped-call]
    return found

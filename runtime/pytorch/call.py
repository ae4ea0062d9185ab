"""A Dynamo frame on the chip: what comes in, what the pieces compute, what goes out, as eager PyTorch would have it."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator
from torch.autograd import forward_ad

from compiler.frontend.calibration import marked
from compiler.frontend.capture import Captured, fixed_sizes
from compiler.frontend.dynamo import DynamoCapture, Role, capture_dynamo, pick
from compiler.graph.legal import random
from isa.errors import UnsupportedError
from runtime.pytorch.gradients import Backward, Keep
from runtime.pytorch.observed import Observed, apart, observe
from runtime.pytorch.pieces import Runs, Setting, whole
from runtime.pytorch.results import Made, ResultMap, map_results
from runtime.pytorch.strides import meet, span

Runner = Callable[..., tuple[Any, ...]]


def compiled(gm: fx.GraphModule, values: Sequence[Any], known: Sequence[Role], setting: Setting) -> Runner:
    """The frame for arguments like these. Raises what the capture raises, and what may not fall back."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    with torch.inference_mode(False), torch.no_grad(), fixed_sizes():
        values = apart(values)
        found = capture_dynamo(gm, values, known)
        config = setting.options.quant_config
        found = replace(found, captured=marked(found.captured, config, setting.calibration))
        flat = pick(values, found.places) if found.places else values
        if found.changed and grad and any(isinstance(value, Tensor) and value.requires_grad for value in flat):
            raise _unfollowed()
        with torch.set_grad_enabled(grad):
            observed = observe(found.replay, flat)
        captured, how = map_results(found.captured, [number for _, number in found.changed], observed)
        if inference:  # nothing is followed there, whatever the frame says
            how = replace(how, tracked=frozenset())
        _check_changed(found, observed)
        _check_followed(how, found, observed)
        _check_drawn(captured.gm.graph, observed)
        captured, sources = _only_used(captured, found)
        runs = any(node.op == "call_function" for node in captured.gm.graph.nodes)
        program = whole(captured, setting) if runs or captured.outputs else lambda *tensors: ()
    backward = Backward(gm, how, _keep(gm, found, observed, known), setting, grad) if how.tracked else None
    call = Call(gm, found, program, sources, how, setting, backward)
    if isinstance(captured.tensors, dict):
        captured.tensors.clear()  # weights come with every call; these would keep the first instance's alive
    return call.run


def _check_changed(found: DynamoCapture, observed: Observed) -> None:
    """Refuse changes of more than an argument's elements."""
    if any(position in observed.strided for position, _ in found.changed):
        raise UnsupportedError("an argument is changed that is taken apart with as_strided")


def _check_followed(how: ResultMap, found: DynamoCapture, observed: Observed) -> None:
    """Refuse gradients through what the chip's results cannot stand for."""
    if how.tracked and (
        found.changed or any(isinstance(source, Made) and source.view is not None for source in how.results)
    ):
        raise _unfollowed()
    if how.tracked and observed.draws:
        raise UnsupportedError("gradients of random operations, which would draw again", hint="use torch.no_grad()")


def _check_drawn(graph: fx.Graph, observed: Observed) -> None:
    """Refuse a graph in which fewer numbers are drawn than in the frame, whose later ones would be others."""
    if sum(map(random, graph.nodes)) < observed.draws:
        raise UnsupportedError("random numbers that nothing reads, which the capture leaves out")


def _keep(gm: fx.GraphModule, found: DynamoCapture, observed: Observed, known: Sequence[Role]) -> Keep:
    """What a backward pass needs: everything, where what was observed are parts of arguments, or a function of the
    user's keeps what it likes."""
    if found.places or any(isinstance(node.target, HigherOrderOperator) for node in gm.graph.nodes):
        return Keep(frozenset(range(len(known))), frozenset())
    return Keep.of(observed, known)


def _only_used(captured: Captured, found: DynamoCapture) -> tuple[Captured, list["int | Tensor"]]:
    """The graph without placeholders that nothing reads, and where the tensors for the others are: arguments or
    constants of the code."""
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
    return replace(captured, inputs=inputs, weights=weights), [
        source for source, is_used in zip(sources, used, strict=True) if is_used
    ]


class Call:
    """One compiled frame. `run` is what every call goes through, so it does only what this frame needs."""

    def __init__(
        self,
        gm: fx.GraphModule,
        found: DynamoCapture,
        program: Runs,
        sources: Sequence["int | Tensor"],
        how: ResultMap,
        setting: Setting,
        backward: Backward | None,
    ) -> None:
        self._gm, self._program, self._how, self._setting, self._backward = gm, program, how, setting, backward
        self._places, self._changed = found.places, found.changed
        self._select = _selecting([source for source in sources if isinstance(source, int)])
        self._constants = tuple(source for source in sources if isinstance(source, Tensor))
        self._lays = how.lays if any(how.lays) else None
        self._autocast = torch.is_autocast_enabled("cpu")

    def run(self, *args: Any) -> tuple[Any, ...]:
        if forward_ad._current_level >= 0 and _carry_tangents(args):
            return self._in_pytorch(_TANGENTS, args)
        flat = pick(args, self._places) if self._places else args
        if self._changed and _overlap(flat, [position for position, _ in self._changed]):
            return self._in_pytorch(_SHARED, args)
        with torch.no_grad():
            computed = self._computed(flat)
            for position, number in self._changed:
                flat[position].copy_(computed[number])
        computed = tuple(
            map(Tensor.detach, computed)
        )  # no views made here without gradients, which the caller could not change in place
        if self._backward is not None:
            computed = self._backward.follow(computed, args)
        return computed if self._how.simple else self._how.assemble(computed, flat)

    def _in_pytorch(self, reason: str, args: Sequence[Any]) -> tuple[Any, ...]:
        """This call's results without the chip."""
        refusal = UnsupportedError(reason)
        self._setting.policy.accept(refusal)
        self._setting.teller.tell(refusal)
        return tuple(self._gm(*args))

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


_TANGENTS = "an argument carries a tangent (forward-mode differentiation), which the chip would lose"
_SHARED = "an argument is changed in place whose memory another argument shows, too"


def _unfollowed() -> UnsupportedError:
    return UnsupportedError(
        "gradients of arguments that are changed, or of results that share memory", hint="use torch.no_grad()"
    )


def _selecting(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(positions) > 1:
        return operator.itemgetter(*positions)
    return lambda args: tuple(args[position] for position in positions)


def _carry_tangents(args: Sequence[Any]) -> bool:
    return any(isinstance(arg, Tensor) and forward_ad.unpack_dual(arg).tangent is not None for arg in args)


def _overlap(args: Sequence[Any], changed: Sequence[int]) -> bool:
    """Whether an argument that is changed in place may share memory with another one, which would have to change with
    it."""
    spans = [span(arg) if isinstance(arg, Tensor) else (0, 0) for arg in args]
    return any(
        spans[position][0] < end and start < spans[position][1] and meet(args[position], args[other])
        for position in changed
        for other, (start, end) in enumerate(spans)
        if other != position
    )

"""Gradients of a frame whose results the chip has computed: those of the float model, which PyTorch runs once more,
backward only then.

c = torch.compile(f, backend="llmchip"); y = c(x)      the chip computes y, which autograd takes for the result of one
function
y.sum().backward()                                     f runs in PyTorch on x as it was, and is differentiated
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from compiler.frontend.dynamo import Role
from isa.errors import Error, UnsupportedError
from runtime.pytorch.observed import Observed
from runtime.pytorch.pieces import Setting
from runtime.pytorch.results import Made, ResultMap

_BACKWARD = UnsupportedError(
    "the chip has no backward pass: gradients are those of the float model, run once more in PyTorch"
)


@dataclass(frozen=True)
class Keep:
    """Arguments that the backward pass needs as they are now, by position.

    `saved` may not be changed before it, as in eager, which keeps them too. Eager keeps only what it computed from
    those in `copied`, so they may be changed, and a copy is kept. All others may have any values when the frame runs
    again.
    """

    saved: frozenset[int]
    copied: frozenset[int]

    @classmethod
    def of(cls, observed: Observed, known: Sequence[Role]) -> "Keep":
        """Parameters are never copied: they are large, and change in place only between one backward pass and the next
        forward pass."""
        needed = observed.needed | observed.saved
        saved = frozenset(
            position for position in needed if position in observed.saved or known[position].kind == "param"
        )
        return cls(saved, needed - saved)


class Backward:
    """The frame as a function that autograd can go back through. `known` are the roles of its arguments; `grad`: the
    mode it runs in."""

    def __init__(self, gm: fx.GraphModule, how: ResultMap, keep: Keep, setting: Setting, grad: bool) -> None:
        self._gm, self._setting, self._grad, self.tracked, self.keep = gm, setting, grad, how.tracked, keep
        self._places = {
            source.number: place for place, source in reversed(list(enumerate(how.results))) if isinstance(source, Made)
        }
        self._autocast = torch.is_autocast_enabled("cpu")
        self._dtype = torch.get_autocast_dtype("cpu")

    def follow(self, computed: tuple[Tensor, ...], args: Sequence[Any]) -> tuple[Tensor, ...]:
        """The computed results as results of the arguments, for autograd."""
        with torch.enable_grad():  # what is tracked is known
            kept = [arg.clone() if position in self.keep.copied else arg for position, arg in enumerate(args)]
            found: tuple[Tensor, ...] = _Tracked.apply(
                self, computed, [None if isinstance(arg, Tensor) else arg for arg in kept], *kept
            )  # type: ignore[no-untyped-call]
        return found

    def gradients(
        self, args: Sequence[Any], wanted: Sequence[bool], gradients: Sequence["Tensor | None"]
    ) -> list["Tensor | None"]:
        """Gradients of the wanted arguments from those of the computed results. Raises Error where nothing may fall
        back to PyTorch: the chip has no backward pass."""
        if not self._setting.policy.refusals:
            raise Error(
                "a model on the chip cannot be trained: there is no backward pass",
                hint="use torch.no_grad(), or train with another backend",
            )
        self._setting.teller.tell(_BACKWARD)
        leaves = [_leaf(arg, is_wanted) for arg, is_wanted in zip(args, wanted, strict=True)]
        with torch.set_grad_enabled(self._grad), torch.autocast("cpu", self._dtype, enabled=self._autocast):
            results = self._gm(*leaves)
        given = [
            (results[self._places[n]], gradient)
            for n, gradient in enumerate(gradients)
            if n in self._places and gradient is not None
        ]
        given = [(result, gradient) for result, gradient in given if result.requires_grad]
        sources = [leaf for leaf, is_wanted in zip(leaves, wanted, strict=True) if is_wanted]
        if not given or not sources:
            return [None] * len(args)
        outputs, incoming = zip(*given, strict=True)
        found = iter(
            torch.autograd.grad(outputs, sources, incoming, create_graph=torch.is_grad_enabled(), allow_unused=True)
        )
        return [next(found) if is_wanted else None for is_wanted in wanted]


def _leaf(arg: Any, wanted: bool) -> Any:
    """An argument to differentiate by, and not further back: one argument may come from another one.

    Where the gradients will be differentiated in turn, it remembers what it is; an alias keeps it from being that.
    """
    if not isinstance(arg, Tensor):
        return arg
    if torch.is_grad_enabled() and arg.requires_grad:
        return arg.view_as(arg)
    return arg.detach().requires_grad_(wanted)


class _Tracked(torch.autograd.Function):
    """Results that know where they come from."""

    @staticmethod
    def forward(
        ctx: Any, frame: Backward, computed: tuple[Tensor, ...], others: list[Any], *args: Any
    ) -> tuple[Tensor, ...]:
        kept = frame.keep.saved | frame.keep.copied
        ctx.frame, ctx.others = frame, others
        ctx.kept = [position for position, arg in enumerate(args) if position in kept and isinstance(arg, Tensor)]
        ctx.save_for_backward(*(args[position] for position in ctx.kept))
        for position, arg in enumerate(args):
            if isinstance(arg, Tensor) and position not in kept:
                others[position] = arg.detach()  # no matter who changes it
        ctx.mark_non_differentiable(*(result for number, result in enumerate(computed) if number not in frame.tracked))
        ctx.set_materialize_grads(False)
        return computed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        args = list(ctx.others)
        for position, tensor in zip(ctx.kept, ctx.saved_tensors, strict=True):
            args[position] = tensor
        return (None, None, None, *ctx.frame.gradients(args, ctx.needs_input_grad[3:], gradients))

"""How the results of a compiled frame are made: computed by the chip, or views of arguments and of each other, as in
eager PyTorch.

What shares memory with an argument, or with another result, shows when the frame is run once (see
runtime.pytorch.observed); so do strides. A view is not computed: it is taken from the argument, or from the result that
owns the memory.

    def f(x): v = x.view(-1); y = x * 2; return v, y[0], y[1]     the chip computes y; v is a view of x, the others of y
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from compiler.frontend.aliases import overlaps
from compiler.frontend.capture import Captured, Leaf, TensorInfo
from isa.errors import UnsupportedError
from runtime.pytorch.observed import Observed, memory
from runtime.pytorch.strides import Lay, fills, laying

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Strided:
    """A view by its size, strides and the distance of its first element from its owner's.

    `tracked`: whether autograd follows it. If not, `requires_grad` says that the frame took it without gradients, not
    that it detached it.
    """

    size: Shape
    stride: Shape
    distance: int
    requires_grad: bool
    tracked: bool

    @classmethod
    def like(cls, value: Tensor, start: int) -> "Strided":
        """A view like this one of an owner that starts at `start`."""
        return cls(
            tuple(value.shape),
            value.stride(),
            int(value.storage_offset()) - start,
            value.requires_grad,
            value.grad_fn is not None,
        )

    def of(self, owner: Tensor) -> Tensor:
        """The view, whatever the caller's grad mode is: the frame may have had another where it took it."""
        with torch.set_grad_enabled(self.tracked or (torch.is_grad_enabled() and not owner.requires_grad)):
            view = owner.as_strided(self.size, self.stride, owner.storage_offset() + self.distance)
        return view.detach() if view.requires_grad and not self.requires_grad else view


@dataclass(frozen=True, slots=True)
class Given:
    """An argument itself, or a view of it."""

    position: int
    view: Strided | None


@dataclass(frozen=True, slots=True)
class Made:
    """Something that the graph computes, or a view of it."""

    number: int
    view: Strided | None


@dataclass(frozen=True)
class ResultMap:
    """`results`: where each comes from (anything else is returned as it is). `lays`: the strides of what is computed,
    by number.

    `tracked`: which computed values eager autograd would follow.
    """

    results: tuple[Any, ...]
    lays: tuple[Lay | None, ...]
    tracked: frozenset[int]
    simple: bool  # the results are what is computed, in order

    def assemble(self, computed: Sequence[Any], args: Sequence[Any]) -> tuple[Any, ...]:
        """The frame's results."""
        return tuple(self._result(source, computed, args) for source in self.results)

    @staticmethod
    def _result(source: Any, computed: Sequence[Any], args: Sequence[Any]) -> Any:
        if isinstance(source, Made):
            return computed[source.number] if source.view is None else source.view.of(computed[source.number])
        if isinstance(source, Given):
            return args[source.position] if source.view is None else source.view.of(args[source.position])
        return source


def map_results(captured: Captured, changed: Sequence[int], observed: Observed) -> tuple[Captured, ResultMap]:
    """The graph with only those results that must be computed, and how the frame's results are made of them.

    `changed` are numbers of results that are new values of arguments; they stay the first. Raises UnsupportedError
    where results share memory in a way that cannot be said with one owner.
    """
    if len(captured.result) != len(observed.results):
        raise UnsupportedError("the frame returns something else than its capture")
    return _Planner(captured, changed, observed).made()


class _Planner:
    def __init__(self, captured: Captured, changed: Sequence[int], observed: Observed) -> None:
        self._captured, self._observed = captured, observed
        self._nodes: list[fx.Node] = list(captured.gm.graph.output_node().args[0])  # type: ignore[arg-type]
        self._owners = {memory(arg): position for position, arg in enumerate(observed.args) if isinstance(arg, Tensor)}
        self._outputs: list[fx.Node] = [self._nodes[number] for number in changed]
        self._infos: list[TensorInfo] = [captured.outputs[number] for number in changed]
        self._lays: list[Lay | None] = [None] * len(changed)
        self._tracked: set[int] = set()
        self._kept: dict[int, tuple[int, Tensor]] = {}  # id of a fake result: its number and itself
        self._groups: dict[int, list[int]] = {}  # memory: the results in it
        self._bases: dict[int, int] = {}  # memory: number of the computed owner
        for place, value in enumerate(observed.results):
            if isinstance(value, Tensor) and memory(value) not in self._owners:
                self._groups.setdefault(memory(value), []).append(place)

    def made(self) -> tuple[Captured, ResultMap]:
        results = tuple(self._source(place, value) for place, value in enumerate(self._observed.results))
        graph = self._captured.gm.graph
        graph.output_node().args = (tuple(self._outputs),)
        graph.eliminate_dead_code()
        self._captured.gm.recompile()
        simple = results == tuple(Made(number, None) for number in range(len(self._outputs)))
        captured = replace(
            self._captured,
            outputs=tuple(self._infos),
            result=tuple(Leaf(number) for number in range(len(self._outputs))),
        )
        return captured, ResultMap(results, tuple(self._lays), frozenset(self._tracked), simple)

    def _source(self, place: int, value: Any) -> Any:
        leaf = self._captured.result[place]
        if not isinstance(value, Tensor):
            if isinstance(leaf, Leaf):
                raise UnsupportedError("the frame returns something else than its capture")
            return leaf
        if not isinstance(leaf, Leaf) or self._nodes[leaf.index].meta["val"].dtype != value.dtype:
            raise UnsupportedError("the capture gives a result of another type than the model")
        if tuple(self._nodes[leaf.index].meta["val"].shape) != tuple(value.shape):
            raise UnsupportedError("the capture gives a result of another shape than the model")
        position = self._owners.get(memory(value))
        if position is not None:
            return self._given(position, value)
        if value.is_conj() or value.is_neg():
            raise UnsupportedError("a result is conjugated or negated only when it is read")
        if value.requires_grad and value.grad_fn is None:
            raise UnsupportedError("a result is a view that was taken without gradients of something that has them")
        return self._computed(place, leaf.index, value)

    def _given(self, position: int, value: Tensor) -> Given:
        argument = self._observed.args[position]
        if value is argument:
            return Given(position, None)
        if position in self._observed.placed:
            raise UnsupportedError(
                "a view of an argument at a place counted from the start of its memory",
                hint="as_strided without an offset",
            )
        return Given(position, _view(value, argument))

    def _computed(self, place: int, index: int, value: Tensor) -> Made:
        if id(value) in self._kept:
            return Made(self._kept[id(value)][0], None)
        where = memory(value)
        group = self._groups[where]
        alone = len({id(self._observed.results[other]) for other in group}) == 1
        if alone and not overlaps_beyond_expanding(value):
            number = self._add(
                self._nodes[index],
                self._captured.outputs[index],
                laying(value.shape, value.stride()),
                value.requires_grad,
            )
            self._kept[id(value)] = number, value
            return Made(number, None)
        if where not in self._bases:
            self._bases[where] = self._base(group, value)
        base = self._bases[where]
        if self._kept.get(id(value), (-1, None))[0] == base:
            return Made(base, None)
        return Made(base, Strided.like(value, 0))

    def _base(self, group: Sequence[int], value: Tensor) -> int:
        """The number of the value that owns a memory in which several results lie: one of them, or what they are views
        of."""
        elements = value.untyped_storage().nbytes() // value.element_size()
        tracked = any(self._observed.results[place].requires_grad for place in group)
        if any(self._observed.results[place].dtype != value.dtype for place in group):
            raise UnsupportedError("results of several types share memory")
        for place in group:
            owner, leaf = self._observed.results[place], self._captured.result[place]
            if owner.storage_offset() == 0 and fills(owner.shape, owner.stride(), elements):
                number = self._add(
                    self._nodes[leaf.index],
                    self._captured.outputs[leaf.index],
                    laying(owner.shape, owner.stride()),
                    tracked,
                )
                self._kept[id(owner)] = number, owner
                return number
        roots = {root(self._nodes[self._captured.result[place].index]) for place in group}
        node = roots.pop()
        fake = node.meta.get("val")
        if (
            roots
            or not isinstance(fake, Tensor)
            or fake.dtype != value.dtype
            or not fills(fake.shape, fake.stride(), elements)
        ):
            raise UnsupportedError("results share memory in a way that is not understood")
        info = TensorInfo(f"owner{len(self._outputs)}", tuple(fake.shape), fake.dtype)
        return self._add(node, info, laying(fake.shape, fake.stride()), tracked)

    def _add(self, node: fx.Node, info: TensorInfo, lay: Lay | None, tracked: bool) -> int:
        self._outputs.append(node)
        self._infos.append(info)
        self._lays.append(lay)
        if tracked:
            self._tracked.add(len(self._outputs) - 1)
        return len(self._outputs) - 1


def overlaps_beyond_expanding(value: Tensor) -> bool:
    """Whether elements share memory otherwise than by strides of 0."""
    return overlaps(
        [1 if step == 0 else extent for extent, step in zip(value.shape, value.stride(), strict=True)], value.stride()
    )


def _view(value: Tensor, owner: Tensor) -> Strided:
    if value.dtype != owner.dtype or value.is_conj() != owner.is_conj() or value.is_neg() != owner.is_neg():
        raise UnsupportedError("a result shows the memory of an argument as another type")
    return Strided.like(value, int(owner.storage_offset()))


def root(node: fx.Node) -> fx.Node:
    """What `node` is a view of, through any number of views; a computed value is its own."""
    while node.op == "call_function":
        call = node.args[0] if node.target is operator.getitem and isinstance(node.args[0], fx.Node) else node
        if not isinstance(call, fx.Node) or not _is_view(call.target) or not isinstance(call.args[0], fx.Node):
            break
        node = call.args[0]
    return node


def _is_view(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.arguments:
        return False
    alias = schema.arguments[0].alias_info
    return alias is not None and not alias.is_write

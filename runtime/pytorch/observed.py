"""What a frame does, seen before it is compiled: its results' memory and strides, what it draws, and keeps for a
backward pass.

Dynamo's graph is run once on fake tensors, and in PyTorch where strides are not row-major. What the arguments of the
first call share is of no matter (see `apart`): later calls come with others.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorConverter, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compiler.graph.legal import draws
from isa.errors import UnsupportedError
from runtime.pytorch.strides import row_major

SMALL = (
    1 << 16
)  # bytes; operators that do not say what they write (native_batch_norm) write statistics, which are small


@dataclass(frozen=True)
class Observed:
    """A frame's arguments and results, after it ran.

    `saved` are the arguments of which autograd keeps the elements themselves, `needed` all that decide what it keeps.
    `strided` are arguments whose memory is taken without regard to their elements, `placed` those where it is counted
    from the start of memory, not from the first element. `draws`: how often it draws random numbers.
    """

    args: tuple[Any, ...]
    results: tuple[Any, ...]
    saved: frozenset[int]
    needed: frozenset[int]
    strided: frozenset[int]
    placed: frozenset[int]
    draws: int


def observe(frame: Callable[..., Any], args: Sequence[Any]) -> Observed:
    """Run a frame in the caller's grad mode. Raises UnsupportedError where that shows what no plan can express."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes = tuple(_fake(mode, arg) if isinstance(arg, Tensor) else arg for arg in args)
    before = [_meta(fake) for fake in fakes]
    watch = _Watch(fakes)
    with mode, watch, _unhooked(fakes, watch.keep):
        results = tuple(frame(*fakes))
    for fake, old in zip(fakes, before, strict=True):
        if _meta(fake) != old:
            raise UnsupportedError(
                "an argument gets another size or other memory", hint="in-place views such as t_() and resize_()"
            )
    for value in results:
        if isinstance(value, Tensor) and not _concrete(value):
            raise UnsupportedError("the size of a result depends on data")
    saved = frozenset(
        watch.saved | watch.strided
    )  # what as_strided reads is a matter of memory: the elements alone would not do
    seen = Observed(
        fakes, results, saved, frozenset(watch.needed), frozenset(watch.strided), frozenset(watch.placed), watch.draws
    )
    changed = [
        isinstance(fake, Tensor) and (fake.is_inference() or fake._version > 0 or n in watch.written)
        for n, fake in enumerate(fakes)
    ]  # or may be
    plain = (
        _plainly_laid((*args, *results))
        and not (watch.turned and any(map(_is_thin, results)))
        and not any(map(_is_empty, results))
    )
    if plain or (any(changed) and torch.is_grad_enabled()):
        return seen
    try:
        own, results = _run_eager(frame, args, changed)
    except Exception:  # what PyTorch refuses of these values the call will refuse
        return seen
    return replace(seen, args=own, results=results)


def apart(args: Sequence[Any]) -> list[Any]:
    """The arguments, those that share memory copied with their strides: whom they share it with is a matter of this
    call."""
    plain = [type(arg) in (Tensor, torch.nn.Parameter) and not arg.is_conj() and not arg.is_neg() for arg in args]
    memories = [memory(arg) if is_plain else None for arg, is_plain in zip(args, plain, strict=True)]
    return [
        _own(arg) if where is not None and memories.count(where) > 1 else arg
        for arg, where in zip(args, memories, strict=True)
    ]


def _own(arg: Tensor) -> Tensor:
    """A copy of as much memory as the argument spans."""
    last = sum(step * (extent - 1) for step, extent in zip(arg.stride(), arg.shape, strict=True)) if arg.numel() else -1
    elements = arg.detach().as_strided((last + 1,), (1,)).clone()
    return elements.as_strided(arg.shape, arg.stride()).requires_grad_(arg.requires_grad)


def _plainly_laid(values: Sequence[Any]) -> bool:
    return all(value.stride() == row_major(value.shape) for value in values if isinstance(value, Tensor))


def _is_thin(value: Any) -> bool:
    """Whether a tensor has dimensions whose strides reach nothing: PyTorch and its fake tensors choose them otherwise
    behind a permutation."""
    return isinstance(value, Tensor) and min(value.shape, default=2) < 2


def _is_empty(value: Any) -> bool:
    return isinstance(value, Tensor) and 0 in value.shape


def _run_eager(
    frame: Callable[..., Any], args: Sequence[Any], changed: Sequence[bool]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Run a frame as it is, on copies of what it changes: fake tensors have other strides than eager's where these are
    not row-major."""
    own = []
    for arg, is_changed in zip(args, changed, strict=True):
        mine = arg.detach() if isinstance(arg, Tensor) else arg
        mine = copy.deepcopy(mine) if is_changed or (isinstance(mine, Tensor) and mine.nbytes <= SMALL) else mine
        own.append(mine.requires_grad_() if _followed(arg) else mine)
    with torch.random.fork_rng(devices=()), _unhooked(own, lambda kept: kept):
        return tuple(own), tuple(frame(*own))


@contextmanager
def _unhooked(args: Sequence[Any], keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass what autograd keeps to `keep`, and the caller's own hooks (of a checkpoint, say) nothing."""
    if not any(map(_followed, args)):
        yield
        return
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
            yield
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        raise UnsupportedError("a gradient inside of what gradients are wanted of") from error


def memory(tensor: Tensor) -> int:
    """Which memory a tensor lies in."""
    return int(tensor.untyped_storage()._cdata)


def _fake(mode: FakeTensorMode, arg: Tensor) -> Tensor:
    """A leaf of autograd like this argument, in memory of its own."""
    mode.fake_tensor_converter = FakeTensorConverter()  # forgets which memory it has met
    fake = mode.from_tensor(arg.detach(), static_shapes=True)
    if not arg.requires_grad:
        return fake
    if not arg.is_inference():
        return fake.requires_grad_()
    if torch.is_grad_enabled():
        raise UnsupportedError("gradients of a tensor that was made in inference mode")
    return fake


def _followed(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class _Watch(TorchDispatchMode):
    """Sees every operator on fake tensors, and what autograd keeps."""

    def __init__(self, fakes: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        found = [(position, fake) for position, fake in enumerate(fakes) if isinstance(fake, Tensor)]
        self.saved: set[int] = set()
        self.needed: set[int] = set()
        self.strided: set[int] = set()
        self.turned = False  # whether a thin tensor was not row-major
        self.placed: set[int] = set()
        self.written: set[int] = set()  # arguments that operators say they write to; not all of these count versions
        self.draws = 0
        self._everything = frozenset(position for position, _ in found)
        self._arguments = {memory(fake): position for position, fake in found}
        self._sources = {memory(fake): frozenset({position}) for position, fake in found}  # of what lies in a memory
        self._alive: list[Any] = []  # or memory would be used again, and be taken for what lay there before

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self._note(function, args, kwargs, result)
        return result

    def _note(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        self._alive.append(result)
        self.draws += draws(function, args, kwargs)
        given, made = _strided((args, kwargs)), _strided(result)
        self.turned = self.turned or any(_is_thin(tensor) and not _plainly_laid([tensor]) for tensor in made)
        sources = frozenset[int]().union(*(self._sources.get(memory(tensor), self._everything) for tensor in given))
        changed = given if function._schema.is_mutable else []
        self.written.update(self._arguments[memory(tensor)] for tensor in changed if memory(tensor) in self._arguments)
        self._sources.update((memory(tensor), sources) for tensor in (*made, *changed))
        if (
            function is torch.ops.aten.as_strided.default
            and (position := self._arguments.get(memory(args[0]))) is not None
        ):
            self.strided.add(position)
            if len(args) > 3 and args[3] is not None:
                self.placed.add(position)

    def keep(self, tensor: Tensor) -> Tensor:
        """Note what autograd keeps."""
        where = memory(tensor) if tensor.layout is torch.strided else 0
        self.needed |= self._sources.get(where, self._everything)
        if where in self._arguments:
            self.saved.add(self._arguments[where])
        return tensor


def _strided(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]


def _concrete(tensor: Tensor) -> bool:
    return all(isinstance(size, int) for size in (*tensor.shape, *tensor.stride()))


def _meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return None
    return value.shape, value.stride(), value.dtype, value.storage_offset(), memory(value)

"""Sums over windows, channel by channel: the part of a map that the windows of a block see is on chip once, and every
tap reads it from another place.

    lda   rows of the map that windows of this block see          (if it lies in DRAM)
    vaff  d = row * weights of a tap + bias                       the first tap
    vaff  d = row * weights of a tap + d                          every other

Windows that reach over a border have fewer taps: an instruction covers the places that have its tap inside the map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compiler.emit.emitter import Emitter, emits
from compiler.reference.windows import Ends, Tap, Window, in_order, windows
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout
from isa.spec import VOP

MOV = {"f": VOP.index("mov")}


@emits("depthwise")
def depthwise(e: Emitter, node: KernelOp) -> None:
    x, weight, bias = node.tensor("x"), node.tensor("weight"), node.optional("bias")
    over = (node.integers(name) for name in ("stride", "dilation", "padding", "places"))
    along = windows(x.shape[1:-1], weight.shape[:-1], *over)
    out, batch, ends = e.result(node), *_block(e, node)
    taps = [(tap, places) for tap in in_order(along) if (places := _places(along, tap, ends)) is not None]
    factors = e.stage(weight, e.storage.resolve(weight), many=True)
    start = e.constant(0) if bias is None else e.stage(bias, e.storage.resolve(bias), many=True)
    if not taps:
        e.emit("vop", node, out.layout.shape, {"d": out}, {"a": start}, MOV)
        return e.finish(node)
    here, complete = _Part.of(e, node, along, batch, ends), False
    for number, (tap, places) in enumerate(taps):
        complete = number == len(taps) - 1 and places == ends
        target = out.narrow([(0, batch[1] - batch[0]), *_relative(places, ends)])
        ins = {"a": here.seen(along, tap, places), "cs": _of_tap(factors, tap)}
        if number == 0:
            for rest in _around(places, ends):
                border = out.narrow([(0, batch[1] - batch[0]), *_relative(rest, ends)]).layout
                e.emit("vop", node, border.shape, {"d": border}, {"a": start}, MOV)
            ins["bi"] = start
        else:
            ins["res"] = target.layout
        e.emit("vaff", node, target.layout.shape, {"d": target if complete else target.layout}, ins)
    if not complete:  # no tap is inside the map for all places: one step more says that the sums are there
        e.emit("vop", node, out.layout.shape, {"d": out}, {"a": out.layout}, MOV)
    e.finish(node)


@dataclass(frozen=True)
class _Part:
    """The part of a map that some windows see, on chip, from the elements `firsts` on."""

    layout: Layout
    firsts: tuple[int, ...]

    @staticmethod
    def of(e: Emitter, node: KernelOp, along: Sequence[Window], batch: Ends, ends: Sequence[Ends]) -> "_Part":
        x = node.tensor("x")
        needed = [
            (max(0, low * w.stride + w.first(0)), min(w.size, (high - 1) * w.stride + w.first(w.taps - 1) + 1))
            for w, (low, high) in zip(along, ends, strict=True)
        ]
        part = e.stage(x, e.storage.resolve(x).narrow([batch, *needed]), any_strides=True)
        return _Part(e.with_columns(part, node), tuple(low for low, _ in needed))

    def seen(self, along: Sequence[Window], tap: Tap, places: Sequence[Ends]) -> Layout:
        """What the windows of these places have at a tap."""
        batch, *steps, column = self.layout.strides
        offset, sizes, strides = self.layout.offset, [], []
        for w, t, (low, high), first, step in zip(along, tap, places, self.firsts, steps, strict=True):
            offset += (low * w.stride + w.first(t) - first) * step
            sizes.append(high - low)
            strides.append(step * w.stride)
        shape = (self.layout.shape[0], *sizes, self.layout.shape[-1])
        return self.layout.seen(offset, shape, (batch, *strides, column))


def _block(e: Emitter, node: KernelOp) -> tuple[Ends, list[Ends]]:
    """The samples and the places of the block."""
    ranges = e.block_ranges(node.shape)
    batch, *places = [*ranges, *((0, size) for size in node.shape[len(ranges) : -1])]
    return batch, places


def _places(along: Sequence[Window], tap: Tap, ends: Sequence[Ends]) -> list[Ends] | None:
    """The places of a block that have a tap inside the map; None if there are none."""
    found = []
    for window, t, (first, end) in zip(along, tap, ends, strict=True):
        low, high = window.inside(t)
        found.append((max(low, first), min(high, end)))
    return found if all(low < high for low, high in found) else None


def _relative(places: Sequence[Ends], ends: Sequence[Ends]) -> list[Ends]:
    return [(low - first, high - first) for (low, high), (first, _) in zip(places, ends, strict=True)]


def _around(places: Sequence[Ends], ends: Sequence[Ends]) -> Iterator[list[Ends]]:
    """What is left of a block without these places, in boxes."""
    for dim, ((low, high), (first, end)) in enumerate(zip(places, ends, strict=True)):
        for rest in ((first, low), (high, end)):
            if rest[0] < rest[1]:
                yield [*places[:dim], rest, *ends[dim + 1 :]]


def _of_tap(factors: Layout, tap: Tap) -> Layout:
    """The weights of a tap, one for each channel."""
    offset = factors.offset + sum(t * step for t, step in zip(tap, factors.strides, strict=False))
    return factors.seen(offset, factors.shape[-1:], factors.strides[-1:])

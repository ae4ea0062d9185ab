"""What windows see: the part of a map that those of a block reach is on chip once, and every tap reads it from another
place. Sums by channel, and the columns of a product:

    lda   rows of the map that windows of this block see          (if it lies in DRAM)
    vaff  d = row * weights of a tap + bias                       the first tap
    vaff  d = row * weights of a tap + d                          every other
    vop   d = row                                                 or, beside each other, the taps of a row of windows

Windows that reach over a border have fewer taps: an instruction covers the places that have its tap inside the map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from compiler.emit.emitter import Emitter, emits
from compiler.reference.windows import Ends, Tap, Window, in_order, windows
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout
from isa.architecture import Space
from isa.spec import VOP

MOV = {"f": VOP.index("mov")}


@emits("depthwise")
def depthwise(e: Emitter, node: KernelOp) -> None:
    """Where no tap is inside the map for all places, one step more says that the sums are there."""
    along, out, (batch, ends) = _along(node, node.tensor("weight").shape[:-1]), e.result(node), _block(e, node)
    bias = node.optional("bias")
    start = e.constant(0) if bias is None else e.stage(bias, e.storage.resolve(bias), many=True)
    taps = [(tap, places) for tap in in_order(along) if (places := _places(along, tap, ends)) is not None]
    complete = bool(taps) and taps[-1][1] == ends
    for number, (tap, target, ins) in enumerate(_terms(e, node, out.layout, taps)):
        if number == 0:
            for rest in _around(taps[0][1], ends):
                border = out.layout.narrow(_from(rest, batch, ends))
                e.emit("vop", node, border.shape, {"d": border}, {"a": start}, MOV)
        ins |= {"res": target} if number else {"bi": start}
        last = complete and tap == taps[-1][0]
        e.emit("vaff", node, target.shape, {"d": out if last else target}, ins)
    if not complete:
        e.emit("vop", node, out.layout.shape, {"d": out}, {"a": out.layout if taps else start}, MOV)
    e.finish(node)


def _terms(
    e: Emitter, node: KernelOp, out: Layout, taps: Sequence[tuple[Tap, list[Ends]]]
) -> Iterator[tuple[Tap, Layout, dict[str, Layout | None]]]:
    """For each tap, the places of a block that have it inside the map, and what is multiplied for them."""
    if not taps:
        return
    along, (batch, ends) = _along(node, node.tensor("weight").shape[:-1]), _block(e, node)
    weight = node.tensor("weight")
    factors = e.stage(weight, e.storage.resolve(weight), many=True)
    here = _Part.of(e, node, along, batch, ends)
    for tap, places in taps:
        terms: dict[str, Layout | None] = {"a": here.seen(along, tap, places), "cs": _of_tap(factors, tap)}
        yield tap, out.narrow(_from(places, batch, ends)), terms


@emits("im2col")
def im2col(e: Emitter, node: KernelOp) -> None:
    """The taps of the last dimension lie side by side in the map as in the result: one instruction moves all of them."""
    along, channels = _along(node, node.integers("taps")), node.tensor("x").shape[-1]
    out, (batch, ends) = e.result(node), _block(e, node)
    here = _Part.bordered(e, node, along, batch, ends)
    together = along[-1].taps if here.is_dense(along) else 1
    for number, tap in enumerate(product(*(range(window.taps) for window in along))):
        if number % together:
            continue
        seen = here.seen(along, tap, ends)
        source = seen.seen(seen.offset, (*seen.shape[:-1], together * channels), seen.strides)
        target = out.columns(number * channels, (number + together) * channels)
        e.emit("vop", node, target.layout.shape, {"d": target}, {"a": source}, MOV)
    e.finish(node)


def _along(node: KernelOp, taps: Sequence[int]) -> list[Window]:
    over = (node.integers(name) for name in ("stride", "dilation", "padding", "places"))
    return windows(node.tensor("x").shape[1:-1], taps, *over)


@dataclass(frozen=True)
class _Part:
    """The part of a map that some windows see, on chip, from the elements `firsts` on."""

    layout: Layout
    firsts: tuple[int, ...]

    @staticmethod
    def of(e: Emitter, node: KernelOp, along: Sequence[Window], batch: Ends, ends: Sequence[Ends]) -> "_Part":
        """What lies inside the map."""
        x, inside = node.tensor("x"), _inside(along, _reached(along, ends))
        part = e.stage(x, e.storage.resolve(x).narrow([batch, *inside]), any_strides=True)
        return _Part(e.with_columns(part, node), tuple(low for low, _ in inside))

    @staticmethod
    def bordered(e: Emitter, node: KernelOp, along: Sequence[Window], batch: Ends, ends: Sequence[Ends]) -> "_Part":
        """With zeros outside of the map."""
        x, reached = node.tensor("x"), _reached(along, ends)
        inside = _inside(along, reached)
        if inside == reached:
            return _Part.of(e, node, along, batch, ends)
        sizes = [high - low for low, high in (batch, *reached)]
        whole = e.temp([*sizes, x.shape[-1]], x.dtype, node.name + ".map")
        for rest in _around(inside, reached):
            border = whole.narrow(_from(rest, batch, reached))
            e.emit("vop", node, border.shape, {"d": border}, {"a": e.constant(0)}, MOV)
        if all(low < high for low, high in inside):
            target = whole.narrow(_from(inside, batch, reached))
            source = e.storage.resolve(x).narrow([batch, *inside])
            if source.buffer.space is Space.DRAM and source.has_columns:
                e.copy("lda", target, source, x.base.name)
            else:
                part = e.stage(x, source, any_strides=True)
                e.emit("vop", node, target.shape, {"d": target}, {"a": part}, MOV)
        return _Part(whole, tuple(low for low, _ in reached))

    def is_dense(self, along: Sequence[Window]) -> bool:
        """Whether the taps of the last dimension lie side by side."""
        return along[-1].dilation == 1 and self.layout.strides[-2:] == (self.layout.shape[-1], 1)

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
    ends = [*ranges, *((0, size) for size in node.shape[len(ranges) : -1])]
    return ends[0], ends[1:]


def _places(along: Sequence[Window], tap: Tap, ends: Sequence[Ends]) -> list[Ends] | None:
    """The places of a block that have a tap inside the map; None if there are none."""
    found = []
    for window, t, (first, end) in zip(along, tap, ends, strict=True):
        low, high = window.inside(t)
        found.append((max(low, first), min(high, end)))
    return found if all(low < high for low, high in found) else None


def _reached(along: Sequence[Window], ends: Sequence[Ends]) -> list[Ends]:
    """The elements that the windows of these places reach, those outside of the map too."""
    return [
        (low * w.stride + w.first(0), (high - 1) * w.stride + w.first(w.taps - 1) + 1)
        for w, (low, high) in zip(along, ends, strict=True)
    ]


def _inside(along: Sequence[Window], reached: Sequence[Ends]) -> list[Ends]:
    """Those of the map."""
    found = []
    for window, (low, high) in zip(along, reached, strict=True):
        first = min(max(0, low), window.size)
        found.append((first, max(first, min(high, window.size))))
    return found


def _from(places: Sequence[Ends], batch: Ends, ends: Sequence[Ends]) -> list[Ends]:
    """Where these places are in what has a batch, and those from `ends` on."""
    inner = [(low - first, high - first) for (low, high), (first, _) in zip(places, ends, strict=True)]
    return [(0, batch[1] - batch[0]), *inner]


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

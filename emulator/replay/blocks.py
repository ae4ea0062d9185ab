"""Blocks of exact int8 dot products in LLVM's own language, and by which instructions.

`dot_block(rows)` keeps rows x some columns of int32 sums in registers while k goes by in steps of four bytes (a quad).
Each step adds four products of unsigned by signed bytes to each int32 without saturating, so the sum is exact modulo
2**32, whatever the order.

    vpdpbusd    four products and three sums at once; rows are bytes as they are
    vpmaddwd    int16: of each quad of weights the even and the odd bytes, two products and their sum each, at most
                2 * 255 * 128; rows are int16, in each quad the even elements before the odd ones (`widen`)
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

COLUMNS: Final = 32  # of a panel of weights
QUAD: Final = 4
CHOICE: Final = "LLMCHIP_KERNEL"

_I16, _I32, _I64, _BYTE, _FLOAT = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.IntType(8), ir.FloatType()
_SHUFFLED: Final = 16  # elements that `widen` takes at a time
_ODD_LAST: Final = [start + i for start in range(0, _SHUFFLED, QUAD) for i in (0, 2, 1, 3)]
Sums = list[list[Any]]  # a vector for each row and part


@dataclass(frozen=True)
class Kernel:
    """How dot products are computed: int32 `lanes` of a vector, `rows` of the largest block, vectors of sums that stay
    in registers, bytes of an element of a row."""

    name: str
    features: tuple[str, ...]
    lanes: int
    rows: int
    sums: int
    width: int
    dot: Callable[[Any, Any, Sums, Sequence[Any], Sequence[Any]], Sums]  # builder, vector, sums, weights, quads

    def stretches(self, rows: int) -> Iterator[range]:
        """Which vectors of columns a block of so many rows does at once."""
        count = COLUMNS // self.lanes
        parts = max(parts for parts in (1, 2, 4) if parts <= count and parts * rows <= self.sums)
        for first in range(0, count, parts):
            yield range(first, first + parts)


def _vpdpbusd(b: Any, vector: Any, sums: Sums, weights: Sequence[Any], quads: Sequence[Any]) -> Sums:
    name = f"llvm.x86.avx512.vpdpbusd.{32 * vector.count}"
    dot = b.module.declare_intrinsic(name, (), ir.FunctionType(vector, (vector, vector, vector)))
    results = []
    for row, address in zip(sums, quads, strict=True):
        quad = splat(b, load(b, address, _I32, 1), vector)
        results.append([b.call(dot, (old, w, quad)) for old, w in zip(row, weights, strict=True)])
    return results


def _vpmaddwd(b: Any, vector: Any, sums: Sums, weights: Sequence[Any], quads: Sequence[Any]) -> Sums:
    short = ir.VectorType(_I16, 2 * vector.count)
    pairs = b.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(vector, (short, short)))
    eight, low = (ir.Constant(short, [value] * short.count) for value in (8, 0xFF))
    both = [b.bitcast(weight, short) for weight in weights]
    halves = [b.and_(x, low) for x in both], [b.lshr(x, eight) for x in both]
    for number, half in enumerate(halves):  # not row by row: fewer values are alive at a time
        results = []
        for row, address in zip(sums, quads, strict=True):
            pair = b.bitcast(splat(b, load(b, b.add(address, _I64(4 * number)), _I32, 1), vector), short)
            results.append([b.add(old, b.call(pairs, (w, pair))) for old, w in zip(row, half, strict=True)])
        sums = results
    return sums


KERNELS: Final = (
    Kernel("avx512vnni", ("avx512vnni", "avx512f", "avx512bw"), 16, 8, 16, 1, _vpdpbusd),
    Kernel("avxvnni", ("avxvnni", "avx2"), 8, 6, 12, 1, _vpdpbusd),
    Kernel("avx2", ("avx2",), 8, 4, 8, 2, _vpmaddwd),
)


def choose(features: Mapping[str, bool], forced: str = "") -> Kernel | None:
    """The first kernel for which a processor with these features has the instructions; of `forced` name if it is given.

    Raises ValueError for a name that is none, or whose instructions are missing.
    """
    able = [kernel for kernel in KERNELS if all(features.get(name) for name in kernel.features)]
    if not forced:
        return able[0] if able else None
    if found := [kernel for kernel in able if kernel.name == forced]:
        return found[0]
    known = ", ".join(kernel.name for kernel in able) or "none"
    raise ValueError(f"{CHOICE}={forced}: this processor can run {known}")


KERNEL: Final = choose(llvm.get_host_cpu_features(), os.environ.get(CHOICE, ""))


def dot_block(rows: int, kernel: Kernel | None = KERNEL) -> Callable[..., None]:
    """(a, lda, w, quads, c, ldc, start, accumulate): c[rows, 32] = start + a @ w, addresses and strides in bytes.

    a holds rows as `kernel` wants them; w is packed as (k/4, 32, 4) unsigned bytes; start is one int32 per row.
    """

    @intrinsic
    def block(
        typingctx: Any, a: Any, lda: Any, w: Any, quads: Any, c: Any, ldc: Any, start: Any, accumulate: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            assert kernel is not None, "compiled on a processor without a kernel"
            a, lda, w, quads, c, ldc, start, accumulate = args
            adds = builder.icmp_signed("!=", accumulate, _I64(0))
            for parts in kernel.stretches(rows):
                results = _sums(builder, kernel, rows, parts, a, lda, w, quads, start)
                for row in range(rows):
                    target = builder.add(c, builder.mul(ldc, _I64(row)))
                    for part, result in zip(parts, results[row], strict=True):
                        _finish(builder, builder.add(target, _I64(4 * kernel.lanes * part)), result, adds)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * 8), codegen

    return block  # type: ignore[no-any-return]


def _sums(b: Any, kernel: Kernel, rows: int, parts: range, a: Any, lda: Any, w: Any, quads: Any, start: Any) -> Sums:
    """One register block: these rows by these vectors of columns."""
    vector = ir.VectorType(_I32, kernel.lanes)
    bases = [b.add(a, b.mul(lda, _I64(row))) for row in range(rows)]
    first = [splat(b, load(b, b.add(start, _I64(4 * row)), _I32, 4), vector) for row in range(rows)]
    before = b.basic_block
    body, after = b.append_basic_block("dot"), b.append_basic_block("dot.end")
    b.branch(body)

    b.position_at_end(body)
    index = b.phi(_I64)
    sums = [[b.phi(vector) for _ in parts] for _ in range(rows)]
    panel = b.add(w, b.mul(index, _I64(QUAD * COLUMNS)))
    offset = b.mul(index, _I64(QUAD * kernel.width))
    following = b.add(index, _I64(1))
    index.add_incoming(_I64(0), before)
    index.add_incoming(following, body)
    weights = [load(b, b.add(panel, _I64(4 * kernel.lanes * part)), vector, 4) for part in parts]
    results = kernel.dot(b, vector, sums, weights, [b.add(base, offset) for base in bases])
    for row in range(rows):
        for old, new in zip(sums[row], results[row], strict=True):
            old.add_incoming(first[row], before)
            old.add_incoming(new, body)
    b.cbranch(b.icmp_signed("<", following, quads), body, after)
    b.position_at_end(after)
    return results


def _finish(b: Any, address: Any, value: Any, adds: Any) -> None:
    """Store, or add to what is there; memory that is not added to is not read either."""
    place = b.inttoptr(address, value.type.as_pointer())
    with b.if_else(adds) as (then, otherwise):
        with then:
            b.store(b.add(b.load(place, align=4), value), place, align=4)
        with otherwise:
            b.store(value, place, align=4)


@intrinsic
def widen(typingctx: Any, source: Any, target: Any) -> Any:
    """16 signed bytes as int16; in each quad the odd elements come last."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = builder.sext(load(builder, args[0], ir.VectorType(_BYTE, _SHUFFLED), 1), ir.VectorType(_I16, _SHUFFLED))
        order = ir.Constant(ir.VectorType(_I32, _SHUFFLED), _ODD_LAST)
        mixed = builder.shuffle_vector(wide, ir.Constant(wide.type, ir.Undefined), order)
        builder.store(mixed, builder.inttoptr(args[1], wide.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


def grouped_block(rows: int, kernel: Kernel | None = KERNEL) -> Callable[..., None]:
    """(a, lda, w, quads, groups, each, start, scales, units, stride, pre, minima, c, ldc): add to c[rows, 32] float32 what
    each group comes to, addresses and strides in bytes.

    A group is `quads` of a, and `each` bytes of w: packed codes, 32 scales, and with `minima` 32 of what is added per unit;
    start (int32), scales and units (float32) are one per row, `stride` bytes from group to group.
    """

    @intrinsic
    def block(
        typingctx: Any, a: Any, lda: Any, w: Any, quads: Any, groups: Any, each: Any, start: Any, scales: Any,
        units: Any, stride: Any, pre: Any, minima: Any, c: Any, ldc: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            assert kernel is not None, "compiled on a processor without a kernel"
            a, lda, w, quads, groups, each, start, scales, units, stride, pre, minima, c, ldc = args
            before = b.basic_block
            body, after = b.append_basic_block("group"), b.append_basic_block("group.end")
            b.branch(body)
            b.position_at_end(body)
            g = b.phi(_I64)
            g.add_incoming(_I64(0), before)
            left = b.add(a, b.mul(b.mul(g, quads), _I64(QUAD * kernel.width)))
            right, moved = b.add(w, b.mul(g, each)), b.mul(g, stride)
            behind = b.add(right, b.mul(quads, _I64(QUAD * COLUMNS)))
            for parts in kernel.stretches(rows):
                sums = _sums(b, kernel, rows, parts, left, lda, right, quads, b.add(start, moved))
                floats = b.add(scales, moved), b.add(units, moved)
                for is_pre, has_minima in _each_way(b, pre, minima):
                    for row in range(rows):
                        own, unit = (load(b, b.add(x, _I64(4 * row)), _FLOAT, 4) for x in floats)
                        target = b.add(c, b.mul(ldc, _I64(row)))
                        for part, total in zip(parts, sums[row], strict=True):
                            at = _I64(4 * kernel.lanes * part)
                            _scale(b, total, b.add(behind, at), b.add(target, at), own, unit, is_pre, has_minima)
            following = b.add(g, _I64(1))
            g.add_incoming(following, b.basic_block)
            b.cbranch(b.icmp_signed("<", following, groups), body, after)
            b.position_at_end(after)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * 14), codegen

    return block  # type: ignore[no-any-return]


def _each_way(b: Any, *flags: Any) -> Iterator[tuple[bool, ...]]:
    """Code that follows is emitted once for each value of some flags, and branched to by them."""
    if not flags:
        yield ()
        return
    with b.if_else(b.icmp_signed("!=", flags[0], _I64(0))) as branches:
        for value, branch in zip((True, False), branches, strict=True):
            with branch:
                for rest in _each_way(b, *flags[1:]):
                    yield value, *rest


def _scale(b: Any, sums: Any, scales: Any, target: Any, scale: Any, unit: Any, pre: bool, minima: bool) -> None:
    """A vector of columns of one row and group, in the order of the manual; every operation rounds."""
    vector = ir.VectorType(_FLOAT, sums.type.count)
    own, t = splat(b, scale, vector), b.sitofp(sums, vector)
    column = load(b, scales, vector, 4)
    t = b.fmul(b.fmul(t, column), own) if pre else b.fmul(t, b.fmul(column, own))
    if minima:
        low = load(b, b.add(scales, _I64(4 * COLUMNS)), vector, 4)
        t = b.fadd(t, b.fmul(low, splat(b, unit, vector)))
    place = b.inttoptr(target, vector.as_pointer())
    b.store(b.fadd(b.load(place, align=4), t), place, align=4)


def load(b: Any, address: Any, kind: Any, align: int) -> Any:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def splat(b: Any, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = b.insert_element(undefined, value, _I32(0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))

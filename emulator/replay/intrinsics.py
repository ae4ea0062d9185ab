"""What numba cannot say itself: raw addresses, bits of a float, and a block of int8 dot products.

`dot_block(rows)` emits register blocks in LLVM's own language: rows x 32 int32 accumulators that stay in registers
while k goes by in steps of four bytes. Each step adds four products of unsigned by signed bytes to each int32 without
saturating, so the sum is exact modulo 2**32, whatever the order. `KERNEL` says with which instructions, by what the
processor has:

    AVX-512 VNNI   vpdpbusd: four products and three sums at once
    AVX2           vpmaddwd on the even and on the odd bytes, widened to int16: two products and their sum, at most 2 *
    255 * 128
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

COLUMNS: Final = 32  # of one register block

_I16, _I32, _I64, _BYTE, _FLOAT = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.IntType(8), ir.FloatType()


@dataclass(frozen=True)
class Kernel:
    """How dot products are computed: int32 lanes of a vector, and rows of one register block (its sums have to stay in
    registers)."""

    name: str
    features: tuple[str, ...]
    lanes: int
    rows: int


KERNELS: Final = (
    Kernel("avx512vnni", ("avx512vnni", "avx512f", "avx512bw"), lanes=16, rows=8),
    Kernel("avx2", ("avx2",), lanes=8, rows=2),
)


def choose(features: Mapping[str, bool]) -> Kernel | None:
    """The first kernel for which a processor with these features has the instructions."""
    return next((kernel for kernel in KERNELS if all(features.get(name) for name in kernel.features)), None)


KERNEL: Final = choose(llvm.get_host_cpu_features())


@intrinsic
def float_of(typingctx: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _FLOAT)

    return types.float32(types.int32), codegen


@intrinsic
def bits_of(typingctx: Any, value: Any) -> Any:
    """The bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _I32)

    return types.int32(types.float32), codegen


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """An address as a pointer that `carray` takes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


def dot_block(rows: int) -> Callable[..., None]:
    """(a, lda, w, quads, c, ldc, start, accumulate): c[rows, 32] = start + a @ w, addresses and strides in bytes.

    a holds signed bytes, four of k side by side; w is packed as (k/4, 32, 4) unsigned bytes; start is one int32 per
    row.
    """

    @intrinsic
    def block(
        typingctx: Any, a: Any, lda: Any, w: Any, quads: Any, c: Any, ldc: Any, start: Any, accumulate: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            assert KERNEL is not None, "compiled on a processor without a kernel"
            for first in range(0, rows, KERNEL.rows):
                _emit_block(builder, KERNEL, range(first, min(first + KERNEL.rows, rows)), *args)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * 8), codegen

    return block  # type: ignore[no-any-return]


@intrinsic
def dot32(typingctx: Any, x: Any, y: Any) -> Any:
    """The exact product of 32 signed bytes at one address by those at another."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow, short = ir.VectorType(_BYTE, 32), ir.VectorType(_I16, 32)
        half, sums = ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
        pairs = builder.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(sums, (half, half)))
        a, b = (builder.sext(_load(builder, address, narrow, 1), short) for address in args)
        first, second = (
            builder.call(pairs, [_stretch(builder, vector, start, 16) for vector in (a, b)]) for start in (0, 16)
        )
        return _sum_of(builder, builder.add(first, second))

    return types.int32(types.int64, types.int64), codegen


@intrinsic
def fold16(typingctx: Any, x: Any, y: Any, code: Any, lanes: Any) -> Any:
    """Add code times the products of 16 signed bytes to eight int32, element i to number i mod 8."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow, wide, eight = ir.VectorType(_BYTE, 16), ir.VectorType(_I32, 16), ir.VectorType(_I32, 8)
        a, b = (builder.sext(_load(builder, address, narrow, 1), wide) for address in args[:2])
        products = builder.mul(a, b)
        folded = builder.add(*(_stretch(builder, products, start, 8) for start in (0, 8)))
        scaled = builder.mul(folded, _splat(builder, args[2], eight))
        place = builder.inttoptr(args[3], eight.as_pointer())
        builder.store(builder.add(builder.load(place, align=4), scaled), place, align=4)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int32, types.int64), codegen


def _stretch(b: Any, vector: Any, start: int, count: int) -> Any:
    """Elements [start, start + count)."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    return b.shuffle_vector(
        vector, undefined, ir.Constant(ir.VectorType(_I32, count), list(range(start, start + count)))
    )


def _sum_of(b: Any, vector: Any) -> Any:
    while vector.type.count > 1:
        half = vector.type.count // 2
        vector = b.add(_stretch(b, vector, 0, half), _stretch(b, vector, half, half))
    return b.extract_element(vector, _I32(0))


def _emit_block(
    b: Any,
    kernel: Kernel,
    rows: range,
    a: Any,
    lda: Any,
    w: Any,
    quads: Any,
    c: Any,
    ldc: Any,
    start: Any,
    accumulate: Any,
) -> None:
    """One register block: these rows by 32 columns."""
    vector, parts = ir.VectorType(_I32, kernel.lanes), range(COLUMNS // kernel.lanes)
    products = _vnni if kernel.name == "avx512vnni" else _widened
    before = b.basic_block
    body, after = b.append_basic_block("dot"), b.append_basic_block("dot.end")
    bases = [b.add(a, b.mul(lda, _I64(row))) for row in rows]
    first = [_splat(b, _load(b, b.add(start, _I64(4 * row)), _I32, 4), vector) for row in rows]
    b.branch(body)

    b.position_at_end(body)
    index = b.phi(_I64)
    sums = [[b.phi(vector) for _ in parts] for _ in rows]
    panel = b.add(w, b.shl(index, _I64(7)))
    offset = b.shl(index, _I64(2))
    following = b.add(index, _I64(1))
    index.add_incoming(_I64(0), before)
    index.add_incoming(following, body)
    quad = [_splat(b, _load(b, b.add(base, offset), _I32, 1), vector) for base in bases]
    weights = [_load(b, b.add(panel, _I64(4 * kernel.lanes * part)), vector, 4) for part in parts]
    results = products(b, vector, sums, weights, quad)
    for row, _ in enumerate(rows):
        for part in parts:
            sums[row][part].add_incoming(first[row], before)
            sums[row][part].add_incoming(results[row][part], body)
    b.cbranch(b.icmp_signed("<", following, quads), body, after)

    b.position_at_end(after)
    adds = b.icmp_signed("!=", accumulate, _I64(0))
    for row, number in enumerate(rows):
        target = b.add(c, b.mul(ldc, _I64(number)))
        for part in parts:
            _finish(b, b.add(target, _I64(4 * kernel.lanes * part)), results[row][part], adds, vector)


def _vnni(b: Any, vector: Any, sums: Any, weights: Any, quads: Any) -> list[list[Any]]:
    """sums[row][part] + weights[part] . quads[row], four products at once."""
    dot = b.module.declare_intrinsic(
        "llvm.x86.avx512.vpdpbusd.512", (), ir.FunctionType(vector, (vector, vector, vector))
    )
    return [
        [b.call(dot, (old, w, quad)) for old, w in zip(row, weights, strict=True)]
        for row, quad in zip(sums, quads, strict=True)
    ]


def _widened(b: Any, vector: Any, sums: Any, weights: Any, quads: Any) -> list[list[Any]]:
    """The same by int16: weights are unsigned bytes, rows signed ones. No instruction here saturates."""
    short = ir.VectorType(_I16, 2 * vector.count)
    pairs = b.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(vector, (short, short)))
    eight, low = (ir.Constant(short, [value] * short.count) for value in (8, 0xFF))
    signed = []
    for quad in quads:
        x = b.bitcast(quad, short)
        signed.append((b.ashr(b.shl(x, eight), eight), b.ashr(x, eight)))
    results: list[list[Any]] = [[] for _ in sums]
    for part, weight in enumerate(weights):
        x = b.bitcast(weight, short)
        even, odd = b.and_(x, low), b.lshr(x, eight)
        for row, (row_even, row_odd) in enumerate(signed):
            both = b.add(b.call(pairs, (even, row_even)), b.call(pairs, (odd, row_odd)))
            results[row].append(b.add(sums[row][part], both))
    return results


def _finish(b: Any, address: Any, value: Any, adds: Any, vector: Any) -> None:
    """Store, or add to what is there; memory that is not added to is not read either."""
    place = b.inttoptr(address, vector.as_pointer())
    with b.if_else(adds) as (then, otherwise):
        with then:
            b.store(b.add(b.load(place, align=4), value), place, align=4)
        with otherwise:
            b.store(value, place, align=4)


def _load(b: Any, address: Any, kind: Any, align: int) -> Any:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def _splat(b: Any, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = b.insert_element(undefined, value, _I32(0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))


@intrinsic
def float_of_half(typingctx: Any, bits: Any) -> Any:
    """The float32 that a float16 with these bits stands for."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), _FLOAT)

    return types.float32(types.int16), codegen


@intrinsic
def half_of_float(typingctx: Any, value: Any) -> Any:
    """Bits of the nearest float16."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), codegen


@intrinsic
def arrive(typingctx: Any, count: Any) -> Any:
    """Add 1 to the counter at an address, as one indivisible step; gives what it was."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _I64.as_pointer()), _I64(1), "seq_cst")

    return types.int64(types.int64), codegen


@intrinsic
def look(typingctx: Any, address: Any) -> Any:
    """The counter at an address, with everything that was written before it was set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(args[0], _I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def give_way(typingctx: Any) -> Any:
    """Let another thread have the processor (sched_yield)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = ir.FunctionType(_I32, ())
        found = builder.module.globals.get("sched_yield") or ir.Function(builder.module, function, "sched_yield")
        builder.call(found, ())
        return context.get_dummy_value()

    return types.none(), codegen

"""What numba cannot say itself: raw addresses, bits of a float, and a block of int8 dot products.

`dot_block(rows)` emits one register block in LLVM's own language: rows x 32 int32 accumulators that stay in registers while k
goes by in steps of four bytes. The instruction (vpdpbusd) adds four products of unsigned by signed bytes to each int32 without
saturating, so the sum is exact modulo 2**32, whatever the order.
"""

from collections.abc import Callable
from typing import Any, Final

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES: Final = 16
COLUMNS: Final = 2 * LANES  # of one register block

_I32, _I64, _BYTE, _FLOAT = ir.IntType(32), ir.IntType(64), ir.IntType(8), ir.FloatType()
_VECTOR = ir.VectorType(_I32, LANES)


def has_dot_product() -> bool:
    """Whether this processor has the instruction."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512f") and features.get("avx512bw"))


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

    a holds signed bytes, four of k side by side; w is packed as (k/4, 32, 4) unsigned bytes; start is one int32 per row.
    """

    @intrinsic
    def block(typingctx: Any, a: Any, lda: Any, w: Any, quads: Any, c: Any, ldc: Any, start: Any, accumulate: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit_block(builder, rows, *args)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * 8), codegen

    return block  # type: ignore[no-any-return]


def _emit_block(b: Any, rows: int, a: Any, lda: Any, w: Any, quads: Any, c: Any, ldc: Any, start: Any, accumulate: Any) -> None:
    dot = b.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), ir.FunctionType(_VECTOR, (_VECTOR, _VECTOR, _VECTOR)))
    before = b.basic_block
    body, after = b.append_basic_block("dot"), b.append_basic_block("dot.end")
    bases = [b.add(a, b.mul(lda, _I64(row))) for row in range(rows)]
    first = [[_splat(b, _load(b, b.add(start, _I64(4 * row)), _I32, 4))] * 2 for row in range(rows)]
    b.branch(body)

    b.position_at_end(body)
    index = b.phi(_I64)
    sums = [[b.phi(_VECTOR) for _ in range(2)] for _ in range(rows)]
    panel = b.add(w, b.shl(index, _I64(7)))
    weights = [_load(b, panel, _VECTOR, 4), _load(b, b.add(panel, _I64(64)), _VECTOR, 4)]
    offset = b.shl(index, _I64(2))
    following = b.add(index, _I64(1))
    index.add_incoming(_I64(0), before)
    index.add_incoming(following, body)
    results = []
    for row in range(rows):
        quad = _splat(b, _load(b, b.add(bases[row], offset), _I32, 1))
        results.append([b.call(dot, (sums[row][half], weights[half], quad)) for half in range(2)])
        for half in range(2):
            sums[row][half].add_incoming(first[row][half], before)
            sums[row][half].add_incoming(results[row][half], body)
    b.cbranch(b.icmp_signed("<", following, quads), body, after)

    b.position_at_end(after)
    adds = b.icmp_signed("!=", accumulate, _I64(0))
    for row in range(rows):
        target = b.add(c, b.mul(ldc, _I64(row)))
        for half in range(2):
            _finish(b, b.add(target, _I64(64 * half)), results[row][half], adds)


def _finish(b: Any, address: Any, value: Any, adds: Any) -> None:
    """Store, or add to what is there; memory that is not added to is not read either."""
    place = b.inttoptr(address, _VECTOR.as_pointer())
    with b.if_else(adds) as (then, otherwise):
        with then:
            b.store(b.add(b.load(place, align=4), value), place, align=4)
        with otherwise:
            b.store(value, place, align=4)


def _load(b: Any, address: Any, kind: Any, align: int) -> Any:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def _splat(b: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = b.insert_element(undefined, value, _I32(0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


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

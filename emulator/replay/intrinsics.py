"""What numba cannot say itself: raw addresses, bits of a float, small products, and how threads meet."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from emulator.replay.blocks import load, splat

_I16, _I32, _I64, _BYTE, _FLOAT = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.IntType(8), ir.FloatType()


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


@intrinsic
def dot32(typingctx: Any, x: Any, y: Any) -> Any:
    """The exact product of 32 signed bytes at one address by those at another."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow, short = ir.VectorType(_BYTE, 32), ir.VectorType(_I16, 32)
        half, sums = ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
        pairs = builder.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(sums, (half, half)))
        a, b = (builder.sext(load(builder, address, narrow, 1), short) for address in args)
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
        a, b = (builder.sext(load(builder, address, narrow, 1), wide) for address in args[:2])
        products = builder.mul(a, b)
        folded = builder.add(*(_stretch(builder, products, start, 8) for start in (0, 8)))
        scaled = builder.mul(folded, splat(builder, args[2], eight))
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

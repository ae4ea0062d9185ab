"""Hand-worked vectors: one word at a time on the values where implementations go wrong."""

import numpy as np
import pytest
from emulator_harness import INF, NAN, Array, Program, bits, f32, same_bits

from emulator import machine
from emulator.context import HANDLERS
from isa.architecture import Dtype, Space
from isa.errors import Trap
from isa.spec import ACT, ISA, MM_FORMAT, ROUND, TAP, VOP, VRED

I8, I32, F32, BF16, F16 = Dtype.I8, Dtype.I32, Dtype.F32, Dtype.BF16, Dtype.F16
SUB = 2.0**-149  # smallest subnormal
BIG = 2**31 - 1


def test_every_instruction_has_one_handler() -> None:
    """Breaks when the table gains a row without a handler or the other way round."""
    assert machine.ENGINE_MODULES and set(HANDLERS) == set(ISA)


def elementwise(
    f: str, a: Array, ta: Dtype, b: Array | None, tb: Dtype, td: Dtype, imm: int = 0, d: Array | None = None
) -> Array:
    p = Program()
    va = p.source(a, ta)
    vb = p.source(b, tb) if b is not None else 0
    vd = p.target(td, len(a))
    if d is not None:
        p.word("vop", f=VOP.index("mov"), d=vd, a=p.source(d, td), rows=1, cols=len(a))
    p.word("vop", f=VOP.index(f), d=vd, a=va, b=vb, rows=1, cols=len(a), imm=imm)
    result: Array = p.run().read(vd)[0]
    return result


FLOAT_CASES = [
    ("add", [1.0, -0.0, SUB, INF, 16777216.0], [2.0**-24, -0.0, SUB, -INF, 1.0], [1.0, -0.0, 2 * SUB, NAN, 16777216.0]),
    ("sub", [0.0, 1.0, INF, 1.17549435e-38], [0.0, NAN, 1.0, SUB], [0.0, NAN, INF, 1.1754942e-38]),
    ("mul", [-0.0, 1e30, 1e-30, 3.0, INF], [1.0, 1e30, 1e-15, -0.0, 0.0], [-0.0, INF, 1e-45, -0.0, NAN]),
    ("div", [1.0, -1.0, 0.0, 1.0, 6.0], [0.0, 0.0, 0.0, 3.0, -4.0], [INF, -INF, NAN, 0.33333334, -1.5]),
    ("max", [-0.0, -0.0, NAN, 1.0, 2.0, -INF], [-0.0, 0.0, 1.0, NAN, 3.0, 5.0], [0.0, 0.0, NAN, NAN, 3.0, 5.0]),
    ("min", [-0.0, 0.0, NAN, 1.0, 2.0, INF], [-0.0, -0.0, 1.0, NAN, 3.0, 5.0], [0.0, 0.0, NAN, NAN, 2.0, 5.0]),
    ("eq", [0.0, NAN, 1.0], [-0.0, NAN, 2.0], [1.0, 0.0, 0.0]),
    ("ne", [0.0, NAN, 1.0], [-0.0, NAN, 2.0], [0.0, 1.0, 1.0]),
    ("lt", [-0.0, NAN, 1.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]),
    ("le", [-0.0, NAN, 3.0], [0.0, 1.0, 2.0], [1.0, 0.0, 0.0]),
    ("mov", [-0.0, SUB, INF], [0.0, 0.0, 0.0], [-0.0, SUB, INF]),
]


@pytest.mark.parametrize(("f", "a", "b", "want"), FLOAT_CASES)
def test_float_elementwise(f: str, a: list[float], b: list[float], want: list[float]) -> None:
    """Breaks on flushed subnormals, a wrong sign of zero, or NaN that does not propagate."""
    assert same_bits(elementwise(f, f32(*a), F32, f32(*b), F32, F32), f32(*want))


INT_CASES = [
    ("add", I32, [BIG, -(2**31), 5], [1, -1, -7], I32, [-(2**31), BIG, -2]),
    ("sub", I32, [-(2**31), 0], [1, 5], I32, [BIG, -5]),
    ("mul", I32, [65536, BIG, -3], [65536, 2, 7], I32, [0, -2, -21]),
    ("add", I8, [127, -128, 1], [1, -1, 1], I8, [-128, 127, 2]),
    ("mul", I8, [-128, 127], [-128, 127], I32, [16384, 16129]),
    ("max", I8, [-128, 3], [127, -3], I8, [127, 3]),
    ("min", I32, [-1, 3], [0, -3], I32, [-1, -3]),
    ("and", I32, [-1, 12], [255, 10], I32, [255, 8]),
    ("or", I32, [8, 12], [1, 10], I32, [9, 14]),
    ("xor", I8, [-1, 12], [1, 10], I8, [-2, 6]),
    ("eq", I32, [16777217, 3], [16777216, 3], I32, [0, 1]),
    ("lt", I32, [-5, 3], [3, -5], I8, [1, 0]),
    ("mov", I32, [300, -129], [0, 0], I8, [44, 127]),
]


@pytest.mark.parametrize(("f", "t", "a", "b", "td", "want"), INT_CASES)
def test_integer_elementwise(f: str, t: Dtype, a: list[int], b: list[int], td: Dtype, want: list[int]) -> None:
    """Breaks when integers pass through float32, saturate instead of wrapping, or are compared inexactly."""
    got = elementwise(f, np.array(a), t, np.array(b), t, td)
    assert got.tolist() == want


def test_immediates_follow_the_kind_of_word() -> None:
    """Breaks when the bits of an immediate are read as the wrong type."""
    assert elementwise("mul", f32(3.0), F32, None, F32, F32, bits(0.5)).tolist() == [1.5]
    assert elementwise("add", np.array([5]), I32, None, I32, I32, 0xFFFFFFFF).tolist() == [4]


def test_integers_become_float32_by_rounding_to_even() -> None:
    """Breaks when a mixed word computes in float64 or in integers."""
    a = np.array([16777217, 16777219, -16777217, BIG])
    assert same_bits(
        elementwise("add", a, I32, f32(0, 0, 0, 0), F32, F32), f32(16777216, 16777220, -16777216, 2147483648)
    )


def test_comparisons_store_one_in_the_type_of_d() -> None:
    """Breaks when 1.0 is stored as the integer 1 in bf16 or as bits in int8."""
    a, b = f32(1, 2), f32(2, 1)
    assert elementwise("lt", a, F32, b, F32, BF16).tolist() == [0x3F80, 0]
    assert elementwise("lt", a, F32, b, F32, F16).tolist() == [1.0, 0.0]
    assert elementwise("lt", a, F32, b, F32, I8).tolist() == [1, 0]
    assert elementwise("lt", a, F32, b, F32, I32).tolist() == [1, 0]


def test_select_keeps_d_where_a_is_not_zero() -> None:
    """Breaks when -0.0 counts as true, NaN as false, or kept elements are rewritten."""
    a, d = f32(0.0, -0.0, NAN, 1.0, SUB), f32(1, 2, 3, -0.0, 5)
    assert same_bits(elementwise("sel", a, F32, None, F32, F32, bits(-INF), d), f32(-INF, -INF, 3, -0.0, 5))
    assert elementwise(
        "sel", np.array([0, 7]), I8, np.array([5, 6]), I32, I32, d=np.array([16777217, 16777219])
    ).tolist() == [5, 16777219]
    a16 = np.array([0x8000, 0x0001], np.uint16)
    assert elementwise("sel", a16, BF16, f32(1.00390625, 9), F32, BF16, d=np.array([1, 2], np.uint16)).tolist() == [
        0x3F80,
        2,
    ]


BF16_TIES = [
    (0x3F808000, 0x3F80),
    (0x3F818000, 0x3F82),
    (0x3F808001, 0x3F81),
    (0x7F7FFFFF, 0x7F80),
    (0x7FFFFFFF, 0x7FC0),
    (0x00008000, 0),
    (0x00018000, 2),
    (0x80000001, 0x8000),
]


@pytest.mark.parametrize(("source", "want"), BF16_TIES)
def test_bf16_rounds_to_even(source: int, want: int) -> None:
    """Breaks on truncation, on ties away from zero, or when NaN carries into infinity."""
    value = np.array([source], np.uint32).view(np.float32)
    got = int(elementwise("mov", value, F32, None, F32, BF16)[0])
    assert got == want if want != 0x7FC0 else got & 0x7FFF > 0x7F80


def test_f16_rounds_to_even_with_subnormals() -> None:
    """Breaks on flushed half-precision subnormals or wrong ties."""
    values = f32(1 + 2.0**-11, 1 + 3 * 2.0**-11, 65519.0, 65520.0, 2.0**-24, 2.0**-25, 3 * 2.0**-25, NAN)
    want = np.array([1, 1 + 2.0**-9, 65504, INF, 2.0**-24, 0, 2.0**-23, NAN], np.float16)
    assert same_bits(elementwise("mov", values, F32, None, F32, F16), want)


FORBIDDEN = [
    ("div", I32, I32, I32),
    ("and", F32, F32, F32),
    ("xor", I32, F32, F32),
    ("add", F32, I32, I32),
    ("mov", F32, F32, I8),
    ("sel", F32, F32, I32),
]


@pytest.mark.parametrize(("f", "ta", "tb", "td"), FORBIDDEN)
def test_forbidden_mixes_of_types_trap(f: str, ta: Dtype, tb: Dtype, td: Dtype) -> None:
    """Breaks when a float is silently cut to an integer or an integer word gains a division."""
    with pytest.raises(Trap):
        elementwise(f, np.ones(2), ta, np.ones(2), tb, td, d=np.ones(2) if f == "sel" else None)


def reduce(f: str, a: Array, td: Dtype = F32, down: int = 0, sub: Array | None = None) -> Array:
    p = Program()
    rows, cols = np.atleast_2d(a).shape
    va = p.source(np.atleast_2d(a), F32)
    vs = p.source(sub, F32, rs=1, cs=0) if sub is not None else 0
    vd = p.target(td, 1, cols) if down else p.target(td, rows, 1)
    p.word("vred", f=VRED.index(f), d=vd, a=va, sub=vs, rows=rows, cols=cols, down=down)
    return p.run().read(vd).ravel()


def test_reductions_on_special_values() -> None:
    """Breaks on a negative zero, a lost NaN or a wrong winner of argmax."""
    assert same_bits(reduce("max", f32(-0.0, -0.0)), f32(0.0))
    assert same_bits(reduce("max", f32(-INF, -INF)), f32(-INF))
    assert same_bits(reduce("min", f32(-0.0, 0.0)), f32(0.0))
    assert same_bits(reduce("absmax", f32(-0.0, 0.0)), f32(0.0))
    assert same_bits(reduce("absmax", f32(1, -3, 2)), f32(3))
    for f in ("sum", "max", "min", "absmax", "sumsq"):
        assert same_bits(reduce(f, f32(1, NAN, 3)), f32(NAN)), f
    assert reduce("argmax", f32(1, 5, 5), I32).tolist() == [1]
    assert reduce("argmax", f32(1, NAN, 5, NAN), I32).tolist() == [1]
    assert reduce("argmax", f32(-0.0, 0.0), I32).tolist() == [0]
    assert same_bits(reduce("sum", f32(-0.0, -0.0)), f32(0.0))
    assert same_bits(reduce("sumsq", f32(1, 2, 3), sub=f32(1)), f32(5))


def test_sum_uses_64_accumulators_and_halving() -> None:
    """Breaks on any other order: here 1 survives in its accumulator, a plain left-to-right sum loses it."""
    x = np.zeros(130, np.float32)
    x[0], x[1], x[65], x[128] = 1e8, 1.0, 1.0, -1e8
    assert same_bits(reduce("sum", x), f32(2.0))
    y = np.zeros(64, np.float32)
    y[0], y[1], y[32], y[33] = 1e8, 1.0, -1e8, 1.0
    assert same_bits(reduce("sum", y), f32(2.0))
    assert same_bits(reduce("sum", x[:, None], down=1), f32(2.0))


def test_argmax_needs_an_integer_destination() -> None:
    """Breaks when row numbers could be stored in a float, or sums in an integer."""
    for f, target in (("argmax", F32), ("sum", I32)):
        with pytest.raises(Trap):
            reduce(f, f32(1, 2), target)


def quantize(x: Array, ts: Dtype = F32, am: Array | None = None, cs: Array | None = None) -> tuple[Array, Array]:
    p = Program()
    x = np.atleast_2d(x)
    va, vd, vs = p.source(x, F32), p.target(I8, *x.shape), p.target(ts, x.shape[0], 1)
    vm = p.source(am, F32, rs=1) if am is not None else 0
    vc = p.source(cs, F32, rs=0) if cs is not None else 0
    p.word("vqd", d=vd, s=vs, a=va, am=vm, cs=vc, rows=x.shape[0], cols=x.shape[1])
    p.run()
    return p.read(vd).ravel(), p.read(vs).ravel()


def test_quantize_ties_and_extremes() -> None:
    """Breaks on ties away from zero, a missing -128 or a wrong smallest scale."""
    q, s = quantize(f32(127.5, 0.5, 1.5, 2.5, -0.5, -127.5))
    assert q.tolist() == [127, 0, 2, 2, 0, -128] and s.tolist() == [1.0]  # 127.5 rounds to 128 and saturates
    q, s = quantize(f32(0.0, -0.0, 1e-45))
    assert q.tolist() == [0, 0, 0] and s.tolist() == [2.0**-23]
    q, s = quantize(f32(2.0**-23))
    assert q.tolist() == [1] and s.tolist() == [2.0**-23]


def test_quantize_special_values() -> None:
    """Breaks when NaN becomes -128, or an infinite row does not become zeros."""
    q, s = quantize(f32(1, NAN, -2))
    assert q.tolist() == [0, 0, 0] and np.isnan(s[0])
    q, s = quantize(f32(1, INF, -2))
    assert q.tolist() == [0, 0, 0] and s[0] == INF
    q, s = quantize(f32(300, NAN, -300), am=f32(127.5))
    assert q.tolist() == [127, 0, -128] and s[0] == 1


def test_quantize_multiplies_columns_before_the_absmax_and_rounds_the_scale() -> None:
    """Breaks when the absmax ignores the column scale, or 1/s uses the unrounded scale."""
    q, s = quantize(f32(1, 1), cs=f32(127.5, 2))
    assert q.tolist() == [127, 2] and s.tolist() == [1.0]
    q, s = quantize(f32(127.9, 64.6), BF16)
    assert s.tolist() == [0x3F80] and q.tolist() == [127, 65]  # 1.00314 rounds down to 1 in bf16
    q, s = quantize(f32(1e-6), F16)
    assert s.tolist() == [np.float16(2.0**-23)]


def affine(
    a: Array, td: Dtype = F32, rnd: str = "none", red: str = "none", **views: Array
) -> tuple[Array, Array | None]:
    p = Program()
    va, vd = p.source(a, I32 if a.dtype.kind == "i" else F32), p.target(td, len(a))
    ops = {name: p.source(values, F32, rs=0, cs=int(values.size > 1)) for name, values in views.items()}
    tap = p.target(F32, 1, 1) if red != "none" else 0
    p.word("vaff", d=vd, a=va, rows=1, cols=len(a), rnd=ROUND.index(rnd), red=TAP.index(red), tap=tap, **ops)
    p.run()
    return p.read(vd)[0], p.read(tap).ravel() if tap else None


def test_affine_order_and_rounding() -> None:
    """Breaks on a fused multiply-add, another order of the steps or a missing intermediate rounding."""
    got, _ = affine(np.array([3, 16777217]), rs=f32(0.1), cs=f32(0.1), bi=f32(1))
    t = np.float32(3) * np.float32(0.1) * np.float32(0.1) + np.float32(1)
    assert same_bits(got, f32(t, np.float32(16777216) * np.float32(0.1) * np.float32(0.1) + np.float32(1)))
    got, _ = affine(f32(1 + 2.0**-12), cs=f32(1 + 2.0**-12), bi=f32(-1))
    assert same_bits(got, f32(2.0**-11))  # a fused operation would keep the 2**-24
    got, _ = affine(f32(1.00390625), rnd="bf16", rs=f32(1), bi=f32(0.0), res=f32(0.00390625))
    assert same_bits(got, f32(1.00390625))  # rs rounds to 1; the residual is added after the last rounding
    got, _ = affine(f32(257.0), rnd="bf16", sub=f32(0.0), cs=f32(1.0))
    assert same_bits(got, f32(256.0))
    got, _ = affine(f32(257.0), rnd="bf16", sub=f32(0.0))
    assert same_bits(got, f32(257.0))
    got, _ = affine(f32(2049.0), rnd="f16", rs=f32(1.0))
    assert same_bits(got, f32(2048.0))


def test_affine_tap_reduces_what_was_stored() -> None:
    """Breaks when the tap sees values before they were rounded to d."""
    got, tap = affine(f32(1.00390625, -1.01), BF16, red="absmax")
    assert got.tolist() == [0x3F80, 0xBF81] and tap is not None and tap.tolist() == [1.0078125]
    assert same_bits(np.asarray(affine(f32(1, 2, 4), red="sum", bi=f32(1))[1]), f32(10))
    assert same_bits(np.asarray(affine(f32(-1, -0.0), red="max")[1]), f32(0.0))


def activate(
    f: str, x: Array, scale: float = 1.0, bi: Array | None = None, neg: int = 0, td: Dtype = F32
) -> tuple[Array, Array]:
    p = Program()
    va, vd, vs = p.source(x, F32), p.target(td, len(x)), p.target(F32, 1, 1)
    vb = p.source(bi, F32, rs=0, cs=0) if bi is not None else 0
    p.word("act", f=ACT.index(f), d=vd, a=va, bi=vb, sum=vs, rows=1, cols=len(x), scale=bits(scale), neg=neg)
    p.run()
    return p.read(vd)[0], p.read(vs).ravel()


ACT_CASES = [
    ("exp", [0.0, -0.0, NAN, -INF, INF, -87.00001, 88.00001], [1, 1, NAN, 0, INF, 0, INF]),
    ("relu", [-1.0, -0.0, 0.0, NAN, 2.0, SUB, -SUB], [0.0, 0.0, 0.0, NAN, 2.0, SUB, 0.0]),
    ("recip", [0.0, -0.0, INF, 2.0, NAN], [INF, -INF, 0.0, 0.5, NAN]),
    ("sqrt", [4.0, -0.0, -1.0, INF, 2.0], [2.0, -0.0, NAN, INF, 1.4142135]),
    ("rsqrt", [4.0, 0.0, -0.0, INF, -1.0], [0.5, INF, -INF, 0.0, NAN]),
    ("sigmoid", [0.0, -INF, INF, NAN, 100.0], [0.5, 0.0, 1.0, NAN, 1.0]),
    ("silu", [0.0, INF, NAN, 100.0, -0.0], [0.0, INF, NAN, 100.0, -0.0]),
    ("tanh", [0.0, -0.0, INF, -INF, NAN, 20.0], [0.0, -0.0, 1.0, -1.0, NAN, 1.0]),
    ("erf", [0.0, -0.0, INF, -INF, NAN, 5.0], [0.0, -0.0, 1.0, -1.0, NAN, 1.0]),
    ("gelu_erf", [0.0, 10.0, NAN, INF], [0.0, 10.0, NAN, INF]),
    ("gelu_tanh", [0.0, 10.0, NAN, INF], [0.0, 10.0, NAN, INF]),
]


@pytest.mark.parametrize(("f", "x", "want"), ACT_CASES)
def test_functions_on_special_values(f: str, x: list[float], want: list[float]) -> None:
    """Breaks when a clamp swallows NaN, a sign of zero is lost or a saturation is missing."""
    assert same_bits(activate(f, f32(*x))[0], f32(*want))


def test_activation_scales_then_biases_and_sums_before_rounding() -> None:
    """Breaks on a fused scale and bias, a wrong sign of the bias, or a sum of rounded values."""
    y, _ = activate("relu", f32(1 + 2.0**-12), 1 + 2.0**-12, f32(1), 1)
    assert same_bits(y, f32(2.0**-11))
    assert same_bits(activate("relu", f32(1, 2), 2.0, f32(1))[0], f32(3, 5))
    y, total = activate("relu", f32(1.00390625, 1.00390625), td=BF16)
    assert y.tolist() == [0x3F80, 0x3F80] and total.tolist() == [2.0078125]


def test_softmax_row_that_is_masked_everywhere_is_all_zero_or_nan() -> None:
    """Breaks when -Inf - -Inf is not NaN, or exp(-Inf) is not exactly zero."""
    assert same_bits(activate("exp", f32(-INF, -INF), bi=f32(-INF), neg=1)[0], f32(NAN, NAN))
    y, total = activate("exp", f32(-INF, -INF), bi=f32(-3e38), neg=1)
    assert same_bits(y, f32(0, 0)) and total.tolist() == [0]


def test_matrix_product_of_extremes_is_exact() -> None:
    """Breaks when float32 sums exceed 2**24 (chunks too long) or the accumulator saturates."""
    p = Program(1 << 20)
    k = 4100
    a, w = p.source(np.full((1, k), -128), I8), p.source(np.full((k, 3), -128), I8)
    c = p.target(I32, 1, 3, space=Space.ACC)
    p.word("mm", c=c, a=a, w=w, m=1, n=3, k=k)
    assert p.run().read(c).ravel().tolist() == [k * 16384] * 3
    for _ in range(31):
        p.word("mm", c=c, a=a, w=w, m=1, n=3, k=k, acc=1)
    total = (32 * k * 16384 + 2**31) % 2**32 - 2**31
    assert p.run().read(c).ravel().tolist() == [total] * 3


def test_odd_sums_beyond_the_precision_of_float32() -> None:
    """Breaks when a chunk of K is long enough for its float32 sum to round."""
    p, rng = Program(1 << 20), np.random.default_rng(0)
    a, w = rng.integers(126, 128, (1, 4100)), rng.integers(126, 128, (16, 4100))
    c = p.target(I32, 1, 16, space=Space.ACC)
    p.word("mm", c=c, a=p.source(a, I8), w=p.source(w, I8), m=1, n=16, k=4100, wt=1)
    assert p.run().read(c)[0].tolist() == (a @ w.T)[0].tolist()


def test_float_matrix_product_adds_in_ascending_k() -> None:
    """Breaks on BLAS order or fused products: 1 is lost in 1e8, then 1e8 is taken away."""
    p = Program()
    a, w = p.source(f32(1e8, 1, -1e8), F32), p.source(f32(1, 1, 1)[:, None], F32)
    b = p.source(f32(1e8, -1e8, 1), F32)
    c = p.target(F32, 1, 2, space=Space.ACC)
    p.word("mm", c=c, a=a, w=w, m=1, n=1, k=3, fmt=MM_FORMAT.index("float"))
    second = p.view(F32, p.views[c].base + 4, space=Space.ACC)
    p.word("mm", c=second, a=b, w=w, m=1, n=1, k=3, fmt=MM_FORMAT.index("float"))
    assert p.run().read(c).ravel().tolist() == [0.0, 1.0]

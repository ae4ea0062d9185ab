"""Random small blocks against one-element-at-a-time Python: strides, broadcasting, types and every format of mm."""

from typing import Any

import numpy as np
import pytest
from emulator_harness import Array, Program, bits, narrow, same_bits, slow_sum, stored, value_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isa.architecture import Dtype, Space
from isa.spec import MM_FORMAT, ROUND, TAP, VOP, VRED

I8, I32, F32, BF16, F16 = Dtype.I8, Dtype.I32, Dtype.F32, Dtype.BF16, Dtype.F16
FLOATS = st.sampled_from([F32, BF16, F16])
quick = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-40, 3e38, -3e38, 0.5, 2.5, -1.5], np.float32)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 150))
seeds = st.integers(0, 2**32 - 1)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Dtype) -> Array:
    """Stored elements of any type, with special values among the floats."""
    if not dtype.is_float:
        top = 2**31 if dtype is I32 else 128
        return rng.integers(-top, top, shape).astype(np.int32)
    x = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    special = rng.random(shape) < rng.choice([0.0, 0.02])
    return stored(np.where(special, rng.choice(SPECIAL, shape), x).astype(np.float32), dtype)


def operand(p: Program, rng: np.random.Generator, shape: tuple[int, int, int], dtype: Dtype) -> tuple[int, Array]:
    """A view with random broadcasting over the given extents, and the float32 values that it must read as."""
    small = tuple(n if keep else 1 for n, keep in zip(shape, rng.integers(0, 3, 3), strict=True))
    values = numbers(rng, small, dtype)
    rs, ps = small[2] if small[1] > 1 else 0, small[1] * small[2] if small[0] > 1 else 0
    return p.source(values, dtype, rs, ps, int(small[2] > 1)), np.broadcast_to(value_of(values, dtype), shape)


def optional(
    p: Program, rng: np.random.Generator, shape: tuple[int, int, int], dtype: Dtype
) -> tuple[int, Array | None]:
    return operand(p, rng, shape, dtype) if rng.random() < 0.6 else (0, None)


def rows(a: Array) -> Array:
    return a.reshape(-1, a.shape[-1])


@quick
@given(shapes, seeds, FLOATS, FLOATS, FLOATS)
def test_vqd(shape: tuple[int, int, int], seed: int, ta: Dtype, ts: Dtype, tm: Dtype) -> None:
    """Breaks on any deviation from the quantization formula, for every type, multiplier and broadcast."""
    rng, p = np.random.default_rng(seed), Program()
    va, a = operand(p, rng, shape, ta)
    (vr, r), (vc, c) = optional(p, rng, shape, tm), optional(p, rng, shape, tm)
    vd, vs = p.target(I8, *shape), p.target(ts, *shape[:2], 1)
    p.word("vqd", d=vd, s=vs, a=va, rs=vr, cs=vc, planes=shape[0], rows=shape[1], cols=shape[2])
    p.run()
    with np.errstate(all="ignore"):
        x = a if r is None else a * r
        x = x if c is None else x * c
        want_q, want_s = [], []
        for row in rows(x):
            m = np.float32(np.nan) if np.isnan(row).any() else np.float32(max(abs(float(v)) for v in row))
            s = narrow(np.float32(m / np.float32(127.5)), ts)
            s = np.float32(2.0**-23) if s < 2.0**-23 else s
            inv = np.float32(1) / s
            want_s.append(s)
            for v in row:
                t = np.float32(v * inv)
                want_q.append(
                    0
                    if np.isnan(t)
                    else max(-128, min(127, round(float(t))))
                    if np.isfinite(t)
                    else (127 if t > 0 else -128)
                )
    assert p.read(vd).ravel().tolist() == want_q
    assert same_bits(value_of(p.read(vs), ts).ravel(), np.array(want_s, np.float32))


def slow_reduce(f: str, row: list[np.float32]) -> np.float32 | int:
    if f == "argmax":
        nan = [i for i, v in enumerate(row) if np.isnan(v)]
        return nan[0] if nan else max(range(len(row)), key=lambda i: (row[i], -i))
    if f in ("sum", "sumsq"):
        return slow_sum([np.float32(v * v) for v in row] if f == "sumsq" else row)
    if any(np.isnan(v) for v in row):
        return np.float32(np.nan)
    table: dict[str, Any] = {"max": max, "min": min, "absmax": lambda r: max(abs(v) for v in r)}
    best = table[f](row)
    return np.float32(0) if best == 0 else best


@quick
@given(shapes, seeds, st.sampled_from([I8, I32, F32, BF16, F16]), FLOATS, st.sampled_from(VRED), st.booleans())
def test_vred(shape: tuple[int, int, int], seed: int, ta: Dtype, td: Dtype, f: str, down: bool) -> None:
    """Breaks when a reduction's order, special values or `down` deviate from one addition at a time."""
    rng, p = np.random.default_rng(seed), Program()
    if down:
        shape = shape[0], shape[2], shape[1]
    td = I32 if f == "argmax" else td
    va, a = operand(p, rng, shape, ta)
    vs, sub = optional(p, rng, shape, F32)
    vd = p.target(td, shape[0], 1, shape[2]) if down else p.target(td, shape[0], shape[1], 1)
    p.word("vred", f=VRED.index(f), d=vd, a=va, sub=vs, planes=shape[0], rows=shape[1], cols=shape[2], down=int(down))
    got = p.run().read(vd).ravel()
    with np.errstate(all="ignore"):
        x = a if sub is None else a - sub
        want = [slow_reduce(f, list(row)) for row in rows(x.swapaxes(-1, -2) if down else x)]
    if f == "argmax":
        assert got.tolist() == want
    else:
        assert same_bits(value_of(got, td), value_of(stored(np.array(want, np.float32), td), td))


@quick
@given(shapes, seeds, st.sampled_from([I8, I32, F32, BF16, F16]), FLOATS, st.sampled_from(ROUND), st.sampled_from(TAP))
def test_vaff(shape: tuple[int, int, int], seed: int, ta: Dtype, td: Dtype, rnd: str, red: str) -> None:
    """Breaks when a step is fused, reordered, skipped or rounded in the wrong place."""
    rng, p = np.random.default_rng(seed), Program()
    va, a = operand(p, rng, shape, ta)
    other = rng.choice([F32, BF16])
    parts = {name: optional(p, rng, shape, Dtype(other)) for name in ("sub", "rs", "cs", "bi", "res")}
    vd, tap = p.target(td, *shape), p.target(F32, *shape[:2], 1) if red != "none" else 0
    ops = {name: view for name, (view, _) in parts.items()}
    p.word(
        "vaff",
        d=vd,
        a=va,
        tap=tap,
        red=TAP.index(red),
        rnd=ROUND.index(rnd),
        planes=shape[0],
        rows=shape[1],
        cols=shape[2],
        **ops,
    )
    p.run()
    kind = {"none": F32, "bf16": BF16, "f16": F16}[rnd]
    sub, rs, cs, bi, res = (part for _, part in parts.values())
    out = np.empty(shape, np.float32)
    with np.errstate(all="ignore"):
        for i in np.ndindex(shape):
            t: Any = a[i]
            t = t if sub is None else np.float32(t - sub[i])
            t = t if rs is None else narrow(np.float32(t * rs[i]), kind)
            t = t if cs is None else np.float32(t * cs[i])
            t = t if bi is None else np.float32(t + bi[i])
            t = t if bi is None and cs is None else narrow(t, kind)
            out[i] = t if res is None else np.float32(t + res[i])
        want = value_of(stored(out, td), td)
        probes = [slow_reduce(red, list(row)) for row in rows(want)] if red != "none" else []
    assert same_bits(value_of(p.read(vd), td).ravel(), want.ravel())
    if probes:
        assert same_bits(p.read(tap).ravel(), np.array(probes, np.float32))


@quick
@given(
    shapes,
    seeds,
    st.sampled_from([I8, I32, F32, BF16, F16]),
    FLOATS,
    st.sampled_from(["add", "sub", "mul", "div", "max", "min", "lt", "ne"]),
    st.booleans(),
)
def test_vop(shape: tuple[int, int, int], seed: int, ta: Dtype, td: Dtype, f: str, immediate: bool) -> None:
    """Breaks when broadcasting, widening or storing goes wrong."""
    rng, p = np.random.default_rng(seed), Program()
    va, a = operand(p, rng, shape, ta)
    vb, b = (0, np.full(shape, -1.5, np.float32)) if immediate else operand(p, rng, shape, F32)
    vd = p.target(td, *shape)
    p.word("vop", f=VOP.index(f), d=vd, a=va, b=vb, planes=shape[0], rows=shape[1], cols=shape[2], imm=bits(-1.5))
    got = value_of(p.run().read(vd), td).ravel()
    out = np.empty(a.size, np.float32)
    with np.errstate(all="ignore"):
        for i, (x, y) in enumerate(zip(a.ravel(), b.ravel(), strict=True)):
            table = {
                "add": x + y,
                "sub": x - y,
                "mul": x * y,
                "div": x / y,
                "lt": np.float32(x < y),
                "ne": np.float32(x != y),
            }
            pick = (
                np.float32(np.nan)
                if np.isnan(x) or np.isnan(y)
                else np.float32((max if f == "max" else min)(x, y) + np.float32(0))
            )
            out[i] = table.get(f, pick)
        assert same_bits(got, value_of(stored(out, td), td))


def left_and_right(
    p: Program, rng: np.random.Generator, b: int, m: int, n: int, k: int, wt: bool, float_type: Dtype | None
) -> tuple[int, int, Array, Array]:
    """Operands of mm: a strided with gaps, w shared between planes half of the time."""
    dtype = float_type or I8
    gap = int(rng.integers(0, 3))
    a_stored = numbers(rng, (b, m, k + gap), dtype)
    planes = b if rng.random() < 0.5 else 1
    w_stored = numbers(rng, (planes, n, k) if wt else (planes, k, n), dtype)
    va = p.source(a_stored, dtype)
    vw = p.source(w_stored, dtype, ps=0 if planes == 1 else w_stored[0].size)
    w = value_of(w_stored, dtype).swapaxes(-1, -2) if wt else value_of(w_stored, dtype)
    return va, vw, value_of(a_stored, dtype)[:, :, :k], np.broadcast_to(w, (b, k, n))


dims = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 70))


@quick
@given(dims, seeds, st.booleans(), st.booleans())
def test_mm_int8(size: tuple[int, int, int, int], seed: int, wt: bool, twice: bool) -> None:
    """Breaks on a wrong transposition, plane stride or accumulation."""
    (b, m, n, k), rng, p = size, np.random.default_rng(seed), Program()
    va, vw, a, w = left_and_right(p, rng, b, m, n, k, wt, None)
    c = p.target(I32, b, m, n, space=Space.ACC)
    for acc in range(1 + twice):
        p.word("mm", c=c, a=va, w=vw, b=b, m=m, n=n, k=k, wt=int(wt), acc=acc)
    want = (a.astype(np.int64) @ w.astype(np.int64)) * (1 + twice)
    assert p.run().read(c).ravel().tolist() == want.ravel().tolist()


@quick
@given(dims, seeds, st.booleans(), FLOATS, st.booleans())
def test_mm_float(size: tuple[int, int, int, int], seed: int, wt: bool, dtype: Dtype, twice: bool) -> None:
    """Breaks when products are summed in another order than ascending k."""
    (b, m, n, k), rng, p = size, np.random.default_rng(seed), Program()
    va, vw, a, w = left_and_right(p, rng, b, m, n, k, wt, dtype)
    c = p.target(F32, b, m, n, space=Space.ACC)
    for acc in range(1 + twice):
        p.word("mm", c=c, a=va, w=vw, b=b, m=m, n=n, k=k, wt=int(wt), acc=acc, fmt=MM_FORMAT.index("float"))
    got = p.run().read(c).reshape(b, m, n)
    with np.errstate(all="ignore"):
        want = np.zeros((b, m, n), np.float32)
        for i in np.ndindex(b, m, n):
            total = np.float32(0)
            for j in range(k * (1 + twice)):
                total = np.float32(total + np.float32(a[i[0], i[1], j % k] * w[i[0], j % k, i[2]]))
            want[i] = total
    assert same_bits(got, want)


@pytest.mark.parametrize("size", [(1, 40, 300, 1500), (1, 3, 40001, 20), (5, 64, 64, 200), (1, 15, 70, 40)])
@pytest.mark.parametrize("wt", [False, True])
def test_products_big_enough_to_be_shared_between_threads(size: tuple[int, int, int, int], wt: bool) -> None:
    """Breaks when a share of the planes or columns is lost, doubled, or mixed up between threads."""
    (b, m, n, k), rng, p = size, np.random.default_rng(1), Program(1 << 22, 1 << 21)
    va, vw, a, w = left_and_right(p, rng, b, m, n, k, wt, None)
    c = p.target(I32, b, m, n, space=Space.ACC)
    for acc in (0, 1):
        p.word("mm", c=c, a=va, w=vw, b=b, m=m, n=n, k=k, wt=int(wt), acc=acc)
    want = np.matmul(a.astype(np.float64), w.astype(np.float64)) * 2
    assert np.array_equal(p.run().read(c).reshape(b, m, n), want)


@pytest.mark.parametrize("dtype", [I8, F32])
def test_blocks_longer_than_a_tile(dtype: Dtype) -> None:
    """Breaks when the split into cache-sized tiles drops, repeats or misplaces rows or planes."""
    for shape in ((2, 3, 40000), (3, 700, 64), (5, 9000, 2)):
        p, rng = Program(1 << 22, 1 << 21), np.random.default_rng(3)
        values: Any = rng.integers(-100, 100, shape).astype(np.int8 if dtype is I8 else np.float32)
        scale = rng.integers(1, 5, (shape[0], shape[1], 1)).astype(np.float32)
        va, vs, vd = p.source(values, dtype), p.source(scale, F32, rs=1, ps=shape[1], cs=0), p.target(F32, *shape)
        tap = p.target(F32, *shape[:2], 1)
        p.word("vaff", d=vd, a=va, rs=vs, tap=tap, red=TAP.index("max"), planes=shape[0], rows=shape[1], cols=shape[2])
        p.run()
        assert np.array_equal(p.read(vd), values * scale)
        assert np.array_equal(p.read(tap), (values * scale).max(-1, keepdims=True))


def test_a_shifted_copy_onto_itself_reads_before_it_writes() -> None:
    """Breaks when a word sees its own results: sources under the destination are read first."""
    p = Program(1 << 20)
    a = p.source(np.arange(100000).reshape(100, 1000), F32)
    d = p.view(F32, p.views[a].base + 4, 1000)
    p.shapes[d] = (1, 100, 999)
    p.word("vop", f=VOP.index("add"), d=d, a=a, rows=100, cols=999, imm=bits(1.0))
    last = p.view(
        F32, p.views[a].base + 40000, 1000
    )  # ten rows further, so that a later tile reads what an earlier one wrote
    p.shapes[last] = (1, 90, 1000)
    p.word("vop", f=VOP.index("mul"), d=last, a=a, rows=90, cols=1000, imm=bits(2.0))
    p.run()
    want = np.arange(100000, dtype=np.float32).reshape(100, 1000)
    want[:, 1:] = want[:, :-1] + 1
    want[10:] = want[:90] * 2
    assert np.array_equal(p.read(last), want[10:])

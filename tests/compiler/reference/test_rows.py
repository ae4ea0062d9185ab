"""Reductions, quantization, softmax and LayerNorm: hand-worked rows, then plain Python arithmetic."""

import numerics_scalars as scalars
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics_helpers import bits, tensor

from compiler.reference import functions as reference

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)
SPECIAL = st.floats(width=32)
INF, NAN = float("inf"), float("nan")


def _row(length: int, **values: float) -> torch.Tensor:
    x = torch.zeros(length)
    for name, value in values.items():
        x[int(name[1:])] = value
    return x


def _words(values: list[float]) -> list[int]:
    return [scalars.to_bits(v) for v in values]


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (_row(65, x0=2.0**24, x64=1), 2.0**24),
        (_row(64, x0=2.0**24, x1=1, x33=1), 2.0**24 + 2),
        (_row(64, x0=2.0**24, x32=1, x1=1), 2.0**24),
        (torch.zeros(0), 0.0),
        (-torch.zeros(3), 0.0),
        (torch.tensor([INF, -INF]), NAN),
        (torch.tensor([3e38, 3e38]), INF),
    ],
)
def test_sum_order(x: torch.Tensor, expected: float) -> None:
    """Breaks when the sum is sequential, pairwise, of another width, or starts at -0."""
    assert bits(reference.tree_sum(x)) == _words([expected])
    assert bits(reference.tree_sum(x.unsqueeze(-1), -2)) == _words([expected])


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, max_size=200), st.integers(0, 130))
def test_sum_equals_plain_python_and_ignores_padding(values: list[float], padding: int) -> None:
    """Breaks when the order changes, or when zeros before or behind a row (masked keys) change a bit."""
    expected = _words([scalars.tree_sum(values)])
    for row in (values, [0.0] * padding + values, values + [0.0] * padding):
        assert bits(reference.tree_sum(torch.tensor(row, dtype=torch.float32))) == expected


def test_extremes_have_no_negative_zero_and_keep_nan() -> None:
    """Breaks when max, min or absmax leak -0, lose NaN, or fail on nothing."""
    x = torch.tensor([[-0.0, -0.0], [-1.0, -0.0], [-0.0, 1.0], [NAN, 1.0], [-INF, -INF]])
    assert bits(reference.reduce(x, "max", -1, False)) == _words([0.0, 0.0, 1.0, NAN, -INF])
    assert bits(reference.reduce(x, "min", -1, False)) == _words([0.0, -1.0, 0.0, NAN, -INF])
    assert bits(reference.reduce(x, "absmax", -1, False)) == _words([0.0, 1.0, 1.0, NAN, INF])
    empty = torch.zeros(1, 0)
    assert [float(reference.reduce(empty, kind, -1, False)) for kind in ("max", "min", "absmax", "sum")] == [
        -INF,
        INF,
        0.0,
        0.0,
    ]


def test_reduce_shapes_and_types() -> None:
    """Breaks when keepdim, dim -2 or the rounding of a bf16 reduction is wrong."""
    x = torch.full((2, 3, 5), 1.0078125, dtype=torch.bfloat16)
    assert reference.reduce(x, "sum", -2, True).shape == (2, 1, 5)
    assert reference.reduce(x, "max", -2, False).shape == (2, 5)
    total = reference.reduce(x, "sum", -1, False)  # 5.0390625 needs 9 bits more than bf16 has at 4
    assert total.dtype == torch.bfloat16
    assert float(total[0, 0]) == 5.03125
    assert float(reference.reduce(x, "sumsq", -1, False)[0, 0]) == 5.09375


def test_clamp_keeps_nan_and_drops_negative_zero() -> None:
    """Breaks when clamp uses min/max instructions with another idea of NaN or -0."""
    x = torch.tensor([-2.0, -0.0, 0.5, 2.0, NAN, INF])
    assert bits(reference.clamp(x, -1.0, 1.0)) == _words([-1.0, 0.0, 0.5, 1.0, NAN, 1.0])
    assert bits(reference.clamp(x, min=0.0)) == _words([0.0, 0.0, 0.5, 2.0, NAN, INF])


@pytest.mark.parametrize(
    ("row", "q", "scale"),
    [
        ([127.5, -127.5, 0.5, 1.5, -0.5, 63.75], [127, -128, 0, 2, 0, 64], 1.0),
        ([0.0, -0.0], [0, 0], 2.0**-23),
        ([1e-41, -1e-42], [0, 0], 2.0**-23),
        ([1.0, NAN], [0, 0], NAN),
        ([1.0, INF, -INF], [0, 0, 0], INF),
        ([], [], 2.0**-23),
    ],
)
def test_quantized_rows_by_hand(row: list[float], q: list[int], scale: float) -> None:
    """Breaks on ties, -128, signed zero, subnormals, NaN, Inf and empty rows."""
    got, s = reference.quantize_rows(torch.tensor([row]))
    assert got.dtype == torch.int8
    assert got[0].tolist() == q
    assert bits(s) == _words([scale])


def test_quantized_bf16_row_rounds_its_scale() -> None:
    """Breaks when the scale is used before it is rounded to bf16."""
    q, s = reference.quantize_rows(torch.tensor([1.0, 0.5], dtype=torch.bfloat16))
    assert q.tolist() == [127, 64]
    assert bits(s) == [0x3C01]


def test_product_with_reciprocal_not_quotient() -> None:
    """Breaks when x * (1/s) is written x / s: some row of random data has a tie that differs."""
    x = torch.randn(20000, 8, generator=torch.Generator().manual_seed(1))
    q, s = reference.quantize_rows(x)
    assert bool((q != torch.round(x / s.unsqueeze(-1)).clamp(-128, 127)).any())


@settings(max_examples=80, deadline=None)
@given(st.lists(SPECIAL | FLOATS, min_size=1, max_size=40), st.booleans())
def test_quantize_equals_plain_python(values: list[float], narrow: bool) -> None:
    """Breaks when any rounding of section 6 moves."""
    dtype, rounding = (torch.bfloat16, scalars.bf16) if narrow else (torch.float32, scalars.f32)
    row = [rounding(v) for v in values]
    expected, scale = scalars.quantize(row, rounding)
    q, s = reference.quantize_rows(torch.tensor([row], dtype=dtype))
    assert q[0].tolist() == expected
    assert bits(s.to(torch.float32)) == _words([scale])


def test_column_multiplier_comes_first() -> None:
    """Breaks when absmax is taken before the smoothing multiplier."""
    q, s = reference.quantize_rows(torch.tensor([[1.0, 1.0]]), torch.tensor([127.5, 1.0]))
    assert q.tolist() == [[127, 1]]
    assert s.tolist() == [1.0]


def test_dequantize_by_hand() -> None:
    """Breaks when bf16 rounds after the bias only, or the bias is added to a rounded product."""
    one = torch.tensor([1.0])
    c, bias = torch.tensor([[381]], dtype=torch.int32), torch.tensor([0.25])
    assert reference.dequantize(c, one, one, bias).tolist() == [[381.25]]
    assert reference.dequantize(c, one, one, bias, torch.bfloat16).tolist() == [[380.0]]
    assert reference.dequantize(c, one).tolist() == [[381.0]]
    big = torch.tensor([[16777217, 2147483647]], dtype=torch.int32)
    assert bits(reference.dequantize(big, one)) == [0x4B800000, 0x4F000000]


@pytest.mark.parametrize("k", [0, 1, 1024, 1025, 4000])
def test_integer_matmul_is_exact(k: int) -> None:
    """Breaks when a float matmul rounds: worst case is every product 16384."""
    a = torch.full((2, k), -128, dtype=torch.int8)
    assert reference.matmul_i8(a, a, True).tolist() == [[16384 * k] * 2] * 2
    r = torch.randint(-128, 128, (3, k), dtype=torch.int8, generator=torch.Generator().manual_seed(k))
    assert torch.equal(reference.matmul_i8(r, r.T.contiguous()), (r.int() @ r.T.int()))


def test_softmax_by_hand() -> None:
    """Breaks when masked rows, NaN or Inf behave unlike the float model."""
    rows = torch.tensor(
        [[0.0, 1.0, 2.0, -INF], [-INF] * 4, [NAN, 0, 0, 0], [INF, 0, 0, 0], [torch.finfo(torch.float32).min] * 4]
    )
    first = [0x3DB861F2, 0x3E7A9A18, 0x3F2A4D3A, 0]
    nan, uniform = [0x7FC00000] * 4, [0x3E800000] * 4
    assert bits(reference.softmax(rows)) == first + nan + nan + nan + uniform
    assert bits(reference.softmax(rows, True)) == first + [0] * 4 + nan + nan + uniform


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(width=32, min_value=-200, max_value=200) | st.just(-INF), min_size=1, max_size=150),
    st.booleans(),
)
def test_softmax_equals_plain_python(values: list[float], zero: bool) -> None:
    """Breaks when softmax rescales online, divides instead of multiplying, or sums in another order."""
    assert bits(reference.softmax(torch.tensor([values]), zero)) == _words(scalars.softmax(values, zero))


def test_layer_norm_by_hand() -> None:
    """Breaks when eps, the reciprocal of n or the two steps of rsqrt round elsewhere."""
    x = torch.tensor([1.0, 2.0, 4.0, 8.0])
    expected = [0xBF834BED, 0xBF271AD1, 0x3DBEFA13, 0x3FCAE9B4]
    assert bits(reference.layer_norm(x, eps=1e-5)) == expected
    assert _words(scalars.layer_norm(x.tolist(), [1.0] * 4, [0.0] * 4, 1e-5)) == expected
    assert bits(reference.layer_norm(torch.full((3,), 7.0), eps=0.0)) == [0x7FC00000] * 3  # 0 * Inf


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=130), st.sampled_from([1e-5, 1e-6, 1e-12]))
def test_layer_norm_equals_plain_python(columns: list[tuple[float, float, float]], eps: float) -> None:
    """Breaks when torch fuses a multiply-add or the order of weight and bias changes."""
    x, weight, bias = (list(values) for values in zip(*columns, strict=True))
    got = reference.layer_norm(torch.tensor(x), torch.tensor(weight), torch.tensor(bias), eps)
    assert bits(got) == _words(scalars.layer_norm(x, weight, bias, eps))


def test_layer_norm_rounds_bf16_once() -> None:
    """Breaks when a bf16 LayerNorm rounds inside."""
    x = torch.randn(4, 96, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    w = torch.randn(96, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    assert bits(reference.layer_norm(x, w, w)) == bits(
        reference.layer_norm(x.float(), w.float(), w.float()).to(torch.bfloat16)
    )


def test_tensor_helper_round_trips() -> None:
    """Breaks the other tests' footing: bit patterns must reach the tensor unchanged."""
    assert bits(tensor(0x80000001, 0xFFC00001, 0x3F800000)) == [0x80000001, 0x7FC00000, 0x3F800000]


def test_static_rows_take_the_range_that_is_given() -> None:
    """Breaks when the range of the row counts, a half rounds away from zero, or a value outside does not saturate."""
    x = torch.tensor([[1.0, 3.0, -5.0, 300.0, -300.0, NAN], [0.0, 255.0, -256.0, 2.0, INF, -INF]])
    q, s = reference.quantize_rows(x, None, torch.tensor([255.0]))
    assert s.tolist() == [2.0, 2.0]
    assert q.tolist() == [[0, 2, -2, 127, -128, 0], [0, 127, -128, 1, 127, -128]]
    q, s = reference.quantize_rows(x[:, :3], torch.tensor([4.0, 1.0, 1.0]), torch.tensor([0.0]))
    assert q.tolist() == [[127, 127, -128], [0, 127, -128]] and s.tolist() == [2.0**-23] * 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=9))
def test_float_products_go_in_the_order_of_k(pairs: list[tuple[float, float]]) -> None:
    """Breaks when a product is fused with its sum, sums start at -0, or their order is another."""
    total = 0.0
    for a, w in pairs:
        total = scalars.add(total, scalars.mul(a, w))
    left = torch.tensor([[a for a, _ in pairs]], dtype=torch.float32).reshape(1, -1)
    right = torch.tensor([[w for _, w in pairs]], dtype=torch.float32).reshape(1, -1)
    assert bits(reference.matmul_float(left, right, True)) == _words([total])
    assert bits(reference.matmul_float(left, right.T, False)) == _words([total])


def test_codes_multiply_floats_as_numbers() -> None:
    """Breaks when int8 weights are not widened, or batches do not go with one matrix."""
    a, w = torch.tensor([[[2.0**24, 1.0, 1.0]], [[0.5, -0.25, 2.0]]]), torch.tensor([[1, 1, 1]], dtype=torch.int8)
    assert reference.matmul_float(a, w, True).tolist() == [[[2.0**24]], [[2.25]]]

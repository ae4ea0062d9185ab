"""What the contract assumes of stock PyTorch: roundings, scalars, casts. A torch upgrade that breaks one must be seen
here."""

import numpy as np
import pytest
import torch
from numerics_helpers import bits, tensor
from torch import Tensor


def _random_words(count: int, seed: int) -> Tensor:
    return torch.randint(
        -(1 << 31), 1 << 31, (count,), dtype=torch.int64, generator=torch.Generator().manual_seed(seed)
    ).to(torch.int32)


def _numpy_bits(x: np.ndarray) -> list[int]:
    return bits(torch.from_numpy(np.ascontiguousarray(x)))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81), (0x7F7F7FFF, 0x7F7F), (0x7F7F8000, 0x7F80),
        (0x00008000, 0x0000), (0x00008001, 0x0001), (0x80000001, 0x8000), (0x7F800001, 0x7FC0), (0xFF800000, 0xFF80),
    ],
)  # fmt: skip
def test_bf16_rounding(word: int, expected: int) -> None:
    """Breaks when bf16 is truncated, flushes subnormals, or does not overflow to Inf."""
    assert bits(tensor(word).to(torch.bfloat16)) == [expected]


@pytest.mark.parametrize(
    ("word", "expected"), [(0x477FEFFF, 0x7BFF), (0x477FF000, 0x7C00), (0x33000000, 0), (0x33000001, 1)]
)
def test_f16_rounding(word: int, expected: int) -> None:
    """Breaks when f16 saturates instead of overflowing or flushes subnormals."""
    assert bits(tensor(word).to(torch.float16)) == [expected]


def test_int_to_float_rounds_to_even() -> None:
    """Breaks when int32 to float32 truncates."""
    x = torch.tensor([16777217, 16777219, 2147483647], dtype=torch.int32)
    assert bits(x.to(torch.float32)) == [0x4B800000, 0x4B800002, 0x4F000000]


def test_bf16_arithmetic_is_float32_rounded_once() -> None:
    """Breaks when bf16 tensors are added in anything but float32, or with two roundings."""
    assert bits(torch.tensor([1.0, 1.0078125]).bfloat16() + torch.tensor([2.0**-8] * 2).bfloat16()) == [0x3F80, 0x3F82]
    a, b = _random_words(5003, 1).view(torch.bfloat16), _random_words(5003, 2).view(torch.bfloat16)
    for op in (torch.add, torch.sub, torch.mul, torch.div):
        assert bits(op(a, b)) == bits(op(a.float(), b.float()).bfloat16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 7, 33, 4001])
def test_scalars_of_narrow_operations(dtype: torch.dtype, count: int) -> None:
    """Breaks when torch changes which operations round a Python scalar to the tensor's type first."""
    a, scalar = _random_words(count, 3).view(torch.float32).to(dtype), 0.3
    rounded = float(torch.tensor(scalar).to(dtype))
    for name, used in (("mul", scalar), ("div", scalar), ("add", rounded), ("sub", rounded), ("rsub", rounded)):
        op = getattr(torch, name)
        assert bits(op(a, scalar)) == bits(op(a.float(), used).to(dtype))
    assert bool((torch.full((count,), rounded, dtype=dtype) == scalar).all())


def test_float32_arithmetic_equals_numpy() -> None:
    """Breaks when torch flushes subnormals, contracts, or divides by multiplying with a reciprocal."""
    a, b = _random_words(20_003, 4).view(torch.float32), _random_words(20_003, 5).view(torch.float32)
    x, y = a.numpy(), b.numpy()
    with np.errstate(all="ignore"):
        pairs = [(a + b, x + y), (a - b, x - y), (a * b, x * y), (a / b, x / y)]
        pairs += [(a / 127.5, x / np.float32(127.5)), (torch.reciprocal(a), 1 / x)]
        pairs += [
            (torch.round(a), np.rint(x)),
            (torch.sqrt(a.double()).float(), np.sqrt(x.astype(np.float64)).astype(np.float32)),
        ]
    for ours, theirs in pairs:
        assert bits(ours) == _numpy_bits(theirs)


def test_scalar_over_tensor_rounds_twice() -> None:
    """Breaks when `scalar / tensor` stops being reciprocal times scalar, on which the page warns."""
    x = tensor(0x40400000, 0x00000001, 0x7F7FFFFF, 0x41300000)
    assert bits(10.0 / x) == bits(torch.reciprocal(x) * 10.0)


def test_scalars_round_once_to_float32() -> None:
    """Breaks when a Python scalar meets a float32 tensor in float64."""
    x = torch.ones(9)
    assert bits(x * (1 / 3)) == [0x3EAAAAAB] * 9
    assert bits(x + 1e-5) == bits(x + tensor(0x3727C5AC))

"""Functions that the chip's engine does not have: their distance from the mathematics, and the chip's bits of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor

import llmchip
from compiler.passes import functions

INF, NAN = float("inf"), float("nan")
ODD = torch.tensor(
    [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-40, -1e-40, 3e38, -3e38, 2.0, -3.0, 0.5, -0.5, 88.0, 1e-9, 5e8]
)
# Units of the last place, a little more than what `tools/measure_functions.py` finds (docs/numerics.md).
WORST = {
    "log": 0.8, "log2": 1.4, "log10": 1.7, "log1p": 1.6, "expm1": 1.7, "sinh": 1.6, "cosh": 1.6, "asinh": 2.0,
    "acosh": 1.9, "atanh": 2.0, "sin": 1.1, "cos": 1.1, "tan": 2.3, "atan": 1.9, "asin": 1.8, "acos": 1.3,
}  # fmt: skip


def ulps(found: Tensor, exact: Tensor) -> Tensor:
    """The distance of float32 from float64, in the spacing of float32 there; nothing where the exact one overflows and
    the other is infinite, or both are NaN."""
    rounded = exact.to(torch.float32)
    same = (found == rounded) | (found.isnan() & rounded.isnan())
    unit = torch.frexp(exact).exponent.clamp(min=-125) - 24
    return torch.where(same, 0.0, torch.ldexp((found.double() - exact).abs(), -unit).nan_to_num(INF, posinf=INF))


def patterns(count: int) -> Tensor:
    """Floats of every size, subnormal ones too, and what functions treat differently."""
    bits = torch.randint(-(1 << 31), 1 << 31, (count,), generator=torch.Generator().manual_seed(0))
    near = torch.randn(count, generator=torch.Generator().manual_seed(1)) * 3
    return torch.cat([bits.to(torch.int32).view(torch.float32), near, ODD])


@pytest.mark.parametrize("name", WORST)
def test_how_far_from_exact(name: str) -> None:
    """Breaks when a coefficient, a step or a special value changes for the worse, or a zero loses its sign."""
    x = patterns(20000)
    x = x[x < 88.1] if name == "expm1" else x
    found, exact = getattr(functions, name)(x), getattr(torch, name)(x.double())
    assert float(ulps(found, exact).max()) <= WORST[name]
    assert torch.equal(found[exact == 0].signbit(), exact[exact == 0].signbit())


def test_many_turns() -> None:
    """Breaks when a digit of 2/pi is wrong or missing: next to a multiple of pi/2 nothing else is left."""
    x = torch.tensor([16367173 * 2.0**72, 2.0**127, 1e30, 8388607.5, 3e5, -22.0, 33.0, 355.0, 11.0, 710.0])
    for name in ("sin", "cos", "tan"):
        found, exact = getattr(functions, name)(x), getattr(torch, name)(x.double())
        assert float(ulps(found, exact).max()) <= WORST[name]


@pytest.mark.parametrize(("name", "worst"), [("pow", 2.4), ("atan2", 2.3)])
def test_functions_of_two(name: str, worst: float) -> None:
    """Breaks when the logarithm of a base is not long enough for its exponent, or one of the many special cases of IEEE
    is missed."""
    ours: Callable[[Tensor, Tensor], Tensor] = {"pow": functions.power, "atan2": functions.atan2}[name]
    generator = torch.Generator().manual_seed(2)
    base = torch.exp(torch.randn(20000, generator=generator) * 3)
    a, b = torch.cartesian_prod(ODD, ODD).unbind(1)
    whole = torch.randint(-9, 9, (20000,), generator=generator).float()
    for x, y in ((a, b), (base, torch.randn(20000, generator=generator) * 9), (-base, whole), (base, 90 / base.log())):
        found, exact = ours(x, y), getattr(torch, name)(x.double(), y.double())
        assert float(ulps(found, exact).max()) <= worst
        sure = ~exact.isnan()
        assert torch.equal(found.signbit()[sure], exact.signbit()[sure])


@pytest.mark.wide
def test_on_the_chip() -> None:
    """Breaks when the chip computes another bit than PyTorch of the same graph, or a function is taken apart
    wrongly."""
    x = patterns(20)
    program = llmchip.compile(Function(lambda _m, x: [getattr(torch, name)(x) for name in WORST]).eval(), (x,))
    assert program.verify(x).bit_exact
    for name, found in zip(WORST, program(x), strict=True):
        assert torch.equal(getattr(functions, name)(x).nan_to_num(7), found.nan_to_num(7))


@pytest.mark.slow
def test_types_and_numbers() -> None:
    """Breaks when a half type is not rounded once, an integer not made a float, or a number not taken as an operand."""

    def each(_m: Any, x: Tensor, y: Tensor) -> list[Tensor]:
        half = torch.log(x.bfloat16())
        return [half, torch.log(y), torch.pow(x, y), torch.atan2(x, y), torch.pow(x, 2.5), torch.pow(3.0, x), x.pow(-2)]

    x, y = patterns(20), torch.tensor(3)
    program = llmchip.compile(Function(each).eval(), (x, y))
    assert program.verify(x, y).bit_exact
    for found, wanted in zip(program(x, y), each(None, x, y), strict=True):
        near = 1e-2 if found.dtype is torch.bfloat16 else 1e-6
        assert found.dtype is wanted.dtype
        assert torch.allclose(found.nan_to_num(7), wanted.nan_to_num(7), rtol=near)


@pytest.mark.slow
def test_what_is_made_of_functions() -> None:
    """Breaks when PyTorch's decompositions do not reach ours: softplus is a log1p, log_softmax a log."""
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(3))

    def layers(_m: Any, x: Tensor) -> list[Tensor]:
        f = torch.nn.functional
        return [
            f.softplus(x),
            f.elu(x),
            f.mish(x),
            x.log_softmax(-1),
            f.logsigmoid(x),
            x.sinc(),
            torch.logaddexp(x, -x),
        ]

    program = llmchip.compile(Function(layers).eval(), (x,))
    assert program.verify(x).bit_exact
    for found, wanted in zip(program(x), layers(None, x), strict=True):
        assert torch.allclose(found, wanted, rtol=2e-6, atol=2e-7)

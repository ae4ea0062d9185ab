"""Worst error of every function, the chip's and those made of others, over float32 inputs, against float64, in units in the last place of the exact
result.

    python tools/measure_functions.py [--stride N] [function ...]      stride 1 (default) visits all inputs

An ulp is the spacing of float32 at the exact value (2**-149 among subnormals). Inputs whose exact value overflows
float32 and inputs outside a function's range INSIDE are left out: there the saturated value is the definition.
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from compiler.passes import functions
from compiler.reference.functions import ACTIVATIONS

MADE = (
    "log", "log2", "log10", "log1p", "expm1", "sinh", "cosh", "asinh", "acosh", "atanh", "sin", "cos", "tan", "atan",
    "asin", "acos",
)  # fmt: skip
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {**ACTIVATIONS, **{name: getattr(functions, name) for name in MADE}}
CHUNK = 1 << 17
EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "erf": torch.erf,
    "tanh": torch.tanh,
    "sqrt": torch.sqrt,
    "recip": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / torch.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu_erf": lambda x: x * 0.5 * torch.erfc(-x * math.sqrt(0.5)),
    "gelu_tanh": lambda x: x / (1 + torch.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))),
    **{name: getattr(torch, name) for name in MADE},
}
HALF = ("erf", "tanh", "recip", "sqrt", "rsqrt")  # odd by construction, or NaN below zero: positive inputs suffice
INSIDE: dict[str, tuple[float, float]] = {"exp": (-87.0, 88.0), "sigmoid": (-88.0, 128.0), "silu": (-88.0, math.inf)} | {
    "expm1": (-math.inf, 88.0),
}  # fmt: skip


def measure(name: str, stride: int) -> str:
    low, high = INSIDE.get(name, (-math.inf, math.inf))
    worst, where, absolute, absolute_at = 0.0, 0.0, 0.0, 0.0
    for start in range(0 if name in HALF else -(1 << 31), 1 << 31, CHUNK * stride):
        x = (
            torch.arange(start, min(start + CHUNK * stride, 1 << 31), stride, dtype=torch.int64)
            .to(torch.int32)
            .view(torch.float32)
        )
        exact = EXACT[name](x.to(torch.float64))
        got = FUNCTIONS[name](x).to(torch.float64)
        usable = torch.isfinite(exact) & (exact.abs() < 3.4028234e38) & (x >= low) & (x <= high)
        error = torch.where(usable, (got - exact).abs(), 0.0)
        exponent = torch.clamp(torch.frexp(exact).exponent - 24, min=-149)
        ulps = torch.ldexp(error, -exponent)
        if (peak := float(ulps.max())) > worst:
            worst, where = peak, float(x[int(ulps.argmax())])
        error = torch.where(x.abs() < 1e6, error, 0.0)
        if (peak := float(error.max())) > absolute:
            absolute, absolute_at = peak, float(x[int(error.argmax())])
    return f"{name:10} {worst:12.4f} ulp at {where!r} ({where.hex()}), {absolute:.3e} absolute at {absolute_at!r} (|x| < 1e6)"


def main() -> None:
    arguments = sys.argv[1:]
    stride = 1
    if "--stride" in arguments:
        at = arguments.index("--stride")
        stride = int(arguments[at + 1])
        del arguments[at : at + 2]
    torch.set_num_threads(1)
    for name in arguments or EXACT:
        begin = time.perf_counter()
        print(f"{measure(name, stride)}, stride {stride}, {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Fits the coefficients of erf and tanh that `isa/constants.py` stores, and those of `compiler/passes/functions.py`.

Near zero both are x + x*P(x*x). Further out tanh is 1 - 2/(1 + exp(2|x|)), which needs no fit, and erf is
1 - exp(-x*x)*R(|x| - 2). A fit minimises the largest error in units of the result by Lawson's iteration: a weighted
linear least squares fit whose weights grow where the error is large, in 60-digit arithmetic. Coefficients are then
rounded to float32 one at a time, lowest first, and the rest refitted each time, so that rounding costs nothing.

    python tools/fit_functions.py            prints the tables of hex words
    python tools/fit_functions.py --check    fails unless the two files hold exactly these
"""

import importlib
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

mp: Any = importlib.import_module("mpmath")  # it has no types
mp.mp.dps = 60
Real = Any
NODES, ROUNDS = 160, 14


@dataclass(frozen=True)
class Target:
    """Approximate `value` on [low, high] by a polynomial in `argument`, the error weighted by `weight`."""

    name: str
    value: Callable[[Real], Real]
    weight: Callable[[Real], Real]
    argument: Callable[[Real], Real]
    low: float
    high: float
    degree: int
    fixed: dict[int, Real] = field(default_factory=dict)


def _ratio(function: Callable[[Real], Real]) -> tuple[Callable[[Real], Real], Callable[[Real], Real]]:
    """f(x)/x - 1, and the weight that makes its error relative to f(x)."""
    return lambda x: function(x) / x - 1, lambda x: x / function(x)


def _rest(
    function: Callable[[Real], Real], power: int, first: Callable[[Real], Real]
) -> tuple[Callable[[Real], Real], Callable[[Real], Real]]:
    """(f(x) - first(x)) / x**power, and the weight that makes its error relative to f(x)."""
    return lambda x: (function(x) - first(x)) / x**power, lambda x: x**power / function(x)


def _square(x: Real) -> Real:
    return x * x


ZERO = {0: mp.mpf(0)}
TARGETS = (
    Target("ERF_P", *_ratio(mp.erf), _square, 0.0, 1.0, 6),
    Target("ERF_R", lambda x: mp.erfc(x) * mp.exp(x * x), lambda x: mp.exp(-x * x), lambda x: x - 2, 1.0, 4.0, 7),
    Target("TANH_P", *_ratio(mp.tanh), _square, 0.0, 0.625, 5, ZERO),
    Target("LOG_P", *_rest(mp.log1p, 3, lambda x: x - x * x / 2), lambda x: x, -0.2929, 0.41425, 8),
    Target("EXPM1_P", *_rest(mp.expm1, 2, lambda x: x), lambda x: x, -1.0, 1.0, 8),
    Target("SINH_P", *_ratio(mp.sinh), _square, 0.0, 1.0, 4, ZERO),
    Target("SIN_P", *_ratio(mp.sin), _square, 0.0, 0.7855, 4, ZERO),
    Target("COS_P", *_rest(mp.cos, 4, lambda x: 1 - x * x / 2), _square, 0.0, 0.7855, 2),
    Target("TAN_P", *_ratio(mp.tan), _square, 0.0, 0.7855, 8, ZERO),
    Target("ATAN_P", *_ratio(mp.atan), _square, 0.0, 0.41422, 5, ZERO),
    Target("ASIN_P", *_ratio(mp.asin), _square, 0.0, 0.5, 6, ZERO),
    Target("ATANH_P", *_rest(mp.atanh, 3, lambda x: x), _square, 0.0, 0.17158, 3),
)


def word(value: Real) -> int:
    return int(struct.unpack("<I", struct.pack("<f", float(value)))[0])


def single(value: Real) -> Real:
    return mp.mpf(struct.unpack("<f", struct.pack("<f", float(value)))[0])


def fit(target: Target, fixed: dict[int, Real]) -> tuple[list[Real], Real]:
    """Coefficients, lowest power first, with `fixed` ones kept; and the largest weighted error on the nodes."""
    half = mp.mpf(target.high - target.low) / 2
    xs = [target.low + half * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / NODES)) for i in range(NODES)]
    weights = [target.weight(x) for x in xs]
    terms = [[w * target.argument(x) ** k for k in range(target.degree + 1)] for x, w in zip(xs, weights, strict=True)]
    values = [w * target.value(x) for x, w in zip(xs, weights, strict=True)]
    lawson = [mp.mpf(1)] * NODES
    best: tuple[list[Real], Real] = ([], mp.inf)
    for _ in range(ROUNDS):
        coefficients = _solve(terms, values, lawson, fixed)
        errors = [abs(mp.fdot(coefficients, row) - value) for row, value in zip(terms, values, strict=True)]
        worst = max(errors)
        if worst < best[1]:
            best = (coefficients, worst)
        lawson = [w * (e / worst + mp.mpf("1e-6")) for w, e in zip(lawson, errors, strict=True)]
        mean = mp.fsum(lawson) / NODES
        lawson = [w / mean for w in lawson]
    return best


def _solve(terms: list[list[Real]], values: list[Real], lawson: list[Real], fixed: dict[int, Real]) -> list[Real]:
    """Weighted least squares by normal equations: 60 digits leave no conditioning problem."""
    count = len(terms[0])
    free = [i for i in range(count) if i not in fixed]
    if not free:
        return [fixed[i] for i in range(count)]
    wanted = [value - mp.fsum(fixed[i] * row[i] for i in fixed) for row, value in zip(terms, values, strict=True)]
    left, right = mp.matrix(len(free), len(free)), mp.matrix(len(free), 1)
    for a, i in enumerate(free):
        column = [w * row[i] for w, row in zip(lawson, terms, strict=True)]
        right[a] = mp.fdot(column, wanted)
        for b, j in enumerate(free):
            left[a, b] = mp.fdot(column, [row[j] for row in terms])
    solution = dict(zip(free, mp.lu_solve(left, right), strict=True))
    return [fixed[i] if i in fixed else solution[i] for i in range(count)]


def round_in_turn(target: Target) -> tuple[tuple[int, ...], Real]:
    """Float32 words, highest power first (Horner's order), and the error that is left."""
    fixed = dict(target.fixed)
    for index in range(target.degree + 1):
        if index not in fixed:
            fixed[index] = single(fit(target, fixed)[0][index])
    coefficients, worst = fit(target, fixed)
    return tuple(word(c) for c in reversed(coefficients)), worst


def main() -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from compiler.passes import functions
    from isa import constants

    same = True
    for target in TARGETS:
        words, worst = round_in_turn(target)
        print(f"{target.name} = ({', '.join(f'0x{w:08X}' for w in words)})  # {mp.nstr(worst * 2**24, 3)} * 2**-24")
        same = same and getattr(constants, target.name, getattr(functions, target.name, ())) == words
    return 0 if same or "--check" not in sys.argv else 1


if __name__ == "__main__":
    sys.exit(main())

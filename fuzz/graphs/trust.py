"""How near each value of a case must be to eager PyTorch's."""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum

import torch
from torch import Tensor

from fuzz.graphs.case import Case, Effect, Step, evaluate, values_of

RUNS = 3  # with noise
FACTOR = 12.0
FLOOR = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
CHAOS = 0.1  # a value that noise changes more than this says nothing
WILD = 1e15  # a value beyond this, or infinite or NaN: products and functions then overflow, each in its own way
TINY = 2e-3  # a product of computed values below this is made of few steps of the smallest scale, 2**-23
# a float16 row with a greater sum of magnitudes: its int8 product may pass 65504 before the column scale
# (docs/numerics.md, 7)
WIDE = 500.0


class Trust(IntEnum):
    EXACT = 0  # every bit
    ZERO = 1  # every bit but the sign of zeros
    NEAR = 2  # as near as the noise of products and functions allows
    LOOSE = 3  # not compared


def trust_of(case: Case, eager: Mapping[str, Tensor] | None = None) -> dict[str, Trust]:
    """By value, from the effect of each step. Special values, and those that are seen to be wild, end in LOOSE where a
    function or product sees them."""
    found = {leaf.name: Trust.EXACT for leaf in case.leaves}
    wild = {leaf.name for leaf in case.leaves if leaf.fill == "special"}
    for step in case.steps:
        if wild & set(step.operands):
            wild.add(step.name)
        worst = max((found[name] for name in step.operands), default=Trust.EXACT)
        trust = _after(step.effect, worst)
        if trust is Trust.NEAR and (step.name in wild or (eager is not None and _sees_wild(step, eager))):
            trust = Trust.LOOSE
        found[step.name] = trust
    return found


def _sees_wild(step: Step, eager: Mapping[str, Tensor]) -> bool:
    """Whether a product or function reads wild values. Softmax may: they are what masks are made of."""
    if step.effect not in (Effect.FUNCTION, Effect.PRODUCT) or "softmax" in step.text or "scaled_dot" in step.text:
        return False
    first = eager[step.operands[0]]
    if step.effect is Effect.PRODUCT and _vanishes([eager[name] for name in step.operands]):
        return True
    if (
        step.effect is Effect.PRODUCT
        and first.dtype is torch.float16
        and bool((first.float().abs().sum(-1) > WIDE).any())
    ):
        return True
    return any(eager[name].is_floating_point() and not bool((eager[name].abs() < WILD).all()) for name in step.operands)


def _vanishes(operands: Sequence[Tensor]) -> bool:
    """Whether products of computed values are near the smallest scale: that of the second is folded into the first
    (docs/numerics.md)."""
    size = 1.0
    for x in operands[:2]:
        size *= float(x.float().abs().nan_to_num(0.0).max()) if x.numel() else 1.0
    return 0.0 < size < TINY


def _after(effect: Effect, worst: Trust) -> Trust:
    if (
        worst is Trust.LOOSE
        or (effect is Effect.POLE and worst is Trust.ZERO)
        or (effect is Effect.JUMP and worst is Trust.NEAR)
    ):
        return Trust.LOOSE
    if effect in (Effect.FUNCTION, Effect.PRODUCT):
        return Trust.NEAR
    return max(worst, Trust.ZERO) if effect is Effect.ZERO else worst


def bounds(case: Case, names: list[str], eager: dict[str, Tensor]) -> dict[str, float]:
    """How far each of these values may be from eager's, by what noise does to it; values that noise makes into another
    are left out."""
    found: dict[str, float] = {}
    for noisy in _noisy(case):
        for name in names:
            found[name] = max(found.get(name, 0.0), distance(noisy[name], eager[name]))
    floors = _floors(case, eager)
    return {name: FACTOR * far + floors[name] for name, far in found.items() if far < CHAOS}


def _floors(case: Case, eager: dict[str, Tensor]) -> dict[str, float]:
    """What one rounding may do to each value: of its own type, and of those that it comes from."""
    found = {leaf.name: FLOOR.get(eager[leaf.name].dtype, 0.0) for leaf in case.leaves}
    for step in case.steps:
        found[step.name] = max([FLOOR.get(eager[step.name].dtype, 0.0), *(found[name] for name in step.operands)])
    return found


def distance(a: Tensor, b: Tensor) -> float:
    """Relative to b's size; infinite where NaN and infinities are in other places."""
    x, y = a.double(), b.double()
    finite = x.isfinite() & y.isfinite()
    if not bool((finite | (x == y) | (x.isnan() & y.isnan())).all()):
        return float("inf")
    x, y = x[finite], y[finite]
    return float((x - y).norm() / y.norm().clamp(min=1e-30)) if y.numel() else 0.0


def _noisy(case: Case) -> Iterator[dict[str, Tensor]]:
    """All values, with int8 operands in products and errors of a few units in the last place in functions."""
    for run in range(RUNS):
        generator = torch.Generator().manual_seed(run)
        values = values_of(case)
        for step in case.steps:
            if step.effect is Effect.PRODUCT:
                given = {name: _int8(values[name]) for name in step.operands}
                values[step.name] = _shaken(
                    evaluate(step.text, given),
                    generator,
                    2e-3,
                    [values[name] for name in step.operands if values[name].dim() == 1],
                )
            elif (
                step.effect is Effect.FUNCTION
            ):  # the operands, too: a norm of what is nearly constant shows nothing but errors
                given = {name: _shaken(values[name], generator, 1e-7) for name in step.operands}
                values[step.name] = _shaken(evaluate(step.text, given), generator, 1e-6)
            else:
                values[step.name] = evaluate(step.text, values)
        yield values


def _int8(x: Tensor) -> Tensor:
    """Rounded to 8 bits by rows and by columns, as docs/numerics.md scales them: coarser than any product rounds its
    operands."""
    if not x.is_floating_point() or not x.dim() or float(x.abs().max()) > 1e4:
        return x
    for dim in (-1, -2)[: x.dim()]:
        scale = (x.float().abs().amax(dim, keepdim=True) / 127.5).clamp(min=2**-23)
        x = ((x.float() / scale).round().clamp(-128, 127) * scale).to(x.dtype)
    return x


def _shaken(x: Tensor, generator: torch.Generator, size: float, biases: Sequence[Tensor] | None = None) -> Tensor:
    """With noise relative to the largest of each row, and a rounding of half types that may go the other way. That of a
    product is relative to the largest of all, or of its bias: a bias may cancel all of the product but its error."""
    if not x.is_floating_point() or not x.dim():
        return x
    size = max(size, torch.finfo(x.dtype).eps / 2)
    largest = _largest(x.float().abs().amax(-1, keepdim=True))
    for value in () if biases is None else (x, *biases):
        largest = torch.maximum(largest, _largest(value.float().abs().amax()))
    return (x.float() + torch.randn(x.shape, generator=generator) * largest * size).to(x.dtype)


def _largest(x: Tensor) -> Tensor:
    return x.nan_to_num(0.0, 0.0, 0.0)

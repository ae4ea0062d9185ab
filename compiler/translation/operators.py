"""What each operator of a frozen graph computes, in symbols: one rule per operator, after docs/numerics.md and
compiler/reference.

Views are none of them: PyTorch itself applies those to the symbols.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.node import Argument

from compiler.translation import symbols as s
from compiler.translation.blocks import aligned, blockwise, repeated
from compiler.translation.symbols import Symbols, Value, known, rounded
from compiler.types import STORAGE
from isa.architecture import FLOATS, Dtype

_TORCH = {Dtype.BF16: torch.bfloat16, Dtype.F16: torch.float16}
LOWEST = 0xFF7FFFFF  # -FLT_MAX
F32 = Dtype.F32


@dataclass(frozen=True, slots=True)
class Given:
    """A constant or input, or a view of one, that nobody has unfolded: element numbers of `name`, as strides of a
    tensor without data."""

    name: str
    view: Tensor

    def indices(self) -> Symbols:
        total = np.full((1,) * self.view.ndim, self.view.storage_offset() % 2**s.BITS, s.Symbol)
        for axis, (count, step) in enumerate(zip(self.view.shape, self.view.stride(), strict=True)):
            if step and count > 1:
                shape = [1] * self.view.ndim
                shape[axis] = count
                total = total + (np.arange(count, dtype=s.Symbol) * s.Symbol(step % 2**s.BITS)).reshape(shape)
        return total

    def symbols(self) -> Symbols:
        return repeated(s.given(self.name, self.indices()), tuple(self.view.shape))


def kind_of(value: Tensor) -> Dtype:
    return STORAGE[value.dtype]


def float_bits(value: float) -> int:
    """A Python number as float32."""
    with np.errstate(over="ignore"):
        return int(np.float32(value).view(np.uint32))


def narrow_bits(bits: int, kind: Dtype) -> int:
    """A float32 rounded to a type."""
    if kind not in _TORCH:
        return bits
    (value,) = struct.unpack("<f", struct.pack("<I", bits))
    return float_bits(float(torch.tensor(value, dtype=torch.float32).to(_TORCH[kind])))


@dataclass(frozen=True)
class Call:
    """A node with the values of its operands. Several results come as a tuple."""

    node: fx.Node
    value: Callable[[fx.Node], Symbols]
    given: Callable[[fx.Node], Given | None]
    steered: int = 0  # the elements of inputs that steer the program, in this launch
    changes: dict[str, Symbols] = field(default_factory=dict)  # what state is afterwards, by its placeholder

    @property
    def places(self) -> dict[str, int]:
        """Where the operands are, by the names that the operator's schema gives them."""
        assert isinstance(self.node.target, torch._ops.OpOverload)
        return {argument.name: place for place, argument in enumerate(self.node.target._schema.arguments)}

    def argument(self, place: int, name: str, default: Argument = None) -> Argument:
        return self.node.args[place] if len(self.node.args) > place else self.node.kwargs.get(name, default)

    def tensor(self, place: int) -> fx.Node:
        found = self.node.args[place]
        assert isinstance(found, fx.Node), f"operand {place} of {self.node.name} is {found!r}, not a tensor"
        return found

    def tensors(self, place: int) -> list[fx.Node]:
        given = self.node.args[place]
        assert isinstance(given, list | tuple), f"operand {place} of {self.node.name} is {given!r}, not several tensors"
        found = [x for x in given if isinstance(x, fx.Node)]
        assert len(found) == len(given), f"operand {place} of {self.node.name} is {given!r}, not several tensors"
        return found

    def element(self, place: int) -> fx.Node | float:
        """A tensor or a number."""
        found = self.node.args[place]
        assert isinstance(found, (fx.Node, int, float)), f"operand {place} of {self.node.name} is {found!r}"
        return found

    def number(self, place: int, name: str, default: float | None = None) -> float:
        found = self.argument(place, name, default)
        assert isinstance(found, (int, float)), f"'{name}' of {self.node.name} is {found!r}, not a number"
        return found

    def integer(self, place: int, name: str, default: int | None = None) -> int:
        found = self.argument(place, name, default)
        assert isinstance(found, int), f"'{name}' of {self.node.name} is {found!r}, not a whole number"
        return found

    def integers(self, place: int) -> list[int]:
        given = self.node.args[place]
        assert isinstance(given, list | tuple), f"operand {place} of {self.node.name} is {given!r}, not whole numbers"
        found = [x for x in given if isinstance(x, int)]
        assert len(found) == len(given), f"operand {place} of {self.node.name} is {given!r}, not whole numbers"
        return found

    def optional(self, **places: int) -> dict[str, Value]:
        """Optional operands by name: those that are given."""
        found = {name: self.argument(place, name) for name, place in places.items()}
        return {name: self.operand(x) for name, x in found.items() if isinstance(x, fx.Node)}

    @property
    def result(self) -> Tensor:
        """The fake tensor of the (first) result."""
        value = self.node.meta["val"]
        first: Tensor = value[0] if isinstance(value, tuple | list) else value
        return first

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.result.shape)

    @property
    def kind(self) -> Dtype:
        return kind_of(self.result)

    def operand(self, x: fx.Node) -> Value:
        return Value(self.value(x), kind_of(x.meta["val"]))

    def fill(
        self, work: Callable[..., Symbols], *operands: Value | fx.Node, shape: tuple[int, ...] | None = None
    ) -> Symbols:
        """A result of the node's shape, every block of which `work` computes; operands are nodes, arrays or Python
        numbers' symbols."""
        out = np.empty(self.shape if shape is None else shape, s.Symbol)
        values = [operand if isinstance(operand, Value) else self.operand(operand) for operand in operands]

        def block(*arrays: Symbols) -> tuple[Symbols, ...]:
            return (work(*(Value(array, value.kind) for array, value in zip(arrays, values, strict=True))),)

        blockwise(out.shape, 0, (out,), block, *(value.symbols for value in values))
        return out


Results = Symbols | tuple[Symbols, ...]
Compute = Callable[[Call], Results]
Elementwise = Callable[[Call], Symbols]


# ---- arithmetic


def _operands(call: Call, narrows: bool) -> tuple[list[Value], bool, Dtype]:
    """The two operands as values, whether they are computed with as integers, and the type in which PyTorch computes.

    A number beside a bfloat16 or float16 tensor is rounded to that type before it is added or compared (`narrows`), not
    before a product.
    """
    operands = call.element(0), call.element(1)
    a, b = (x.meta["val"] if isinstance(x, fx.Node) else x for x in operands)
    common = torch.result_type(a, b)
    integer, kind = not common.is_floating_point, STORAGE[common]
    found = []
    for arg in operands:
        if isinstance(arg, fx.Node):
            found.append(_promoted(call.operand(arg), kind))
        elif integer:
            found.append(Value(s.immediate(True, int(arg)), Dtype.I32))
        else:
            bits = float_bits(float(arg))
            found.append(Value(s.immediate(False, narrow_bits(bits, kind) if narrows else bits), F32))
    return found, integer, kind


def _is_one(call: Call) -> bool:
    """Whether a float is multiplied by the number 1."""
    factor = call.element(1)
    return (
        call.kind in FLOATS and not isinstance(factor, fx.Node) and factor == 1 and isinstance(call.element(0), fx.Node)
    )


def _promoted(value: Value, kind: Dtype) -> Value:
    """An operand in the type in which PyTorch computes, where that changes its value. Small integers fit in every
    float."""
    if kind in (Dtype.BF16, Dtype.F16) and value.kind in (Dtype.F32, Dtype.I32, Dtype.BF16, Dtype.F16):
        return known(value, kind)
    return value


def _arithmetic(name: str) -> Elementwise:
    def compute(call: Call) -> Symbols:
        if name == "mul" and _is_one(call):
            return _cast(call)
        operands, integer, _ = _operands(call, name not in ("mul", "div"))
        kind = call.kind

        def work(a: Value, b: Value) -> Symbols:
            if integer:
                return rounded(Value(s.binary(name, a.symbols, b.symbols, True), Dtype.I32), kind)
            return rounded(Value(s.binary(name, a.float, b.float), F32), kind)

        return call.fill(work, *operands)

    return compute


def _comparison(name: str, swap: bool = False) -> Elementwise:
    """gt is lt with its operands swapped; ge likewise."""

    def compute(call: Call) -> Symbols:
        (a, b), integer, _ = _operands(call, True)

        def work(a: Value, b: Value) -> Symbols:
            return s.binary(name, a.symbols, b.symbols, True) if integer else s.binary(name, a.float, b.float)

        return call.fill(work, *((b, a) if swap else (a, b)))

    return compute


def _truth(x: Value) -> Symbols:
    """Whether x is not zero."""
    integer = x.kind not in FLOATS
    return s.binary("ne", x.symbols if integer else x.float, s.immediate(integer, 0), integer)


def _compared_with_zero(name: str) -> Elementwise:
    def compute(call: Call) -> Symbols:
        def work(x: Value) -> Symbols:
            integer = x.kind not in FLOATS
            return s.binary(name, x.symbols if integer else x.float, s.immediate(integer, 0), integer)

        return call.fill(work, call.tensor(0))

    return compute


def _times_minus_one(x: Value, kind: Dtype) -> Symbols:
    """-x is -1 times x in every bit."""
    if kind in FLOATS:
        return rounded(Value(s.mul(x.float, s.immediate(False, float_bits(-1.0))), F32), kind)
    return rounded(Value(s.binary("mul", x.symbols, s.immediate(True, -1), True), Dtype.I32), kind)


def _neg(call: Call) -> Symbols:
    return call.fill(lambda x: _times_minus_one(x, call.kind), call.tensor(0))


def _abs(call: Call) -> Symbols:
    """The larger of x and -x."""
    kind = call.kind

    def work(x: Value) -> Symbols:
        other = Value(_times_minus_one(x, kind), kind)
        if kind in FLOATS:
            return rounded(Value(s.binary("max", x.float, other.float), F32), kind)
        return rounded(Value(s.binary("max", x.symbols, other.symbols, True), Dtype.I32), kind)

    return call.fill(work, call.tensor(0))


def _where(call: Call) -> Symbols:
    kind = call.kind

    def value(x: fx.Node | float) -> Value | fx.Node:
        if isinstance(x, fx.Node):
            return x
        if kind in FLOATS:
            return Value(s.immediate(False, float_bits(float(x))), F32)
        return Value(s.immediate(True, int(x)), Dtype.I32)

    def work(c: Value, x: Value, y: Value) -> Symbols:
        return s.select(c.symbols, rounded(x, kind), rounded(y, kind))

    return call.fill(work, call.tensor(0), value(call.element(1)), value(call.element(2)))


def _cast(call: Call) -> Symbols:
    """To bool: whether it is not zero."""
    kind = call.kind
    if call.result.dtype is torch.bool:
        return _compared_with_zero("ne")(call)
    return call.fill(lambda x: rounded(x, kind), call.tensor(0))


def _cat(call: Call) -> Symbols:
    parts, kind = call.tensors(0), call.kind
    arrays = [rounded(call.operand(part), kind) for part in parts if part.meta["val"].shape != (0,)]
    joined: Symbols = np.concatenate(arrays, call.integer(1, "dim", 0))
    return joined


# ---- functions and rows


def _activation(call: Call) -> Symbols:
    name, kind = str(call.argument(1, "kind")), call.kind
    return call.fill(lambda x: rounded(Value(s.function(name, x.float), F32), kind), call.tensor(0))


def _clamp(call: Call) -> Symbols:
    """Rounding after each bound or once at the end is the same: it keeps the order."""
    kind = call.kind
    given = ((1, "min", "max"), (2, "max", "min"))  # the larger of x and the bound `min`
    bounds = [(f, call.number(place, name)) for place, name, f in given if call.argument(place, name) is not None]

    def work(x: Value) -> Symbols:
        for f, bound in bounds:
            x = known(Value(s.binary(f, x.float, s.immediate(False, float_bits(bound))), F32), kind)
        return x.symbols

    return call.fill(work, call.tensor(0))


def _rows(
    call: Call,
    shape: tuple[int, ...],
    outs: list[Symbols],
    work: Callable[..., tuple[Symbols, ...]],
    *operands: Value,
    whole: int = 1,
) -> None:
    """Work that needs whole rows; the first operand has the full shape."""

    def block(*arrays: Symbols) -> tuple[Symbols, ...]:
        return work(*(Value(array, value.kind) for array, value in zip(arrays, operands, strict=True)))

    blockwise(shape, whole, outs, block, *(value.symbols for value in operands))


def _row(x: Symbols, length: int) -> Symbols:
    return x if x.shape[-1] == length else repeated(x, (*x.shape[:-1], length))


def _of_nothing(shape: tuple[int, ...], bits: int, kind: Dtype) -> Symbols:
    """What rows without elements give: a float32 of the program text, stored in the type of the result."""
    return np.full(shape, rounded(Value(s.immediate(False, bits), F32), kind), s.Symbol)


def _reduce(call: Call) -> Symbols:
    x, kind = call.operand(call.tensor(0)), call.kind
    name, dim, keep = str(call.argument(1, "kind")), call.integer(2, "dim"), call.argument(3, "keepdim", False)
    shape = call.tensor(0).meta["val"].shape
    down = dim % len(shape) == len(shape) - 2 and len(shape) > 1
    if 0 in shape:
        return _of_nothing(call.shape, {"max": 0xFF800000, "min": 0x7F800000}.get(name, 0), kind)
    out = np.empty([1 if i == dim % len(shape) else n for i, n in enumerate(shape)], s.Symbol)

    def work(x: Value) -> tuple[Symbols, ...]:
        rows = repeated(x.symbols, (*x.symbols.shape[:-2], *shape[-2:])) if down else _row(x.symbols, shape[-1])
        total = s.reduced(name, Value(rows.swapaxes(-1, -2) if down else rows, x.kind).float)
        return (rounded(Value(total.swapaxes(-1, -2) if down else total, F32), kind),)

    _rows(call, tuple(shape), [out], work, x, whole=2 if down else 1)
    return out if keep else out.squeeze(dim)


def _argmax(call: Call) -> Symbols:
    """Of the last dimension."""
    x = call.operand(call.tensor(0))
    out = np.empty((*call.shape, 1), s.Symbol)
    shape = tuple(call.tensor(0).meta["val"].shape) or (1,)  # a single number is a row of one

    def work(x: Value) -> tuple[Symbols, ...]:
        return (s.reduced("argmax", _row(x.float, shape[-1])),)

    _rows(call, shape, [out], work, x)
    return out[..., 0]


def _softmax(call: Call) -> Symbols:
    x, masked = call.operand(call.tensor(0)), bool(call.argument(1, "zero_masked_rows", False))
    out, length = np.empty(call.shape, s.Symbol), call.shape[-1]

    def work(x: Value) -> tuple[Symbols, ...]:
        rows = _row(x.float, length)
        top = s.reduced("max", rows)
        if masked:
            top = s.binary("max", top, s.immediate(False, LOWEST))
        exp = s.function("exp", s.sub(rows, top))
        total = s.reduced("sum", exp)
        if masked:
            total = s.binary("max", total, s.immediate(False, float_bits(1.0)))
        return (s.mul(exp, s.function("recip", total)),)

    _rows(call, call.shape, [out], work, x)
    return out


def _layer_norm(call: Call) -> Symbols:
    x, kind, length = call.operand(call.tensor(0)), call.kind, call.shape[-1]
    given, eps = call.optional(weight=1, bias=2), call.number(3, "eps", 1e-5)
    center = bool(call.argument(4, "center", True))
    share = float_bits(1.0 / length)
    out = np.empty(call.shape, s.Symbol)

    def work(x: Value, *more: Value) -> tuple[Symbols, ...]:
        rest = dict(zip(given, more, strict=True))
        rows = _row(x.float, length)
        d = s.sub(rows, s.scaled(s.reduced("sum", rows), share)) if center else rows
        variance = s.scaled(s.reduced("sumsq", d), share)
        y = s.mul(d, s.function("rsqrt", s.add(variance, s.immediate(False, float_bits(eps)))))
        if "weight" in rest:
            y = s.mul(y, rest["weight"].float)
        if "bias" in rest:
            y = s.add(y, rest["bias"].float)
        return (rounded(Value(y, F32), kind),)

    _rows(call, call.shape, [out], work, x, *given.values())
    return out


def _quantize_rows(call: Call) -> tuple[Symbols, Symbols]:
    x, shape = call.operand(call.tensor(0)), call.shape
    kind = x.kind
    q, scale = np.empty(shape, s.Symbol), np.empty((*shape[:-1], 1), s.Symbol)
    if 0 in shape:
        return q, _of_nothing(shape[:-1], 0x34000000, kind)  # the smallest scale, 2**-23

    given = call.optional(col=1, absmax=2)
    if "absmax" in given:  # of all rows, a column of its own
        given["absmax"] = replace(given["absmax"], symbols=given["absmax"].symbols[..., None])

    def work(x: Value, *more: Value) -> tuple[Symbols, ...]:
        found = dict(zip(given, more, strict=True))
        y = s.mul(x.float, found["col"].float) if "col" in found else x.float
        largest = found["absmax"].float if "absmax" in found else s.reduced("absmax", _row(y, shape[-1]))
        step = s.scale_of(largest, kind)
        return s.quantized(y, step), step

    _rows(call, shape, [q, scale], work, x, *given.values())
    return q, scale[..., 0]


def _quantize_groups(call: Call) -> tuple[Symbols, Symbols]:
    node = call.node
    group, norm, ties = call.integer(1, "group"), str(call.argument(2, "norm")), str(call.argument(3, "ties"))
    q, scales = node.meta["val"]
    shape = (*scales.shape, group)
    x = repeated(call.operand(call.tensor(0)).float, tuple(q.shape)).reshape(shape)
    if 0 in shape:
        return np.empty(tuple(q.shape), s.Symbol), np.empty(tuple(scales.shape), s.Symbol)
    largest = s.reduced("absmax", x)
    codes = s.group_codes(norm, ties, x, largest)
    stored = rounded(Value(s.group_scale(norm, largest), F32), kind_of(scales))
    return codes.reshape(tuple(q.shape)), stored[..., 0]


# ---- products


def _matmul_i8(call: Call) -> Symbols:
    a, b, transposed = call.tensor(0), call.tensor(1), call.node.args[2]
    if a.meta["val"].shape[-1] == 0:
        return np.full(call.shape, s.immediate(True, 0), s.Symbol)  # sums of nothing
    rows = s.dot_rows(repeated(call.value(a), tuple(a.meta["val"].shape)), 0)
    total: Symbols = rows[..., :, None] + _columns(call, b, -1 if transposed else -2)[..., None, :]
    return total if total.shape == call.shape else repeated(total, call.shape)


def _matmul_float(call: Call) -> Symbols:
    """Weights that are codes are converted first."""
    a, w, transposed = call.tensor(0), call.tensor(1), call.node.args[2]
    if a.meta["val"].shape[-1] == 0:
        return np.full(call.shape, s.immediate(False, 0), s.Symbol)  # sums of nothing
    rows = s.dot_rows(repeated(call.value(a), tuple(a.meta["val"].shape)), 0)
    axis = -1 if transposed else -2
    if w.meta["val"].dtype.is_floating_point:
        columns = _columns(call, w, axis)
    else:
        floats = Value(repeated(call.value(w), tuple(w.meta["val"].shape)), Dtype.I8).float
        columns = s.dot_columns(floats, 0, axis)
    total: Symbols = (rows[..., :, None] + columns[..., None, :]) * s.float_product()
    return total if total.shape == call.shape else repeated(total, call.shape)


def _columns(call: Call, b: fx.Node, axis: int) -> Symbols:
    """What the columns of a right operand, whose dimension k is `axis`, add to the symbols of a product."""
    given = call.given(b)
    if given is None:
        return s.dot_columns(repeated(call.value(b), tuple(b.meta["val"].shape)), 0, axis)
    start = Given(given.name, given.view.select(axis, 0)).indices()
    return s.dot_given(given.name, start, given.view.stride()[axis], 0, given.view.shape[axis])


def _matmul_chosen(call: Call) -> Symbols:
    """Every row with the blocks that it names, looked up one by one."""
    a, table, chosen = (call.tensor(place) for place in range(3))
    blocks, _, k = table.meta["val"].shape
    if k == 0:
        return np.full(call.shape, s.immediate(True, 0), s.Symbol)  # sums of nothing
    left = s.dot_rows(repeated(call.value(a), tuple(a.meta["val"].shape)), 0)
    numbers = repeated(call.value(chosen), tuple(chosen.meta["val"].shape))
    given = call.given(table)
    assert given is not None, f"{call.node.name} chooses among weights that are computed"
    columns = Given(given.name, given.view.select(0, 0).select(1, 0)).indices()
    shift = s.shift_of(numbers[..., None], given.view.stride()[0], blocks)
    found = s.dot_given(given.name, columns, given.view.stride()[2], 0, k, shift)
    total: Symbols = left[:, None] + found.reshape(call.shape)
    return total


@dataclass(frozen=True)
class _Windows:
    """For each dimension and tap, which element of the map each place has there: it may lie outside."""

    numbers: list[list[np.ndarray[Any, np.dtype[np.int64]]]]
    sizes: tuple[int, ...]
    batch: int

    @staticmethod
    def of(x: Symbols, places: tuple[int, ...], taps: tuple[int, ...], over: list[list[int]]) -> "_Windows":
        numbers = [
            [np.arange(count) * step + tap * apart - before for tap in range(number)]
            for count, number, step, apart, before in zip(places, taps, *over, strict=True)
        ]
        return _Windows(numbers, x.shape[1:-1], x.shape[0])

    @property
    def taps(self) -> list[tuple[int, ...]]:
        return list(np.ndindex(*map(len, self.numbers)))

    def inside(self, tap: tuple[int, ...]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """Of each dimension, the places that have the tap inside the map."""
        found = (self.numbers[dim][t] for dim, t in enumerate(tap))
        return [np.flatnonzero((n >= 0) & (n < size)) for n, size in zip(found, self.sizes, strict=True)]

    def whole(self, tap: tuple[int, ...]) -> bool:
        """Whether all places have it inside the map."""
        return all(len(n) == len(of[0]) for n, of in zip(self.inside(tap), self.numbers, strict=True))

    def places(self, tap: tuple[int, ...]) -> Any:
        """Where in a result the places are that have the tap inside the map."""
        return np.ix_(np.arange(self.batch), *self.inside(tap))

    def seen(self, tap: tuple[int, ...]) -> Any:
        """Where in the map what they have there is."""
        return np.ix_(
            np.arange(self.batch),
            *(self.numbers[d][t][n] for d, (t, n) in enumerate(zip(tap, self.inside(tap), strict=True))),
        )


def _depthwise(call: Call) -> Symbols:
    """The bias, then every tap; the first tap that all places have inside the map is the last."""
    x, weight = (repeated(call.operand(call.tensor(i)).float, tuple(call.tensor(i).meta["val"].shape)) for i in (0, 1))
    given = call.optional(bias=2)
    out = repeated(given["bias"].float if given else s.immediate(False, 0), call.shape).copy()
    windows = _Windows.of(x, call.shape[1:-1], weight.shape[:-1], [call.integers(place) for place in (3, 4, 5)])
    last = [tap for tap in windows.taps if windows.whole(tap)][:1]
    for tap in [tap for tap in windows.taps if tap not in last] + last:
        at = windows.places(tap)
        out[at] = s.add(out[at], s.mul(x[windows.seen(tap)], weight[tap]))
    return out


def _im2col(call: Call) -> Symbols:
    x = call.operand(call.tensor(0))
    values, channels = (
        repeated(x.symbols, tuple(call.tensor(0).meta["val"].shape)),
        call.tensor(0).meta["val"].shape[-1],
    )
    windows = _Windows.of(values, call.shape[1:-1], tuple(call.integers(1)), [call.integers(p) for p in (2, 3, 4)])
    zero = rounded(Value(s.immediate(False, 0), F32), x.kind)
    out = np.full((*call.shape[:-1], len(windows.taps), channels), zero, s.Symbol)
    for number, tap in enumerate(windows.taps):
        out[..., number, :][windows.places(tap)] = values[windows.seen(tap)]
    return out.reshape(call.shape)


_GROUPED = ("a", "w", "sa", "sw", "zw", "ss", "sm")


def _matmul_groups(call: Call) -> Symbols:
    if call.tensor(0).meta["val"].shape[-1] == 0:
        return np.full(call.shape, s.immediate(False, 0), s.Symbol)  # sums of nothing
    rule = s.Grouped(
        call.integer(7, "group", 32),
        call.integer(8, "sub", 0),
        str(call.argument(9, "codes", "i8")),
        bool(call.argument(10, "pre", False)),
        bool(call.argument(11, "half", False)),
    )
    left, right = np.zeros(1, s.Symbol), np.zeros(1, s.Symbol)  # what rows and columns add, which is one sum at last:
    for place, name in enumerate(_GROUPED):  # of a whole vocabulary's logits each sum is tens of megabytes
        operand = call.argument(place, name)
        if isinstance(operand, fx.Node):
            if name in ("a", "sa"):
                rows = s.dot_rows(repeated(call.value(operand), tuple(operand.meta["val"].shape)), 0)
                left = left + rows * rule.factor(name)
            else:
                right = right + _columns(call, operand, -1) * rule.factor(name)
    total: Symbols = left[..., :, None] + right[..., None, :]
    return total if total.shape == call.shape else repeated(total, call.shape)


def _dequantize(call: Call) -> Symbols:
    """A row scale for each row of c; rounded to the result's type after it and at the end."""
    c, row = call.operand(call.tensor(0)), call.operand(call.tensor(1))
    given, kind = call.optional(col=2, bias=3), call.kind

    def work(c: Value, row: Value, *more: Value) -> Symbols:
        rest = dict(zip(given, more, strict=True))
        t = known(Value(s.mul(c.float, row.float), F32), kind)
        if "col" in rest:
            t = Value(s.mul(t.float, rest["col"].float), F32)
        if "bias" in rest:
            t = Value(s.add(t.float, rest["bias"].float), F32)
        return rounded(t, kind)

    return call.fill(work, c, Value(row.symbols[..., None], row.kind), *given.values())


def _embedding(call: Call) -> Symbols:
    table, ids = call.tensor(0), call.tensor(1)
    given = call.given(table)
    row, shape = call.value(ids)[..., None], tuple(table.meta["val"].shape)
    if given is None or (shape[1] > 1 and given.view.stride()[1] != 1):  # rows in pieces are copied first
        return s.looked_up_in(row, repeated(call.value(table), shape), shape[0])
    column = Given(given.name, given.view.select(0, 0)).indices()
    return s.looked_up(row, given.name, aligned(column, row.ndim), given.view.stride()[0], given.view.shape[0])


def _cached_attention(call: Call) -> Symbols:
    """Rows are as long as the launch makes them: the old keys, then the new ones. A sum of products has no order; here
    the values of the new tokens come first."""
    at = call.places
    q, sq = (call.operand(call.tensor(at[name])) for name in ("q", "sq"))
    caches = [call.tensor(at[name]) for name in ("keys", "key_scales", "values", "value_scales")]
    keys, key_scales, values, value_scales = map(call.value, caches)
    tokens, capacity = q.symbols.shape[-2], keys.shape[-2]
    window = call.integer(at["window"], "window", 0)
    given = call.optional(**{name: at[name] for name in ("k", "sk", "v", "sv")})
    end = min(call.steered, capacity - tokens) if given else 0
    if given:
        k, sk, v, sv = given.values()
    else:  # the keys that are there take the place of new ones
        there = slice(0, min(call.steered, capacity - 1) + 1)
        k, v = (Value(x[:, :, there], Dtype.I8) for x in (keys, values))
        sk, sv = (Value(x[:, :, there], F32) for x in (key_scales, value_scales))
    first = max(end + 1 - window, 0) if window else 0  # no new token sees an older key
    old = end - first
    seen = slice(first, end)
    batch, heads, group, _, size = call.tensor(0).meta["val"].shape
    rows = (batch, heads, group, tokens, 1)
    queries, row = repeated(q.symbols, (*rows[:-1], size)), sq.float[..., None]

    def scores(codes: Symbols, scale: Symbols) -> Symbols:
        sums = s.dot_rows(queries, 0)[..., None] + s.dot_columns(codes, 0, -1)[:, :, None, None, :]
        return s.mul(s.mul(Value(sums, Dtype.I32).float, row), scale[:, :, None, None, :])

    before, new = scores(keys[:, :, seen], key_scales[:, :, seen]), scores(k.symbols, sk.float)
    if cap := call.number(at["softcap"], "softcap", 0.0):
        before, new = (
            s.scaled(s.function("tanh", s.scaled(x, float_bits(1.0 / cap))), float_bits(cap)) for x in (before, new)
        )
    for table in call.optional(bias=at["bias"]).values():
        firsts = [0]  # of the columns of a query's row; 0 is key 0
        if call.argument(at["by_distance"], "by_distance", False):
            firsts = [capacity - 1 - end - token for token in range(tokens)]
        added = np.stack([table.float[..., low + first : low + end + tokens] for low in firsts], -2)
        before, new = s.add(before, added[..., :old]), s.add(new, added[..., old:])
    for mask in call.optional(mask=at["mask"]).values():
        new = s.add(new, mask.float)
    for table in call.optional(old_mask=at["old_mask"]).values():
        line, reach = min(max(end + tokens - window, 0), tokens - 1), min(old, tokens - 1)
        before = before.copy()
        before[..., :reach] = s.add(before[..., :reach], table.float[line : line + tokens, :reach])
    factors = np.concatenate([value_scales[:, :, seen], sv.float], -1)[:, :, None, None, :]
    block = call.integer(at["block"], "block", 0) or tokens
    parts = []
    for low in range(0, tokens, block):  # no new token sees the new keys behind its block
        part, count = slice(low, low + block), min(low + block, tokens) if given else k.symbols.shape[-2]
        line = np.concatenate([before[..., part, :], new[..., part, :count]], -1)
        exp = s.function("exp", s.sub(line, s.reduced("max", line)))
        weights = s.mul(exp, s.function("recip", s.reduced("sum", exp)))
        weights = s.mul(weights, factors[..., : old + count])
        step = s.scale_of(s.reduced("absmax", weights), Dtype.F32)
        codes = s.quantized(weights, step)
        sums = s.dot_rows(codes[..., old:], 0)[..., None]
        sums = sums + s.dot_columns(v.symbols[:, :, :count], 0, -2)[:, :, None, None, :]
        if old:
            sums = sums + s.dot_rows(codes[..., :old], count)[..., None]
            sums = sums + s.dot_columns(values[:, :, seen], count, -2)[:, :, None, None, :]
        parts.append(s.mul(Value(sums, Dtype.I32).float, step))
    for cache, rest, fresh in zip(
        caches if given else (), (keys, key_scales, values, value_scales), (k.symbols, sk.float, v.symbols, sv.float),
        strict=bool(given),
    ):  # fmt: skip
        after = rest.copy()
        after[:, :, end : end + tokens] = fresh
        call.changes[cache.name] = after
    return repeated(known(Value(np.concatenate(parts, -2), F32), call.kind).symbols, call.shape)


RULES: dict[str, Compute] = {
    "cached_attention": _cached_attention,
    "quantize_rows": _quantize_rows,
    "matmul_i8": _matmul_i8,
    "matmul_float": _matmul_float,
    "matmul_chosen": _matmul_chosen,
    "quantize_groups": _quantize_groups,
    "matmul_groups": _matmul_groups,
    "dequantize": _dequantize,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "activation": _activation,
    "reduce": _reduce,
    "argmax": _argmax,
    "clamp": _clamp,
    "depthwise": _depthwise,
    "im2col": _im2col,
    "embedding": _embedding,
    "cat": _cat,
    "neg": _neg,
    "abs": _abs,
    "where": _where,
    "_to_copy": _cast,
    "logical_not": _compared_with_zero("eq"),
    **{name: _arithmetic(name) for name in ("add", "sub", "mul", "div")},
    **{f"bitwise_{name}": _arithmetic(name) for name in ("and", "or", "xor")},
    **{name: _comparison(name) for name in ("eq", "ne", "lt", "le")},
    "gt": _comparison("lt", swap=True),
    "ge": _comparison("le", swap=True),
}

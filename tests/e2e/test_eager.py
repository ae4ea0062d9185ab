"""Everything that is neither a product nor a function: eager PyTorch is the definition, bits and types.

Random programs of one operation each, many in one graph, over all types, tensors of 0 to 8 dimensions, numbers, 0-d
tensors, and the values at which something happens. What the lowered graph gives in PyTorch, and what the chip gives,
must be what eager PyTorch gives; what the chip does not have must be refused, and only that. LLMCHIP_EXAMPLES graphs
are tried (default 1).
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from compiler.frontend.capture import Captured, Leaf, capture
from compiler.graph.editor import is_static
from compiler.graph.fx_copy import copied
from compiler.graph.legal import frozen
from compiler.graph.manager import PassManager
from compiler.lower import pipeline
from compiler.options import Options
from isa.chip import load_chip
from runtime.program import Program

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "1"))
SIZE = 120  # operations in one graph
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
INTEGERS = (torch.int8, torch.int32, torch.int64)
TYPES = (torch.bool, *INTEGERS, *FLOATS)
SHAPES = ((), (1,), (3,), (2, 3), (2, 1, 3), (1, 4, 2, 1, 3), (2, 1, 1, 2, 1, 1, 1, 3))
NAN, INF = float("nan"), float("inf")
FLOAT_VALUES = (
    NAN,
    INF,
    -INF,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1 / 3,
    2.5,
    -3.0,
    1e-40,
    -6e-8,
    65504.0,
    3e38,
    16777216.0,
    200.0,
    127.5,
)
NUMBERS = (
    *FLOAT_VALUES,
    1e300,
    70000.0,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    127,
    -128,
    128,
    200,
    300,
    70000,
    16777217,
    2**31 - 1,
    -(2**31),
    2**31,
    2**40,
    -(2**40),
)
ZERO_IS_OURS = ("relu", "clamp", "amax", "amin", "maximum", "minimum")  # where floats are concerned


def _values(dtype: torch.dtype) -> tuple[Any, ...]:
    if dtype.is_floating_point:
        return FLOAT_VALUES
    if dtype is torch.bool:
        return (True, False)
    low, high = (-128, 127) if dtype is torch.int8 else (-(2**31), 2**31 - 1)  # int64 is carried in 32 bits
    return (low, low + 1, -100, -2, -1, 0, 1, 2, 7, 100, high - 1, high)


def _inputs(rng: random.Random) -> list[Tensor]:
    """One tensor of every type and shape."""
    found = []
    for dtype in TYPES:
        for shape in SHAPES:
            count = torch.Size(shape).numel()
            values = torch.tensor(
                [rng.choice(_values(dtype)) for _ in range(count)],
                dtype=torch.float64 if dtype.is_floating_point else None,
            )
            found.append(values.to(dtype).reshape(shape))
    return found


@dataclass(frozen=True)
class Case:
    """One operation, as an expression over the inputs `v`, and whether the chip may lack it."""

    text: str
    may_refuse: Callable[[Tensor], bool] = lambda _result: False

    def __call__(self, v: Sequence[Tensor]) -> Tensor:
        return eval(self.text, {"torch": torch, "v": v, "nan": NAN, "inf": INF})  # type: ignore[no-any-return]

    def eager(self, v: Sequence[Tensor]) -> Tensor | None:
        """What PyTorch gives; None if it refuses."""
        try:
            return self(v)
        except (RuntimeError, TypeError):
            return None


def _wide(result: Tensor) -> bool:
    """64-bit arithmetic need not fit in the 32 bits in which the chip keeps it."""
    return result.dtype is torch.int64


class Cases:
    """Random cases over the inputs."""

    def __init__(self, rng: random.Random, inputs: Sequence[Tensor]) -> None:
        self.rng, self.inputs = rng, inputs

    def tensor(self, *types: torch.dtype) -> int:
        return self.rng.choice([n for n, t in enumerate(self.inputs) if not types or t.dtype in types])

    def operands(self) -> tuple[str, str]:
        """Two operands, one of them a tensor, the other perhaps a number or of the same type."""
        a = self.tensor()
        other = self.rng.random()
        b = (
            repr(self.rng.choice(NUMBERS))
            if other < 0.4
            else f"v[{self.tensor(*((self.inputs[a].dtype,) if other < 0.6 else ()))}]"
        )
        return f"v[{a}]", b

    def arithmetic(self) -> Case:
        a, b = self.operands()
        if b[0] != "v" and self.rng.random() < 0.3:
            a, b = b, a
        return Case(f"{a} {self.rng.choice('+-*')} {b}", _wide)

    def quotient(self) -> Case:
        a, b = self.operands()
        return Case(f"torch.div({a}, {b})")

    def scaled(self) -> Case:
        types = self.rng.choice(INTEGERS)
        name = self.rng.choice(("add", "sub", "rsub"))
        return Case(
            f"torch.{name}(v[{self.tensor(types)}], v[{self.tensor(types)}], alpha={self.rng.choice((2, -3, 300))})",
            _wide,
        )

    def comparison(self) -> Case:
        a, b = self.operands()
        if b[0] != "v" and self.rng.random() < 0.3:
            a, b = b, a
        return Case(f"{a} {self.rng.choice(('==', '!=', '<', '<=', '>', '>='))} {b}")

    def bits(self) -> Case:
        a = self.tensor(torch.bool, *INTEGERS)
        b = (
            repr(self.rng.choice((True, False, 1, -1, 300)))
            if self.rng.random() < 0.3
            else f"v[{self.tensor(torch.bool, *INTEGERS)}]"
        )
        return Case(f"v[{a}] {self.rng.choice('&|^')} {b}")

    def truth(self) -> Case:
        return Case(f"torch.logical_{self.rng.choice(('and', 'or', 'xor'))}(v[{self.tensor()}], v[{self.tensor()}])")

    def unary(self) -> Case:
        name, wide = self.rng.choice(
            (("neg", True), ("abs", True), ("logical_not", False), ("bitwise_not", False), ("relu", False))
        )
        return Case(f"torch.{name}(v[{self.tensor()}])", _wide if wide else Case.may_refuse)

    def clamp(self) -> Case:
        low, high = (self.rng.choice((None, *NUMBERS)) for _ in range(2))
        return Case(f"torch.clamp(v[{self.tensor()}], {low}, {high})", _wide)

    def choice(self) -> Case:
        a, b = (
            self.operands()
            if self.rng.random() < 0.8
            else (repr(self.rng.choice(NUMBERS)), repr(self.rng.choice(NUMBERS)))
        )
        a, b = (a, b) if self.rng.random() < 0.5 else (b, a)
        return Case(f"torch.where(v[{self.tensor(torch.bool)}], {a}, {b})", _wide)

    def fill(self) -> Case:
        x, mask = self.tensor(), self.tensor(torch.bool)
        single = [n for n, t in enumerate(self.inputs) if t.dim() == 0]
        value = f"v[{self.rng.choice(single)}]" if self.rng.random() < 0.4 else repr(self.rng.choice(NUMBERS))
        floats = value[0] == "v" and not self.inputs[x].dtype.is_floating_point
        return Case(f"v[{x}].masked_fill(v[{mask}], {value})", (lambda _result: True) if floats else _wide)

    def cast(self) -> Case:
        x, dtype = self.tensor(), self.rng.choice(TYPES)
        lossy = self.inputs[x].dtype.is_floating_point and dtype in INTEGERS
        return Case(f"v[{x}].to({dtype})", lambda _result: lossy)

    def extreme(self) -> Case:
        return Case(f"v[{self.tensor(*FLOATS)}].{self.rng.choice(('amax', 'amin'))}({self.dims()})")

    def dims(self) -> str:
        return self.rng.choice(("-1", "0", "(0, -1)"))

    def larger(self) -> Case:
        other = self.rng.random()
        a = self.tensor()
        b = self.tensor(*((self.inputs[a].dtype,) if other < 0.6 else ()))
        return Case(f"torch.{self.rng.choice(('maximum', 'minimum'))}(v[{a}], v[{b}])")

    def count(self) -> Case:
        """Sums of integers that are read as floats round once."""
        return Case(f"v[{self.tensor(torch.bool, torch.int8)}].sum({self.dims()}).float()")

    def proved(self) -> Case:
        """64-bit arithmetic whose operands are known to be small."""
        a, b = (f"v[{self.tensor(torch.bool, torch.int8)}].long()" for _ in range(2))
        return Case(f"({a} {self.rng.choice('+-*')} {b}) {self.rng.choice('+-*')} {self.rng.choice((2, -7, 30000))}")

    def draw(self) -> Iterator[Case]:
        kinds = (
            self.arithmetic,
            self.arithmetic,
            self.quotient,
            self.scaled,
            self.comparison,
            self.comparison,
            self.bits,
            self.truth,
            self.unary,
            self.clamp,
            self.choice,
            self.choice,
            self.fill,
            self.cast,
            self.extreme,
            self.larger,
            self.count,
            self.proved,
        )
        while True:
            yield self.rng.choice(kinds)()


class Many(nn.Module):
    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, v: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(case(v) for case in self.cases)


def _refused(captured: Captured) -> dict[int, str]:
    """The results that the chip cannot compute, by number, with the reason."""
    gm = PassManager(pipeline(Options())).run(copied(captured.gm, "Lowering"))
    why: dict[fx.Node, str] = {}
    for node in gm.graph.nodes:
        if node.op == "output":
            break
        own = None if is_static(node) else frozen(node)
        inherited = next((why[n] for n in node.all_input_nodes if n in why), None)
        if own or inherited:
            why[node] = str(own or inherited)
    outputs: Any = gm.graph.output_node().args[0]
    return {number: why[node] for number, node in enumerate(outputs) if node in why}


def _without(captured: Captured, refused: set[int]) -> Captured:
    """The same graph without these results."""
    gm = copied(captured.gm, "Kept")
    output = gm.graph.output_node()
    kept = [n for n in range(len(captured.outputs)) if n not in refused]
    output.args = (tuple(output.args[0][n] for n in kept),)  # type: ignore[index]
    gm.graph.eliminate_dead_code()
    return replace(
        captured, gm=gm, outputs=tuple(captured.outputs[n] for n in kept), result=tuple(map(Leaf, range(len(kept))))
    )


def _same(text: str, got: Tensor, want: Tensor) -> bool:
    if got.dtype is not want.dtype or got.shape != want.shape:
        return False
    if not want.is_floating_point():
        return torch.equal(got, want)
    if any(name in text for name in ZERO_IS_OURS):
        got, want = got + 0.0, want + 0.0
    view = torch.int16 if want.element_size() == 2 else torch.int32
    equal = got.contiguous().view(view) == want.contiguous().view(view)
    return bool((equal | (got.isnan() & want.isnan())).all())


def wrong(seed: int) -> tuple[list[str], int]:
    """What is wrong in the graph of this seed, and how many results the chip computed."""
    rng = random.Random(seed)
    inputs = _inputs(rng)
    drawn = Cases(rng, inputs).draw()
    pairs = [
        (case, want)
        for case, want in ((case, case.eager(inputs)) for case in (next(drawn) for _ in range(SIZE)))
        if want is not None
    ]
    captured = capture(Many([case for case, _ in pairs]).eval(), (inputs,))
    refused = _refused(captured)
    found = [
        f"{pairs[n][0].text}: refused: {why}" for n, why in refused.items() if not pairs[n][0].may_refuse(pairs[n][1])
    ]
    pairs = [pair for number, pair in enumerate(pairs) if number not in refused]
    program = Program(_without(captured, set(refused)), Options(), load_chip("edge"))
    for who, results in (("the lowered graph", program.reference(inputs)), ("the chip", program(inputs))):
        judged = [(case.text, got, want) for (case, want), got in zip(pairs, results, strict=True)]
        found += [
            f"{text}: {who} gives {_shown(got)}, PyTorch {_shown(want)}"
            for text, got, want in judged
            if not _same(text, got, want)
        ]
    types = [f"v[{n}] is {t.dtype} {list(t.shape)}" for n, t in enumerate(inputs)]
    return [_with_types(line, types) for line in found], len(pairs)


def _shown(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {x.flatten()[:6].tolist()}"


def _with_types(line: str, types: Sequence[str]) -> str:
    named = [kind for kind in types if kind.partition(" ")[0] in line.partition(": ")[0]]
    return f"{line}  ({'; '.join(named)})"


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_elementwise_operations_are_pytorchs_own(seed: int) -> None:
    """Breaks if a type, a promotion, the truth of a number, a wrap-around, a NaN or the sign of a zero is restated
    otherwise."""
    found, computed = wrong(seed)
    assert not found, "\n".join(found)
    assert computed > SIZE // 2


EDGES: dict[str, tuple[str, list[Tensor]]] = {
    "a 0-d operand wraps": (
        "torch.logical_and(v[0], v[1])",
        [torch.tensor(256, dtype=torch.int32), torch.tensor([1, 2], dtype=torch.int8)],
    ),
    "a 0-d operand rounds to zero": ("torch.logical_or(v[0], v[1])", [torch.tensor(1e-30), torch.zeros(2).half()]),
    "NaN is a number": ("nan < v[0]", [torch.tensor([1.0, NAN]).bfloat16()]),
    "NaN is no number": ("v[0] != nan", [torch.tensor([1.0, NAN]).half()]),
    "maximum": (
        "torch.maximum(v[0], v[1])",
        [torch.tensor([NAN, 1.0, -INF, 2.0]), torch.tensor([1.0, NAN, INF, -3.0])],
    ),
    "minimum of truths": (
        "torch.minimum(v[0], v[1])",
        [torch.tensor([True, True, False]), torch.tensor([True, False, False])],
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str) -> None:
    """Breaks when truth is asked before the common type is taken, or when the two sides of the translation check write
    NaN differently."""
    text, inputs = EDGES[name]
    (got,) = Program(capture(Many([Case(text)]).eval(), (inputs,)), Options(), load_chip("edge"))(inputs)
    assert _same(text, got, Case(text)(inputs))

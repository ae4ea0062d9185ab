"""The translation check: it knows every operation, finds seeded faults by itself, and says what is wrong."""

import re
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from compiler.frontend.capture import capture
from compiler.pipeline import compile_captured
from compiler.translation import instructions, operators, symbols
from compiler.translation.check import TranslationError
from compiler.translation.iterations import Iterations
from compiler.translation.memory import Wrong
from compiler.types import STORAGE
from isa.architecture import Dtype, Engine
from isa.spec import ISA
from tools.mutation.pass_faults import PASS_FAULTS, seeded
from tools.mutation.subjects import tile_subject
from tools.mutation.tile_faults import TILE_FAULTS, tile_mutants
from tools.mutation.tile_score import judge_pass


def test_every_word_has_a_rule() -> None:
    """Breaks when the chip gains an instruction that the check does not know. (Operations:
    tests/compiler/ops/test_ops.py.)"""
    engines = {name for name, row in ISA.items() if row.views and row.engine is not Engine.CTL}
    assert engines == {*instructions.RULES, "ldw", "lda", "sto", "gather", "mm", "mmg"}


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args: Tensor) -> Any:
        return self.function(self, *args)


def report(module: nn.Module, *args: Tensor) -> str:
    """What the check says while `module` is compiled; "" for nothing."""
    try:
        compile_captured(capture(module.eval(), args))
    except TranslationError as error:
        return str(error)
    return ""


def test_a_column_of_the_wrong_block_is_found() -> None:
    """Breaks when only values are told apart, and not their elements: each group of columns reads its own first
    column."""
    with seeded("columns are separable by shapes"):
        found = report(
            Function(lambda m, x: (lambda y: y * y[:, :1])(m.up(x)), up=nn.Linear(1024, 2048)), torch.randn(64, 1024)
        )
    assert "mul" in found and re.search(r"dequantize\[0, [1-9]\d*\]", found), found


def test_the_place_in_a_single_number() -> None:
    """Breaks when argmax of a tensor without dimensions has no row for the check."""
    assert report(Function(lambda m, x: torch.argmax(x * 2)), torch.tensor(3.0)) == ""


def test_a_carried_value_that_is_overwritten_is_found() -> None:
    """Breaks when a loop's memory is not followed: another value moves into the carried one's, which later blocks still
    read."""
    layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(m: Any, x: Tensor, y: Tensor) -> Any:
        h = torch.layer_norm(m.first(x), (16,))
        for layer in m.layers:
            h = layer((h + y).sum(-1))
        return h

    with seeded("a storage is read before it is written"):
        found = report(
            Function(forward, first=nn.Linear(16, 16), layers=layers), torch.randn(16, 16), torch.randn(16, 16, 16)
        )
    assert "in iteration" in found, found


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("mlp", 3),
        ("mixed", 3),
        pytest.param("bert-4", 1, marks=pytest.mark.wide),
        ("grouped", 3),
        pytest.param("grouped small", 3, marks=pytest.mark.wide),
    ],
)
def test_seeded_faults_are_found(name: str, each: int) -> None:
    """Breaks when a fault changes bits and the check has nothing to say; `make mutate` tries more."""
    subject = tile_subject(name, inputs=2)
    assert not subject.report(subject.program)
    random = Random(name)
    verdicts = [
        subject.judge(m, thorough=False)
        for kind in TILE_FAULTS
        for m in tile_mutants(subject.program, kind, random, each)
    ]
    assert [v.what for v in verdicts if v and v.missed] == []
    assert sum(bool(v and v.report) for v in verdicts) >= len(verdicts) // 2


@pytest.mark.parametrize("fault", PASS_FAULTS)
def test_every_fault_in_a_pass_has_its_place(fault: str) -> None:
    """Breaks when a pass has changed and a fault of `make mutate` replaces nothing any more."""
    with seeded(fault):
        pass


@pytest.mark.parametrize("fault", ["the last block lacks a row", "reads need not wait"])
def test_a_fault_in_a_pass_is_found(fault: str) -> None:
    """Breaks when blocks or the order of words go wrong and the check has nothing to say."""
    verdict = judge_pass(fault, "mixed", lambda: tile_subject("mixed", 1))
    assert verdict is not None and verdict.report and verdict.differs


def test_symbols_of_given_rows_in_closed_form_are_those_of_their_elements() -> None:
    """Breaks when a product's symbols depend on whether its weights were unfolded, or on how k was cut."""
    index = np.arange(40 * 12, dtype=symbols.Symbol).reshape(40, 12)
    values = symbols.given("w", index)
    with np.errstate(over="ignore"):
        rows, columns = symbols.dot_given("w", index[:, 0], 1, 5, 12), symbols.dot_given("w", index[0], 12, 5, 40)
    assert (symbols.dot_columns(values, 5, -1) == rows).all()
    assert (symbols.dot_columns(values, 5, -2) == columns).all()
    parts = symbols.dot_rows(values[:, :7], 0) + symbols.dot_rows(values[:, 7:], 7)
    assert (parts == symbols.dot_rows(values, 0)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_are_narrowed_as_pytorch_narrows_them(dtype: torch.dtype) -> None:
    """Breaks if the rule for numbers beside narrow tensors is not eager PyTorch's: rounded before sums and comparisons,
    not before products."""
    x, number = torch.linspace(-2, 2, 401).to(dtype), 1.0 / 3.0
    kind = STORAGE[dtype]
    narrow = float(np.uint32(operators.narrow_bits(operators.float_bits(number), kind)).view(np.float32))
    assert torch.equal(x + number, (x.float() + narrow).to(dtype)) and torch.equal(x <= number, x.float() <= narrow)
    assert torch.equal(x * number, (x.float() * torch.tensor(number)).to(dtype))


def layered(targets: list[Any]) -> tuple[fx.Graph, dict[str, tuple[str, ...]]]:
    """A chain of one operation each for the iterations of a loop."""
    graph = fx.Graph()
    node = graph.placeholder("x")
    node.meta["val"] = torch.empty(3)
    names = []
    for target in targets:
        node = graph.call_function(target, (node,))
        node.meta["val"] = torch.empty(3)
        names.append(node.name)
    graph.output((node,))
    return graph, {names[0]: tuple(names)}


def test_iterations_that_are_not_alike_are_no_loop() -> None:
    """Breaks when only the first and the last iteration are looked at."""
    neg, absolute = torch.ops.aten.neg.default, torch.ops.aten.abs.default
    Iterations(*_with_count(layered([neg] * 5)))
    with pytest.raises(Wrong, match="iteration 3"):
        Iterations(*_with_count(layered([neg, neg, neg, absolute, neg])))


def _with_count(made: tuple[fx.Graph, dict[str, tuple[str, ...]]]) -> tuple[Any, ...]:
    graph, instances = made
    return graph, len(next(iter(instances.values()))), instances, ()


def test_a_value_that_is_widened_has_its_symbol_and_a_rounded_one_another() -> None:
    """Breaks when fusing a cast changes what the check sees, or when a lost rounding does not."""
    x = symbols.Value(symbols.given("x", np.arange(4, dtype=np.uint64)), Dtype.BF16)
    assert (symbols.rounded(x, Dtype.F32) == x.symbols).all() and (symbols.rounded(x, Dtype.BF16) == x.symbols).all()
    assert (symbols.rounded(symbols.Value(x.symbols, Dtype.F32), Dtype.BF16) != x.symbols).all()

"""Which operations are done on the way of others: what a reader sees of it, that it changes no bit, that it saves
cycles."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import llmchip
from compiler.frontend.capture import capture
from compiler.fuse.epilogues import fuse_epilogues
from compiler.lower import lower
from compiler.options import Options
from compiler.pipeline import finish
from compiler.tile.kernel_op import kernel_ops
from compiler.tile.kernels import Kernel, Step
from compiler.tile.manager import TileManager
from compiler.tile.state import made
from compiler.tile.verify import verify_kernels
from compiler.tiling import kernel_state
from emulator.timing.simulate import simulate
from isa.chip import load_chip

EDGE = load_chip("edge")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.norm, self.up = nn.LayerNorm(16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(1, 6, 2, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        y: Tensor = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 6, 16)
        found: Tensor = self.up(self.norm(self.o(y) + x))
        return found


class TwoProducts(nn.Module):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return a @ b + a @ c


class Narrow(nn.Module):
    """One column, added to all columns: the product is smaller than the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.a(x) + x
        return found


class AlsoRead(nn.Module):
    """Nothing may be left out here: everything on the way is a result, too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        product = self.a(x)
        total = product + x
        normed = self.norm(total)
        return product, total, normed, torch.softmax(self.b(normed), -1)


class LastIsRead(nn.Module):
    """Equal layers, of which the product in the last is a result, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(nn.Linear(16, 16) for _ in range(7)), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, *layers = self.layers
        x = torch.tanh(first(x))
        for layer in layers:
            product = layer(x)
            x = product + x
        return product, self.head(x)


X = torch.linspace(-2, 3, 96).view(1, 6, 16)
MODELS: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "attention": (Attention(), (X,)),
    "two products": (TwoProducts(), (X[0, :, :8], X[0].T[:8, :5].contiguous(), X[0].T[4:12, :5].contiguous())),
    "narrow": (Narrow(), (X,)),
    "all are results": (AlsoRead(), (X,)),
    "the last is a result": (LastIsRead(), (X,)),
}


def steps(name: str, *disable: str) -> list[list[str]]:
    """The steps of each kernel, as a reader sees them."""
    model, inputs = MODELS[name]
    graph = lower(capture(model.eval(), inputs))
    state = kernel_state(graph, Options(disable=disable), EDGE, TileManager())
    return [[str(step) for step in kernel.steps] for kernel in made(state.kernel_graph).kernels]


@cache
def program(name: str, *disable: str) -> llmchip.Program:
    model, inputs = MODELS[name]
    torch.manual_seed(0)
    return llmchip.compile(model.eval(), inputs, chip="edge", disable=disable)


def test_what_is_done_on_the_way() -> None:
    """Breaks if one of the four fusions is lost, or one is made that nobody asked for."""
    assert [step for kernel in steps("attention")[4:7] for step in kernel] == [
        "mul(mul)",
        "matmul_i8(matmul_i8_3)+dequantize(dequantize_3){max}",
        "softmax(softmax){exp, recip}",
        "quantize_rows(quantize_rows_4)",
        "matmul_i8(matmul_i8_4)+dequantize(dequantize_4)",
        "quantize_rows(quantize_rows_5)",
        "matmul_i8(matmul_i8_5)+dequantize(dequantize_5)+add(add)",
        "layer_norm(layer_norm){absmax}",
        "quantize_rows(quantize_rows_6)",
    ]


def test_without_the_pass_every_operation_is_alone() -> None:
    """Breaks if an emitter fuses on its own account."""
    assert all(
        "+" not in step and "{" not in step for kernel in steps("attention", "fuse-epilogues") for step in kernel
    )


def test_of_two_products_the_later_one_takes_the_sum() -> None:
    """Breaks if both wait for the addition: then neither is there when the other needs it."""
    model, inputs = MODELS["two products"]
    ops = kernel_ops(lower(capture(model.eval(), inputs)).main.graph)
    kernel = Kernel.of([op for op in ops if op.kind in ("matmul_i8", "dequantize", "add")], (6,))
    assert [str(step) for step in fuse_epilogues(kernel, frozenset()).steps] == [
        "matmul_i8(matmul_i8)+dequantize(dequantize)",
        "matmul_i8(matmul_i8_1)+dequantize(dequantize_1)+add(add)",
    ]


def test_what_is_a_result_is_made_in_full() -> None:
    """Breaks if a value that the caller reads, in the last iteration of a loop alone, is never written."""
    assert not any("+add" in step for kernel in steps("all are results") for step in kernel)
    assert not any("+add" in step for kernel in steps("narrow") for step in kernel)
    found = steps("the last is a result")
    assert len(found) == 5  # before the loop, its body of two, the head
    assert found[3][:2] == ["matmul_i8(matmul_i8_2)+dequantize(dequantize_2)", "add(add_1)"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("disable", [(), ("fuse-epilogues",), ("fuse-epilogues", "fuse")])
def test_no_bit_changes(name: str, disable: tuple[str, ...]) -> None:
    """Breaks if a fused step rounds elsewhere, or one alone reads what nobody has made."""
    found = program(name, *disable)
    assert found.verify(*MODELS[name][1])


def test_it_is_worth_its_cycles() -> None:
    """Breaks if steps on the way of others cost as much as alone."""
    model, inputs = MODELS["attention"]
    graph = lower(capture(model.eval(), inputs))
    fused, alone = (
        simulate(finish(graph, Options(disable=off), EDGE).image()).cycles for off in ((), ("fuse-epilogues",))
    )
    assert fused < 0.95 * alone


@pytest.mark.parametrize(
    ("steps_of", "message"),
    [
        (lambda steps: steps[:-1], "is made by no step"),
        (lambda steps: (*steps, steps[0]), "is made a second time"),
        (lambda steps: steps[::-1], "is not there yet"),
    ],
)
def test_steps_are_verified_behind_the_pass(
    steps_of: Callable[[tuple[Step, ...]], tuple[Step, ...]], message: str
) -> None:
    """Breaks if a pass may forget an operation of a kernel, do one twice, or one before what it reads, and a later
    pass is blamed."""
    model, inputs = MODELS["attention"]
    state = kernel_state(lower(capture(model.eval(), inputs)), Options(), EDGE, TileManager())
    graph = made(state.kernel_graph)
    kernels = [replace(k, steps=steps_of(k.steps)) if len(k.steps) > 2 else k for k in graph.kernels]
    with pytest.raises(ValueError, match=message):
        verify_kernels(kernels, stored=graph.stored)
    verify_kernels(graph.kernels, stored=graph.stored)


def test_what_is_stored_is_made_by_a_step() -> None:
    """Breaks if a sum may be left in the array that another kernel reads."""
    model, inputs = MODELS["attention"]
    graph = made(kernel_state(lower(capture(model.eval(), inputs)), Options(), EDGE, TileManager()).kernel_graph)
    sums = next(step.product for kernel in graph.kernels for step in kernel.steps if step.product is not None)
    with pytest.raises(ValueError, match="matmul_i8 is made by no step"):
        verify_kernels(graph.kernels, stored=graph.stored | {sums})


@pytest.mark.parametrize("disable", [(), ("fuse-epilogues",)])
def test_products_wider_than_an_instruction(disable: tuple[str, ...]) -> None:
    """Breaks if an instruction is asked for more columns than its field holds: 70,000 of a shallow product."""
    for model in (nn.Linear(4, 70_000), nn.Sequential(nn.Linear(4, 70_000), nn.Softmax(-1))):
        x = torch.linspace(-1, 1, 8).view(2, 4)
        assert llmchip.compile(model.eval(), (x,), chip="edge", disable=disable).verify(x)

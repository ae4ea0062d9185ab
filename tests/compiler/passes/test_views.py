"""Canonical views."""

from collections.abc import Callable

import pytest
import torch
from models import Function
from torch import Tensor, nn

import llmchip
from compiler.frontend.capture import capture
from compiler.pipeline import compile_captured
from runtime.device.executable import Executable


class EveryNth(nn.Module):
    """Slices with steps, of the last and of another dimension, from both ends of a group."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = x + 1
        return y[..., ::2], y[..., 1::2], y[:, 1::3], y[:, ::2], y[1::2, :, 3::4], y[..., :-1:5]


@pytest.mark.parametrize("shape", [(2, 7, 8), (3, 9, 10)])
def test_every_nth_element(shape: tuple[int, ...]) -> None:
    """Breaks when the wrong element of each group is taken, or the last one, whose group is not whole, is left out."""
    model, x = EveryNth().eval(), torch.randn(shape)
    found = Executable(compile_captured(capture(model, (x,))).image())({"x": x.numpy()})
    for got, wanted in zip(found.values(), model(x), strict=True):
        assert torch.equal(torch.from_numpy(got), wanted)


class Rows(nn.Module):
    """Rows of a table by numbers that are never negative."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(9, 2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        number = (x > 0).to(torch.int64) * 8
        flat = self.table.view(9, 6).repeat(2, 1, 1)
        return self.table[number], torch.gather(flat, 1, number.unsqueeze(-1).repeat(1, 1, 6))


def test_rows_of_a_table() -> None:
    """Breaks when a table that is indexed, or gathered from, gives another row."""
    model, x = Rows().eval(), torch.randn(2, 5)
    found = Executable(compile_captured(capture(model, (x,))).image())({"x": x.numpy()})
    for got, wanted in zip(found.values(), model(x), strict=True):
        assert torch.equal(torch.from_numpy(got), wanted)


I, J, K = torch.tensor([1, -2, 3]), torch.tensor([0, 4, -5]), torch.tensor([[1], [2]])
PLACES: dict[str, Callable[..., Tensor]] = {
    "two": lambda x, i, j, k: x[i, j],
    "two that broadcast": lambda x, i, j, k: x[i, k],
    "the last two": lambda x, i, j, k: x[:, i, j],
    "apart": lambda x, i, j, k: x[i, :, j],
    "three": lambda x, i, j, k: x[i, j, k],
    "narrow": lambda x, i, j, k: x[i.int(), j.int()],
    "one of each row": lambda x, i, j, k: x[torch.arange(4), x.sum(-1).argmax(-1)],
    "known": lambda x, i, j, k: x[:, [4, 0, 2]],
    "two known": lambda x, i, j, k: x[[0, -1], [3, 2]],
    "known and selected": lambda x, i, j, k: x.index_select(2, torch.tensor([3, 1, 1])),
    "windows": lambda x, i, j, k: x.unfold(1, 3, 2),
    "windows side by side": lambda x, i, j, k: x.unfold(-1, 2, 2),
    "windows with a rest": lambda x, i, j, k: x.unfold(1, 2, 3),
    "filled": lambda x, i, j, k: x + x.new_zeros(6) + torch.ones_like(x) + x.new_full((5, 1), 3),
    "other way round": lambda x, i, j, k: x.flip(1),
    "all the other way round": lambda x, i, j, k: x.flip(0, 2),
}


@pytest.mark.parametrize("name", PLACES)
def test_elements_by_places(name: str) -> None:
    """Breaks when places along several dimensions name another element, or their dimensions come in another order."""
    args = (torch.randn(4, 5, 6), I, J, K)
    program = llmchip.compile(Function(lambda m, *given: PLACES[name](*given) * 1.5).eval(), args)
    assert torch.equal(program(*args), PLACES[name](*args) * 1.5)


@pytest.mark.parametrize(("i", "j"), [(4, 0), (0, 5), (-5, 0), (1, -6)])
def test_a_place_outside_traps(i: int, j: int) -> None:
    """Breaks when a place outside its dimension, but not outside all elements, is another row's."""
    args = (torch.randn(4, 5, 6), torch.tensor([i]), torch.tensor([j]))
    program = llmchip.compile(Function(lambda m, x, i, j: x[i, j] * 1.5).eval(), (args[0], I[:1], J[:1]))
    with pytest.raises(llmchip.Trap):
        program(*args)


class Written(nn.Module):
    """Assignments to parts of a tensor, one after the other."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        z = x * 2
        z[:, 1:3] = y[:, :2]
        z[..., 0] = 7
        z[0, 2] = x[1, 0]
        z[:, -1:] += 1
        every = z.clone()
        every[:] = y[0, 0]
        every[:, 1::2] = x[:, :2]
        every[1:1] = 3
        new = torch.zeros_like(x)
        new[1], new[:, 0] = x[0], 1.5
        return z, every, new


def test_written_parts() -> None:
    """Breaks when an assignment reaches another element, or what is around it is lost."""
    args = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    program = llmchip.compile(Written().eval(), args)
    assert program.verify(*args).bit_exact
    assert all(map(torch.equal, program(*args), Written()(*args)))


@pytest.mark.parametrize(("stride", "padding", "dilation", "width"), [(2, 1, 1, 3), (1, 0, 2, 2)])
def test_a_convolution_along_one_dimension(stride: int, padding: int, dilation: int, width: int) -> None:
    """Breaks when a place sees other columns than those of its window, or other weights."""
    torch.manual_seed(0)
    model, x = nn.Conv1d(5, 6, width, stride, padding, dilation).eval(), torch.randn(2, 5, 11)
    compiled = compile_captured(capture(model, (x,)))
    (got,) = Executable(compiled.image())({"input": x.numpy()}).values()
    (wanted,) = compiled.lowered.run((x,), compiled.lowered.pack_weights())
    assert torch.equal(torch.from_numpy(got), wanted)
    assert (wanted - model(x)).abs().max() < 0.03 * model(x).abs().max()

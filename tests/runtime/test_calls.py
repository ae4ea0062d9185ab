"""Programs made ahead of time: called like the model, named without clashes, copied, pickled, and without traces in the
model."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

import llmchip
from runtime.models.models import Recipe, build


class Made(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Scaled(nn.Module):
    def forward(self, a: Tensor, b: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> Tensor:
        return (a - b) * scale if mask is None else (a - b) * mask


A, B = torch.tensor([5.0, 6.0]), torch.tensor([1.0, 2.0])


def test_arguments_bind_as_in_forward() -> None:
    """Breaks when the order of an example decides what a position means, or an example's value is taken for one left
    out."""
    program = llmchip.compile(Scaled().eval(), {"b": B, "a": A})
    for got in (program(A, B), program(b=B, a=A), program(A, b=B), program(A, B, 2.0), program(A, B, mask=None)):
        assert torch.equal(got, (A - B) * 2)
    for args, kwargs, message in (
        ((A,), {"a": B}, "'a' is given twice"),
        ((A,), {}, "'b' is missing"),
        ((A, B, 3.0), {}, "'scale' is 3.0, the model was compiled with 2.0|unknown input 'scale'"),
        ((A, B), {"mask": B}, "unknown input 'mask'"),
        ((A, B), {"c": B}, "unknown input 'c'"),
        ((A, B, 2.0, None, A), {}, "positional"),
    ):
        with pytest.raises(llmchip.InputError, match=message):
            program(*args, **kwargs)


def test_what_is_left_out_takes_the_default_not_the_examples_value() -> None:
    program = llmchip.compile(Scaled().eval(), (A, B, 3.0))
    assert torch.equal(program(A, B, 3.0), (A - B) * 3)
    with pytest.raises(llmchip.InputError, match=r"'scale' is 2\.0, the model was compiled with 3\.0"):
        program(A, B)


def test_stars_collect() -> None:
    class Stars(nn.Module):
        def forward(self, x: Tensor, *more: Tensor, **named: Tensor) -> Tensor:
            return x + more[0] * 2 - more[1] + named["last"]

    model = Stars().eval()
    program = llmchip.compile(torch.export.export(model, (A, B, A), {"last": B}))
    assert torch.equal(program(A, B, A, last=B), model(A, B, A, last=B))


def test_results_whose_names_meet() -> None:
    model = Made(lambda x: {"a_b": x + 1, "a": {"b": x + 2}, "0": x + 3, 0: x + 4, "ä ": x + 5}).eval()
    program = llmchip.compile(model, (A,))
    got = program(A)
    assert [float(leaf[0]) for leaf in (got["a_b"], got["a"]["b"], got["0"], got[0], got["ä "])] == [6, 7, 8, 9, 10]


def test_exported_module_and_file(tmp_path: Path) -> None:
    """Breaks when positional inputs of an exported program have no way in, or its module counts as one in train
    mode."""
    exported = torch.export.export(nn.Sequential(nn.Linear(8, 8), nn.GELU()).eval(), (torch.randn(3, 8),))
    x = torch.randn(3, 8)
    program, again = llmchip.compile(exported), llmchip.compile(exported.module(), (x,))
    assert torch.equal(program(x), again(x)) and torch.equal(program(x), program(input=x))
    torch.export.save(exported, tmp_path / "m.pt2")
    assert list(build(Recipe(str(tmp_path / "m.pt2"))).example) == ["input"]


@pytest.mark.parametrize(
    "twin",
    [copy.copy, copy.deepcopy, lambda program: pickle.loads(pickle.dumps(program))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_program_can_be_copied_and_pickled(twin: Callable[[Any], Any]) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)).eval(), torch.randn(3, 8)
    program = llmchip.compile(model, (x,))
    other = twin(program)
    assert torch.equal(other(x), program(x))
    assert torch.equal(other.reference(x), program(x))
    assert other.verify(x).bit_exact
    assert torch.equal(program(x), other(x))


def test_the_model_is_left_as_it_was() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.last: Tensor | None = None
            self.all: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            last: Tensor = self.linear(x)
            self.last = last
            self.all.append(last)
            return last * 2

    model = Remembers().eval()
    llmchip.compile(model, (torch.ones(2, 4),))
    assert model.last is None and not model.all
    assert not any(isinstance(value, FakeTensor) for value in vars(model).values())
    copy.deepcopy(model)


def _counting() -> nn.Module:
    class Counts(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return x + self.calls

    return Counts().eval()


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Embedding(10, 4, max_norm=0.5).eval(), torch.tensor([1, 2]), "changes 'weight' in place"),
        (_counting(), torch.ones(3), "changes 'calls' in place"),
        (Made(lambda x: x * 2).eval(), torch.ones(3, dtype=torch.float64), "float64"),
        (
            Made(lambda x: (torch._assert_async((x > 0).all()), x * 2)[1]).eval(),
            torch.ones(3),
            "checks a value while the model runs",
        ),
        (Made(lambda x: x[: int(x[0])] * 2).eval(), torch.ones(3), "depends on data|cannot capture"),
        (Made(lambda x: x.nonzero()).eval(), torch.ones(3), "not fixed|depends on data"),
    ],
)
def test_what_cannot_be_is_one_line(model: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(llmchip.Error, match=message) as caught:
        llmchip.compile(model, (x,))
    assert not isinstance(caught.value, llmchip.InternalError)


def test_a_fault_inside_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.repeat.by_layers.find_layers", lambda graph: dict[str, object]()["nothing"])
    with pytest.raises(llmchip.InternalError, match="fault of llmchip"):
        llmchip.compile(nn.Linear(4, 4).eval(), (torch.ones(1, 4),))


def test_the_callers_autocast_changes_nothing() -> None:
    linear, x = nn.Linear(32, 32), torch.randn(4, 32)
    program = llmchip.compile(Made(lambda x: torch.softmax(linear(x) @ linear(x).transpose(0, 1), -1)).eval(), (x,))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(program(x), program.reference(x))
        assert program.verify(x).bit_exact

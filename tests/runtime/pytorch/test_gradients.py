"""Autograd through a frame on the chip does what it does in eager: gradients, what is followed, what may be changed,
and what raises."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import llmchip
from runtime.pytorch import fallback

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As users have it: what the chip cannot do falls back."""
    monkeypatch.delenv(fallback.STRICT, raising=False)
    fallback.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_like_eager(program: Callable[[Compile], Any]) -> None:
    """`program` is given a compiler, ours and one that does nothing, and says what came of it."""

    def ours(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, backend=llmchip.backend)

    torch.manual_seed(0)
    want = program(lambda function: function)
    torch.manual_seed(0)
    assert repr(program(ours)) == repr(want)


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


@pytest.mark.parametrize("derive", [lambda a: a + 1, lambda a: a * 2], ids=["nothing saved", "something saved"])
def test_an_argument_that_comes_from_another_one_is_an_argument(derive: Callable[[Tensor], Tensor]) -> None:
    """Breaks when the frame's own backward pass goes on into what its arguments were computed from: it would be gone
    through twice."""

    def program(compile: Compile) -> Any:
        a = leaf(3, 5)
        compile(lambda a, b: a * b)(a, derive(a)).sum().backward()
        return a.grad

    check_like_eager(program)


def test_a_weight_on_both_sides_of_a_graph_break() -> None:
    def program(compile: Compile) -> Any:
        w = torch.nn.Parameter(torch.tensor([3.0, 5.0]))

        def broken(x: Tensor) -> Tensor:
            y = x + w
            torch._dynamo.graph_break()
            return y * w

        compile(broken)(torch.ones(2)).sum().backward()
        return w.grad

    check_like_eager(program)


@pytest.mark.parametrize(
    "function", [lambda a, b: a * a * b, lambda a, b: (a + 1) * (b + 1) * (a + b)], ids=["saved", "copied"]
)
def test_gradients_have_gradients(function: Callable[..., Any]) -> None:
    """Breaks when arguments are cut off from their history although the gradients are differentiated in turn; so when
    copies are."""

    def program(compile: Compile) -> Any:
        a = leaf(3, 5)
        value, found = compile(function)(a, a * a).sum(), []
        for _ in range(3):
            (value,) = torch.autograd.grad(value.sum(), a, create_graph=True)
            found.append(value.detach())
        return found

    check_like_eager(program)


def _no_grad_view(x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        t = x.view(-1)
    return x * 2, t


def _no_grad_view_of_a_result(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    with torch.no_grad():
        t = y.view(-1)
    return x * 3, t


DETACHED = {
    "detached": lambda x: (x * 2, x.detach()),
    "a view without gradients": _no_grad_view,
    "a view of a result without gradients": _no_grad_view_of_a_result,
    "computed, then detached": lambda x: (x * 2, (x * 3).detach()),
}


@pytest.mark.parametrize("name", DETACHED)
def test_what_is_detached_has_no_gradients(name: str) -> None:
    """Breaks when a result that shows an argument's memory is followed because the caller's grad mode is on."""

    def program(compile: Compile) -> Any:
        x = leaf(1, 2)
        y, t = compile(DETACHED[name])(x)
        ((y - t) ** 2).sum().backward()
        return x.grad, t.requires_grad, t.grad_fn

    check_like_eager(program)


@pytest.mark.parametrize(
    "function", [lambda x: x * torch.rand_like(x), lambda x: torch.nn.functional.dropout2d(x, 0.5, True) + 0]
)
def test_random_numbers_are_drawn_once(function: Callable[..., Any]) -> None:
    """Breaks when the backward pass draws again: gradients of another function, and a generator that has moved on."""

    def program(compile: Compile) -> Any:
        x = torch.ones(1, 4, 1, 1, requires_grad=True)
        y = compile(function)(x)
        y.sum().backward()
        assert x.grad is not None and torch.equal(y, x.grad)
        return y.detach(), torch.rand(1)

    check_like_eager(program)


def test_random_operators_that_are_told_not_to_draw_do_not() -> None:
    """Breaks when attention, which PyTorch marks as random, and layers in eval mode have no gradients on the chip."""

    def function(x: Tensor) -> Tensor:
        attended = torch.nn.functional.scaled_dot_product_attention(x, x, x)
        return torch.nn.functional.rrelu(attended) + torch.nn.functional.alpha_dropout(x, 0.5, False)

    torch.compile(function, backend=llmchip.backend)(torch.ones(1, 2, 4, 8, requires_grad=True)).sum().backward()
    assert not any("gradients of random" in found.reason for found in llmchip.fallbacks())


@pytest.mark.parametrize("followed", ["argument", "summand"])
def test_a_result_can_be_changed_in_place(followed: str) -> None:
    """Breaks when what gives a result its strides is a view of its own, made where no gradients were."""

    def program(compile: Compile) -> Any:
        x, w = (
            torch.ones(shape, requires_grad=name == followed)
            for name, shape in (("argument", (2, 3)), ("summand", (3, 2)))
        )
        y = compile(lambda x: x.t() * 2)(x)
        y.add_(w).mul_(3).sum().backward()
        return y.stride(), x.grad, w.grad

    check_like_eager(program)


class Square(torch.autograd.Function):
    """Keeps what it was given, in a way that PyTorch does not show."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return 2 * x * gradient


CHANGED = {
    "nothing is saved": lambda x: x + 1,
    "what is saved was computed from it": lambda x: (x + 1) * (x + 1),
    "it is saved": lambda x: x * x,
    "the user's own function saves it": lambda x: Square.apply(x) + 1,  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_before_the_backward_pass_matters_as_in_eager(name: str) -> None:
    """Breaks when a change raises that eager would not notice, when one is let through that eager raises, or when
    gradients are of new values."""

    def program(compile: Compile) -> Any:
        x = leaf(1, 2)
        y = compile(CHANGED[name])(x)
        with torch.no_grad():
            x.add_(1)
        try:
            y.sum().backward()
        except RuntimeError as error:
            return "modified by an inplace operation" in str(error)
        return x.grad

    check_like_eager(program)


def test_the_first_call_inside_a_checkpoint() -> None:
    """Breaks when what is tried out on fake tensors reaches the caller's hooks."""

    def program(compile: Compile) -> Any:
        x, function = leaf(1, 2), compile(lambda x: torch.relu(x * 2) * x)
        checkpoint(function, x, use_reentrant=False).sum().backward()
        checkpoint(function, x, use_reentrant=False).sum().backward()
        return x.grad

    check_like_eager(program)


def test_the_frames_own_grad_mode_counts() -> None:
    def inside(x: Tensor) -> tuple[Tensor, ...]:
        z = x * 3
        with torch.enable_grad():
            return x * 2, z, x.view(-1)

    def program(compile: Compile) -> Any:
        x = leaf(1, 2)
        with torch.no_grad():
            results = compile(inside)(x)
        results[0].sum().backward()
        with torch.inference_mode():
            inferred = compile(inside)(x)
        return [result.requires_grad for result in (*results, *inferred)], x.grad

    check_like_eager(program)


def test_what_cannot_have_gradients_is_refused_before_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a graph is compiled for the chip, for minutes perhaps, only to be thrown away."""
    monkeypatch.setattr("runtime.pytorch.call.whole", lambda *args: pytest.fail("it is compiled"))

    def program(compile: Compile) -> Any:
        x, total = leaf(1, 2), torch.zeros(2)

        def views(x: Tensor) -> tuple[Tensor, Tensor]:
            y = x * 2
            return y[0], y

        def changes(x: Tensor, total: Tensor) -> Tensor:
            total.add_(1)
            return x * 2

        results = (*compile(views)(x), compile(changes)(x, total))
        sum(result.sum() for result in results).backward()
        return x.grad, total

    check_like_eager(program)

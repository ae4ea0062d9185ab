"""Packed weights are there once, follow their tensors, and go with them."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import llmchip
from compiler.frontend.capture import capture
from compiler.lower import lower
from runtime.pytorch import weights


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LLMCHIP_CACHE", "off")
    gc.collect()
    with torch.no_grad():
        yield


class Stepping(nn.Module):
    """Weights that stay and a small buffer that does not."""

    step: torch.Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 8)
        self.register_buffer("step", torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(torch.relu(self.up(x))) + self.step
        return result


class Packs:
    """Counts the constants that are packed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from compiler.packing import Packing

        self.count, run = 0, Packing.run

        def counting(packing: Packing, tensors: Any, store: Any, only: Any = None) -> None:
            self.count += len(packing.recipes) if only is None else len(only)
            run(packing, tensors, store, only)

        monkeypatch.setattr(Packing, "run", counting)

    def taken(self) -> int:
        count, self.count = self.count, 0
        return count


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> Packs:
    return Packs(monkeypatch)


X = torch.linspace(-2, 2, 48).reshape(3, 16)


def compiled(model: Callable[..., Any], **more: Any) -> Any:
    return torch.compile(model, backend=llmchip.backend, **more)


def wanted(model: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    """What the chip must give with the weights that the model has now: the frozen graph in PyTorch."""
    lowered = lower(capture(model, (x,), {}))
    result = lowered.run([x], lowered.pack_weights())[0]
    del lowered
    gc.collect()  # graphs hold the weights in circles, and buffers are to go when they are replaced
    return result


def right(call: Any, model: nn.Module, x: torch.Tensor = X) -> bool:
    return torch.equal(call(x), wanted(model, x))


@pytest.mark.wide
def test_every_instance_is_packed_once(packs: Packs) -> None:
    """Breaks when more instances than some number make each other's weights be packed again, or one is given
    another's."""
    models = [Stepping(seed).eval() for seed in range(weights.ALIKE + 2)]
    calls = [compiled(model) for model in models]
    results = [wanted(model) for model in models]
    for turn in range(3):
        packs.taken()
        assert all(torch.equal(call(X), want) for call, want in zip(calls, results, strict=True))
        assert (packs.taken() == 0) == (turn > 0)


@pytest.mark.wide
def test_shapes_share_their_weights(packs: Packs) -> None:
    """Breaks when an input shape has a copy of the weights of its own, or one that it does not see change."""
    model = Stepping().eval()
    call = compiled(model, dynamic=False)
    assert right(call, model)
    one = llmchip.packed_weights()
    for rows in (4, 5):
        packs.taken()
        call(torch.zeros(rows, 16))
        assert packs.taken() == 0
    assert llmchip.packed_weights().constants == one.constants
    model.up.weight.mul_(-2)
    assert all(right(call, model, torch.linspace(-1, 1, rows * 16).reshape(rows, 16)) for rows in (3, 5))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_small_buffer_costs_its_own_packing(how: str, packs: Packs) -> None:
    """Breaks when a counter that moves has all weights packed again, makes a new executable, or is not seen."""
    model = Stepping().eval()
    call = compiled(model, dynamic=False)
    other = torch.linspace(-1, 1, 64).reshape(4, 16)
    call(X), call(other)
    executables: list[Any] = []
    for turn in range(4):
        if how == "in place":
            model.step += 1
        else:
            model.step = model.step + 1
        packs.taken()
        first, second = call(X), call(other)
        assert packs.taken() == 1  # for both shapes
        assert torch.equal(first, wanted(model)) and torch.equal(second, wanted(model, other))
        now = [entry.executable for cache in weights._caches for entry in cache._entries.values()]
        assert turn < 2 or now == executables  # Dynamo keeps the first buffer alive, and so we keep what was for it
        executables = now


@pytest.mark.slow
def test_packed_panels_follow_weights_that_change_in_place() -> None:
    """Breaks when what a kernel made of weights (from the second launch on) stays as it was, or one shape's does."""
    model = Stepping().eval()
    call = compiled(model, dynamic=False)
    other = torch.linspace(-1, 1, 64).reshape(4, 16)
    for _ in range(3):
        call(X), call(other)
    for change in (lambda: model.up.weight.mul_(-1), lambda: model.load_state_dict(Stepping(5).state_dict())):
        change()
        assert right(call, model) and right(call, model, other)
    model.down.weight.data.mul_(3)
    llmchip.refresh()
    assert right(call, model) and right(call, model, other)
    model.down.weight.data = torch.randn(8, 24)
    assert right(call, model) and right(call, model, other)


@pytest.mark.slow
def test_tied_weights_of_two_models() -> None:
    """Breaks when a change is packed for the first of two models that share a tensor only."""
    first, second = Stepping(0).eval(), Stepping(1).eval()
    second.up = first.up
    one, two = compiled(first), compiled(second)
    assert right(one, first) and right(two, second)
    first.up.weight.neg_()
    assert right(two, second) and right(one, first)


def test_packed_weights_go_with_the_model() -> None:
    """Breaks when packed weights outlive their tensors: a process that loads models by turns would grow."""
    before = llmchip.packed_weights()
    model: Any = Stepping().eval()
    call: Any = compiled(model)
    call(X), call(X)
    assert llmchip.packed_weights().constants > before.constants and llmchip.packed_weights().bytes > before.bytes
    assert "packed constants" in str(before)
    del model, call
    gc.collect()
    assert llmchip.packed_weights() == before


@pytest.mark.slow
def test_an_address_that_is_used_again_is_another_tensor() -> None:
    """Breaks when a weight is known by its id or its memory, which the next one gets."""
    x = X
    holder = nn.Module()
    run = compiled(Holding(holder).eval())
    for seed in range(6):
        holder.weight = None  # type: ignore[assignment]
        torch.manual_seed(seed)
        holder.weight = nn.Parameter(torch.randn(8, 16))
        assert torch.equal(run(x), wanted(Holding(holder).eval(), x))


class Holding(nn.Module):
    def __init__(self, holder: nn.Module) -> None:
        super().__init__()
        self.holder = holder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight: Any = self.holder.weight  # Dynamo is to see an attribute
        return nn.functional.linear(x, weight)


def test_sets_that_differ_in_little_are_few() -> None:
    """Breaks when a user who keeps every state that his buffer had makes us keep an executable for each."""
    model, states = Stepping().eval(), []
    call = compiled(model)
    for _ in range(3 * weights.ALIKE):
        states.append(model.step)
        model.step = model.step + 1
        call(X)
    assert max(len(cache._entries) for cache in weights._caches) <= weights.ALIKE
    model.step = states[1]
    assert right(call, model)


def test_constants_behind_an_empty_one_are_their_own() -> None:
    """Breaks when a constant without bytes takes the number of the one that begins at the same place: the next program
    that shares one of those behind it gets another's bytes."""
    pad, x = nn.functional.pad, torch.ones(25, 0)
    first = compiled(lambda e, x: (pad(e, (0, 2)), pad(x, (1, 1), value=1.0), pad(x, (1, 1), value=2.0)))
    first(torch.ones(0, 3), x)
    assert torch.equal(compiled(lambda x: pad(x, (1, 1), value=1.0))(x), torch.ones(25, 2))

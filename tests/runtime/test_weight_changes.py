"""Weights that change in every way that PyTorch offers: the next call has them, or the way is named in
docs/fallback.md."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


def close(compiled: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor) -> bool:
    """int8 of the same weights, not of others."""
    with torch.no_grad():
        return float((compiled(x) - model(x)).norm() / model(x).norm()) < 0.05


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32)).eval()


def _twice(model: nn.Module) -> None:
    for p in model.parameters():
        p.data = p.data * -3
        p.data = p.data + 0.01  # PyTorch gives this the memory that the first one has left


def _vectors(model: nn.Module) -> None:
    for factor in (0.5, -2.0):
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()) * factor, model.parameters())


def _swapped(model: nn.Module) -> None:
    for p in model.parameters():
        torch.utils.swap_tensors(p, nn.Parameter(torch.randn(p.shape)))


def _replaced(model: nn.Sequential) -> None:
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        layer.weight = nn.Parameter(torch.randn_like(layer.weight))


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "data twice": _twice, "vectors": _vectors, "swap_tensors": _swapped, "new parameters": _replaced,
    "in place": lambda model: [p.mul_(-2) for p in model.parameters()],
    "load_state_dict": lambda model: model.load_state_dict({k: -v for k, v in model.state_dict().items()}),
    "assigned": lambda model: model.load_state_dict({k: -v for k, v in model.state_dict().items()}, assign=True),
}  # fmt: skip


@pytest.mark.parametrize("way", CHANGES)
def test_the_next_call_has_the_new_weights(model: nn.Sequential, way: str) -> None:
    """Breaks when an address stands for what lies there, or a reference of ours is in the way of what the user does."""
    compiled, x = torch.compile(model, backend="llmchip"), torch.randn(4, 64)
    for _ in range(3):
        assert close(compiled, model, x)
        with torch.no_grad():
            CHANGES[way](model)
    assert close(compiled, model, x)


@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Adagrad"])
def test_fused_optimizers_are_seen(kind: str) -> None:
    """Breaks when only PyTorch's count of versions is asked: fused kernels do not raise it."""
    torch.manual_seed(0)
    model, x = nn.Linear(32, 16), torch.randn(4, 32)
    compiled = torch.compile(model, backend="llmchip")
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        assert close(compiled, model, x)
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert close(compiled, model, x)


def test_two_heads_over_one_base_at_two_batch_sizes(model: nn.Sequential) -> None:
    """Breaks when a packed constant whose weight is gone is given to one weight, and then to another that lives beside
    it: silently the wrong head."""
    heads = {name: nn.Parameter(torch.randn(32, 96) * scale) for name, scale in (("a", 1), ("b", 5))}
    compiled, small, large = (
        torch.compile(model, backend="llmchip", dynamic=False),
        torch.randn(1, 64),
        torch.randn(2, 64),
    )
    assert close(compiled, model, small) and close(compiled, model, large)
    for name, x in (("a", small), ("b", large), ("a", small), ("b", large)):
        model[2].weight = heads[name]
        assert close(compiled, model, x), name


def test_a_weight_may_change_its_shape(model: nn.Sequential) -> None:
    """Breaks when a packed constant of the old shape is taken for the new one."""
    compiled, x = torch.compile(model, backend="llmchip"), torch.randn(4, 64)
    assert close(compiled, model, x)
    for name, shape in (("weight", (40, 96)), ("bias", (40,))):
        getattr(model[2], name).data = torch.randn(shape)
    assert close(compiled, model, x)

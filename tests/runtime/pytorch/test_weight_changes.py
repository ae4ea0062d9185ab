"""Weights that change in every way that PyTorch offers: the next call has them, or the way is named in
docs/fallback.md."""

from collections.abc import Callable
from random import Random

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


def _in_one_place(model: nn.Module) -> None:
    for p in model.parameters():
        memory = p.detach().numpy()
        memory *= -2
        p.data = torch.from_numpy(memory)  # another memory for PyTorch, at the same address, and no version is counted


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
    "data twice": _twice, "in one place": _in_one_place, "vectors": _vectors, "swap_tensors": _swapped, "new parameters": _replaced,
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


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(32, 48), nn.Linear(48, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return y


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_changes(seed: int) -> None:  # noqa: C901 - a case for each way
    """Breaks when two models, two batch sizes and weights that come back, are tied, are parts of one tensor or change
    hands leave a packed constant with the wrong weight."""
    rng = Random(seed)
    torch.manual_seed(seed)
    models = [Three().eval() for _ in range(2)]
    compiled = [torch.compile(model, backend="llmchip", dynamic=False) for model in models]
    shared = torch.randn(3, 8, 32)
    pool, heads = [nn.Parameter(torch.randn(48, 32)) for _ in range(3)], [nn.Parameter(part) for part in shared]

    def change(m: Three) -> None:
        p = rng.choice(list(m.parameters()))
        match rng.randrange(9):
            case 0:
                p.mul_(-1)
            case 1:
                p.data = p.data * -1
                p.data = p.data + 0.01
            case 2:
                m.a.weight = rng.choice(pool)
            case 3:
                m.c.weight = rng.choice(heads)
            case 4:
                m.load_state_dict({k: torch.randn_like(v) for k, v in m.state_dict().items()}, assign=True)
            case 5:
                torch.utils.swap_tensors(m.b.bias, nn.Parameter(torch.randn(32)))
            case 6:
                models[0].b.weight = models[1].b.weight
            case 7:
                m.b.weight = nn.Parameter(m.b.weight.detach().clone().t().contiguous().t())
            case 8:
                shared.mul_(-1)

    for step in range(60):
        with torch.no_grad():
            for _ in range(rng.randint(1, 3)):
                change(rng.choice(models))
        which, x = rng.randrange(2), torch.randn(rng.choice((1, 2)), 32)
        with torch.no_grad():
            got, want = compiled[which](x), models[which](x)
        assert float((got - want).norm() / want.norm()) < 0.12, step

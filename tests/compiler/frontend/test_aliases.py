"""Writes in place reach what they reach in eager PyTorch, whatever stands between."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import llmchip  # noqa: F401

PASSES_ON: dict[str, Callable[[Tensor], Tensor]] = {
    "atleast_1d": lambda x: torch.atleast_1d(x, x)[0],
    "atleast_2d": lambda x: torch.atleast_2d(x, x)[0],
    "atleast_3d": lambda x: torch.atleast_3d(x, x)[1],
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x, x + 0)[0],
    "contiguous": lambda x: x.contiguous(),
    "dropout": lambda x: torch.dropout(x, 0.5, False),
    "einsum": lambda x: torch.einsum("i->i", x),
    "feature_dropout": lambda x: torch.feature_dropout(x[None, :, None], 0.5, False),
    "flatten": lambda x: x.flatten(),
    "float": lambda x: x.float(),
    "meshgrid": lambda x: torch.meshgrid(x, indexing="ij")[0],
    "positive": lambda x: +x,
    "repeat": lambda x: x.repeat(1),
    "reshape": lambda x: x.reshape(3, 1),
    "sum_to_size": lambda x: x.sum_to_size(3),
    "to_dense": lambda x: x.to_dense(),
    "transposed by einsum": lambda x: torch.einsum("ij->ji", x[None]),
    "type_as": lambda x: x.type_as(x),
    "unflatten": lambda x: x.unflatten(0, (3, 1)),
}


@pytest.mark.parametrize("name", PASSES_ON)
def test_a_write_through_what_passes_its_operand_on(name: str) -> None:
    """Breaks when an operator that gives its operand, or a view of it, is taken for one that computes: the write is
    lost without a word."""

    def work(x: Tensor) -> tuple[Tensor, Tensor]:
        own = x + 1
        PASSES_ON[name](own).mul_(2)
        PASSES_ON[name](x).neg_()
        return own, x + 0

    mine, theirs = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([1.0, 2.0, -3.0])
    torch._dynamo.reset()
    got, want = torch.compile(work, backend="llmchip")(mine), work(theirs)
    assert all(map(torch.equal, got, want)) and torch.equal(mine, theirs)


def test_dropout_in_eval_mode_is_its_operand() -> None:
    """Breaks as above, in the form that models have."""
    dropout = torch.nn.Dropout(0.5).eval()

    def work(x: Tensor) -> Tensor:
        h = x + 1
        u = dropout(h)
        u += 10
        return functional.relu(h, inplace=True)

    x = torch.tensor([1.0, 2.0, -30.0])
    assert torch.equal(torch.compile(work, backend="llmchip")(x), work(x))


OVERLAPPING: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[], Tensor]]] = {
    "an expanded argument": (lambda x: x.zero_(), lambda: torch.ones(1).expand(3)),
    "a column of it": (lambda x: x[:, 0].zero_(), lambda: torch.ones(1, 2).expand(3, 2)),
    "nothing of it": (lambda x: x[..., -2:-3, :].sub_(1), lambda: torch.ones(1, 2, 3).expand(2, 2, 3)),
    "expanded own": (lambda x: (x[:1] + 0).expand(3).fill_(5), lambda: torch.ones(3)),
    "a slice of expanded own": (lambda x: (x + 1).expand(2, 3)[:, 1:].fill_(3), lambda: torch.ones(1, 3)),
    "bool": (lambda x: (x > 0).expand(3).fill_(False), lambda: torch.ones(1)),
    "a part of an expanded argument": (lambda x: (x.split(1)[0].mul_(2), x + 0)[1], lambda: torch.ones(1).expand(3)),
    "unfold, in parts": (
        lambda x: ((y := x + 0).unfold(0, 2, 2).unbind(0)[0].mul_(2), y + 0)[1],
        lambda: torch.arange(9.0).reshape(3, 3),
    ),
    "unfold with gaps": (lambda x: (x.unfold(0, 2, 2).mul_(2), x + 0)[1], lambda: torch.arange(9.0).reshape(3, 3)),
    "unfold with overlap": (lambda x: (x + 0).unfold(0, 2, 1)[:].fill_(7), lambda: torch.ones(3)),
}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_write_where_elements_share_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when such a write is left to functionalization: it adds up, clears what is not covered, or raises."""
    monkeypatch.delenv("LLMCHIP_STRICT", raising=False)
    work, make = OVERLAPPING[name]
    mine, theirs = make(), make()
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match="share memory"):
        got = torch.compile(work, backend="llmchip")(mine)
    assert torch.equal(got, work(theirs)) and torch.equal(mine, theirs)


UNTRACKED: dict[str, Callable[[Tensor], Tensor]] = {
    "unsafe_chunk": lambda x: torch.unsafe_chunk(x, 2)[0],
    "unsafe_split": lambda x: torch.unsafe_split(x, 2)[1],
}


@pytest.mark.parametrize("name", UNTRACKED)
def test_a_write_through_what_pytorch_does_not_follow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when such a write is lost."""
    monkeypatch.delenv("LLMCHIP_STRICT", raising=False)

    def work(x: Tensor) -> Tensor:
        own = x + 1
        UNTRACKED[name](own).mul_(2)
        return own + 0

    torch._dynamo.reset()
    x = torch.ones(4)
    with pytest.warns(UserWarning, match="does not follow"):
        assert torch.equal(torch.compile(work, backend="llmchip")(x), work(x))


def test_operators_that_take_no_tensor_are_not_called() -> None:
    """Breaks when a capture draws from the user's random numbers, to see what an operator shares."""

    def work(x: Tensor) -> Tensor:
        own = x + 0
        own.add_(1)
        return own + torch.rand(3)

    found = []
    for run in (work, torch.compile(work, backend="llmchip", options={"fallback": True})):
        torch.manual_seed(0)
        found.append((run(torch.zeros(3)), torch.get_rng_state()))
    assert all(map(torch.equal, *found))

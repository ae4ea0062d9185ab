"""The root mean square norm, however it is written, is one operation with the same bits."""

import pytest
import torch
from torch import Tensor, nn

from compiler.frontend.capture import capture
from compiler.lower import Lowered, lower
from compiler.ops import library as ops
from compiler.options import Options


class Norm(nn.Module):
    """As Llama writes it, or Gemma."""

    def __init__(self, size: int, offset: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.offset, self.eps = nn.Parameter(torch.randn(size)), offset, eps

    def forward(self, x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y if not self.offset else y * (self.offset + self.weight)


class Other(nn.Module):
    """What only looks like it: another row's mean, another value's square, the sum."""

    def forward(self, x: Tensor) -> Tensor:
        first = x * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + 1e-6)
        second = x * torch.rsqrt(x.pow(2).mean(-2, keepdim=True) + 1e-6)
        return first + second + x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def norms(lowered: Lowered) -> int:
    return len(lowered.main.graph.find_nodes(op="call_function", target=ops.layer_norm))


@pytest.mark.parametrize("model", [Norm(48), Norm(48, offset=1.0), Norm(48, eps=0.5)])
def test_the_bits_are_those_of_the_nodes(model: nn.Module) -> None:
    """Breaks when the operation multiplies in another order, or takes another eps or share."""
    x = torch.randn(3, 5, 48) * 10
    captured = capture(model.eval(), (x,))
    one, many = lower(captured), lower(captured, Options(disable=("recognise-norm",)))
    assert (norms(one), norms(many)) == (1, 0)
    (found,), (wanted,) = one.run((x,), one.pack_weights()), many.run((x,), many.pack_weights())
    assert torch.equal(found.view(torch.int32), wanted.view(torch.int32))


def test_others_stay_as_they_are() -> None:
    """Breaks when something else is taken for a norm: wrong values."""
    x = torch.randn(2, 16, 16)
    assert norms(lower(capture(Other().eval(), (x,)))) == 0
    half = torch.randn(2, 48, dtype=torch.bfloat16)  # steps round, each to bfloat16
    assert norms(lower(capture(Norm(48).bfloat16().eval(), (half,)))) == 0

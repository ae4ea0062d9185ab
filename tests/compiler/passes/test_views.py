"""Canonical views."""

import pytest
import torch
from torch import Tensor, nn

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

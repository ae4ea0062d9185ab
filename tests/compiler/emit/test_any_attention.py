"""Attention over a cache by itself, of sizes that no family has: keys and values of different widths, small memories."""

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.frontend.capture import export, from_exported
from compiler.ops import library as ops
from compiler.options import Options
from compiler.pipeline import compile_captured
from compiler.reference.functions import CAUSAL_BLOCK
from isa.chip import load_chip
from lint.analyse import check
from runtime.device.executable import Executable
from runtime.pytorch.tensors import to_array

CACHES = "keys", "key_scales", "values", "value_scales"


class Attention(nn.Module):
    """One call over its own caches."""

    def __init__(self, heads: int, size: int, width: int, capacity: int, window: int, cap: float) -> None:
        super().__init__()
        self.more = size**-0.5, window, cap
        for name, columns in (("key", size), ("value", width)):
            self.register_buffer(f"{name}s", torch.zeros(2, heads, capacity, columns, dtype=torch.int8))
            self.register_buffer(f"{name}_scales", torch.zeros(2, heads, capacity))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
        caches = [getattr(self, name) for name in CACHES]
        out, *new = ops.attention_with_cache(q, k, v, *caches, positions, *self.more)
        for cache, value in zip(caches, new, strict=True):
            cache.copy_(value)
        result: Tensor = out
        return result


@pytest.mark.parametrize(
    ("heads", "group", "tokens", "size", "width", "capacity", "window", "cap", "dtype", "sram"),
    [
        (3, 2, 7, 16, 5, 47, 0, 0.0, torch.float32, 1 << 17),
        (1, 3, 3, 33, 40, 12, 5, 3.0, torch.float32, None),
        (2, 1, 1, 3, 1, 9, 1, 0.0, torch.bfloat16, 1 << 16),
        (5, 4, 2, 1, 16, 2, 0, 0.0, torch.float32, None),  # no old keys at all
        (1, 2, 150, 8, 8, 320, 40, 0.0, torch.float32, None),  # new tokens in two blocks
    ],
)
def test_any_sizes(
    heads: int, group: int, tokens: int, size: int, width: int, capacity: int, window: int, cap: float,
    dtype: torch.dtype, sram: int | None,
) -> None:  # fmt: skip
    """Breaks when values are taken to be as wide as keys, or tiles of a small chip begin at the wrong key: two
    sequences of different lengths, one of which goes back, also with the engines overlapping at random."""
    chip = load_chip("edge")
    if sram is not None:
        memories = {name: msgspec.structs.replace(getattr(chip, name), bytes=sram) for name in ("sram", "acc")}
        chip = msgspec.structs.replace(chip, **memories)
    shapes = {"q": (2, heads * group, tokens, size), "k": (2, heads, tokens, size), "v": (2, heads, tokens, width)}
    example = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
    example["positions"] = torch.zeros(2, dtype=torch.int32)
    captured = from_exported(export(Attention(heads, size, width, capacity, window, cap).eval(), (), example))
    (positions,) = (n for n in captured.gm.graph.find_nodes(op="placeholder") if n.name == "positions")
    positions.meta["limits"] = (0, capacity - tokens)
    compiled = compile_captured(captured, Options(), chip)
    image, constants = compiled.image(), compiled.lowered.pack_weights()
    assert not check(image)
    state = {info.name: tensor for info, tensor in zip(compiled.lowered.constants, constants, strict=True)}
    random, most = torch.Generator().manual_seed(0), capacity - tokens
    devices = Executable(image), Executable(image, adversarial=1)
    for step in range(4):
        at = [min(step * tokens, most), min(step % 2 * tokens, most)]
        given = {name: (torch.randn(shape, generator=random) * 2).to(dtype) for name, shape in shapes.items()}
        if tokens > CAUSAL_BLOCK:  # no token of the first block sees these
            given["k"][..., -1, :], given["v"][..., -1, :] = torch.inf, torch.nan
        (wanted,) = compiled.lowered.run((*given.values(), torch.tensor(at, dtype=torch.int32)), constants)
        for device in devices:
            scalars = {f"positions.{number}": position for number, position in enumerate(at)}
            assert wanted[..., :CAUSAL_BLOCK, :].isfinite().all() or step > 0
            (got,) = device({name: to_array(x) for name, x in given.items()}, scalars=scalars).values()
            assert np.array_equal(got.view(np.uint8), to_array(wanted).view(np.uint8))
            assert all(device.tensor(spec).tobytes() == state[spec.name].numpy().tobytes() for spec in image.states)

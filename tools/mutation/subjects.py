"""Small models to seed faults into: an MLP, an attention block, a random BERT of one and of two layers; and a loop."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from unittest.mock import patch

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from compiler.frontend.capture import capture
from compiler.ops import library as ops
from compiler.pipeline import Compiled, compile_captured
from compiler.tile.ir import Program
from isa.asm.assemble import assemble
from isa.chip import Acc, Chip, Mxu, Sram, load_chip
from isa.image.image import Image
from runtime.device.arrays import to_storage
from tools.mutation.device import Inputs
from tools.mutation.score import Subject
from tools.mutation.tile_score import TileSubject

Example = dict[str, Tensor]
LOOP: Final = """
.region in bytes=0xa00
.region out bytes=0x1000
.entry name="main", pc=0
.input name="x", shape=[64, 32], dtype="int8", storage=i8, region=in
.input name="w", shape=[32, 16], dtype="int8", storage=i8, region=in, offset=0x800
.output name="y", shape=[64, 16], dtype="float32", storage=f32, region=out
vset v=v1, space=dram, region=in, dtype=i8, base=0x800, rs=16
vset v=v2, space=sram, dtype=i8, base=0x1000, rs=16
ldw d=v2, a=v1, rows=32, cols=16
vset v=v3, space=dram, region=in, dtype=i8, base=0, rs=32
vinc v=v3, level=0, inc=0x200
vset v=v4, space=sram, dtype=i8, base=0, rs=32
vinc v=v4, level=0, inc=0x200, mod=2
vset v=v5, space=acc, dtype=i32, base=0, rs=16
vinc v=v5, level=0, inc=0x400, mod=2
vset v=v6, space=sram, dtype=f32, base=0x2000, rs=16
vinc v=v6, level=0, inc=0x400, mod=2
vset v=v7, space=dram, region=out, dtype=f32, base=0, rs=16
vinc v=v7, level=0, inc=0x400
loop level=0, len=end, count=4
  lda d=v4, a=v3, rows=16, cols=32 @ mxu<=1
  mm c=v5, a=v4, w=v2, m=16, n=16, k=32 @ ldw<=0, lda<=0, vec<=1
  vaff d=v6, a=v5, rows=16, cols=16 @ mxu<=0, sto<=1
  sto d=v7, a=v6, rows=16, cols=16 @ vec<=0
end: halt
"""
SEQUENCE: Final = 16


class Attention(nn.Module):
    """One self-attention block with its residual and norm."""

    def __init__(self, size: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.qkv, self.out, self.norm = (
            heads,
            nn.Linear(size, 3 * size),
            nn.Linear(size, size),
            nn.LayerNorm(size, eps=0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, size = x.shape
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        normed: Tensor = self.norm(self.out(y.transpose(1, 2).reshape(batch, length, size)) + x)
        return normed


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 50), nn.GELU(), nn.Linear(50, 30), nn.LayerNorm(30, eps=0.1))


def _bert(layers: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        config = BertConfig(
            vocab_size=97,
            hidden_size=36,
            num_hidden_layers=layers,
            num_attention_heads=3,
            intermediate_size=50,
            max_position_embeddings=40,
            layer_norm_eps=0.1,  # large enough to be seen
        )
        model: nn.Module = BertModel._from_config(config, attn_implementation="sdpa")
        return model

    return make


def _floats(shape: tuple[int, ...]) -> Callable[[torch.Generator, int], Example]:
    def example(random: torch.Generator, number: int) -> Example:
        x = torch.randn(shape, generator=random)
        if number % 3 == 2:  # equal rows so large that products overflow: scores of -Inf only, or of NaN
            x = (x[..., :1, :] * 1e20).expand(shape).contiguous()
        return {"input": x}

    return example


def _tokens(random: torch.Generator, number: int) -> Example:
    """A random number of padding tokens; every third time nothing but padding."""
    mask = torch.ones(1, SEQUENCE, dtype=torch.long)
    mask[0, 0 if number % 3 == 2 else SEQUENCE - int(torch.randint(0, 6, (1,), generator=random)) :] = 0
    return {"input_ids": torch.randint(0, 97, (1, SEQUENCE), generator=random), "attention_mask": mask}


class Wide(nn.Module):
    """A projection so wide that its columns are cut, and what reads parts of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(96, 6000)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(x)
        return y * y.amax(-1, keepdim=True) + y[:, :1]


class Own(nn.Module):
    """A projection so wide that its columns are cut, and what reads the first of its own columns."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(96, 6000)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(x)
        return y * y[:, :1]


class Carried(nn.Module):
    """Layers that read what they carry by rows and by columns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layers = nn.Linear(40, 40), nn.ModuleList(nn.Linear(40, 40) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        for layer in self.layers:
            h = torch.tanh(layer(h + h.sum(-1)))
        return h


class Mixed(nn.Module):
    """Comparisons, selections, integers, concatenation, reductions of columns, values of 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 20), nn.Linear(20, 12, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = torch.tanh(self.first(x))
        chosen = torch.where(y > 0.25, y.clamp(min=-0.5, max=0.5), -y / 3.0)
        half = self.second(chosen.to(torch.bfloat16)).abs() + 1.5
        joined = torch.cat([x[:, 3:9], x[:, :3]], 1).transpose(0, 1)
        return half, joined * 2.0, chosen.sum(0), (y * y).mean(-1), 1.0 - chosen.amax(1)


class Grouped(nn.Module):
    """Grouped products: codes of 8 bits with minima, then of 4 bits with sub-scales."""

    def __init__(self) -> None:
        super().__init__()
        groups = {"sw1": (256, 3), "zw1": (256, 3), "sw2": (20, 1), "zw2": (20, 1)}
        for name, shape in groups.items():
            self.register_buffer(name, torch.randn(shape))
        codes = {"w1": (256, 96), "w2": (20, 128), "ss": (20, 8), "sm": (20, 8)}
        for name, shape in codes.items():
            self.register_buffer(name, torch.randint(-128, 128, shape, dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        a, s = ops.quantize_groups(x, 32, "scale", "away", torch.float16)
        y = ops.matmul_groups(a, self.w1, s, self.sw1, self.zw1, half=True)
        a, s = ops.quantize_groups(y, 256, "multiplier", "even")
        z: Tensor = ops.matmul_groups(a, self.w2, s, self.sw2, self.zw2, self.ss, self.sm, 256, 32, "u4")
        return z


Model = tuple[Callable[[], nn.Module], Callable[[torch.Generator, int], Example]]
MODELS: Final[Mapping[str, Model]] = {
    "mlp": (_mlp, _floats((5, 30))),
    "attention": (Attention, _floats((1, SEQUENCE, 24))),
    "bert-1": (_bert(1), _tokens),
    "bert-2": (_bert(2), _tokens),
}


TILE_MODELS: Final[Mapping[str, Model]] = {
    **MODELS,
    "bert-4": (_bert(4), _tokens),
    "wide": (Wide, _floats((40, 96))),
    "own column": (Own, _floats((40, 96))),
    "carried": (Carried, _floats((40, 40))),
    "mixed": (Mixed, _floats((7, 24))),
    "grouped": (Grouped, _floats((7, 96))),
    "grouped small": (Grouped, _floats((7, 96))),
    "bert-1 small": (_bert(1), _tokens),
    "attention small": (Attention, _floats((4, SEQUENCE, 24))),
}


def loop_subject(inputs: int = 6) -> Subject:
    """A hand-written loop: a product in four blocks of rows, everything double-buffered."""
    image, random = assemble(LOOP), np.random.default_rng(1)
    examples = [
        {spec.name: random.integers(0, 256, spec.nbytes, np.uint8) for spec in image.entry().inputs}
        for _ in range(inputs)
    ]
    return Subject("loop", image, examples)


def subject(name: str, chip: Chip | None = None, inputs: int = 6) -> Subject:
    """A stock model compiled for a chip, with some random inputs; or the hand-written loop."""
    if name == "loop":
        return loop_subject(inputs)
    compiled, examples = _compiled(MODELS[name], chip, inputs)
    image = compiled.image()
    return Subject(name, image, [_stored(image, given) for given in examples])


def tile_compiled(name: str, inputs: int = 3) -> tuple[Compiled, Program, list[Inputs]]:
    """A model compiled, whatever the checks of its program would say; its tile program as scheduled; and the inputs."""
    programs: list[Program] = []
    chip = small_chip() if name.endswith("small") else None
    unchecked = patch("compiler.tile.manager.verify_state", lambda _state: None)
    with (
        unchecked,
        patch("compiler.pipeline.check_translation", lambda _graph, program, _interface: programs.append(program)),
    ):
        compiled, examples = _compiled(TILE_MODELS[name], chip, inputs)
    image = compiled.image()
    return compiled, programs[-1], [_stored(image, given) for given in examples]


def tile_subject(name: str, inputs: int = 3) -> TileSubject:
    """A model with its tile program."""
    return TileSubject(name, *tile_compiled(name, inputs))


def small_chip() -> Chip:
    """A chip on which small models must be cut in every way: by rows, columns, depth and samples, with values in
    DRAM."""
    return msgspec.structs.replace(
        load_chip("edge"),
        name="small",
        sram=Sram(1 << 14),
        acc=Acc(1 << 11),
        mxu=Mxu(rows=8, cols=8, weight_rows_per_cycle=1),
    )


def _compiled(model: Model, chip: Chip | None, inputs: int) -> tuple[Compiled, list[Example]]:
    make, example = model
    torch.manual_seed(0)
    module = make().eval()
    for weight in module.parameters():  # biases of 0 and norms of 1 would hide faults
        if weight.ndim == 1:
            nn.init.normal_(weight, 0.5, 0.3)
    random = torch.Generator().manual_seed(1)
    examples = [example(random, number) for number in range(inputs)]
    first = examples[0]
    args: tuple[Any, ...] = tuple(first.values()) if "input" in first else ()
    return compile_captured(capture(module, args, {} if args else dict(first)), chip=chip), examples


def _stored(image: Image, given: Example) -> Inputs:
    """The inputs as bytes. A model with a single float input takes it under whatever name it has."""
    specs, values = image.entry().inputs, list(given.values())
    named = {spec.name: given.get(spec.name, values[0]).numpy() for spec in specs}
    return {
        spec.name: np.ascontiguousarray(to_storage(spec, named[spec.name])).reshape(-1).view(np.uint8) for spec in specs
    }

"""A program that serves every position, as a decode step does: its views, extents and loops depend on a scalar that it
loads. One row comes in, is quantized and multiplied, and goes to STATE; then it is compared with all rows so far."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from emulator.machine import Machine
from isa.architecture import GIVEN_REGIONS, Region
from isa.asm.assemble import assemble

ROWS = 96  # that STATE has room for
WIDTH = 64
TEXT = """
vset v=v1, space=dram, region=params, dtype=i32, base=0x0
sld d=s1, v=v1, off=0x0                        ; the position
salu f=add, d=s2, a=s1, bi, imm=0x1            ; rows so far
salu f=shr, d=s3, a=s2, bi, imm=0x2            ; whole blocks of four rows
vset v=v2, space=dram, region=in, dtype=f32, base=0x0
vset v=v3, space=sram, dtype=f32, base=0x0
lda d=v3, a=v2, rows=1, cols=64
vset v=v4, space=dram, region=weights, dtype=i8, base=0x0, rs=64
vset v=v5, space=sram, dtype=i8, base=0x1000, rs=64
ldw d=v5, a=v4, rows=64, cols=64
vset v=v6, space=sram, dtype=i8, base=0x400
vset v=v7, space=sram, dtype=f32, base=0x500
vqd d=v6, s=v7, a=v3, rows=1, cols=64
vset v=v8, space=acc, dtype=i32, base=0x0
mm c=v8, a=v6, w=v5, m=1, n=64, k=64, wt
vset v=v9, space=sram, dtype=f32, base=0x600
vset v=v10, space=sram, dtype=f32, base=0x500, cs=0
vaff d=v9, a=v8, rs=v10, rows=1, cols=64
vset v=v11, space=sram, dtype=i8, base=0x700
vset v=v12, space=sram, dtype=f32, base=0x740
vqd d=v11, s=v12, a=v9, rows=1, cols=64
vset v=v13, space=dram, region=state, dtype=i8, base=0x0
vadd v=v13, s=s1, scale=64
sto d=v13, a=v11, rows=1, cols=64
vset v=v14, space=dram, region=state, dtype=f32, base=0x1800
vadd v=v14, s=s1, scale=4
sto d=v14, a=v12, rows=1, cols=1
vset v=v15, space=dram, region=state, dtype=i8, base=0x0, rs=64
vset v=v16, space=sram, dtype=i8, base=0x8000, rs=64
lda d=v16, a=v15, rows=1, cols=64, dyn=rows, dyn_s=s2
vset v=v17, space=acc, dtype=i32, base=0x200
mm c=v17, a=v6, w=v16, m=1, n=1, k=64, wt, dyn=n, dyn_s=s2
vset v=v18, space=sram, dtype=f32, base=0x4000
vaff d=v18, a=v17, rs=v10, rows=1, cols=1, dyn=cols, dyn_s=s2
vset v=v19, space=sram, dtype=f32, base=0x780, cs=0
vred f=max, d=v19, a=v18, rows=1, cols=1, dyn=cols, dyn_s=s2
vset v=v20, space=sram, dtype=f32, base=0x7c0
act f=exp, d=v18, a=v18, bi=v19, sum=v20, rows=1, cols=1, neg, dyn=cols, dyn_s=s2
vset v=v21, space=dram, region=out, dtype=f32, base=0x0
sto d=v21, a=v18, rows=1, cols=1, dyn=cols, dyn_s=s2
vred f=argmax, d=v26, a=v18, rows=1, cols=1, dyn=cols, dyn_s=s2
vset v=v27, space=dram, region=out, dtype=i32, base=0x200
sto d=v27, a=v26, rows=1, cols=1
loop level=1, len=10, dyn, s=s3
    vset v=v22, space=dram, region=state, dtype=i8, base=0x0, rs=64
    vinc v=v22, level=1, inc=0x100
    vset v=v23, space=sram, dtype=i8, base=0x5000, rs=64
    vinc v=v23, level=1, inc=0x200, mod=2
    lda d=v23, a=v22, rows=4, cols=64
    vred f=sum, d=v24, a=v23, rows=4, cols=64
    vset v=v25, space=dram, region=out, dtype=f32, base=0x400, rs=1
    vinc v=v25, level=1, inc=0x10
    vinc v=v25, level=1, inc=0x200, div=3, mod=2
    sto d=v25, a=v24, rows=4, cols=1
halt code=0x0
"""


def text() -> str:
    """Views that the loop and argmax write are set before it."""
    head, rest = TEXT.split("vred f=argmax", 1)
    views = "vset v=v24, space=sram, dtype=f32, base=0x6000, rs=1\nvset v=v26, space=sram, dtype=i32, base=0x7e0\n"
    return head + views + "vred f=argmax" + rest


class Positions:
    """A machine with the program, its input and memories."""

    def __init__(self, interpret: bool = False) -> None:
        rng = np.random.default_rng(5)
        weights = rng.integers(-128, 128, WIDTH * WIDTH).astype(np.int8).view(np.uint8)
        weights.flags.writeable = False
        self.params, self.row = np.zeros(16, np.uint8), np.zeros(4 * WIDTH, np.uint8)
        self.state, self.out = np.zeros(0x1800 + 4 * ROWS, np.uint8), np.zeros(0x1000, np.uint8)
        self.code = assemble(text()).code
        regions: Mapping[Region, NDArray[np.uint8]] = {
            Region.WEIGHTS: weights,
            Region.PARAMS: self.params,
            Region.IN: self.row,
            Region.STATE: self.state,
            Region.OUT: self.out,
        }
        self.machine = Machine(1 << 16, 1 << 12, regions, GIVEN_REGIONS, interpret=interpret)

    def launch(self, position: int) -> tuple[bytes, bytes]:
        """STATE and OUT after a launch with an input that follows from the position."""
        self.params.view(np.int32)[0] = position
        self.row.view(np.float32)[:] = np.random.default_rng(abs(position)).standard_normal(WIDTH)
        self.out.fill(0)
        self.machine.run(self.code)
        return self.state.tobytes(), self.out.tobytes()


def positions(count: int) -> Iterator[int]:
    """All that there are, one after the other, then any."""
    rng = np.random.default_rng(6)
    for number in range(count):
        yield number if number < ROWS else int(rng.integers(ROWS))

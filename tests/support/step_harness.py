"""A small looped program with a debug map, written by hand, for the debugger's tests.

For each of 3 turns: load a row of 8 int32 from IN, add 1, multiply by 2, store it to OUT.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.architecture import WORD_BYTES, Dtype, Region, Space
from isa.chip import Acc, Chip, Sram
from isa.codec import Inst, encode
from isa.image.image import Image
from isa.image.records import DebugMap, DebugNode, Entry, Probe, Span, Step, TensorSpec
from isa.spec import VOP
from runtime.debug.commands import Shell
from runtime.debug.session import Session

TURNS, COLS = 3, 8
ADD, MUL, STO = 0x90, 0xA0, 0xB0
X: NDArray[Any] = np.arange(TURNS * COLS, dtype=np.int32).reshape(TURNS, COLS)


def looped(**changes: Any) -> Image:
    """`changes` replace fields of the image."""
    row = 4 * COLS
    view = {"dtype": int(Dtype.I32), "rs": COLS}
    dram = {"space": int(Space.DRAM), **view}
    words = [
        Inst.make("vset", v=1, region=int(Region.IN), base=0, **dram),
        Inst.make("vset", v=2, space=int(Space.SRAM), base=64, **view),
        Inst.make("vset", v=3, region=int(Region.OUT), base=0, **dram),
        Inst.make("vinc", v=1, level=1, inc=row),
        Inst.make("vinc", v=3, level=1, inc=row),
        Inst.make("salu", f=0, d=5, bi=1, imm=TURNS),
        Inst.make("nop"),
        Inst.make("loop", level=1, len=4, dyn=1, s=5),
        Inst.make("lda", d=2, a=1, rows=1, cols=COLS),
        Inst.make("vop", f=VOP.index("add"), d=2, a=2, rows=1, cols=COLS, imm=1),
        Inst.make("vop", f=VOP.index("mul"), d=2, a=2, rows=1, cols=COLS, imm=2),
        Inst.make("sto", d=3, a=2, rows=1, cols=COLS),
        Inst.make("halt"),
    ]
    x, y = (TensorSpec(n, (TURNS, COLS), "int32", Dtype.I32, r) for n, r in (("x", Region.IN), ("y", Region.OUT)))
    nodes = (
        DebugNode("add", "aten.add", (TURNS, COLS), "int32", "lib/models/toy.py", 7, "y = x + 1"),
        DebugNode("mul", "aten.mul", (TURNS, COLS), "int32", "lib/models/toy.py", 8, "z = y * 2"),
        DebugNode("seen", "aten.view", (TURNS, COLS), "int32", status="view", reason="of mul"),
    )
    steps = (Step(1, COLS),)
    probes = (Probe(ADD, "d", (0,), steps=steps), Probe(MUL, "d", (1,), steps=steps))
    spans = (Span(ADD, MUL, (0,)), Span(MUL, STO + WORD_BYTES, (1,)))
    size = TURNS * row
    fields: dict[str, Any] = {
        "code": b"".join(map(encode, words)),
        "sizes": (0, 0, size, size),
        "debug": DebugMap(nodes, probes, spans),
        "chip": Chip(name="toy", sram=Sram(bytes=8192), acc=Acc(bytes=4096)),
        "entries": (Entry("main", 0, (x,), (y,)),),
    }
    return Image(**{**fields, **changes})


def session(**changes: Any) -> Session:
    return Session(looped(**changes), {"x": X})


def say(shell: Shell, *commands: str) -> str:
    """What the commands print."""
    return "\n".join(line for command in commands for line in shell.execute(command))

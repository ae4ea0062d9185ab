"""An instruction from outside: `vmin`, the smaller of two blocks as torch.minimum has it, NaN included. Of two zeros it
is the second; PyTorch leaves their sign open.

    llmcc isa vmin --extension examples/extension/vector_minimum.py
    llmcc verify MODEL --extension examples/extension/vector_minimum.py

Stock llmchip computes torch.minimum with several instructions. Everything that it takes to make it one is in this file.
"""

from dataclasses import replace

import numpy as np

from emulator.context import Call, Core, cut, tiles
from emulator.formats import store
from isa.architecture import INTS, Dtype, Engine
from isa.extension import Extension
from isa.fields import Cost, Example, Instruction
from isa.spec import ISA

VOP = ISA["vop"]
ROW = Instruction(
    "vmin", 0xC0, Engine.VEC,
    (
        replace(VOP.field("d"), when=()), VOP.field("a"), replace(VOP.field("b"), default=None, doc="second operand"),
        *(VOP.field(name) for name in ("planes", "rows", "cols", "dyn", "dyn_s")),
    ),
    "the smaller of two elements", "d = NaN if either is NaN, else a if a < b, else b", Cost("vec", 1, {"f32_add": 1}),
    example=Example("d=v1, a=v2, b=v3, rows=8, cols=32", "lda<=0", {"d": Dtype.F32, "a": Dtype.F32, "b": Dtype.F32}),
)  # fmt: skip


def vmin(core: Core, call: Call) -> None:
    """What the emulator does with an instruction: its blocks of memory are numpy arrays."""
    target = call.dtype("d")
    if target in INTS:
        np.copyto(call.blocks["d"], np.minimum(call.blocks["a"], call.blocks["b"]), casting="unsafe")
        return
    for tile in tiles(call.extents["d"]):
        a, b = call.floats("a", tile), call.floats("b", tile)
        store(
            cut(call.blocks["d"], tile),
            target,
            np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), np.where(a < b, a, b)),
        )


def compiler() -> object:
    """What the compiler needs: called when something is compiled, so that running an image needs no torch."""
    import torch

    from compiler.emit.emitter import Emitter
    from compiler.extensions import CompilerPart
    from compiler.ops.record import ChipOp, Domain
    from compiler.tile.kernel_op import KernelOp
    from compiler.translation import symbols as s
    from compiler.translation.instructions import Executed, Reads, Rule, Writes
    from compiler.translation.operators import Call as Node
    from compiler.translation.symbols import Symbols, Value, rounded
    from isa.views import Extents

    def emit(e: Emitter, node: KernelOp) -> None:
        out = e.result(node)
        a, b = (e.operand(x, len(node.shape)) for x in node.operands)
        e.emit("vmin", node, out.layout.shape, {"d": out}, {"a": a, "b": b})
        e.finish(node)

    def smaller(a: Value, b: Value, kind: Dtype) -> Symbols:
        """Both sides of the translation check in one place here, since the operation is the instruction."""
        integer = kind in INTS
        found = s.binary("vmin", a.symbols, b.symbols, True) if integer else s.binary("vmin", a.float, b.float)
        return rounded(Value(found, Dtype.I32 if integer else Dtype.F32), kind)

    def meaning(node: Node) -> Symbols:
        return node.fill(lambda a, b: smaller(a, b, node.kind), *node.node.args[:2])

    def instruction(executed: Executed, reads: Reads, extents: Extents) -> Writes:
        return {"d": smaller(reads["a"], reads["b"], executed.kinds["d"])}

    operation = ChipOp("minimum", (torch.ops.aten.minimum.default,), domain=Domain.NUMBERS, in_place=True)
    return CompilerPart(
        (operation,), {"minimum": emit}, (), {"minimum": meaning}, {"vmin": Rule(instruction, lambda _: 0)}
    )


EXTENSION = Extension(
    "vector-minimum", (ROW,), {"vmin": vmin},
    compiler,
)  # fmt: skip

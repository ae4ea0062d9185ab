"""A fused instruction from outside: `vaddr` adds two blocks and keeps what is positive, as every block of a ResNet
ends.

    llmcc profile MODEL --extension examples/extension/add_relu.py

One pass of the vector engine in place of one of it and one of the activation engine; llmcc profile shows the
difference.
"""

from dataclasses import replace

import numpy as np

from emulator.context import Call, Core, cut, tiles
from emulator.formats import store
from isa.architecture import FLOATS, Dtype, Engine
from isa.extension import Extension
from isa.fields import Cost, Example, Instruction
from isa.spec import ISA

VOP = ISA["vop"]
ROW = Instruction(
    "vaddr",
    0xC1,
    Engine.VEC,
    (
        replace(VOP.field("d"), when=(), dtypes=FLOATS),
        replace(VOP.field("a"), dtypes=FLOATS),
        replace(VOP.field("b"), default=None, dtypes=FLOATS, doc="second operand"),
        *(VOP.field(name) for name in ("planes", "rows", "cols", "dyn", "dyn_s")),
    ),
    "add, then relu",
    "t = f32(a + b), rounded to the type of d; d = 0 if t <= 0 else t",
    Cost("vec", 1, {"f32_add": 2}),
    example=Example("d=v1, a=v2, b=v3, rows=8, cols=32", "lda<=0", {"d": Dtype.F32, "a": Dtype.F32, "b": Dtype.F32}),
)


def vaddr(core: Core, call: Call) -> None:
    for tile in tiles(call.extents["d"]):
        t = call.floats("a", tile) + call.floats("b", tile)
        store(cut(call.blocks["d"], tile), call.dtype("d"), np.where(t <= 0, np.float32(0), t))


def compiler() -> object:
    from dataclasses import dataclass
    from typing import Any, ClassVar

    import torch
    from torch import Tensor, fx

    from compiler.emit.emitter import Emitter
    from compiler.extensions import CompilerPart
    from compiler.graph.editor import Editor, aten
    from compiler.ops import library as ops
    from compiler.ops.library import define_operator
    from compiler.ops.record import Limit, Role
    from compiler.tile.kernel_op import KernelOp
    from compiler.translation import symbols as s
    from compiler.translation.instructions import Executed, Reads, Rule, Writes
    from compiler.translation.operators import Call as Node
    from compiler.translation.symbols import Symbols, Value, rounded
    from isa.views import Extents

    def reference(a: Tensor, b: Tensor) -> Tensor:
        t = a + b
        return torch.where(t <= 0, 0.0, t)

    add_relu = define_operator(
        "add_relu(Tensor a, Tensor b) -> Tensor",
        reference,
        lambda a, b: (a + b).contiguous(),
        Role.ELEMENTWISE,
        Limit.ELEMENTS,
        in_place=True,
    )

    @dataclass(frozen=True)
    class FuseAddRelu:
        """before  %t = add(%a, %b); %y = activation(%t, "relu")        after  %y = add_relu(%a, %b)      where nobody
        else reads %t"""

        name: ClassVar[str] = "fuse-add-relu"
        changes_bits: ClassVar[bool] = False
        gone: ClassVar[frozenset[Any]] = frozenset()

        def run(self, gm: fx.GraphModule) -> fx.GraphModule:
            editor = Editor(gm, self.name)
            for node in list(gm.graph.nodes):
                if node.target is ops.activation and node.args[1] == "relu" and _plain_sum(node.args[0]):
                    editor.replace(node, editor.emit(node, add_relu.targets[0], *node.args[0].args[:2]))  # type: ignore[union-attr]
            return editor.finish()

    def _plain_sum(t: Any) -> bool:
        """Two float32 tensors, added; in a narrower type there is a rounding between the two."""
        tensors = (
            t.op == "call_function" and t.target is aten.add.Tensor and all(isinstance(x, fx.Node) for x in t.args[:2])
        )
        return tensors and not t.kwargs and len(t.users) == 1 and t.meta["val"].dtype is torch.float32

    def emit(e: Emitter, node: KernelOp) -> None:
        out = e.result(node)
        a, b = (e.operand(x, len(node.shape)) for x in node.operands)
        e.emit("vaddr", node, out.layout.shape, {"d": out}, {"a": a, "b": b})
        e.finish(node)

    def fused(a: Value, b: Value, kind: Dtype) -> Symbols:
        return rounded(Value(s.function("relu", s.add(a.float, b.float)), Dtype.F32), kind)

    def meaning(node: Node) -> Symbols:
        return node.fill(lambda a, b: fused(a, b, node.kind), *node.node.args[:2])

    def instruction(executed: Executed, reads: Reads, extents: Extents) -> Writes:
        return {"d": fused(reads["a"], reads["b"], executed.kinds["d"])}

    return CompilerPart(
        (add_relu,),
        {"add_relu": emit},
        (FuseAddRelu(),),
        {"add_relu": meaning},
        {"vaddr": Rule(instruction, lambda _: 0)},
    )


EXTENSION = Extension(
    "add-relu", (ROW,), {"vaddr": vaddr},
    compiler,
)  # fmt: skip

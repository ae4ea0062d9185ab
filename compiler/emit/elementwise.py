"""Elementwise operations: arithmetic, comparisons, selection, casts, activations, copies, concatenation."""

import math
from collections.abc import Callable
from dataclasses import replace

from compiler.emit.emitter import Emitter, emits
from compiler.emit.rows import ONE, bits
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout, blocks
from isa.architecture import Dtype, Space
from isa.errors import UnsupportedError
from isa.spec import ACT, VOP

Operand = KernelOp | int | float | None
PART = 1 << 17  # elements of a part that are brought on chip at a time
SIGN_FLIP = 0xBF800000  # -1.0
EXACT_SCALAR = ("mul", "div", "mov", "max", "min")  # these keep a float32 scalar beside bf16 and f16 tensors


def binary(op: str, swap: bool = False) -> Callable[[Emitter, KernelOp], None]:
    """A two-operand instruction. `swap` exchanges the operands (a > b is b < a)."""

    def emit(e: Emitter, node: KernelOp) -> None:
        a, b = list(node.args)[:2]
        compute(e, node, op, *map(node.operand, (b, a) if swap else (a, b)))

    return emit


for _name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le"):
    emits(_name)(binary(_name))
for _name in ("and", "or", "xor"):
    emits(f"bitwise_{_name}")(binary(_name))
emits("gt")(binary("lt", swap=True))
emits("ge")(binary("le", swap=True))


def compute(e: Emitter, node: KernelOp, op: str, a: Operand, b: Operand) -> None:
    """One instruction d = op(a, b); either operand may be a Python number, and `b` may be none."""
    rank, out = len(node.shape), e.result(node)
    left = e.operand(a, rank, any_strides=True) if isinstance(a, KernelOp) else None
    right = e.operand(b, rank, any_strides=True) if isinstance(b, KernelOp) else None
    kinds = [x.dtype for x in (out.layout, left, right) if x is not None]
    integer = not any(k.is_float for k in kinds)
    if left is None:
        assert not isinstance(a, KernelOp) and a is not None
        scalar = immediate(a, integer)
        scalar = scalar if integer or op in EXACT_SCALAR or right is None else narrowed(scalar, right.dtype)
        left = e.constant(scalar, Dtype.I32 if integer else Dtype.F32)
    attrs = {"f": VOP.index(op)}
    if b is not None and not isinstance(b, KernelOp):
        attrs["imm"] = immediate(b, integer)
        if op not in EXACT_SCALAR:
            attrs["imm"] = narrowed(attrs["imm"], left.dtype)
    e.emit("vop", node, out.layout.shape, {"d": out}, {"a": left, "b": right}, attrs)
    e.finish(node)


def narrowed(imm: int, kind: Dtype) -> int:
    """A float32 immediate rounded to a narrower type: what the framework does with scalars it adds or compares."""
    if kind not in (Dtype.BF16, Dtype.F16):
        return imm
    import torch

    narrow = torch.bfloat16 if kind is Dtype.BF16 else torch.float16
    if math.isnan(torch.tensor([imm], dtype=torch.uint32).view(torch.float32).item()):
        return imm  # PyTorch's own casts give a NaN other bits in vectors than in single values
    return (
        int(
            torch.tensor([imm], dtype=torch.uint32)
            .view(torch.float32)
            .to(narrow)
            .to(torch.float32)
            .view(torch.int32)[0]
        )
        & 0xFFFFFFFF
    )


def immediate(value: float, integer: bool) -> int:
    """The immediate bits of a Python scalar. Raises UnsupportedError for integers beyond 32 bits."""
    if integer and not -(1 << 31) <= int(value) < 1 << 31:
        raise UnsupportedError(
            f"the integer constant {value} does not fit in 32 bits", hint="the chip computes with 32-bit integers"
        )
    return int(value) & 0xFFFFFFFF if integer else bits(float(value))


@emits("neg")
def negate(e: Emitter, node: KernelOp) -> None:
    compute(e, node, "mul", node.first, -1.0 if node.dtype.is_float else -1)


@emits("abs")
def absolute(e: Emitter, node: KernelOp) -> None:
    a = e.operand(node.first, len(node.shape))
    minus = e.temp(a.shape, a.dtype, node.name + ".neg")
    e.emit(
        "vop",
        node,
        a.shape,
        {"d": minus},
        {"a": a},
        {"f": VOP.index("mul"), "imm": SIGN_FLIP if a.dtype.is_float else 0xFFFFFFFF},
    )
    e.emit("vop", node, a.shape, {"d": e.result(node)}, {"a": a, "b": minus}, {"f": VOP.index("max")})
    e.finish(node)


@emits("activation")
def activation(e: Emitter, node: KernelOp) -> None:
    x, kind = node.tensor("x"), node.text("kind")
    a = e.operand(x, len(node.shape))
    out = e.result_over(node, x, a)
    e.emit("act", node, out.layout.shape, {"d": out}, {"a": a}, {"f": ACT.index(kind), "scale": ONE})
    e.finish(node)


@emits("clamp")
def clamp(e: Emitter, node: KernelOp) -> None:
    """Where the lower of two bounds is zero, ACT does that half of the work."""
    x = node.tensor("x")
    source = e.operand(x, len(node.shape))
    out = e.result_over(node, x, source)
    steps = [(op, node.number(name)) for op, name in (("max", "min"), ("min", "max")) if node.args[name] is not None]
    for i, (op, bound) in enumerate(steps):
        d = out if i == len(steps) - 1 else out.layout  # only the last step completes the value
        if op == "max" and bound == 0 and len(steps) == 2:
            attrs = {"f": ACT.index("relu"), "scale": ONE}
            e.emit("act", node, out.layout.shape, {"d": d}, {"a": source}, attrs)
        else:
            e.emit("vop", node, out.layout.shape, {"d": d}, {"a": source}, {"f": VOP.index(op), "imm": bits(bound)})
        source = out.layout
    e.finish(node)


@emits("where")
def where(e: Emitter, node: KernelOp) -> None:
    """d = x; then take y where the condition is zero."""
    condition, x, y = node.tensor("condition"), node.operand("self"), node.operand("other")
    assert x is not None and y is not None
    rank, out = len(node.shape), e.result(node)
    sizes, integer = out.layout.shape, not out.layout.dtype.is_float
    kind = Dtype.I32 if integer else Dtype.F32
    first = e.operand(x, rank, any_strides=True) if isinstance(x, KernelOp) else e.constant(immediate(x, integer), kind)
    e.emit("vop", node, sizes, {"d": out.layout}, {"a": first}, {"f": VOP.index("mov")})
    attrs = {"f": VOP.index("sel")}
    other: Layout | None = None
    if isinstance(y, KernelOp):
        other = e.operand(y, rank, any_strides=True)
    else:
        attrs["imm"] = immediate(y, integer and e.operand(condition, rank).dtype in (Dtype.I8, Dtype.I32))
    e.emit("vop", node, sizes, {"d": out}, {"a": e.operand(condition, rank), "b": other}, attrs)
    e.finish(node)


@emits("_to_copy")
def cast(e: Emitter, node: KernelOp) -> None:
    """To bool: compare with zero. Otherwise a move; the store rounds."""
    import torch

    if node.type is torch.bool:
        compute(e, node, "ne", node.first, 0)
    else:
        compute(e, node, "mov", node.first, None)


@emits("clone")
def copy(e: Emitter, node: KernelOp) -> None:
    compute(e, node, "mov", node.first, None)


@emits("logical_not")
def logical_not(e: Emitter, node: KernelOp) -> None:
    compute(e, node, "eq", node.first, 0)


@emits("cat")
def cat(e: Emitter, node: KernelOp) -> None:
    """Each part to its place, in the order of the result. Parts that come from DRAM are brought on chip some rows at a
    time."""
    along = node.axis
    straight = e.direct_target(node)  # where the result goes past the scratchpad
    out, start = e.result(node) if straight is None else straight, 0
    for part in node.operands:
        if part.is_empty:
            continue
        source = e.operand(part, len(node.shape), staged=False)
        size = source.shape[along]
        target = replace(
            out, layout=_window(out.layout, along, start, size), logical=_window(out.logical, along, start, size)
        )
        for ranges in blocks(
            source.shape, min(PART, e.tiling.n) if source.buffer.space is Space.DRAM else source.elements
        ):
            d, a = (
                target.narrow(ranges),
                e.stage(part, source.narrow(ranges), once=e.tiling.n < PART, any_strides=straight is None),
            )  # of a value joined with itself, too
            if straight is None:
                e.emit("vop", node, d.layout.shape, {"d": d}, {"a": a}, {"f": VOP.index("mov")})
            else:
                e.store(node, d, a)
        start += size
    if straight is None:
        e.finish(node)


def _window(layout: Layout, along: int, start: int, size: int) -> Layout:
    shape_ = (*layout.shape[:along], size, *layout.shape[along + 1 :])
    return replace(layout, offset=layout.offset + start * layout.strides[along], shape=shape_)

"""Codes and scales: what every quantized product is made of."""

import operator
import struct

import torch
from torch import fx
from torch.fx.node import Argument, Target

from compiler.graph.arguments import integers, optional_tensor, tensor
from compiler.graph.editor import Editor, aten, dtype_of, shape_of
from compiler.graph.manager import unsupported
from compiler.ops import library as ops
from isa.architecture import MAX_K


def quantize_rows(
    editor: Editor, at: fx.Node, x: fx.Node, col: fx.Node | None = None, absmax: fx.Node | None = None
) -> tuple[fx.Node, fx.Node]:
    """Trailing operands that say nothing are left out, so that the text stays short."""
    return pair(editor, at, ops.quantize_rows, x, *_said(col, absmax))


def quantize_source(
    editor: Editor, at: fx.Node, x: fx.Node, col: fx.Node | None = None, absmax: fx.Node | None = None
) -> tuple[fx.Node, fx.Node]:
    """Quantize the rows of x where they were made, before any view that keeps rows whole: once, and in token order. What
    a calibration says of x takes part."""
    if x.target is ops.calibrated:
        return quantize_source(editor, at, tensor(x, "x"), optional_tensor(x, "col"), optional_tensor(x, "absmax"))
    if x.target is aten.permute.default and (dims := integers(x, 1))[-1] == len(shape_of(x)) - 1:
        q, s = quantize_source(editor, at, tensor(x, 0), col, absmax)
        return editor.permute(at, q, dims), editor.permute(at, s, dims[:-1])
    if x.target is aten.reshape.default and shape_of(x)[-1:] == shape_of(x.args[0])[-1:]:
        q, s = quantize_source(editor, at, tensor(x, 0), col, absmax)
        return editor.reshape(at, q, shape_of(x)), editor.reshape(at, s, shape_of(x)[:-1])
    if x.target is aten.expand.default and shape_of(x)[-1:] == shape_of(x.args[0])[-1:]:
        q, s = quantize_source(editor, at, tensor(x, 0), col, absmax)
        return editor.expand(at, q, shape_of(x)), editor.expand(at, s, shape_of(x)[:-1])
    return quantize_rows(editor, at, x, col, absmax)


def _said(*operands: fx.Node | None) -> list[fx.Node | None]:
    """Operands without those at the end that are left out."""
    given = list(operands)
    while given and given[-1] is None:
        given.pop()
    return given


def as_row(editor: Editor, at: fx.Node, scale: fx.Node) -> fx.Node:
    """A scale per column: [..., n] as [..., 1, n]."""
    return editor.reshape(at, scale, (*shape_of(scale)[:-1], 1, shape_of(scale)[-1]))


def float32(number: float) -> float:
    """A Python number as float32 holds it: that is how it takes part."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def dequantize(
    editor: Editor, at: fx.Node, c: fx.Node, row: fx.Node, col: fx.Node | None = None, bias: fx.Node | None = None,
    dtype: torch.dtype = torch.float32,
) -> fx.Node:  # fmt: skip
    """Trailing operands that say nothing are left out, so that the text stays short."""
    return editor.emit(
        at, ops.dequantize, c, row, *_said(col, bias), **({} if dtype is torch.float32 else {"dtype": dtype})
    )


def check_operands(node: fx.Node, a: fx.Node, b: fx.Node) -> None:
    """Raises UnsupportedError for a product of integers, or of more elements than int32 sums hold."""
    length, kinds = shape_of(a)[-1], [str(dtype_of(x)).removeprefix("torch.") for x in (a, b)]
    if not (dtype_of(a).is_floating_point and dtype_of(b).is_floating_point):
        raise unsupported(
            node, f"multiplies {kinds[0]} by {kinds[1]}: both must be floats (input.float() makes one of an integer)"
        )
    if length > MAX_K:
        raise unsupported(node, f"sums {length} products; an int32 holds at most {MAX_K}")


def pair(editor: Editor, at: fx.Node, target: Target, *args: Argument) -> tuple[fx.Node, fx.Node]:
    pair = editor.emit(at, target, *args)
    return editor.emit(at, operator.getitem, pair, 0), editor.emit(at, operator.getitem, pair, 1)

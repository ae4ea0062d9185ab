"""Products whose weights each row chooses by a number that is computed: experts.

    before   %e = embedding(%w, %ids); %m = reshape(%e, [S, N, K]); %y = matmul(%m, %x)             x [S, K, 1]
    after    %qx, %sx = llmchip.quantize_rows(%x); %qw, %sw = llmchip.quantize_rows(%w)             w [E, N, K]
             %c = llmchip.matmul_chosen(%qx, %qw, %ids); %s = embedding(%sw, %ids)
             %y = llmchip.dequantize(%c, %sx, %s)

Only what is chosen leaves DRAM. A matrix that is longer than the stride of a view reaches is several blocks.
"""

from dataclasses import dataclass

from torch import fx

from compiler.graph.arguments import integers, tensor
from compiler.graph.editor import Editor, aten, dtype_of, is_static, shape_of
from compiler.ops import library as ops
from compiler.passes.codes import dequantize, quantize_rows, quantize_source
from isa.spec import ISA

MOST_BLOCK = ISA["vset"].field("rs").largest  # elements: how far apart the rows of a table may be


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Matrices [S, P, Q] that are looked up in `table` [E, P * Q]; `swapped` if they are then transposed."""

    table: fx.Node
    ids: fx.Node
    sizes: tuple[int, int]
    swapped: bool


def chosen_product(editor: Editor, node: fx.Node) -> fx.Node | None:
    """A matmul of one row each with weights that are looked up, on either side; None for any other."""
    a, b = tensor(node, 0), tensor(node, 1)
    if len(shape_of(a)) != 3 or len(shape_of(b)) != 3:
        return None
    right = _chosen(b) if shape_of(a)[1] == 1 else None
    left = _chosen(a) if shape_of(b)[2] == 1 else None
    if right is not None:
        return editor.reshape(node, _product(editor, node, a, right, right.swapped), shape_of(node))
    if left is not None:
        return editor.reshape(node, _product(editor, node, b, left, not left.swapped), shape_of(node))
    return None


def _chosen(x: fx.Node) -> _Chosen | None:
    swapped = x.target is aten.permute.default and integers(x, 1) == [0, 2, 1]
    x = tensor(x, 0) if swapped else x
    rows, p, q = shape_of(x)
    found = tensor(x, 0) if x.target is aten.reshape.default else x
    if found.target is not aten.embedding.default or not is_static(found.args[0]):
        return None
    table, ids = tensor(found, 0), tensor(found, 1)
    whole = shape_of(table)[1] == p * q and shape_of(found)[:-1] == shape_of(ids) and ids.meta["val"].numel() == rows
    return _Chosen(table, ids, (p, q), swapped) if whole and p and q else None


def _product(editor: Editor, node: fx.Node, x: fx.Node, weights: _Chosen, along_last: bool) -> fx.Node:
    """[S, N]: the rows `x` with their weights, whose last dimension is that of the products if `along_last`."""
    p, q = weights.sizes
    count, rows = shape_of(weights.table)[0], weights.ids.meta["val"].numel()
    n, k = (p, q) if along_last else (q, p)
    whole = editor.reshape(node, weights.table, (count, p, q))
    codes, scales = quantize_rows(editor, node, whole if along_last else editor.swap_last(node, whole))
    qx, sx = quantize_source(editor, node, editor.reshape(node, x, (rows, k)))
    size = next(size for size in range(n, 0, -1) if n % size == 0 and (size * k <= MOST_BLOCK or size == 1))
    numbers = editor.reshape(node, weights.ids, (rows, 1))
    if size < n:
        first = editor.emit(node, aten.mul.Tensor, numbers, n // size)
        parts = editor.emit(node, aten.arange.default, n // size, dtype=dtype_of(numbers))
        numbers = editor.emit(node, aten.add.Tensor, first, parts)
    blocks = editor.reshape(node, codes, (count * (n // size), size, k))
    sums = editor.emit(node, ops.matmul_chosen, qx, blocks, numbers)
    col = editor.emit(node, aten.embedding.default, scales, editor.reshape(node, weights.ids, (rows,)))
    return dequantize(editor, node, sums, sx, col, dtype=dtype_of(node))

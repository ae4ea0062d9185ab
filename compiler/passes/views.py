"""Canonical views: permute, reshape, expand, slice and select, every size written out.

before   %t = transpose(%x, 1, 2); %y = clone(%t); %z = view(%y, [2, 7, -1]); %w = unsqueeze(%m, 1)
after    %t = permute(%x, [0, 2, 1, 3]); %z = reshape(%t, [2, 7, 384]); %w = reshape(%m, [2, 1, 7])
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx
from torch.fx.node import Argument, Target

from compiler.graph.arguments import argument, first_of, integer, integers, tensor, tensors
from compiler.graph.editor import Editor, aten, dtype_of, is_static, shape_of
from compiler.graph.ranges import INT32, interval
from compiler.graph.rules import Rule


def _drop(editor: Editor, node: fx.Node) -> fx.Node:
    return tensor(node, 0)


def _dropout(editor: Editor, node: fx.Node) -> fx.Node | None:
    train = first_of(node, "train", "training")
    return None if train and argument(node, "p") else tensor(node, "input")


_SWAPPED: dict[Target, tuple[str, str]] = {
    aten.transpose.int: ("dim0", "dim1"),
    aten.swapaxes.default: ("axis0", "axis1"),
}


def _transpose(editor: Editor, node: fx.Node) -> fx.Node:
    x = tensor(node, "self")
    order = list(range(len(shape_of(x))))
    names = _SWAPPED.get(node.target)  # those of t, mT and adjoint are the last two
    first, second = (integer(node, names[0]), integer(node, names[1])) if names else (-2, -1)
    if len(order) > 1:
        order[first], order[second] = order[second], order[first]
    return editor.permute(node, x, order)


def _reverse_dims(editor: Editor, node: fx.Node) -> fx.Node:
    x = tensor(node, 0)
    return editor.permute(node, x, reversed(range(len(shape_of(x)))))


def _permute(editor: Editor, node: fx.Node) -> fx.Node:
    x = tensor(node, 0)
    return editor.permute(node, x, [d % len(shape_of(x)) for d in integers(node, 1)])


def _reshape(editor: Editor, node: fx.Node) -> fx.Node:
    """Any operation that only regroups elements: the result's shape says it all."""
    x = tensor(node, 0)
    while x.target is aten.expand.default and math.prod(shape_of(x)) == math.prod(shape_of(x.args[0])):
        x = tensor(x, 0)
    return editor.reshape(node, x, shape_of(node))


def _expand(editor: Editor, node: fx.Node) -> fx.Node:
    """An expand that only adds leading ones is a reshape."""
    x, shape = tensor(node, 0), shape_of(node)
    if math.prod(shape) == math.prod(shape_of(x)):
        return editor.reshape(node, x, shape)
    return editor.broadcast(node, x, shape)


def _slice(editor: Editor, node: fx.Node) -> fx.Node | None:
    x = tensor(node, "self")
    dim = integer(node, "dim") % len(shape_of(x))
    if shape_of(x) == shape_of(node):
        return x
    size = shape_of(x)[dim]
    start, end, _ = slice(argument(node, "start"), argument(node, "end")).indices(size)
    if argument(node, "step") != 1:
        return _every_nth(editor, node, x, dim, start)
    return editor.emit(node, aten.slice.Tensor, x, dim, start, end)


def _every_nth(editor: Editor, node: fx.Node, x: fx.Node, dim: int, start: int) -> fx.Node | None:
    """x[start::step] as one place in groups of `step` elements; the last by itself where its group is not whole."""
    step, count, size = integer(node, "step"), shape_of(node)[dim], shape_of(x)[dim]
    if count == 0:
        return None
    whole = count if count * step <= size else count - 1
    parts = []
    if whole:
        first = min(start, size - whole * step)  # of the groups, which may begin before
        lead, rest = shape_of(x)[:dim], shape_of(x)[dim + 1 :]
        part = editor.emit(node, aten.slice.Tensor, x, dim, first, first + whole * step)
        groups = editor.reshape(node, part, (*lead, whole, step, *rest))
        parts.append(editor.emit(node, aten.select.int, groups, dim + 1, start - first))
    if whole < count:
        last = start + whole * step
        parts.append(editor.emit(node, aten.slice.Tensor, x, dim, last, last + 1))
    return parts[0] if len(parts) == 1 else editor.emit(node, aten.cat.default, parts, dim)


def _select(editor: Editor, node: fx.Node) -> fx.Node:
    x = tensor(node, 0)
    dim = integer(node, 1) % len(shape_of(x))
    index = integer(node, 2) % shape_of(x)[dim]
    if shape_of(x)[dim] == 1:
        return editor.reshape(node, x, shape_of(node))
    return editor.emit(node, aten.select.int, x, dim, index)


def _pieces(editor: Editor, node: fx.Node) -> None:
    """split, chunk, unbind: each piece that is read becomes a slice."""
    x = tensor(node, 0)
    dim = integer(node, "dim") % len(shape_of(x))
    start = 0
    starts = []
    pieces = node.meta["val"]
    unbind = len(pieces[0].shape) < len(shape_of(x))
    for piece in pieces:
        starts.append(start)
        start += 1 if unbind else piece.shape[dim]
    for user in list(node.users):
        number = integer(user, 1)
        end = starts[number] + (1 if unbind else pieces[number].shape[dim])
        piece = editor.emit(user, aten.slice.Tensor, x, dim, starts[number], end)
        editor.replace(user, editor.reshape(user, piece, pieces[number].shape))


def _index(editor: Editor, node: fx.Node) -> fx.Node | None:
    """x[arange, ..., arange] over all of x, as transformers writes masks, is a reshape; x[..., [-2], :] a slice; any
    other numbers look rows up."""
    x, indices = node.args
    assert isinstance(x, fx.Node) and isinstance(indices, (list, tuple))
    given = {dim: index for dim, index in enumerate(indices) if isinstance(index, fx.Node)}
    if len(given) == 1:
        ((dim, index),) = given.items()
        if (one := _number(editor.known(index))) is not None:
            at = one % shape_of(x)[dim]
            return editor.emit(node, aten.slice.Tensor, x, dim, at, at + 1)
    return _all_of(editor, node, x, indices) or _looked_up(editor, node, x, given)


def _all_of(editor: Editor, node: fx.Node, x: fx.Node, indices: Sequence[Argument]) -> fx.Node | None:
    """x[arange, ..., arange] over all of x."""
    rank = len(shape_of(node))
    if len(indices) != len(shape_of(x)):
        return None
    axes = [_full_axis(editor.known(index), size, rank) for index, size in zip(indices, shape_of(x), strict=True)]
    varying = [axis for axis in axes if axis is not None and axis >= 0]
    if None in axes or varying != sorted(set(varying)):
        return None
    return editor.reshape(node, x, shape_of(node)) if math.prod(shape_of(x)) == math.prod(shape_of(node)) else None


def _looked_up(
    editor: Editor, node: fx.Node, x: fx.Node, given: Mapping[int, fx.Node], from_end: bool = True
) -> fx.Node | None:
    """x with places [*I] along some of its dimensions, x[:, i, j]: rows of a table, whose other dimensions stay. Those
    that are looked up become one, [*I], where the first was; in front where others lie between them."""
    sizes, rank = shape_of(x), len(shape_of(x))
    if is_static(node) or not given or 0 in sizes or any(dtype_of(i) in _TRUTHS for i in given.values()):
        return None
    dims = list(given)
    others = [dim for dim in range(rank) if dim not in given]
    places = list(given.values())  # without `from_end` there is one
    index = _row_numbers(editor, node, [sizes[dim] for dim in dims], places) if from_end else places[0]
    table = editor.permute(node, x, [*dims, *others])
    rows = editor.reshape(node, table, (math.prod(sizes[d] for d in dims), math.prod(sizes[d] for d in others)))
    rows = editor.emit(node, aten.embedding.default, rows, index)
    depth = len(shape_of(index))
    found = editor.reshape(node, rows, (*shape_of(index), *(sizes[dim] for dim in others)))
    apart = dims != list(range(dims[0], dims[0] + len(dims)))
    before = 0 if apart else dims[0]
    order = [*range(depth, depth + before), *range(depth), *range(depth + before, depth + len(others))]
    return editor.permute(node, found, order)


def _row_numbers(editor: Editor, at: fx.Node, sizes: Sequence[int], places: Sequence[fx.Node]) -> fx.Node:
    """Which row of a table, whose rows lie in `sizes`, is at these places. Places below zero count from the end; one
    outside names no row: it traps."""
    if len(sizes) == 1:
        return _from_end(editor, at, places[0], sizes[0])
    total, outside = None, []
    for step, (size, place) in enumerate(zip(sizes, places, strict=True), 1):
        low, high = interval(place) or INT32
        place = editor.cast(at, _from_end(editor, at, place, size), torch.int32)
        for target, bound, possible in ((aten.lt.Scalar, 0, low < -size), (aten.ge.Scalar, size, high >= size)):
            if possible:
                outside.append(editor.emit(at, target, place, bound))
        if (apart := math.prod(sizes[step:])) != 1:
            place = editor.emit(at, aten.mul.Tensor, place, apart)
        total = place if total is None else editor.emit(at, aten.add.Tensor, total, place)
    assert total is not None
    for bad in outside:
        total = editor.emit(at, aten.where.ScalarSelf, bad, -1, total)
    return total


def _from_end(editor: Editor, at: fx.Node, place: fx.Node, size: int) -> fx.Node:
    """Places along a dimension, those below zero from its end on."""
    if (interval(place) or INT32)[0] >= 0:
        return place
    place = editor.cast(at, place, torch.int32)  # in which the chip has it, and which may wrap
    below = editor.emit(at, aten.lt.Scalar, place, 0)
    return editor.emit(at, aten.where.self, below, editor.emit(at, aten.add.Tensor, place, size), place)


def _flip(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Dimensions the other way round: all of them together are rows of a table, from the last to the first."""
    x, rank = tensor(node, "self"), len(shape_of(tensor(node, "self")))
    if not shape_of(x):
        return x
    dims = [dim for dim in sorted(d % rank for d in integers(node, "dims")) if shape_of(x)[dim] > 1]
    if not dims:
        return x
    if is_static(node) or 0 in shape_of(x):
        return None
    order = [*dims, *(dim for dim in range(rank) if dim not in dims)]
    moved = editor.permute(node, x, order)
    count = math.prod(shape_of(x)[dim] for dim in dims)
    table = editor.reshape(node, moved, (count, math.prod(shape_of(x)) // count))
    places = editor.emit(node, aten.arange.start_step, count - 1, -1, -1, dtype=torch.int32)
    rows = editor.emit(node, aten.embedding.default, table, places)
    return editor.permute(node, editor.reshape(node, rows, shape_of(moved)), [order.index(d) for d in range(rank)])


def _index_select(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Rows along a dimension by numbers, which do not count from the end: the table traps."""
    x, index = tensor(node, "self"), tensor(node, "index")
    if not shape_of(x):
        x = editor.reshape(node, x, (1,))
    index = editor.reshape(node, index, (math.prod(shape_of(index)),))
    found = _looked_up(editor, node, x, {integer(node, "dim") % len(shape_of(x)): index}, from_end=False)
    return found and editor.reshape(node, found, shape_of(node))


def _gather(editor: Editor, node: fx.Node) -> fx.Node | None:
    """gather(table for each sequence [B, n, E], 1, index repeated for each element [B, T, E]) takes rows of the table."""
    if integer(node, 1) != 1 or len(shape_of(node)) != 3:
        return None
    (table, rows), (index, places) = (_elements(tensor(node, number)) for number in (0, 2))
    tables, numbers = rows.reshape(len(rows), -1), places[..., 0]
    if not (
        torch.equal(tables, torch.arange(tables.shape[1]).expand_as(tables))
        and math.prod(shape_of(table)) == tables.shape[1]
        and torch.equal(places, numbers.unsqueeze(-1).expand_as(places))
        and torch.equal(numbers.reshape(-1), torch.arange(math.prod(shape_of(index))))
    ):
        return None
    flat = editor.reshape(node, table, rows.shape[1:])
    return editor.emit(node, aten.embedding.default, flat, editor.reshape(node, index, numbers.shape))


_TRUTHS = (torch.bool, torch.uint8)  # which are masks, not places
_CHAIN = (aten.reshape.default, aten.expand.default, aten.permute.default, aten.repeat.default)


def _elements(node: fx.Node) -> tuple[fx.Node, Tensor]:
    """What a chain of views looks at, and which of its elements each element is."""
    chain: list[fx.Node] = []
    while node.target in _CHAIN:
        chain.append(node)
        node = tensor(node, 0)
    number = torch.arange(math.prod(shape_of(node))).reshape(shape_of(node))
    for view in reversed(chain):
        number = view.target(number, *view.args[1:], **view.kwargs)  # type: ignore[operator]
    return node, number


def _number(index: Tensor | None) -> int | None:
    """The place that an index of one element names."""
    return int(index) if index is not None and index.shape == (1,) and index.dtype is not torch.bool else None


def _full_axis(index: Tensor | None, size: int, rank: int) -> int | None:
    """The result axis along which `index` counts 0..size-1; -1 for a single zero; None for anything else."""
    if (
        index is None
        or index.dtype is torch.bool
        or index.numel() != size
        or not torch.equal(index.reshape(-1), torch.arange(size))
    ):
        return None
    axes = [axis + rank - index.dim() for axis, extent in enumerate(index.shape) if extent != 1]
    return axes[0] if len(axes) == 1 else (-1 if not axes else None)


def _embedding(editor: Editor, node: fx.Node) -> fx.Node:
    """Rows are looked up before they are broadcast; other options only matter for gradients."""
    table, index = tensor(node, 0), tensor(node, 1)
    if index.target is aten.gather.default and is_static(table) and is_static(index.args[0]):
        return _through_gather(editor, node, table, index) or node
    if index.target is aten.expand.default:
        inner = index.args[0]
        rows = editor.emit(node, aten.embedding.default, table, inner)
        return editor.expand(node, rows, shape_of(node))
    return node if len(node.args) == 2 and not node.kwargs else editor.emit(node, aten.embedding.default, table, index)


def _through_gather(editor: Editor, node: fx.Node, table: fx.Node, gather: fx.Node) -> fx.Node | None:
    """embedding(table, gather(row, 1, index)) looks up in embedding(table, row), which is computed when packing.

    transformers reads default token types that way when positions are given.
    """
    row = tensor(gather, 0)
    row = tensor(row, 0) if row.target is aten.expand.default else row
    if gather.args[1] not in (1, -1) or len(shape_of(row)) != 2 or shape_of(row)[0] != 1:
        return None
    rows = editor.emit(node, aten.embedding.default, table, editor.reshape(node, row, shape_of(row)[1:]))
    return editor.emit(node, aten.embedding.default, rows, gather.args[2])


def _stack(editor: Editor, node: fx.Node) -> fx.Node:
    """stack is cat along a new dimension of size one."""
    dim = integer(node, "dim") % len(shape_of(node))
    shape = [1 if d == dim else size for d, size in enumerate(shape_of(node))]
    return editor.emit(node, aten.cat.default, [editor.reshape(node, x, shape) for x in tensors(node, "tensors")], dim)


def _cat(editor: Editor, node: fx.Node) -> fx.Node:
    """cat of parts that have elements, in the type of the result; an empty 1-d tensor is taken beside any others."""
    dim = integer(node, "dim") % len(shape_of(node))
    parts = [editor.cast(node, x, dtype_of(node)) for x in tensors(node, "tensors") if math.prod(shape_of(x))]
    return parts[0] if len(parts) == 1 else editor.emit(node, aten.cat.default, parts, dim)


def _copy(editor: Editor, node: fx.Node) -> fx.Node:
    """What a tensor becomes into which another one is written: that one, in its shape and type."""
    return editor.broadcast(node, editor.cast(node, tensor(node, "src"), dtype_of(node)), shape_of(node))


def _filled(number: int | None) -> Rule:
    """One number everywhere, or the one that is given, whatever the tensor is whose type or shape it has."""

    def rule(editor: Editor, node: fx.Node) -> fx.Node:
        value = argument(node, "fill_value") if number is None else number
        return editor.emit(node, aten.full.default, list(shape_of(node)), value, dtype=dtype_of(node))

    return rule


def _unfold(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Windows along a dimension, which lie in a new last one: [..., places, ..., size]."""
    x = tensor(node, "self")
    if is_static(node) or not shape_of(x):
        return None
    dim, size, step = integer(node, "dimension") % len(shape_of(x)), integer(node, "size"), integer(node, "step")
    sizes, places = shape_of(x), shape_of(node)[dim]
    if size == step:
        whole = editor.emit(node, aten.slice.Tensor, x, dim, 0, places * size)
        apart = editor.reshape(node, whole, (*sizes[:dim], places, size, *sizes[dim + 1 :]))
    else:
        index = editor.emit(
            node, aten.unfold.default, editor.emit(node, aten.arange.default, sizes[dim]), 0, size, step
        )
        found = _looked_up(editor, node, x, {dim: index})
        if found is None:
            return None
        apart = found
    rank = len(sizes) + 1
    return editor.permute(node, apart, [d for d in range(rank) if d != dim + 1] + [dim + 1])


def _roll(editor: Editor, node: fx.Node) -> fx.Node:
    """The end of each dimension before its beginning; without dimensions, of all elements in a row."""
    x, shifts, dims = tensor(node, "self"), integers(node, "shifts"), integers(node, "dims")
    if not dims:
        x, dims = editor.reshape(node, x, (math.prod(shape_of(x)),)), [0]
    for shift, dim in zip(shifts, dims, strict=True):
        size = shape_of(x)[dim]
        if at := -shift % size:
            ends = ((at, size), (0, at))
            parts = [editor.emit(node, aten.slice.Tensor, x, dim % len(shape_of(x)), *end) for end in ends]
            x = editor.emit(node, aten.cat.default, parts, dim % len(shape_of(x)))
    return editor.reshape(node, x, shape_of(node))


RULES: dict[Target, Rule] = {
    aten.cat.default: _cat,
    aten.roll.default: _roll,
    aten.copy.default: _copy,
    aten.new_full.default: _filled(None),
    **dict.fromkeys((aten.zeros_like.default, aten.new_zeros.default), _filled(0)),
    **dict.fromkeys((aten.ones_like.default, aten.new_ones.default), _filled(1)),
    aten.unfold.default: _unfold,
    **dict.fromkeys(
        (
            aten.clone.default,
            aten.alias.default,
            aten.detach.default,
            aten.contiguous.default,
            aten.lift_fresh_copy.default,
        ),
        _drop,
    ),
    **dict.fromkeys((aten.dropout.default, aten.feature_dropout.default), _dropout),
    **dict.fromkeys(
        (aten.transpose.int, aten.t.default, aten.swapaxes.default, aten.mT.default, aten.adjoint.default), _transpose
    ),
    aten.numpy_T.default: _reverse_dims,
    aten.permute.default: _permute,
    **dict.fromkeys(
        (
            aten.view.default,
            aten.reshape.default,
            aten._unsafe_view.default,
            aten.unsqueeze.default,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.flatten.using_ints,
            aten.unflatten.int,
            aten.view_as.default,
        ),
        _reshape,
    ),
    **dict.fromkeys((aten.expand.default, aten.expand_as.default, aten.broadcast_to.default), _expand),
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.index.Tensor: _index,
    aten.flip.default: _flip,
    aten.index_select.default: _index_select,
    aten.gather.default: _gather,
    aten.embedding.default: _embedding,
    aten.stack.default: _stack,
    **dict.fromkeys((aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int), _pieces),
}

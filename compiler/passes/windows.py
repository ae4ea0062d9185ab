"""Windows: what looks at several places of an image or a signal at once, in terms of slices.

    before   %y = convolution(%x, %w, …)        after    %c = llmchip.im2col(%x, …); %y = linear(%c, %w)
             one weight for each channel                 %y = llmchip.depthwise(%x, %w, …)
             %y = max_pool2d(%x, 3)                      %y = maximum of slices
             %y = group_norm(%x, 4)                      %y = layer_norm of each group

Everything is done with the channels last, [B, spatial …, C], where a place is a row; permutes of neighbours cancel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf, prod
from operator import getitem
from typing import ClassVar

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.node import Argument, Target

from compiler.graph.arguments import argument, first_of, integer, integers, number, optional_tensor, scalar, tensor
from compiler.graph.editor import Editor, aten, dtype_of, is_static, provenance, shape_of
from compiler.graph.manager import unsupported
from compiler.graph.rules import Rule, apply_rules
from compiler.ops import library as ops
from compiler.passes.arithmetic import filled

# Sums by channel take an instruction for each place of the window, and are exact to float32; where windows are larger,
# few channels take a product each instead.
MOST_PLACES, FEW_GROUPS = 64, 32


@dataclass(frozen=True)
class Windows:
    name: ClassVar[str] = "windows"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES, skip_static=True)


@dataclass(frozen=True)
class _Axis:
    """How windows lie along one dimension: `places` of them, each of `size` elements `dilation` apart, the next one
    `stride` further on; `before` elements of padding in front."""

    size: int
    stride: int
    dilation: int
    before: int
    places: int

    @property
    def needed(self) -> int:
        """Elements that windows reach, padding included."""
        return (self.places - 1) * self.stride + (self.size - 1) * self.dilation + 1

    @property
    def apart(self) -> bool:
        """Whether one window follows the other without gap or overlap."""
        return self.stride == self.size and self.dilation == 1

    def slice(self, editor: Editor, at: fx.Node, x: fx.Node, dim: int, place: int) -> fx.Node:
        """What all windows have at their `place`."""
        first = place * self.dilation
        last = first + (self.places - 1) * self.stride + 1
        if (first, last, self.stride) == (0, shape_of(x)[dim], 1):
            return x
        return editor.emit(at, aten.slice.Tensor, x, dim, first, last, self.stride)


def _each(numbers: list[int], rank: int) -> list[int]:
    """A number for every dimension, where one may stand for all."""
    return numbers * rank if len(numbers) == 1 else numbers


# ---- channels last


def channels_last(editor: Editor, at: fx.Node, x: fx.Node) -> fx.Node:
    rank = len(shape_of(x))
    return editor.permute(at, x, [0, *range(2, rank), 1])


def channels_first(editor: Editor, at: fx.Node, x: fx.Node) -> fx.Node:
    rank = len(shape_of(x))
    return editor.permute(at, x, [0, rank - 1, *range(1, rank - 1)])


def padded(editor: Editor, at: fx.Node, x: fx.Node, dim: int, before: int, after: int, value: Argument) -> fx.Node:
    """`x` with so many elements more at both ends of a dimension; fewer where that is negative."""
    size = shape_of(x)[dim]
    if before < 0 or after < 0:
        x = editor.emit(at, aten.slice.Tensor, x, dim, max(-before, 0), size - max(-after, 0))

    def border(count: int) -> list[fx.Node]:
        sizes = [count if i == dim else n for i, n in enumerate(shape_of(x))]
        return [editor.emit(at, aten.full.default, sizes, value, dtype=dtype_of(x))] if count > 0 else []

    parts = [*border(before), x, *border(after)]
    return x if len(parts) == 1 else editor.emit(at, aten.cat.default, parts, dim)


def _reached(editor: Editor, at: fx.Node, x: fx.Node, axes: Sequence[_Axis]) -> fx.Node:
    """[B, spatial …, C] without what no window reaches."""
    for dim, axis in enumerate(axes, 1):
        if axis.needed < shape_of(x)[dim]:
            x = editor.emit(at, aten.slice.Tensor, x, dim, 0, axis.needed)
    return x


def _columns(editor: Editor, at: fx.Node, x: fx.Node, axes: Sequence[_Axis]) -> fx.Node:
    """[B, places …, elements of a window * C]: a view, or one copy, where windows are apart."""
    if any(axis.before or axis.needed > size for axis, size in zip(axes, shape_of(x)[1:-1], strict=True)) or not all(
        axis.size == 1 or axis.apart for axis in axes
    ):
        over = ([getattr(axis, name) for axis in axes] for name in ("size", "stride", "dilation", "before", "places"))
        return editor.emit(at, ops.im2col, x, *over)
    x = _reached(editor, at, x, axes)
    for dim in range(len(axes), 0, -1):
        axis, sizes = axes[dim - 1], shape_of(x)
        if axis.size == 1:
            x = axis.slice(editor, at, x, dim, 0)
        else:
            split = editor.reshape(at, x, (*sizes[:dim], axis.places, axis.size, *sizes[dim + 1 :]))
            rank = len(sizes)
            moved = editor.permute(at, split, [*range(dim + 1), *range(dim + 2, rank), dim + 1, rank])
            x = editor.reshape(at, moved, (*sizes[:dim], axis.places, *sizes[dim + 1 : -1], axis.size * sizes[-1]))
    return x


# ---- convolutions


def _convolution(editor: Editor, node: fx.Node) -> fx.Node | None:
    x, weight, bias = tensor(node, "input"), tensor(node, "weight"), optional_tensor(node, "bias")
    if not dtype_of(x).is_floating_point or len(shape_of(x)) != len(shape_of(weight)):
        return None
    groups, out = integer(node, "groups"), shape_of(node)
    rank = len(out) - 2
    strides, paddings, dilations = (_each(integers(node, name), rank) for name in ("stride", "padding", "dilation"))
    if not argument(node, "transposed") and (border := _border(x)) is not None:
        x, paddings = tensor(x, 0), [own + more for own, more in zip(paddings, border, strict=True)]
    rows = channels_last(editor, node, x)
    if argument(node, "transposed"):
        rows, weight = _spread(editor, node, rows, strides), _turned(editor, node, weight, groups)
        kernel = shape_of(weight)[2:]
        paddings = [d * (k - 1) - p for d, k, p in zip(dilations, kernel, paddings, strict=True)]
        strides = [1] * len(strides)
    axes = [_Axis(*of) for of in zip(shape_of(weight)[2:], strides, dilations, paddings, out[2:], strict=True)]
    apart = groups > 1 and shape_of(weight)[1] == 1
    if apart and (prod(shape_of(weight)[2:]) <= MOST_PLACES or groups > FEW_GROUPS):
        return channels_first(editor, node, _by_channel(editor, node, rows, weight, bias, axes))
    size, each = shape_of(x)[1] // groups, out[1] // groups
    results = []
    for group in range(groups):
        part, own, own_bias = (
            given if groups == 1 or given is None
            else editor.emit(node, aten.slice.Tensor, given, dim, group * step, (group + 1) * step)
            for given, dim, step in ((rows, len(axes) + 1, size), (weight, 0, each), (bias, 0, each))
        )  # fmt: skip
        assert part is not None and own is not None
        flat = editor.reshape(node, channels_last(editor, node, own), (each, prod(shape_of(own)[1:])))
        seen = _columns(editor, node, part, axes)
        results.append(editor.emit(node, aten.linear.default, seen, flat, *([] if own_bias is None else [own_bias])))
    y = results[0] if groups == 1 else editor.emit(node, aten.cat.default, results, len(axes) + 1)
    return channels_first(editor, node, y)


def _border(x: fx.Node) -> list[int] | None:
    """How many zeros `x` has in front of each spatial dimension of what it is made of; None if it is not made so."""
    if x.target not in _PADS or _pad_mode(x) != "constant" or first_of(x, "value"):
        return None
    pads, rank = integers(x, "pad"), len(shape_of(x))
    if min(pads, default=0) < 0 or len(pads) > 2 * (rank - 2):
        return None
    return [*[0] * (rank - 2 - len(pads) // 2), *reversed(pads[::2])]


def _by_channel(
    editor: Editor, node: fx.Node, rows: fx.Node, weight: fx.Node, bias: fx.Node | None, axes: Sequence[_Axis]
) -> fx.Node:
    """Each channel by itself, in float32."""
    channels, out = shape_of(rows)[-1], shape_of(weight)[0]
    if out != channels:  # several of each channel
        apart = editor.reshape(node, rows, (*shape_of(rows), 1))
        wide = editor.expand(node, apart, (*shape_of(rows), out // channels))
        rows = editor.reshape(node, wide, (*shape_of(rows)[:-1], out))
    taps = editor.permute(
        node, editor.reshape(node, weight, (out, *shape_of(weight)[2:])), [*range(1, len(axes) + 1), 0]
    )
    over = ([getattr(axis, name) for axis in axes] for name in ("stride", "dilation", "before", "places"))
    return editor.cast(node, editor.emit(node, ops.depthwise, rows, taps, bias, *over), dtype_of(node))


def _spread(editor: Editor, node: fx.Node, rows: fx.Node, strides: Sequence[int]) -> fx.Node:
    """With stride - 1 zeros between neighbours of every dimension."""
    for dim, stride in enumerate(strides, 1):
        if stride > 1:
            sizes = shape_of(rows)
            apart = editor.reshape(node, rows, (*sizes[: dim + 1], 1, *sizes[dim + 1 :]))
            between = padded(editor, node, apart, dim + 1, 0, stride - 1, 0.0)
            whole = editor.reshape(node, between, (*sizes[:dim], sizes[dim] * stride, *sizes[dim + 1 :]))
            rows = padded(editor, node, whole, dim, 0, 1 - stride, 0.0)
    return rows


def _turned(editor: Editor, node: fx.Node, weight: fx.Node, groups: int) -> fx.Node:
    """The weights [in, out / groups, …] of a transposed convolution as those [out, in / groups, …] of one that is
    not."""
    inner, each, *kernel = shape_of(weight)
    dims = range(3, 3 + len(kernel))
    apart = editor.reshape(node, weight, (groups, inner // groups, each, *kernel))
    swapped = editor.permute(node, apart, [0, 2, 1, *dims])
    flat = editor.reshape(node, swapped, (groups * each, inner // groups, *kernel))
    return editor.emit(node, aten.flip.default, flat, [*range(2, 2 + len(kernel))])


def _im2col(editor: Editor, node: fx.Node) -> fx.Node | None:
    """[B, C * elements of a window, places]: what each window sees, channels slowest."""
    x = tensor(node, "self")
    if not dtype_of(x).is_floating_point or len(shape_of(x)) != 4:
        return None
    kernel, dilation, padding, stride = (
        integers(node, name) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    sizes = shape_of(x)
    needed = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    places = [(n + 2 * p - m) // s + 1 for n, p, m, s in zip(sizes[2:], padding, needed, stride, strict=True)]
    axes = [_Axis(*of) for of in zip(kernel, stride, dilation, padding, places, strict=True)]
    rows = channels_last(editor, node, x)
    seen = editor.reshape(node, _columns(editor, node, rows, axes), (sizes[0], prod(places), prod(kernel), sizes[1]))
    return editor.reshape(node, editor.permute(node, seen, [0, 3, 2, 1]), shape_of(node))


# ---- pooling


def _folded(editor: Editor, node: fx.Node, target: Target, terms: Sequence[fx.Node]) -> fx.Node:
    return reduce(lambda total, term: editor.emit(node, target, total, term), terms)


@dataclass(frozen=True)
class _Reduction:
    """Of the elements of a window: of `whole` dimensions (None: not of this type), of a `pair`, and what padding counts
    for."""

    whole: Target | None
    pair: Target
    nothing: Argument

    def along(self, editor: Editor, at: fx.Node, x: fx.Node, dim: int, axis: _Axis) -> fx.Node:
        """Of the windows along one dimension. Slices are as many as a window is long, so what is one stretch of its own
        is reduced as one."""
        sizes = shape_of(x)
        if self.whole and axis.places == 1 and axis.dilation == 1:
            low, high = max(0, -axis.before), min(sizes[dim], axis.size - axis.before)
            seen = x if (low, high) == (0, sizes[dim]) else editor.emit(at, aten.slice.Tensor, x, dim, low, high)
            return editor.emit(at, self.whole, seen, [dim], True)
        x = padded(editor, at, x, dim, axis.before, axis.needed - axis.before - sizes[dim], self.nothing)
        if self.whole and axis.apart and axis.size > 1:
            split = editor.reshape(at, x, (*sizes[:dim], axis.places, axis.size, *sizes[dim + 1 :]))
            return editor.emit(at, self.whole, split, [dim + 1])
        return _folded(editor, at, self.pair, [axis.slice(editor, at, x, dim, place) for place in range(axis.size)])

    def of(self, editor: Editor, at: fx.Node, x: fx.Node, axes: Sequence[_Axis]) -> fx.Node:
        """Of windows in [B, spatial …, C], one dimension after the other, the last one first."""
        for dim in range(len(axes), 0, -1):
            x = self.along(editor, at, x, dim, axes[dim - 1])
        return x


_SUM = _Reduction(aten.sum.dim_IntList, aten.add.Tensor, 0.0)


def _pool_axes(node: fx.Node, out: Sequence[int], dilated: bool) -> list[_Axis]:
    """Of the last dimensions, as many as the name of the operation says; numbers that are given once are of all of
    them."""
    assert isinstance(node.target, OpOverload)
    rank = next(int(letter) for letter in node.target._opname if letter.isdigit())

    def each(name: str, otherwise: Sequence[int]) -> list[int]:
        return _each(integers(node, name) or list(otherwise), rank)

    kernel = each("kernel_size", ())
    dilation = each("dilation", ()) if dilated else [1] * rank
    of = zip(kernel, each("stride", kernel), dilation, each("padding", ()), out[-rank:], strict=True)
    return [_Axis(*numbers) for numbers in of]


def _max_pool(editor: Editor, node: fx.Node) -> fx.Node | None:
    """NaN is the largest of all, as `maximum` has it."""
    x = tensor(node, "self")
    parts = [integer(user, 1) for user in node.users if user.target is getitem]
    if any(parts):
        return None  # where the largest are is asked for
    axes = _pool_axes(node, _first_shape(node), dilated=True)
    floats = dtype_of(x).is_floating_point
    least = -inf if floats else torch.iinfo(dtype_of(x)).min
    largest = _Reduction(aten.amax.default if floats else None, aten.maximum.default, least)
    rows = largest.of(editor, node, _batched(editor, node, x, axes), axes)
    y = editor.reshape(node, channels_first(editor, node, rows), _first_shape(node))
    if isinstance(node.meta["val"], Tensor):
        return y
    for user in list(node.users):
        editor.replace(user, y)
    return None


def _first_shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of the first result."""
    value = node.meta["val"]
    return tuple((value if isinstance(value, Tensor) else value[0]).shape)


def _avg_pool(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Sums, divided by how many elements count."""
    x = tensor(node, "self")
    if not dtype_of(x).is_floating_point:
        return None
    axes = _pool_axes(node, shape_of(node), dilated=False)
    rows = editor.cast(node, _batched(editor, node, x, axes), torch.float32)
    total = _SUM.of(editor, node, rows, axes)
    mean = editor.emit(node, aten.div.Tensor, total, _divisor(editor, node, axes, shape_of(rows)[1:-1]))
    mean = editor.cast(node, mean, dtype_of(node))
    return editor.reshape(node, channels_first(editor, node, mean), shape_of(node))


def _batched(editor: Editor, node: fx.Node, x: fx.Node, axes: Sequence[_Axis]) -> fx.Node:
    """[B, spatial …, C]; what has no batch is one of one."""
    sizes = shape_of(x)
    return channels_last(editor, node, x if len(sizes) > len(axes) + 1 else editor.reshape(node, x, (1, *sizes)))


def _divisor(editor: Editor, node: fx.Node, axes: Sequence[_Axis], sizes: Sequence[int]) -> Argument:
    """How many elements of each window count."""
    fixed = first_of(node, "divisor_override")
    if fixed is not None:
        return fixed
    counted = [axis.before if argument(node, "count_include_pad") else 0 for axis in axes]
    if all(
        axis.before == counts and axis.needed <= size + 2 * axis.before
        for axis, counts, size in zip(axes, counted, sizes, strict=True)
    ):
        return prod(axis.size for axis in axes)
    return _counts(editor, node, axes, sizes, counted)


def _counts(
    editor: Editor, node: fx.Node, axes: Sequence[_Axis], sizes: Sequence[int], counted: Sequence[int]
) -> fx.Node:
    """[1, places …, 1]: how many elements of each window there are, padding where it is `counted`."""
    there = [size + 2 * counts for size, counts in zip(sizes, counted, strict=True)]
    ones = editor.emit(node, aten.full.default, [1, *there, 1], 1.0, dtype=torch.float32)
    rest = [
        _Axis(axis.size, axis.stride, 1, axis.before - counts, axis.places)
        for axis, counts in zip(axes, counted, strict=True)
    ]
    return _SUM.of(editor, node, ones, rest)


def _adaptive(reduction: Target) -> Rule:
    """Windows that cover a dimension evenly: one dimension after the other, each window a slice."""

    def rule(editor: Editor, node: fx.Node) -> fx.Node | None:
        x, sizes = tensor(node, "self"), _first_shape(node)
        if not isinstance(node.meta["val"], Tensor) and any(integer(user, 1) for user in node.users):
            return None
        rank = len(integers(node, "output_size"))
        for dim in range(len(sizes) - rank, len(sizes)):
            x = _evenly(editor, node, x, dim, sizes[dim], reduction)
        if isinstance(node.meta["val"], Tensor):
            return x
        for user in list(node.users):
            editor.replace(user, x)
        return None

    return rule


def _evenly(editor: Editor, node: fx.Node, x: fx.Node, dim: int, count: int, reduction: Target) -> fx.Node:
    sizes = shape_of(x)
    if sizes[dim] == count:
        return x
    if sizes[dim] % count == 0:
        split = editor.reshape(node, x, (*sizes[:dim], count, sizes[dim] // count, *sizes[dim + 1 :]))
        return editor.emit(node, reduction, split, [dim + 1])
    bounds = ((i * sizes[dim] // count, -(-(i + 1) * sizes[dim] // count)) for i in range(count))
    parts = [editor.emit(node, aten.slice.Tensor, x, dim, low, high) for low, high in bounds]
    return editor.emit(node, aten.cat.default, [editor.emit(node, reduction, p, [dim], True) for p in parts], dim)


# ---- norms and padding


def _group_norm(editor: Editor, node: fx.Node) -> fx.Node:
    return _normed(editor, node, integer(node, "num_groups"))


def _normed(editor: Editor, node: fx.Node, groups: int) -> fx.Node:
    """[N, C, …]: each of the groups of channels of a sample is a row."""
    x = editor.cast(node, tensor(node, "input"), torch.float32)
    sizes = shape_of(x)
    y = _even(editor, node, editor.reshape(node, x, (sizes[0], groups, prod(sizes[1:]) // groups)))
    return _by_channels(editor, node, editor.reshape(node, y, sizes))


def _even(editor: Editor, node: fx.Node, rows: fx.Node) -> fx.Node:
    """Rows of mean 0 and variance 1."""
    return editor.emit(node, aten.layer_norm.default, rows, [shape_of(rows)[-1]], None, None, number(node, "eps"))


def _by_channels(editor: Editor, node: fx.Node, y: fx.Node) -> fx.Node:
    """[N, C, …] times the weights and plus the biases of the channels, in the type of `node`'s input."""
    sizes = shape_of(y)
    for name, target in (("weight", aten.mul.Tensor), ("bias", aten.add.Tensor)):
        if (given := optional_tensor(node, name)) is not None:
            given = editor.cast(node, given, torch.float32)
            y = editor.emit(node, target, y, editor.reshape(node, given, (sizes[1], *[1] * (len(sizes) - 2))))
    return editor.cast(node, y, dtype_of(tensor(node, "input")))


def _batch_norm(editor: Editor, node: fx.Node) -> None:
    """By stored statistics. Mean and variance are no results then."""
    if not any(integer(user, 1) for user in node.users) and (y := _by_statistics(editor, node)) is not None:
        _replace_first(editor, node, y)


def _replace_first(editor: Editor, node: fx.Node, y: fx.Node) -> None:
    """`y` for the first of the results, the only one that is read."""
    for user in list(node.users):
        editor.replace(user, y)


def _batch_norm_of_batch(editor: Editor, node: fx.Node) -> None:
    """By the statistics of the batch itself: each channel of all samples is a row."""
    if any(integer(user, 1) for user in node.users):
        return
    x = editor.cast(node, tensor(node, "input"), torch.float32)
    rank = len(shape_of(x))
    swapped = [1, 0, *range(2, rank)]
    channels = editor.permute(node, x, swapped)
    y = _even(editor, node, editor.reshape(node, channels, (shape_of(x)[1], prod(shape_of(x)) // shape_of(x)[1])))
    y = editor.permute(node, editor.reshape(node, y, shape_of(channels)), swapped)
    _replace_first(editor, node, _by_channels(editor, node, y))


def _by_statistics(editor: Editor, node: fx.Node) -> fx.Node | None:
    """A scale and a shift for each channel; those of a product alone become part of its weights."""
    x, mean, var = tensor(node, "input"), tensor(node, "running_mean"), tensor(node, "running_var")
    if not is_static(mean) or not is_static(var):
        return None
    made = _product_behind(x)
    # what is folded into a product is its work, and costs what that costs
    with editor.on_behalf_of(provenance(made, node) if made is not None else None):
        mean, var = (editor.cast(node, given, torch.float32) for given in (mean, var))
        scale = editor.emit(node, aten.rsqrt.default, editor.emit(node, aten.add.Tensor, var, number(node, "eps")))
        if (weight := optional_tensor(node, "weight")) is not None:
            scale = editor.emit(node, aten.mul.Tensor, weight, scale)
        shift = editor.emit(node, aten.neg.default, editor.emit(node, aten.mul.Tensor, mean, scale))
        if (bias := optional_tensor(node, "bias")) is not None:
            shift = editor.emit(node, aten.add.Tensor, bias, shift)
        if made is not None:
            y = _in_weights(editor, node, made, scale, shift)
        else:
            wide = editor.cast(node, x, torch.float32)
            sizes = (shape_of(x)[1], *[1] * (len(shape_of(x)) - 2))
            y = editor.emit(node, aten.mul.Tensor, wide, editor.reshape(node, scale, sizes))
            y = editor.emit(node, aten.add.Tensor, y, editor.reshape(node, shift, sizes))
        return editor.cast(node, y, dtype_of(x))


def _product_behind(x: fx.Node) -> fx.Node | None:
    """The product of which `x` has the channels first, with float32 weights, which nobody else reads; None if there is
    none."""
    rank = len(shape_of(x))
    first = x.target is aten.permute.default and integers(x, 1) == [0, rank - 1, *range(1, rank - 1)]
    made = tensor(x, 0) if first else None
    products = aten.linear.default, ops.depthwise
    if made is None or made.target not in products or len(made.users) > 1 or len(x.users) > 1:
        return None
    weight = tensor(made, "weight")
    return made if is_static(weight) and dtype_of(weight) is torch.float32 else None


def _in_weights(editor: Editor, node: fx.Node, made: fx.Node, scale: fx.Node, shift: fx.Node) -> fx.Node:
    """The product with its channels scaled and shifted, channels first."""
    weight, bias, apart = tensor(made, "weight"), optional_tensor(made, "bias"), made.target is ops.depthwise
    factor = scale if apart else editor.reshape(node, scale, (*shape_of(scale), 1))
    scaled = editor.emit(node, aten.mul.Tensor, weight, factor)
    if bias is not None:
        shift = editor.emit(node, aten.add.Tensor, editor.emit(node, aten.mul.Tensor, bias, scale), shift)
    operand, *others = made.args[0], *(made.args[3:] if apart else ())
    return channels_first(editor, node, editor.emit(node, made.target, operand, scaled, shift, *others))


def _instance_norm(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Each channel of a sample is a row, unless there are statistics to take."""
    if not argument(node, "use_input_stats"):
        return _by_statistics(editor, node)
    if argument(node, "running_mean") is not None:
        raise unsupported(node, "stores statistics of its input (call model.eval())")
    return _normed(editor, node, shape_of(node)[1])


def _pad(editor: Editor, node: fx.Node) -> fx.Node | None:
    """From the last dimension on; with a value, or with elements of its own, of which none may be left out."""
    if _border(node) is not None and all(map(_takes_border, node.users)):
        return None
    x, pads = tensor(node, "self"), integers(node, "pad")
    mode = _pad_mode(node)
    rank = len(shape_of(x))
    if mode != "constant" and min(pads) < 0:
        return None
    value = 0 if argument(node, "value") is None else filled(node, scalar(node, "value"), dtype_of(x))
    for dim, before, after in zip(range(rank - 1, -1, -1), pads[::2], pads[1::2], strict=False):
        if mode == "constant":
            x = padded(editor, node, x, dim, before, after, value)
            continue
        size = shape_of(x)[dim]
        places = (_OWN[str(mode)](place, size) for place in (*range(-before, 0), *range(size, size + after)))
        ends = [editor.emit(node, aten.slice.Tensor, x, dim, place, place + 1) for place in places]
        if ends:
            x = editor.emit(node, aten.cat.default, [*ends[:before], x, *ends[before:]], dim)
    return x


_PADS = (aten.constant_pad_nd.default, aten.pad.default)


def _pad_mode(node: fx.Node) -> str:
    return "constant" if node.target is aten.constant_pad_nd.default else str(argument(node, "mode"))


def _takes_border(user: fx.Node) -> bool:
    """Whether it is a convolution that pads what it reads, and could as well do so itself."""
    return (
        user.target is aten.convolution.default
        and not argument(user, "transposed")
        and is_static(tensor(user, "weight"))
        and dtype_of(user).is_floating_point
        and len(shape_of(user)) == len(shape_of(tensor(user, "weight")))
    )


# Which element stands at a place outside of `size` elements.
_OWN: Mapping[str, Callable[[int, int], int]] = {
    "reflect": lambda place, size: size - 1 - abs(size - 1 - abs(place)),
    "replicate": lambda place, size: min(max(place, 0), size - 1),
    "circular": lambda place, size: place % size,
}


_Rules = tuple[tuple[Callable[[Editor, fx.Node], fx.Node | None], tuple[Target, ...]], ...]
_ALL: _Rules = (
    (_convolution, (aten.convolution.default,)),
    (_im2col, (aten.im2col.default,)),
    (
        _max_pool,
        (
            aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default, aten.max_pool1d.default,
            aten.max_pool2d.default, aten.max_pool3d.default,
        ),
    ),
    (_avg_pool, (aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)),
    (
        _adaptive(aten.mean.dim),
        (
            aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
            aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default,
        ),
    ),
    (
        _adaptive(aten.amax.default),
        (aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default),
    ),
    (_group_norm, (aten.group_norm.default,)),
    (_instance_norm, (aten.instance_norm.default,)),
    (_batch_norm, (aten._native_batch_norm_legit_no_training.default,)),
    (_batch_norm_of_batch, (aten._native_batch_norm_legit.no_stats,)),
    (_pad, _PADS),
)  # fmt: skip
RULES: Mapping[Target, Rule] = {target: rule for rule, targets in _ALL for target in targets}

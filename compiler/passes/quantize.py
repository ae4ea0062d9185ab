"""Quantize every matrix product to int8, as NUMERICS.md says: rows of activations at run time, rows of weights when
packing.

before   %y = linear(%x, %w, %b)
after    %qx, %sx = llmchip.quantize_rows(%x); %qw, %sw = llmchip.quantize_rows(%w)
         %c = llmchip.matmul_i8(%qx, %qw, True); %y = llmchip.dequantize(%c, %sx, %sw, %b)

With `w4a8-g32` linear layers take int4 weights, and both sides a scale for every 32 elements:

after    %qx, %sx = llmchip.quantize_groups(%x, 32); %qw, %sw = llmchip.quantize_weights(%w, 32)
         %y = llmchip.matmul_groups(%qx, %qw, %sx, %sw) + %b

Where a calibration has marked the input of a product, its quantization takes the multipliers of columns and, static, the
range. What is not to be quantized stays a product of floats, in the order of docs/numerics.md; weights alone are
quantized with `w8a16`:

before   %z = llmchip.calibrated(%x, %col, %absmax); %y = linear(%z, %w, %b)
after    %qx, %sx = llmchip.quantize_rows(%x, %col, %absmax), and so on
after    %y = llmchip.matmul_float(%x, %w, True) + %b
after    %qw, %sw = llmchip.quantize_rows(%w); %y = llmchip.matmul_float(%x, %qw, True) * %sw + %b
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import argument, integer, integers, number, optional_tensor, tensor
from compiler.graph.editor import Editor, aten, dtype_of, is_static, shape_of
from compiler.graph.manager import unsupported
from compiler.graph.rules import Rule, apply_rules
from compiler.ops import library as ops
from compiler.passes.chosen import chosen_product
from compiler.passes.codes import as_row, check_operands, dequantize, float32, pair, quantize_rows, quantize_source
from compiler.passes.recognise_attention import causal
from compiler.quantization import INT4, ISLANDS, WEIGHT_ONLY, QuantConfig
from compiler.reference.functions import CAUSAL_BLOCK
from isa.architecture import MAX_K

GROUP = 32  # elements of k that share a scale where weights are int4


@dataclass(frozen=True)
class Quantize:
    """`schemes` are those of operations of the captured model, by their names, that have another than the model."""

    config: QuantConfig = field(default_factory=QuantConfig)
    schemes: Mapping[str, str] = field(default_factory=dict)
    name: ClassVar[str] = "quantize"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset(
        {
            aten.linear.default,
            aten.matmul.default,
            aten._int_mm.default,
            ops.attention,
            ops.attention_in_cache,
            ops.attention_over_cache,
            ops.calibrated,
        }
    )

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        rules: dict[Target, Rule] = {
            aten.linear.default: partial(self._by_scheme, _LINEARS, _linear),
            aten.matmul.default: partial(self._by_scheme, _MATMULS, _matmul),
            ops.attention: partial(self._by_scheme, _ATTENTIONS, _attention),
            ops.attention_in_cache: _attention_in_cache,
            ops.attention_over_cache: _attention_over_cache,
            aten._int_mm.default: _int_mm,
        }
        rest: dict[Target, Rule] = {ops.calibrated: _calibrated}  # of products whose rows are not quantized to int8
        return apply_rules(apply_rules(gm, self.name, rules, skip_static=True), self.name, rest)

    def _by_scheme(self, rules: Mapping[str, Rule], otherwise: Rule, editor: Editor, node: fx.Node) -> fx.Node | None:
        """By the rule of the scheme that holds where the model called the operation."""
        schemes = (self.schemes[name] for name in node.meta["origins"] if name in self.schemes)
        return rules.get(next(schemes, self.config.scheme), otherwise)(editor, node)


def _linear(editor: Editor, node: fx.Node) -> fx.Node:
    x, weight = tensor(node, "input"), tensor(node, "weight")
    check_operands(node, x, weight)
    qx, sx = quantize_source(editor, node, x)
    qw, sw = quantize_rows(editor, node, weight)
    c = editor.emit(node, ops.matmul_i8, qx, qw, True)
    return dequantize(editor, node, c, sx, sw, optional_tensor(node, "bias"), dtype_of(node))


def _linear_int4(editor: Editor, node: fx.Node) -> fx.Node:
    """Weights that are computed, or whose rows are no whole groups, stay int8."""
    x, weight = tensor(node, "input"), tensor(node, "weight")
    k = shape_of(weight)[-1]
    if not is_static(weight) or k == 0 or k % GROUP:
        return _linear(editor, node)
    check_operands(node, x, weight)
    qx, sx = pair(editor, node, ops.quantize_groups, x, GROUP, "scale", "away", torch.float16)
    qw, sw = pair(editor, node, ops.quantize_weights, weight, GROUP)
    y = editor.emit(node, ops.matmul_groups, qx, qw, sx, sw, None, None, None, GROUP, 0, "i4", True)
    bias = optional_tensor(node, "bias")
    if bias is not None:
        y = editor.emit(node, aten.add.Tensor, y, editor.cast(node, bias, torch.float32))
    return editor.cast(node, y, dtype_of(node))


def _linear_codes(editor: Editor, node: fx.Node) -> fx.Node:
    """Codes of weights become floats on their way to the array; their scales multiply sums. Weights that are computed
    are floats already."""
    x, weight = tensor(node, "input"), tensor(node, "weight")
    if not is_static(weight):
        return _linear_float(None, editor, node)
    check_operands(node, x, weight)
    qw, sw = quantize_rows(editor, node, editor.cast(node, weight, torch.float32))
    c = editor.emit(node, ops.matmul_float, x, qw, True)
    y = editor.emit(node, aten.mul.Tensor, c, sw)
    return _with_bias(editor, node, y)


def _linear_float(kind: torch.dtype | None, editor: Editor, node: fx.Node) -> fx.Node:
    """A product of the operands as `kind`; None: as they are."""
    x, weight = tensor(node, "input"), tensor(node, "weight")
    check_operands(node, x, weight)
    return _with_bias(editor, node, _float_product(editor, node, kind, x, weight, True))


def _with_bias(editor: Editor, node: fx.Node, y: fx.Node) -> fx.Node:
    """A float32 product with the bias of its linear layer, rounded once to the type of the layer."""
    bias = optional_tensor(node, "bias")
    if bias is not None:
        y = editor.emit(node, aten.add.Tensor, y, editor.cast(node, bias, torch.float32))
    return editor.cast(node, y, dtype_of(node))


def _float_product(
    editor: Editor, at: fx.Node, kind: torch.dtype | None, a: fx.Node, b: fx.Node, transposed: bool
) -> fx.Node:
    a, b = (x if kind is None else editor.cast(at, x, kind) for x in (a, b))
    return editor.emit(at, ops.matmul_float, a, b, transposed)


def _matmul_float(kind: torch.dtype | None, editor: Editor, node: fx.Node) -> fx.Node | None:
    """Two activations. Where both are weights of experts that rows choose, they stay int8."""
    a, b = tensor(node, 0), tensor(node, 1)
    check_operands(node, a, b)
    if (chosen := chosen_product(editor, node)) is not None:
        return chosen
    a, b = _broadcast(editor, node, a, b)
    along = _rows_along_k(b)
    y = _float_product(editor, node, kind, a, editor.swap_last(node, b) if along else b, along)
    return editor.cast(node, y, dtype_of(node))


def _attention_float(kind: torch.dtype | None, editor: Editor, node: fx.Node) -> fx.Node:
    """Scores, softmax and values as the float model has them."""
    batch = shape_of(node)[:-2]
    q, k, v = (editor.broadcast(node, x, (*batch, *shape_of(x)[-2:])) for x in (tensor(node, i) for i in range(3)))
    factor, mask = float32(number(node, "scale")), optional_tensor(node, "mask")
    with editor.on_behalf_of(node.meta.get("scores")):
        scores = _float_product(editor, node, kind, q, k, True)
        scores = scores if factor == 1.0 else editor.emit(node, aten.mul.Tensor, scores, factor)
        if mask is not None:
            scores = editor.emit(node, aten.add.Tensor, scores, editor.cast(node, mask, torch.float32))
    with editor.on_behalf_of(node.meta.get("weights")):
        weights = editor.emit(node, ops.softmax, scores, argument(node, "zero_masked_rows"))
    return editor.cast(node, _float_product(editor, node, kind, weights, v, False), dtype_of(node))


_TYPES: Mapping[str, torch.dtype | None] = {"float": None, "bf16": torch.bfloat16}
assert _TYPES.keys() == ISLANDS.keys()


def _floats(rule: Callable[..., fx.Node | None]) -> dict[str, Rule]:
    return {name: partial(rule, kind) for name, kind in _TYPES.items()}


def _calibrated(editor: Editor, node: fx.Node) -> fx.Node:
    """What is left of a calibration's marks: the multipliers."""
    x, col = tensor(node, "x"), optional_tensor(node, "col")
    if col is None:
        return x
    wide = editor.emit(node, aten.mul.Tensor, editor.cast(node, x, torch.float32), col)
    return editor.cast(node, wide, dtype_of(node))


def _quantized(editor: Editor, node: fx.Node, q: fx.Node, *others: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """Codes and scales of the operands of attention; its scale is a factor of those of q, in float32."""
    scores = node.meta.get("scores")  # the product of q and k, the first two
    with editor.on_behalf_of(scores):
        (qq, sq), *rest = (quantize_source(editor, node, x) for x in (q, *others[:1]))
    rest += [quantize_source(editor, node, x) for x in others[1:]]
    factor = float32(number(node, "scale"))
    with editor.on_behalf_of(scores):
        sq = editor.cast(node, sq, torch.float32)
        return [(qq, sq if factor == 1.0 else editor.emit(node, aten.mul.Tensor, sq, factor)), *rest]


def _attention(editor: Editor, node: fx.Node) -> fx.Node:
    batch = shape_of(node)[:-2]
    q, k, v = (editor.broadcast(node, x, (*batch, *shape_of(x)[-2:])) for x in (tensor(node, i) for i in range(3)))
    (qq, sq), (qk, sk), (qv, sv) = _quantized(editor, node, q, k, v)
    with editor.on_behalf_of(node.meta.get("scores")):  # where the model spells it out, each step has its own line
        c = editor.emit(node, ops.matmul_i8, qq, qk, True)
        scores = dequantize(editor, node, c, sq, as_row(editor, node, sk), optional_tensor(node, "mask"))
    with editor.on_behalf_of(node.meta.get("weights")):
        weights = editor.emit(node, ops.softmax, scores, argument(node, "zero_masked_rows"))
    qp, sp = quantize_rows(editor, node, weights, as_row(editor, node, sv))
    return dequantize(editor, node, editor.emit(node, ops.matmul_i8, qp, qv, False), sp, dtype=dtype_of(node))


def _attention_in_cache(editor: Editor, node: fx.Node) -> fx.Node:
    """Query heads that share keys are rows of one product. The result is made in the order in which its reader, the
    projection, goes through it: token by token."""
    q, k, v, positions = (tensor(node, name) for name in ("q", "k", "v", "positions"))
    caches = [tensor(node, name) for name in ops.CACHES]
    batch, heads, tokens, size = shape_of(q)
    groups = shape_of(k)[1]
    rows = editor.reshape(node, q, (batch, groups, heads // groups, tokens, size))
    (qq, sq), (qk, sk), (qv, sv) = _quantized(editor, node, rows, k, v)
    window = integer(node, "window")
    mask = causal(editor, node, tokens, tokens) if tokens > 1 else None
    old_mask = None
    if mask is not None and window:
        old_mask = _below(editor, node, (2 * tokens - 1, tokens - 1), -tokens)
        mask = editor.emit(node, aten.add.Tensor, mask, _below(editor, node, (tokens, tokens), -window))
    cap = float32(number(node, "softcap"))
    bias, by_distance = optional_tensor(node, "bias"), bool(argument(node, "by_distance"))
    if bias is not None:
        if cap:
            raise unsupported(node, "adds a bias to scores that have a soft cap")
        if by_distance and window:
            raise unsupported(node, "has a window and a bias for each distance")
        bias = editor.reshape(node, bias, (groups, heads // groups, shape_of(bias)[-1]))
    if bias is not None and by_distance:  # keys that are not seen are behind those that are
        bias = editor.emit(node, aten.constant_pad_nd.default, bias, [0, shape_of(bias)[-1] - 1])
    given = (
        qq, sq, qk, sk, qv, sv, *caches, positions, mask, old_mask, bias, by_distance, window, cap, CAUSAL_BLOCK,
    )  # fmt: skip
    return _by_tokens(editor, node, editor.emit(node, ops.cached_attention, *given, dtype=dtype_of(node)))


def _attention_over_cache(editor: Editor, node: fx.Node) -> fx.Node:
    """The same without new keys and values."""
    q, last, (keys, *rest) = tensor(node, "q"), tensor(node, "last"), [tensor(node, name) for name in ops.CACHES]
    batch, heads, tokens, size = shape_of(q)
    groups = shape_of(keys)[1]
    rows = editor.reshape(node, q, (batch, groups, heads // groups, tokens, size))
    ((qq, sq),) = _quantized(editor, node, rows)
    given = (qq, sq, None, None, None, None, keys, *rest, last)
    return _by_tokens(editor, node, editor.emit(node, ops.cached_attention, *given, dtype=dtype_of(node)))


def _by_tokens(editor: Editor, at: fx.Node, out: fx.Node) -> fx.Node:
    """[B, H, G, T, E] as [B, heads, T, E], made token by token."""
    batch, groups, group, tokens, width = shape_of(out)
    major = editor.permute(at, out, [0, 3, 1, 2, 4])
    return editor.permute(at, editor.reshape(at, major, (batch, tokens, groups * group, width)), [0, 2, 1, 3])


def _below(editor: Editor, at: fx.Node, sizes: tuple[int, int], diagonal: int) -> fx.Node:
    """-Inf on a diagonal and below it, else 0; a constant."""
    full = editor.emit(at, aten.full.default, list(sizes), float("-inf"), dtype=torch.float32)
    return editor.emit(at, aten.tril.default, full, diagonal)


def _matmul(editor: Editor, node: fx.Node) -> fx.Node:
    """Two activations. Rows of b along k: both by rows; else b's rows belong to k and their scales go into a."""
    a, b = tensor(node, 0), tensor(node, 1)
    check_operands(node, a, b)
    if (chosen := chosen_product(editor, node)) is not None:
        return chosen
    a, b = _broadcast(editor, node, a, b)
    if _rows_along_k(b):
        qa, sa = quantize_source(editor, node, a)
        qb, sb = quantize_source(editor, node, editor.swap_last(node, b))
        c = editor.emit(node, ops.matmul_i8, qa, qb, True)
        return dequantize(editor, node, c, sa, as_row(editor, node, sb), dtype=dtype_of(node))
    qb, sb = quantize_source(editor, node, b)
    qa, sa = quantize_rows(editor, node, a, as_row(editor, node, sb))
    return dequantize(editor, node, editor.emit(node, ops.matmul_i8, qa, qb, False), sa, dtype=dtype_of(node))


def _broadcast(editor: Editor, node: fx.Node, a: fx.Node, b: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The operands of a product with its leading dimensions; a matrix on the right keeps its two."""
    batch = shape_of(node)[:-2]
    a = editor.broadcast(node, a, (*batch, *shape_of(a)[-2:]))
    return a, editor.broadcast(node, b, (*batch, *shape_of(b)[-2:])) if len(shape_of(b)) > 2 else b


def _int_mm(editor: Editor, node: fx.Node) -> fx.Node:
    """int8 already: the product as it is, int32."""
    a, b = tensor(node, 0), tensor(node, 1)
    if shape_of(a)[-1] > MAX_K:
        raise unsupported(node, f"sums {shape_of(a)[-1]} products; an int32 holds at most {MAX_K}")
    if b.target is aten.permute.default and integers(b, 1) == [1, 0]:
        return editor.emit(node, ops.matmul_i8, a, b.args[0], True)
    return editor.emit(node, ops.matmul_i8, a, b, False)


def _rows_along_k(b: fx.Node) -> bool:
    """Whether k is the dimension along which b's elements were made: b is then somebody's transpose, or a weight."""
    if b.meta["depends"] < 2:
        return True
    rank = len(shape_of(b))
    while b.target is aten.expand.default:
        b = tensor(b, 0)
    return b.target is aten.permute.default and integers(b, 1)[-2] == rank - 1


_LINEARS: dict[str, Rule] = {**_floats(_linear_float), WEIGHT_ONLY: _linear_codes, INT4: _linear_int4}
_MATMULS: dict[str, Rule] = _floats(_matmul_float)  # other schemes are about weights, or about linear layers
_ATTENTIONS: dict[str, Rule] = _floats(_attention_float)

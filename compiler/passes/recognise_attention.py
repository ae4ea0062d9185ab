"""Recognise attention, however it is written, as `llmchip.attention(q, k, v, mask, scale, zero_masked_rows)`.

    before   %kt = permute(%k, [0, 1, 3, 2]); %s = matmul(%q, %kt); %t = mul(%s, 0.125); %u = add(%t, %mask)
             %p = softmax(%u, -1); %o = matmul(%p, %v)
    after    %o = llmchip.attention(%q, %k, %v, %mask, 0.125, False)

scaled_dot_product_attention gives zeros for a row whose keys are all masked (`zero_masked_rows`), softmax gives NaN.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx
from torch.fx.node import Argument, Target

from compiler.graph.arguments import argument, number, optional_tensor, tensor
from compiler.graph.editor import Editor, Provenance, aten, dtype_of, provenance, shape_of
from compiler.graph.manager import unsupported
from compiler.graph.rules import Rule, apply_rules
from compiler.ops import library as ops


@dataclass(frozen=True)
class RecogniseAttention:
    name: ClassVar[str] = "recognise-attention"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset({aten.scaled_dot_product_attention.default})

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES, skip_static=True)


@dataclass(frozen=True, slots=True)
class Scores:
    """The operands of softmax(q @ k^T * scale + mask), and where that product was, with what is folded in."""

    made: Provenance
    q: fx.Node
    k: fx.Node
    scale: float
    mask: fx.Node | None


def _sdpa(editor: Editor, node: fx.Node) -> fx.Node:
    q, k, v = (tensor(node, name) for name in ("query", "key", "value"))
    if argument(node, "dropout_p"):
        raise unsupported(node, "drops out (call model.eval())")
    if argument(node, "enable_gqa"):
        k, v = (_repeat_heads(editor, node, x, shape_of(q)[-3]) for x in (k, v))
    scale = 1.0 / math.sqrt(shape_of(q)[-1]) if argument(node, "scale") is None else number(node, "scale")
    mask = optional_tensor(node, "attn_mask")
    if argument(node, "is_causal"):
        mask = causal(editor, node, shape_of(q)[-2], shape_of(k)[-2])
    return editor.emit(node, ops.attention, q, k, v, _additive(editor, node, mask), float(scale), True)


def _repeat_heads(editor: Editor, at: fx.Node, x: fx.Node, heads: int) -> fx.Node:
    """Grouped-query attention: each key head serves heads / own query heads."""
    *batch, own, rows, width = shape_of(x)
    split = editor.reshape(at, x, (*batch, own, 1, rows, width))
    wide = editor.expand(at, split, (*batch, own, heads // own, rows, width))
    return editor.reshape(at, wide, (*batch, heads, rows, width))


def causal(editor: Editor, at: fx.Node, rows: int, cols: int) -> fx.Node:
    """0 where a query may look, -Inf after it; a constant."""
    full = editor.emit(at, aten.full.default, [rows, cols], float("-inf"), dtype=torch.float32)
    return editor.emit(at, aten.triu.default, full, 1)


def _additive(editor: Editor, at: fx.Node, mask: fx.Node | None) -> fx.Node | None:
    """A mask to add: False becomes -Inf; a mask that is known to change nothing goes."""
    if mask is None:
        return None
    known = editor.known(mask)
    boolean = dtype_of(mask) is torch.bool
    if known is not None and bool(known.all() if boolean else (known == 0).all()):
        return None
    while mask.target is aten.expand.default:
        mask = tensor(mask, 0)
    return editor.emit(at, aten.where.Scalar, mask, 0.0, float("-inf")) if boolean else mask


def _eager(editor: Editor, node: fx.Node) -> fx.Node | None:
    """matmul(softmax(...), v) where nobody else reads what is in between."""
    weights, v = _before(node.args[0], aten._to_copy.default), tensor(node, 1)
    if weights is None or weights.target not in (aten.softmax.int, aten._softmax.default) or not _is_last(weights):
        return None
    scores = _scores(editor, node, weights.args[0])
    if scores is None or len(shape_of(scores.q)) < 3 or len(shape_of(scores.k)) < 3 or len(shape_of(v)) < 3:
        return None
    made = editor.emit(node, ops.attention, scores.q, scores.k, v, scores.mask, scores.scale, False)
    made.meta["scores"] = scores.made
    made.meta["weights"] = provenance(weights)
    return made


def _is_last(softmax: fx.Node) -> bool:
    return softmax.args[1] in (-1, len(shape_of(softmax)) - 1)


def _before(node: Argument, *targets: Target) -> fx.Node | None:
    """What `node` was before these operations, if nobody else reads it."""
    while isinstance(node, fx.Node) and node.target in targets and len(node.users) == 1:
        node = node.args[0]
    return node if isinstance(node, fx.Node) and len(node.users) == 1 else None


def _scores(editor: Editor, at: fx.Node, weighted: Argument) -> Scores | None:
    x, mask, folded = _before(weighted, aten._to_copy.default), None, list[fx.Node]()
    if x is not None and x.target is aten.add.Tensor and isinstance(x.args[1], fx.Node):
        folded.append(x)
        x, mask = _product_first(x)
        mask = _additive(editor, at, mask)
    elif x is not None and x.target is aten.where.ScalarSelf and x.args[1] == float("-inf"):
        folded.append(x)
        mask = editor.emit(at, aten.where.Scalar, _unexpanded(tensor(x, 0)), float("-inf"), 0.0)
        x = _before(x.args[2])
    scale = 1.0
    while x is not None and x.target in (aten.mul.Tensor, aten.div.Tensor) and isinstance(x.args[1], (int, float)):
        if not x.args[1]:
            return None
        folded.append(x)
        scale = scale * x.args[1] if x.target is aten.mul.Tensor else scale / x.args[1]
        x = _before(x.args[0], aten._to_copy.default)
    if x is None or x.target is not aten.matmul.default:
        return None
    return Scores(provenance(x, *folded), tensor(x, 0), editor.swap_last(at, tensor(x, 1)), scale, mask)


def _unexpanded(x: fx.Node) -> fx.Node:
    return tensor(x, 0) if x.target is aten.expand.default else x


def _product_first(add: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    """The operands of scores + mask, the scores first."""
    a, b = add.args
    for one, other in ((a, b), (b, a)):
        inner = _before(one, aten.mul.Tensor, aten.div.Tensor, aten._to_copy.default)
        if inner is not None and inner.target is aten.matmul.default:
            assert isinstance(other, fx.Node)
            return _before(one, aten._to_copy.default), other
    return None, None


RULES: dict[Target, Rule] = {aten.scaled_dot_product_attention.default: _sdpa, aten.matmul.default: _eager}

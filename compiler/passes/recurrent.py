"""Recurrent layers: LSTM, GRU and RNN, step by step, in terms of products and functions.

    before   %y = lstm(%x, [%h, %c], [w_ih, w_hh, b_ih, b_hh], …)
    after    %g = linear(%x, w_ih, b_ih + b_hh)                       what comes from outside, of all steps at once
             %s = %g[0] + linear(%h, w_hh)                            then for each step
             %i, %f, %o = sigmoid(%s[: 3 * H]); %n = tanh(%s[3 * H :])
             %c' = %f * %c + %i * %n; %h' = %o * tanh(%c')            …
             %y = stack of all %h'

Rows of the weights are put into the order in which gates of one function are neighbours, when they are packed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import getitem
from typing import ClassVar

from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import argument, integer, optional_tensor, tensor, tensors
from compiler.graph.editor import Editor, aten, shape_of
from compiler.graph.manager import unsupported
from compiler.graph.rules import Rule, apply_rules

MOST = 1 << 10  # steps of all layers and directions together: each is instructions of its own, and a tenth of a second


@dataclass(frozen=True)
class Recurrent:
    name: ClassVar[str] = "recurrent"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES, skip_static=True)


@dataclass(frozen=True)
class _Weights:
    """Of one layer in one direction, gates below each other: inner [G * H, inputs], outer [G * H, outputs]; of an LSTM
    that projects, the projection [outputs, H]."""

    inner: fx.Node
    outer: fx.Node
    inner_bias: fx.Node | None
    outer_bias: fx.Node | None
    projection: fx.Node | None = None


State = tuple[fx.Node, ...]  # the output of a step, and an LSTM's cell


@dataclass(frozen=True)
class _Cell:
    """A kind of recurrent cell: the order in which it wants its `gates`, whether it adds up both biases beforehand, and
    its `step` from the sums of both products (editor, place, of the input, of the output, state, weights)."""

    gates: tuple[int, ...]
    sums_biases: bool
    step: Callable[[Editor, fx.Node, fx.Node, fx.Node, State, _Weights], State]

    def arranged(self, editor: Editor, at: fx.Node, given: _Weights) -> _Weights:
        """The weights as `step` wants them."""

        def turned(x: fx.Node | None) -> fx.Node | None:
            if x is None or self.gates == tuple(range(len(self.gates))):
                return x
            parts = _parts(editor, at, x, len(self.gates), 0)
            return editor.emit(at, aten.cat.default, [parts[gate] for gate in self.gates], 0)

        inner, outer = turned(given.inner), turned(given.outer)
        assert inner is not None and outer is not None
        own, other = turned(given.inner_bias), turned(given.outer_bias)
        if self.sums_biases and own is not None and other is not None:
            own, other = editor.emit(at, aten.add.Tensor, own, other), None
        return replace(given, inner=inner, outer=outer, inner_bias=own, outer_bias=other)


def _parts(editor: Editor, at: fx.Node, x: fx.Node, count: int, dim: int) -> list[fx.Node]:
    """Equal parts along a dimension."""
    size = shape_of(x)[dim] // count
    return [editor.emit(at, aten.slice.Tensor, x, dim, n * size, (n + 1) * size) for n in range(count)]


def _linear(editor: Editor, at: fx.Node, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
    return editor.emit(at, aten.linear.default, x, weight, *([] if bias is None else [bias]))


# ---- steps: x and y [B, G * H] are the products of a step's input and of the output before it


def _lstm_step(editor: Editor, at: fx.Node, x: fx.Node, y: fx.Node, state: State, weights: _Weights) -> State:
    """Gates in the order: input, forget, output, new."""
    total = editor.emit(at, aten.add.Tensor, x, y)
    size = shape_of(total)[1] // 4
    gates = editor.emit(at, aten.sigmoid.default, editor.emit(at, aten.slice.Tensor, total, 1, 0, 3 * size))
    new = editor.emit(at, aten.tanh.default, editor.emit(at, aten.slice.Tensor, total, 1, 3 * size, 4 * size))
    takes, keeps, gives = _parts(editor, at, gates, 3, 1)
    kept = editor.emit(at, aten.mul.Tensor, keeps, state[1])
    cell = editor.emit(at, aten.add.Tensor, kept, editor.emit(at, aten.mul.Tensor, takes, new))
    out = editor.emit(at, aten.mul.Tensor, gives, editor.emit(at, aten.tanh.default, cell))
    if weights.projection is not None:
        out = _linear(editor, at, out, weights.projection, None)
    return out, cell


def _gru_step(editor: Editor, at: fx.Node, x: fx.Node, y: fx.Node, state: State, weights: _Weights) -> State:
    """Gates in the order: reset, update, new."""
    size = shape_of(x)[1] // 3
    own, other = (editor.emit(at, aten.slice.Tensor, product, 1, 0, 2 * size) for product in (x, y))
    resets, updates = _parts(
        editor, at, editor.emit(at, aten.sigmoid.default, editor.emit(at, aten.add.Tensor, own, other)), 2, 1
    )
    own, other = (editor.emit(at, aten.slice.Tensor, product, 1, 2 * size, 3 * size) for product in (x, y))
    new = editor.emit(at, aten.add.Tensor, own, editor.emit(at, aten.mul.Tensor, resets, other))
    new = editor.emit(at, aten.tanh.default, new)
    apart = editor.emit(at, aten.sub.Tensor, state[0], new)
    return (editor.emit(at, aten.add.Tensor, editor.emit(at, aten.mul.Tensor, apart, updates), new),)


def _rnn_step(function: Target) -> Callable[[Editor, fx.Node, fx.Node, fx.Node, State, _Weights], State]:
    def step(editor: Editor, at: fx.Node, x: fx.Node, y: fx.Node, state: State, weights: _Weights) -> State:
        return (editor.emit(at, function, editor.emit(at, aten.add.Tensor, x, y)),)

    return step


_LSTM = _Cell((0, 1, 3, 2), True, _lstm_step)
_GRU = _Cell((0, 1, 2), False, _gru_step)
_TANH, _RELU = (_Cell((0,), True, _rnn_step(function)) for function in (aten.tanh.default, aten.relu.default))


# ---- layers


def _layers(kind: _Cell) -> Rule:
    """Layers on top of each other; a second direction goes backwards, and both outputs stand side by side."""

    def rule(editor: Editor, node: fx.Node) -> None:
        x, start, every = tensor(node, "input"), _start(node), _weights_of(node)
        if argument(node, "train") and argument(node, "dropout") and integer(node, "num_layers") > 1:
            raise unsupported(node, "drops out (call model.eval())")
        if argument(node, "batch_first"):
            x = editor.permute(node, x, [1, 0, 2])
        steps, ways = shape_of(x)[0], 2 if argument(node, "bidirectional") else 1
        if steps * len(every) > MOST:
            raise unsupported(node, f"takes {steps * len(every)} steps, of which a program has at most {MOST}")
        last: list[State] = []
        for first in range(0, len(every), ways):
            outputs = []
            for number in range(first, first + ways):
                state = tuple(editor.emit(node, aten.select.int, given, 0, number) for given in start)
                found, state = _one_way(editor, node, x, kind, every[number], state, number > first)
                outputs.append(found)
                last.append(state)
            x = outputs[0] if ways == 1 else editor.emit(node, aten.cat.default, outputs, 2)
        if argument(node, "batch_first"):
            x = editor.permute(node, x, [1, 0, 2])
        ends = [editor.emit(node, aten.stack.default, list(column)) for column in zip(*last, strict=True)]
        for user in list(node.users):
            assert user.target is getitem
            editor.replace(user, [x, *ends][integer(user, 1)])

    return rule


def _start(node: fx.Node) -> list[fx.Node]:
    """The states to begin with, [layers * directions, B, H] each."""
    return tensors(node, "hx") if node.target is aten.lstm.input else [tensor(node, "hx")]


def _weights_of(node: fx.Node) -> list[_Weights]:
    """Of each layer and direction, in PyTorch's order."""
    given = tensors(node, "params")
    count = integer(node, "num_layers") * (2 if argument(node, "bidirectional") else 1)
    each = len(given) // count
    biases = 2 if argument(node, "has_biases") else 0
    found = []
    for first in range(0, len(given), each):
        inner, outer, *rest = given[first : first + each]
        own, other = rest[:2] if biases else (None, None)
        found.append(_Weights(inner, outer, own, other, rest[biases] if len(rest) > biases else None))
    return found


def _one_way(
    editor: Editor, at: fx.Node, x: fx.Node, kind: _Cell, given: _Weights, state: State, backwards: bool
) -> tuple[fx.Node, State]:
    """One layer in one direction over x [T, B, inputs]: its outputs [T, B, outputs], and the state at its end."""
    weights = kind.arranged(editor, at, given)
    products = _linear(editor, at, x, weights.inner, weights.inner_bias)
    steps = range(shape_of(x)[0])
    outputs: dict[int, fx.Node] = {}
    for number in reversed(steps) if backwards else steps:
        own = editor.emit(at, aten.select.int, products, 0, number)
        other = _linear(editor, at, state[0], weights.outer, weights.outer_bias)
        state = kind.step(editor, at, own, other, state, weights)
        outputs[number] = state[0]
    return editor.emit(at, aten.stack.default, [outputs[number] for number in steps]), state


def _cell(kind: _Cell) -> Rule:
    """A single step."""

    def rule(editor: Editor, node: fx.Node) -> fx.Node | None:
        lstm = node.target is aten.lstm_cell.default
        state = tuple(tensors(node, "hx")) if lstm else (tensor(node, "hx"),)
        biases = (optional_tensor(node, name) for name in ("b_ih", "b_hh"))
        weights = kind.arranged(editor, node, _Weights(tensor(node, "w_ih"), tensor(node, "w_hh"), *biases))
        own = _linear(editor, node, tensor(node, "input"), weights.inner, weights.inner_bias)
        other = _linear(editor, node, state[0], weights.outer, weights.outer_bias)
        state = kind.step(editor, node, own, other, state, weights)
        if not lstm:
            return state[0]
        for user in list(node.users):
            editor.replace(user, state[integer(user, 1)])
        return None

    return rule


RULES: Mapping[Target, Rule] = {
    aten.lstm.input: _layers(_LSTM),
    aten.gru.input: _layers(_GRU),
    aten.rnn_tanh.input: _layers(_TANH),
    aten.rnn_relu.input: _layers(_RELU),
    aten.lstm_cell.default: _cell(_LSTM),
    aten.gru_cell.default: _cell(_GRU),
    aten.rnn_tanh_cell.default: _cell(_TANH),
    aten.rnn_relu_cell.default: _cell(_RELU),
}

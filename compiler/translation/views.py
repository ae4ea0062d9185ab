"""Views: PyTorch itself applies them to symbols, or to strides alone where a value is given and not unfolded."""

from collections.abc import Sequence
from operator import getitem

import numpy as np
import torch
from torch import Tensor, fx

from compiler.translation.operators import Given
from compiler.translation.symbols import Symbol, Symbols

_aten = torch.ops.aten
_SHAPES = (_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default)
_COPIES = (_aten.clone.default, _aten.alias.default)


def is_view(node: fx.Node) -> bool:
    """Whether a node only moves elements. A getitem takes one of several results."""
    return (
        node.target is getitem
        or node.target in _SHAPES
        or node.target in _COPIES
        or bool(getattr(node.target, "is_view", False))
    )


def view_given(given: Given, node: fx.Node) -> Given | None:
    """The view as strides; None where it has none."""
    if node.target in _COPIES:
        return given
    if node.target in _SHAPES:
        try:
            return Given(given.name, given.view.view(tuple(node.meta["val"].shape)))
        except RuntimeError:
            return None
    out = _applied(given.view, node)
    return Given(given.name, out) if isinstance(out, Tensor) else None


def view_symbols(symbols: Symbols, node: fx.Node) -> Symbols | tuple[Symbols, ...]:
    """The view of an array; of several results a tuple."""
    if node.target in _COPIES:
        return symbols
    tensor = torch.from_numpy(symbols.view(np.int32))
    out = tensor.reshape(tuple(node.meta["val"].shape)) if node.target in _SHAPES else _applied(tensor, node)
    return _numbers(out) if isinstance(out, Tensor) else tuple(map(_numbers, out))


def _applied(tensor: Tensor, node: fx.Node) -> Tensor | Sequence[Tensor]:
    assert callable(node.target)
    out: Tensor | Sequence[Tensor] = node.target(tensor, *node.args[1:], **node.kwargs)
    return out


def _numbers(tensor: Tensor) -> Symbols:
    return tensor.numpy().view(Symbol)

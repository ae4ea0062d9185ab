"""Calibration: run the float model on inputs of the user's and remember what its layers have seen."""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compiler.frontend.calibration import Calibration, Range
from compiler.graph.fx_copy import as_written
from isa.errors import InputError


def calibrate(model: Any, inputs: Iterable[Any]) -> Calibration:
    """What the layers of the float model see on these inputs: each a tuple of positional arguments, a dict of keyword
    arguments, or a single tensor.

        found = llmchip.calibrate(model, [{"input_ids": ids} for ids in texts])

    Largest magnitudes only, so that neither the order nor the grouping of the inputs matters. Raises InputError for a
    model that is none, for no input at all, and for what the model refuses.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is a {type(model).__name__}", hint="calibration runs a torch.nn.Module, whose layers it watches"
        )
    calls = 0
    with as_written(), _Watch(model).watching() as watch:
        for given in inputs:
            _call(model, given)
            watch.forget()
            calls += 1
    if not calls:
        raise InputError("the calibration has no inputs", hint="give some that are like those the model will meet")
    return watch.result(calls)


def calibration_of(model: Any, given: "Calibration | Iterable[Any] | None") -> Calibration | None:
    """A calibration, or inputs for one. Raises what `calibrate` raises."""
    return given if given is None or isinstance(given, Calibration) else calibrate(model, given)


def _call(model: nn.Module, given: Any) -> None:
    try:
        if isinstance(given, Mapping):
            model(**given)
        elif isinstance(given, (tuple, list)):
            model(*given)
        else:
            model(given)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the model refuses an input of the calibration: {error}") from error


class _Watch:
    """Hooks of all layers that multiply their input by a matrix `weight`, nn.Linear and transformers' Conv1D."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and _matrix(module) is not None
        }
        self._seen: dict[str, Tensor] = {}
        self._group: dict[str, str] = {}
        self._alive: list[tuple[weakref.ref[Tensor], str]] = []  # inputs of this call of the model, and who had them

    @contextmanager
    def watching(self) -> Iterator["_Watch"]:
        hooks = [
            module.register_forward_pre_hook(
                lambda _module, args, kwargs, name=name: self._note(name, args, kwargs), with_kwargs=True
            )
            for name, module in self._layers.items()
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        weight = _matrix(self._layers[name])
        if x is None or weight is None or not x.dim() or x.shape[-1] not in weight.shape or not x.is_floating_point():
            return
        rows = x.detach().reshape(-1, x.shape[-1])
        if not rows.shape[0]:
            return
        largest = rows.abs().amax(0).to(torch.float32)
        self._seen[name] = torch.maximum(self._seen[name], largest) if name in self._seen else largest
        first = next((other for ref, other in self._alive if ref() is x), name)
        self._alive.append((weakref.ref(x), name))
        if self._group.setdefault(name, first) != first:
            self._group[name] = name  # not always the same input

    def forget(self) -> None:
        """A call of the model has ended."""
        self._alive.clear()

    def result(self, calls: int) -> Calibration:
        """Of every group of layers with the same input the ranges that they share."""
        members: dict[str, list[str]] = {}
        for name in self._seen:
            members.setdefault(self._group[name], []).append(name)
        ranges: dict[str, Range] = {}
        for group, names in members.items():
            inputs = torch.stack([self._seen[name] for name in names]).amax(0)
            weights = torch.stack([self._columns(name) for name in names]).amax(0)
            ranges |= {name: Range(group, inputs, weights) for name in names}
        return Calibration({name: ranges[name] for name in self._layers if name in ranges}, calls)

    def _columns(self, name: str) -> Tensor:
        """The largest magnitude of each column of a layer's weights, float32 [K]."""
        layer, k = self._layers[name], len(self._seen[name])
        weight = _matrix(layer)
        assert weight is not None
        by_rows = isinstance(layer, nn.Linear) or weight.shape[0] != k
        return weight.detach().abs().amax(0 if by_rows else 1).to(torch.float32)


def _matrix(module: nn.Module) -> Tensor | None:
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.dim() == 2 and weight.is_floating_point() else None

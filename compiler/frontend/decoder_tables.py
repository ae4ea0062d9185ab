"""Tables of what depends on the position alone: rotary embeddings, and position embeddings that a model looks up by how
many tokens its cache holds. They are computed once for every position that the cache has, by the model's own modules,
and looked up on the chip.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from compiler.frontend.decoder_calls import current_places
from isa.errors import InputError

T = TypeVar("T")
Forward = Callable[..., Tensor | tuple[Tensor, ...]]
Key = tuple[object, ...]  # what a rotary embedding is given beside x and positions
Names = dict[nn.Module, dict[Key, tuple[str, ...]]]  # of the tables of each module
_ROTARY, _COUNTED = ["x", "position_ids"], "past_key_values_length"


def _rotaries(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules whose forward takes x, of which only the type matters, and positions."""
    return [(name, module) for name, module in model.named_modules() if _parameters(module)[:2] == _ROTARY]


def _parameters(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)


@contextmanager
def patched(forwards: dict[nn.Module, Forward]) -> Iterator[None]:
    """With other functions as these modules' forward. One that was there in place of the class's comes back."""
    own = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward
            if module in own:
                module.forward = own[module]


def _more(args: Key, options: Mapping[str, object]) -> Key:
    return *args, *sorted(options.items())


def tabulated(model: nn.Module, capacity: int, trial: Callable[[], T]) -> tuple[T, dict[str, Tensor], Names]:
    """What a trial of the model gives, the tables of all positions that it needs, and whose they are."""
    places = torch.arange(capacity)[None]
    tables: dict[str, Tensor] = {}
    names: Names = {}

    def keep(module: nn.Module, key: Key, name: str, parts: tuple[Tensor, ...]) -> None:
        known = names.setdefault(module, {})
        known[key] = tuple(f"table_{name.replace('.', '_')}_{len(known)}_{number}" for number in range(len(parts)))
        tables.update({n: part.contiguous() for n, part in zip(known[key], parts, strict=True)})

    def recorded(name: str, module: nn.Module, forward: Callable[..., tuple[Tensor, ...]]) -> Forward:
        def record(x: Tensor, position_ids: Tensor, *args: object, **options: object) -> tuple[Tensor, ...]:
            if (key := _more(args, options)) not in names.get(module, {}):
                keep(module, key, name, tuple(part[0] for part in forward(x, places, *args, **options)))
            return forward(x, position_ids, *args, **options)

        return record

    with patched({module: recorded(name, module, module.forward) for name, module in _rotaries(model)}):
        found = trial()
    for name, module in _counted(model):
        keep(module, (), name, (_rows(module, capacity),))
    return found, tables, names


def _counted(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules of a decoder that is not told positions, which count them behind what its cache holds."""
    if "position_ids" in _parameters(model):
        return []
    return [(name, module) for name, module in model.named_modules() if _COUNTED in _parameters(module)]


def _rows(module: nn.Module, capacity: int) -> Tensor:
    """What such a module gives for so many first tokens. Raises InputError where it has fewer."""
    shape = torch.Size((1, capacity))
    first = shape if _parameters(module)[0].endswith("_shape") else torch.zeros(shape, dtype=torch.int64)
    try:
        rows: Tensor = module(first)
    except IndexError:
        rows = torch.empty(0, 0)
    if rows.shape[-2] != capacity:
        raise InputError(f"a cache of {capacity} tokens; the model has fewer positions", type(module).__name__)
    return rows.reshape(capacity, -1)


def looked_up(holder: nn.Module, module: nn.Module, known: Mapping[Key, tuple[str, ...]]) -> Forward:
    """In place of a module's forward: rows of its tables, which the holder has."""

    def rotary(x: Tensor, position_ids: Tensor, *args: object, **options: object) -> tuple[Tensor, ...]:
        names = known[_more(args, options)]
        return tuple(functional.embedding(position_ids, getattr(holder, name)) for name in names)

    def counted(*_args: object, **_options: object) -> Tensor:
        (name,) = known[()]
        return functional.embedding(current_places(), getattr(holder, name))

    return rotary if _parameters(module)[:2] == _ROTARY else counted

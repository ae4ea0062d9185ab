"""Decoders for models that torch.compile runs: compiled for weights as they come with a call, and kept while these live.

A model's structure is kept without its weights (`Twin`): Dynamo runs one graph for all models of a structure, and a
model must not live longer because it was compiled.
"""

import copy
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from compiler.entries import compile_entries
from compiler.frontend.calibration import marked
from compiler.frontend.decoder import float_logits
from isa.errors import UnsupportedError
from runtime.device.decoder import Decoder
from runtime.device.executable import Executable
from runtime.pytorch.decoder_image import image_key, steps_of, stored_image
from runtime.pytorch.export_lock import alone
from runtime.pytorch.mirror import Layers
from runtime.pytorch.pieces import Setting
from runtime.pytorch.weights import Stamps, stamps, watch

CHUNK: Final = 64  # tokens of a prefill step
ROOM: Final = 1024  # tokens of the caches at first; four times as many whenever they do not suffice
MOST: Final = 16  # decoders that are kept
NOTED: Final = "_previous_max_cache_length"  # what transformers' generate notes on a model about its last static cache


def form_of(model: Any) -> str:
    """Everything that decides what a model computes, but its weights and code."""
    plain = (bool, int, float, str, type(None))
    numbers = [
        (name, key, value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, plain) and key != NOTED
    ]
    return f"{type(model).__qualname__} {model} {numbers} {model.config.to_dict()}"


class Twin:
    """A model without its weights. They are there while `filled` lasts."""

    def __init__(self, model: Any) -> None:
        """Raises UnsupportedError for a model that cannot be copied."""
        bare = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), False) for p in model.parameters()}
        try:
            self._model = copy.deepcopy(model, dict(bare))
        except Exception as error:
            raise UnsupportedError(f"the model cannot be copied: {error}", type(model).__name__) from error
        vars(self._model).pop("forward", None)  # what torch.compile has put there
        self._bare = {name: bare[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
        self._buffers = dict(self._model.named_buffers(remove_duplicate=False))
        self._lock = threading.RLock()
        config = model.config.get_text_config()
        self.name, self.form = type(model).__name__, form_of(model)
        self.window: int = getattr(config, "sliding_window", None) or 0
        self.has_kinds = hasattr(config, "layer_types")
        limit = getattr(config, "max_position_embeddings", None)
        self.limit: int | None = limit if isinstance(limit, int) and limit > 0 else None

    def check_names(self, parameters: Collection[str]) -> None:
        """Raise UnsupportedError unless these are all parameters. Of those that are tied, one counts for all."""
        given = {id(self._bare[name]) for name in parameters if name in self._bare}
        if missing := [name for name, bare in self._bare.items() if id(bare) not in given]:
            raise UnsupportedError(f"the call does not use parameter '{missing[0]}'", self.name)

    def check_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Raise UnsupportedError unless these are as they were."""
        for name, buffer in buffers.items():
            if name not in self._buffers or not torch.equal(buffer, self._buffers[name]):
                raise UnsupportedError(f"buffer '{name}' is not what it was", self.name)

    @contextmanager
    def filled(self, parameters: Mapping[str, Tensor]) -> Iterator[Any]:
        """The model with these weights."""
        real = {id(self._bare[n]): nn.Parameter(tensor.detach(), False) for n, tensor in parameters.items()}
        with self._lock:
            places = [
                (module._parameters, name, bare)
                for module in self._model.modules()
                for name, bare in module._parameters.items()
                if bare is not None
            ]
            try:
                for holder, name, bare in places:
                    holder[name] = real[id(bare)]
                yield self._model
            finally:
                for holder, name, bare in places:
                    holder[name] = bare

    def logits(self, parameters: Mapping[str, Tensor], ids: Tensor, position: int, layers: Layers) -> Tensor:
        """What the model means, in floats: see compiler.frontend.decoder.float_logits."""
        with self.filled(parameters) as model:
            return float_logits(model, ids, position, layers, room(position + ids.shape[1], self.limit))


@dataclass
class _Entry:
    decoder: Decoder
    marks: Stamps | None  # of its weights


class Decoders:
    """The decoders of this process, the most recently used last."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[Any, ...], _Entry] = OrderedDict()
        self._lock = threading.RLock()
        watch(self)

    def get(self, twin: Twin, parameters: Mapping[str, Tensor], batch: int, needed: int, setting: Setting) -> Decoder:
        """One with these weights as they are now, for `batch` sequences of `needed` tokens. Raises what capture and
        compiler raise."""
        tensors = [parameters[name] for name in sorted(parameters)]
        key = twin.form, batch, setting.chip, _settings(setting), tuple(map(id, tensors))
        with self._lock:
            entry, now = self._entries.get(key), stamps(tensors)
            if entry is None or entry.marks != now or entry.decoder.capacity < needed:
                self._entries.pop(key, None)  # two images of one model need not fit
                least = 0 if entry is None or entry.marks != now else entry.decoder.capacity
                decoder = _compiled(twin, parameters, batch, max(least, needed), setting)
                weakref.finalize(tensors[0].untyped_storage(), self._entries.pop, key, None).atexit = False
                self._entries[key] = entry = _Entry(decoder, now)
            self._entries.move_to_end(key)
            while len(self._entries) > MOST:
                self._entries.popitem(last=False)
            return entry.decoder

    def spoil(self) -> None:
        """Nothing is known of what the weights are."""
        with self._lock:
            for entry in self._entries.values():
                entry.marks = None


def room(needed: int, limit: int | None) -> int:
    """Tokens that caches get."""
    found = ROOM
    while found < needed:
        found *= 4
    return found if limit is None else min(found, limit)


def _settings(setting: Setting) -> tuple[str, str]:
    return repr(setting.options), setting.calibration.digest if setting.calibration is not None else ""


def _compiled(twin: Twin, parameters: Mapping[str, Tensor], batch: int, needed: int, setting: Setting) -> Decoder:
    capacity = room(needed, twin.limit)
    if capacity < needed:
        raise UnsupportedError(f"{needed} tokens; the model has {twin.limit} positions", twin.name)
    with torch.inference_mode(False), torch.no_grad(), twin.filled(parameters) as model, alone():
        config, steps = setting.options.quant_config, steps_of(model, batch, min(CHUNK, capacity), capacity)
        steps = {name: marked(step, config, setting.calibration) for name, step in steps.items()}
        key = image_key(steps, setting.options, setting.chip)
        image = stored_image(key, lambda: compile_entries(steps, setting.options, setting.chip).image())
        return Decoder(Executable(replace(image, metadata={})))

"""Steps of a language model under torch.compile: `model.generate(…)` over transformers' own caches.

model.compile(backend="llmchip"); model.generate(ids, max_new_tokens=50)

Dynamo traces a graph for the prompt and one for a token, each again where sizes differ. All of them run on one decoder
(runtime/device/decoder.py): its prefill and decode programs serve every length. What the step makes for the caller's
cache comes from the chip, which keeps it, too (runtime/pytorch/mirror.py); what is left of the graph puts it where it
belongs, in PyTorch (compiler/frontend/step_graph.py).

A graph is compared once, in floats, with the model as the decoder means it, before it runs on the chip. What a single
call has of its own (masks, positions, the cache) is checked at every call; one that the decoder cannot serve runs in
PyTorch, and so does everything that may be differentiated.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad

from compiler.frontend.decoder_check import MOST, check_same
from compiler.frontend.step_graph import StepGraph
from isa.errors import Error, InputError, UnsupportedError
from runtime.device.decoder import Decoder
from runtime.device.session import Session
from runtime.pytorch import mirror
from runtime.pytorch.decoders import Decoders, Twin, form_of
from runtime.pytorch.fallback import as_error, is_fault
from runtime.pytorch.pieces import Setting
from runtime.pytorch.step_inputs import Places, places
from runtime.pytorch.tensors import to_array

CLOSE: Final = 0.01  # length of a difference between two ways to compute one model in float32; rounding leaves 1e-5
_decoders = Decoders()
_twins: "weakref.WeakKeyDictionary[nn.Module, Twin]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Call:
    """One call of a graph: the model's parameters, and what the caller's cache holds before it."""

    args: Sequence[Any]
    ids: Tensor
    parameters: dict[str, Tensor]
    layers: mirror.Layers
    mirror: mirror.Mirror | None
    past: int
    where: Places

    @property
    def needed(self) -> int:
        """Tokens that caches must have room for."""
        return max(before + count for before, count in zip(self.where.before, self.where.counts, strict=True))


class Decoding:
    """A graph of Dynamo's that is a step of a decoder. Takes and gives what the graph does."""

    def __init__(
        self,
        gm: fx.GraphModule,
        graph: StepGraph,
        model: nn.Module,
        setting: Callable[[], Setting],
        otherwise: Callable[..., tuple[Any, ...]],
    ) -> None:
        """`otherwise` serves what is no step: with gradients, under autocast, or where there can be no decoder."""
        self._gm, self._graph, self._model = gm, graph, weakref.ref(model)
        self._setting_of, self._otherwise = setting, otherwise
        self._setting: Setting | None = None
        self._twin: Twin | None = None
        self._numbers: list[Any] = []
        self._usable, self._compared = True, False

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        if not self._usable or _followed(args) or torch.is_autocast_enabled("cpu"):
            return self._otherwise(*args)
        self._setting = setting = self._setting or self._setting_of()
        try:
            with torch.inference_mode(False), torch.no_grad():
                call, decoder, session, computed = self._computed(args, setting)
        except _NoDecoder as error:
            if is_fault(error.reason):
                setting.policy.accept(error.reason)
            self._usable = False
            setting.teller.tell_cache(error.reason)
            return self._otherwise(*args)
        except (UnsupportedError, InputError) as error:
            setting.policy.accept(error)
            setting.teller.tell(error)
            return tuple(self._gm(*args))
        return self._results(call, decoder, session, computed)

    def _computed(
        self, args: Sequence[Any], setting: Setting
    ) -> tuple[_Call, Decoder, Session[Any], tuple[Tensor, ...]]:
        """The step on the chip: logits, new keys and values. The caller's cache is as it was."""
        twin = self._checked_twin(args)
        call = self._call(args, twin)
        if twin.limit is not None and call.needed > twin.limit:
            raise UnsupportedError(f"{call.needed} tokens; the model has {twin.limit} positions")
        try:
            if not self._compared:
                self._compare(call, twin)
            decoder = _decoders.get(twin, call.parameters, len(call.ids), call.needed, setting)
            mirror.check_form(decoder, self._graph.heads)
        except Exception as error:
            raise _NoDecoder(as_error(error)) from error
        with decoder.executable.idle:
            session = _session(call, decoder)
            logits = session.prefill(to_array(call.ids), call.where.real)
            made = mirror.made(decoder, call.where, self._graph.cache_dtype)
        first = 0 if self._graph.count is None else logits.shape[1] - self._graph.count
        return call, decoder, session, (torch.tensor(logits[:, first:], dtype=self._graph.dtype), *made)

    def _checked_twin(self, args: Sequence[Any]) -> Twin:
        """The structure of the model. Raises UnsupportedError where the arguments are another model's."""
        numbers = [n.item() if isinstance(n := args[at], Tensor) else n for at in self._graph.numbers]
        if self._twin is None:
            model = self._model()
            if model is None:
                raise _NoDecoder(UnsupportedError("the model is gone that this was compiled for"))
            try:
                twin = _twins.get(model)
                if twin is None or twin.form != form_of(model):
                    twin = _twins[model] = Twin(model)
                twin.check_names(self._graph.parameters)
            except UnsupportedError as error:
                raise _NoDecoder(error) from error
            self._twin, self._numbers = twin, numbers
        if numbers != self._numbers:
            raise UnsupportedError("numbers of the model that are not what they were")
        self._twin.check_buffers({name: args[at] for name, at in self._graph.buffers.items()})
        return self._twin

    def _call(self, args: Sequence[Any], twin: Twin) -> _Call:
        graph, ids = self._graph, args[self._graph.ids]
        layers = [(args[keys], args[values]) for keys, values in graph.caches]
        known = mirror.find(layers)
        past = known.past if known else self._past(args, layers)
        if any(int(args[at]) != past for at in graph.lengths):
            raise UnsupportedError(f"a cache whose layers do not all have {past} tokens")
        masks = {kind: args[at] for kind, at in graph.masks.items()}
        positions = None if graph.positions is None else args[graph.positions]
        where = places(ids, positions, masks, past, 0 if twin.has_kinds and "" in masks else twin.window)
        if known is None and past:
            mirror.check_rows(layers, past, twin.window)
        parameters = {name: args[at] for name, at in graph.parameters.items()}
        return _Call(args, ids, parameters, layers, known, past, where)

    def _past(self, args: Sequence[Any], layers: mirror.Layers) -> int:
        """How many rows a cache has that the chip has not."""
        if self._graph.lengths:
            return int(args[self._graph.lengths[0]])
        for at in self._graph.masks.values():
            if args[at].dim() == 2:
                return int(args[at].shape[1] - args[self._graph.ids].shape[1])
        return max((keys.shape[2] for keys, _ in layers), default=0)

    def _compare(self, call: _Call, twin: Twin) -> None:
        """Is the graph the model, as the decoder means it? Raises UnsupportedError if not."""
        given = set(self._graph.parameters.values())
        copies = [a.clone() if isinstance(a, Tensor) and at not in given else a for at, a in enumerate(call.args)]
        logits = self._gm(*copies)[self._graph.result]
        for number, padding in enumerate(call.where.padding):
            layers = [
                (_rows(keys, number, call.past, padding), _rows(values, number, call.past, padding))
                for keys, values in (call.layers if call.past > padding else ())
            ]
            ids = call.ids[number : number + 1, torch.from_numpy(call.where.real[number])]
            expected = twin.logits(call.parameters, ids, call.where.before[number], layers)
            if logits.shape[-1] != expected.shape[-1]:  # Dynamo has cut the model where it could not trace it
                raise UnsupportedError("the graph is a part of the model", twin.name)
            count = min(logits.shape[1], expected.shape[1])
            most = CLOSE if logits.dtype is torch.float32 else MOST
            check_same(expected[:, -count:], logits[number : number + 1, -count:], twin.name, most)
        self._compared = True

    def _results(
        self, call: _Call, decoder: Decoder, session: Session[Any], computed: tuple[Tensor, ...]
    ) -> tuple[Any, ...]:
        """What the graph gives; it changes the caller's cache, too."""
        graph, args = self._graph, call.args
        changed = [args[at] for at in (*graph.lengths, *(at for pair in graph.caches for at in pair))]
        inference = any(
            isinstance(x, Tensor) and x.is_inference() for x in changed
        )  # can be changed in their mode only
        with torch.inference_mode(inference), torch.no_grad():
            results = tuple(graph.rest(*args, *computed))
        old = graph.caches or ((0, 0),) * len(graph.held)  # before the first tokens nothing is changed in place
        layers = [
            (
                args[places[0]] if keys is None else results[keys],
                args[places[1]] if values is None else results[values],
            )
            for (keys, values), places in zip(graph.held, old, strict=True)
        ]
        mirror.keep(session, decoder, call.past + call.ids.shape[1], call.where.padding, layers)
        return results


def _session(call: _Call, decoder: Decoder) -> Session[Any]:
    """The caller's cache on the chip."""
    known, where = call.mirror, call.where
    if known is not None and known.lengths == where.before and known.padding == where.padding:
        return known.session if known.decoder is decoder else known.session.fork(decoder)
    return mirror.uploaded(decoder, call.layers, call.past, where) if any(where.before) else mirror.fresh(decoder)


def _rows(tensor: Tensor, sequence: int, past: int, padding: int) -> Tensor:
    """The rows of one sequence that count."""
    rows = mirror.live(tensor, past)
    lost = past - rows.shape[2]
    return rows[sequence : sequence + 1, :, max(padding - lost, 0) :].detach()


def _followed(args: Sequence[Any]) -> bool:
    """Whether somebody may want derivatives of what is computed."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


class _NoDecoder(Exception):
    """There can be no decoder for this graph."""

    def __init__(self, reason: Error) -> None:
        super().__init__(str(reason))
        self.reason = reason

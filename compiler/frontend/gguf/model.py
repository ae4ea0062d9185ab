"""A language model of a GGUF file as a module of transformers: quantized linears stay as they are.

    with open_gguf("model.gguf") as file:
        model = causal_lm(file)            LlamaForCausalLM, its linears GroupedLinear

Only what the file's own tensors have room for is made: the numbers in its metadata are held against their shapes. No
float copy of the weights is made either: parameters have no memory until the file's are put in their place.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from compiler.frontend.gguf.architectures import ARCHITECTURES, Architecture
from compiler.frontend.gguf.blocks import WeightType
from compiler.frontend.gguf.embedding import GroupedEmbedding
from compiler.frontend.gguf.file import GgufFile
from compiler.frontend.gguf.linear import GroupedLinear
from compiler.frontend.gguf.numbers import Numbers
from isa.errors import ModelError
from isa.shown import shown

_HEAD, _EMBEDDING, _FACTORS = "output", "token_embd", "rope_freqs.weight"


def causal_lm(file: GgufFile) -> Any:
    """The model, a …ForCausalLM of transformers in eval mode. Linears of a block format are `GroupedLinear`, others
    float32; an embedding of a block format is a `GroupedEmbedding`; norms, biases and other embeddings are float32: the
    values of the file exactly. The head is a linear of its own, as ggml has it, also where the file has no tensor for it
    but the embedding's; it shares that one's codes.

    Raises ModelError for an architecture that is not known, for tensors that are missing or have no place, and for
    shapes other than the metadata say.
    """
    import transformers

    kind = file.metadata.get("general.architecture")
    row = ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if row is None:
        raise ModelError(
            f"its architecture is {shown(str(kind))[:80]}", file.where, f"llmchip reads {', '.join(ARCHITECTURES)}"
        )
    numbers = Numbers(file, row.name)
    settings = row.settings(numbers) | _ends(file, numbers.shape("token_embd.weight")[0])
    with _without_memory():
        model = getattr(transformers, row.model)(getattr(transformers, row.config)(**settings, **_UNTIED))
    _Builder(file, row, model).fill()
    return model.eval()


_UNTIED = {"tie_word_embeddings": False}


def _ends(file: GgufFile, vocabulary: int) -> dict[str, Any]:
    """Tokens with a meaning, those that the file names."""

    def tokens(*keys: str) -> list[int]:
        given = [file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in keys]
        return list(dict.fromkeys(token for token in given if isinstance(token, int) and 0 <= token < vocabulary))

    return {
        "bos_token_id": next(iter(tokens("bos")), None),
        "eos_token_id": tokens("eos", "eot") or None,
        "pad_token_id": next(iter(tokens("padding")), None),
    }


@contextmanager
def _without_memory() -> Iterator[None]:
    """Modules that this thread makes have parameters without memory; their buffers are real."""
    own = threading.get_ident()

    def bare(_module: nn.Module, _name: str, value: Any) -> Any:
        if threading.get_ident() != own or not isinstance(value, nn.Parameter):
            return None
        return nn.Parameter(value.to("meta"), requires_grad=False)

    handle = register_module_parameter_registration_hook(bare)
    try:
        yield
    finally:
        handle.remove()


class _Builder:
    """Puts a file's tensors into a model, each where it belongs."""

    def __init__(self, file: GgufFile, row: Architecture, model: Any) -> None:
        self.file, self.row, self.model, self.used = file, row, model, set[str]()

    def fill(self) -> None:
        """All tensors. Raises ModelError for one that is missing, is left over or has another shape."""
        tied = f"{_HEAD}.weight" not in self.file.tensors
        self._module(_EMBEDDING if tied else _HEAD, _HEAD, self.row.outside[_HEAD])
        head = self.model.get_submodule(self.row.outside[_HEAD])
        for part, place in self.row.outside.items():
            if part != _HEAD:
                self._module(part, part, place, head if tied else None)
        layers = self.model.get_submodule(self.row.layers)
        for number in range(len(layers)):
            for part, place in self.row.layer.items():
                self._module(f"blk.{number}.{part}", part, f"{self.row.layers}.{number}.{place}")
        self._factors()
        left = sorted(set(self.file.tensors) - self.used)
        if left:
            raise ModelError(f"tensor {shown(left[0])} has no place in a {self.row.model}", self.file.where)
        for name, value in self.model.named_parameters():
            if value.is_meta:
                raise ModelError(f"the file has no tensor for {name}", self.file.where)

    def _module(self, name: str, part: str, place: str, head: nn.Module | None = None) -> None:
        """The weight, and the bias if the model has one, of one module. An embedding may share the weights of a `head`."""
        old = self.model.get_submodule(place)
        bias = None if getattr(old, "bias", None) is None else self._floats(f"{name}.bias", tuple(old.bias.shape), part)
        if isinstance(old, nn.Linear) or type(old).__name__ == "Conv1D":
            shape = tuple(old.weight.shape) if isinstance(old, nn.Linear) else tuple(old.weight.shape[::-1])
            self.model.set_submodule(place, self._linear(f"{name}.weight", shape, part, bias))
            return
        kind = info.type if (info := self.file.tensors.get(f"{name}.weight")) is not None else None
        if isinstance(kind, WeightType) and type(old) is nn.Embedding:  # a class of its own may scale what it finds
            self._check(f"{name}.weight", tuple(old.weight.shape))
            shared = head if isinstance(head, GroupedLinear) else None
            self.model.set_submodule(place, GroupedEmbedding(kind, self.file.rows(f"{name}.weight"), shared))
            return
        weight = self._floats(f"{name}.weight", tuple(old.weight.shape), part)
        if self.row.offset and weight.ndim == 1:
            weight = weight - np.float32(1)
        old.weight = _frozen(weight)
        if bias is not None:
            old.bias = _frozen(bias)

    def _linear(self, name: str, shape: tuple[int, ...], part: str, bias: NDArray[np.float32] | None) -> nn.Module:
        self._check(name, shape)
        kind = self.file.tensors[name].type
        if isinstance(kind, WeightType):
            order = self._order(part, shape[0])
            rows = self.file.rows(name)
            return GroupedLinear(kind, rows if order is None else rows[order], bias)
        made = nn.Linear(shape[1], shape[0], bias=False, device="meta")
        made.weight = _frozen(self._floats(name, shape, part))
        if bias is not None:
            made.bias = _frozen(bias)
        return made

    def _floats(self, name: str, shape: tuple[int, ...], part: str) -> NDArray[np.float32]:
        self._check(name, shape)
        values = self.file.values(name)
        order = self._order(part, shape[0])
        return values if order is None else values[order]

    def _order(self, part: str, rows: int) -> NDArray[np.int64] | None:
        """Where transformers' rows of queries and keys are among ggml's; None where they are the same."""
        if part not in self.row.turned:
            return None
        size = self.model.config.head_dim
        return np.arange(rows).reshape(-1, size // 2, 2).swapaxes(1, 2).reshape(-1)

    def _factors(self) -> None:
        """Llama 3.1 and later: what each frequency of the rotary embedding is divided by."""
        if self.row.name != "llama" or _FACTORS not in self.file.tensors:
            return
        rotary = self.model.model.rotary_emb
        factors = self._floats(_FACTORS, tuple(rotary.inv_freq.shape), "")
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise ModelError(f"{_FACTORS} has factors that are not positive", self.file.where)
        rotary.inv_freq = rotary.inv_freq / torch.from_numpy(factors)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        info = self.file.tensors.get(name)
        if info is None:
            raise ModelError(f"the file has no tensor {shown(name)}", self.file.where)
        if info.shape != shape:
            raise ModelError(
                f"tensor {shown(name)} is {list(info.shape)}, the metadata mean {list(shape)}", self.file.where
            )
        self.used.add(name)


def _frozen(value: NDArray[np.float32]) -> nn.Parameter:
    tensor: Tensor = torch.from_numpy(np.ascontiguousarray(value))
    return nn.Parameter(tensor, requires_grad=False)

"""Small decoders of transformers' families, and steps of them beside their reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from compiler.entries import CompiledEntries, compile_entries
from compiler.frontend.decoder import capture_decoder
from compiler.options import Options
from isa.image.image import Image
from runtime.device.executable import Executable

VOCABULARY = 97
SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


def decoder(family: str, seed: int = 0, **sizes: Any) -> Any:
    """A model of `family` (Llama, Mistral, …) with random weights."""
    names = {"Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM")}.get(
        family, (f"{family}Config", f"{family}ForCausalLM")
    )
    config, model = (getattr(transformers, name) for name in names)
    torch.manual_seed(seed)
    return model(config(**{**SIZES, **sizes})).eval()


@dataclass
class Steps:
    """Programs of one image for several numbers of tokens, launched one after the other beside the frozen graphs.

    `differing` counts elements of logits and, when `finish` is called, of the caches that are not equal, bit for bit.
    """

    compiled: CompiledEntries
    image: Image
    executable: Executable
    constants: Mapping[str, tuple[Tensor, ...]]
    state: Mapping[str, Tensor]
    batch: int
    differing: int = 0
    logits: list[Tensor] = field(default_factory=list)

    @staticmethod
    def of(model: Any, tokens: Sequence[int], capacity: int, batch: int = 1, options: Options | None = None) -> "Steps":
        captured = {f"t{count}": capture_decoder(model, batch, count, capacity) for count in sorted(set(tokens))}
        compiled = compile_entries(captured, options)
        image = compiled.image()
        state: dict[str, Tensor] = {}
        constants = {}
        for name, program in compiled.programs.items():
            own = dict(zip((c.name for c in program.lowered.constants), program.lowered.pack_weights(), strict=True))
            for spec in image.states:
                own[spec.name] = state.setdefault(spec.name, own[spec.name])
            constants[name] = tuple(own.values())
        return Steps(compiled, image, Executable(image), constants, state, batch)

    def launch(self, ids: Tensor, positions: Sequence[int]) -> Tensor:
        """Logits of these new tokens [batch, tokens] behind so many of each sequence."""
        name = f"t{ids.shape[1]}"
        scalars = {f"positions.{number}": position for number, position in enumerate(positions)}
        found = self.executable({"input_ids": ids.numpy()}, entry=name, scalars=scalars)
        (got,) = found.values()
        inputs = ids, torch.tensor(positions, dtype=torch.int32)
        (wanted,) = self.compiled.programs[name].lowered.run(inputs, self.constants[name])
        self.differing += int((got.view(np.int32) != wanted.numpy().view(np.int32)).sum())
        self.logits.append(wanted)
        return wanted

    def run(self, ids: Tensor, tokens: Sequence[int]) -> Tensor:
        """Launch step after step, with so many tokens each; the logits of all."""
        at, found = 0, []
        for count in tokens:
            found.append(self.launch(ids[:, at : at + count], [at] * self.batch))
            at += count
        return torch.cat(found, 1)

    def finish(self) -> int:
        """Compare the caches, too."""
        for spec in self.image.states:
            self.differing += int((torch.from_numpy(self.executable.tensor(spec)) != self.state[spec.name]).sum())
        return self.differing


def random_ids(count: int, batch: int = 1, seed: int = 1) -> Tensor:
    """Token numbers [batch, count]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, count), dtype=torch.int32, generator=generator)

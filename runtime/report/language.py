"""The report of a language model in a GGUF file: its programs, its float model, and both on texts."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import structs
from torch import Tensor, nn
from torch.nn import functional

from compiler.frontend.gguf.embedding import GroupedEmbedding
from compiler.frontend.gguf.file import open_gguf
from compiler.frontend.gguf.linear import GroupedLinear
from compiler.frontend.gguf.model import causal_lm
from compiler.lower import lower
from compiler.options import Options
from isa.errors import InputError
from isa.image.image import Image
from isa.image.steps import TOKENS, steps
from runtime.decoder_program import DecoderProgram, capture_steps
from runtime.gguf_program import CHUNK
from runtime.models.language import Language
from runtime.report.accuracy import Meter, Perplexity
from runtime.report.document import Accuracy
from runtime.verify.steps import StepsDocument, verify_steps

_LOGITS = "logits"  # whatever the program calls its result
_DRAWN = 16  # tokens of an input that is drawn
_VERIFIED, _NEW = 16, 2  # tokens of a text, and of its answer, whose bits are compared: the reference takes long


@dataclass(frozen=True)
class LanguageReport:
    """A model of a file, and its image."""

    path: Path
    image: Image
    program: DecoderProgram
    model: nn.Module

    @classmethod
    def of(cls, path: Path, image: Image, options: Options) -> "LanguageReport":
        """The model behind an image. Raises ModelError for a file that cannot be used."""
        with open_gguf(path) as file:
            model = causal_lm(file)
        chunk = max(step.tokens for step in steps(image))
        example = {TOKENS: torch.zeros(1, min(CHUNK, chunk), dtype=torch.int64)}
        context = max(step.reach for step in steps(image))
        program = DecoderProgram(model, capture_steps(model, example, context), options, image.chip, cached=False)
        program.__dict__["image"] = image  # compiled already
        return cls(path, image, program, model)

    @property
    def entry(self) -> str:
        """The step that takes fewest new tokens: the one that a text is written with."""
        return min(steps(self.image), key=lambda step: step.tokens).entry

    @property
    def context(self) -> int:
        return max(step.reach for step in steps(self.image))

    def tokens(self, texts: Sequence[str], draws: int, seed: int) -> list[Tensor]:
        """The texts as tokens [1, T]; without any, some that are drawn. Raises InputError for a text that is too
        long."""
        if not texts:
            random, size = np.random.default_rng(seed), steps(self.image)[0].vocabulary
            return [torch.from_numpy(random.integers(0, size, (1, min(_DRAWN, self.context)))) for _ in range(draws)]
        language = Language.of(self.image, str(self.path))
        found = []
        for text in texts:
            ids = language.tokens(text)
            if not 0 < len(ids) <= self.context:
                raise InputError(
                    f"a text has {len(ids)} tokens, the model is compiled for {self.context}",
                    repr(text[:40]),
                    "shorten it, or give a larger --context",
                )
            found.append(torch.tensor([ids]))
        return found

    def verify(self, tokens: Tensor) -> StepsDocument:
        """The beginning of a text and an answer, on the chip and in PyTorch. Raises InputError for what does not
        fit."""
        captured = self.program.captured_steps
        lowered = {name: lower(one, self.program.options) for name, one in captured.items()}
        new = min(_NEW, self.context - 1)
        found = verify_steps(self.image, lowered, tokens[:, : min(_VERIFIED, self.context - new)], new)
        return StepsDocument(bit_exact=found.bit_exact, steps=found.steps)

    def accuracy(
        self, tokens: Sequence[Tensor], texts: Sequence[str], source: str, left_out: int, stage: Callable[[str], None]
    ) -> Accuracy:
        """The logits behind every token, and how well both models foresee the next one."""
        spec = structs.replace(self.image.entry(self.entry).outputs[0], name=_LOGITS)
        meter, plain, perplexity = Meter((spec,), 1), plain_model(self.model), Perplexity()
        for number, ids in enumerate(tokens):
            stage(f"chip and float model, text {number + 1} of {len(tokens)}")
            ours = self.program(input_ids=ids).logits
            with torch.no_grad():
                theirs: Tensor = plain(input_ids=ids, use_cache=False).logits
            meter.add({spec.name: ours.numpy()}, [theirs], None, texts[number : number + 1])
            perplexity.add(_losses(ours, ids), _losses(theirs, ids))
        return meter.result(source, left_out, perplexity.result())


def _losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Of each token but the first, how little it was foreseen: float64 [T - 1]."""
    return functional.cross_entropy(logits[0, :-1].double(), ids[0, 1:], reduction="none")


def plain_model(model: nn.Module) -> Any:
    """The float model: the same with weights dequantized, as the block format defines them."""
    found: Any = copy.deepcopy(model).eval()
    for name, module in list(found.named_modules()):
        if isinstance(module, GroupedLinear | GroupedEmbedding):
            parent, _, leaf = name.rpartition(".")
            setattr(found.get_submodule(parent), leaf, _plain(module))
    head, table = found.get_output_embeddings(), found.get_input_embeddings()
    if head.weight.shape == table.weight.shape and torch.equal(head.weight, table.weight):
        head.weight = table.weight  # one and the same
    return found


def _plain(module: GroupedLinear | GroupedEmbedding) -> nn.Module:
    values = module.values()
    if isinstance(module, GroupedEmbedding):
        found: nn.Module = nn.Embedding.from_pretrained(values)
        return found
    made = nn.Linear(values.shape[1], values.shape[0], bias=module.bias is not None)
    made.weight = nn.Parameter(values, requires_grad=False)
    if module.bias is not None:
        made.bias = nn.Parameter(module.bias, requires_grad=False)
    return made

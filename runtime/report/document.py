"""A report as plain values: what `llmcc report --json` says and its page shows. The types are the format;
docs/schemas/report.json is made from them."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from runtime.profile.document import ProfileDocument
from runtime.verify.steps import StepsDocument
from runtime.verify.verify import Verification


class Tensor(Struct, frozen=True):
    """An input or output of the program."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What the model is. `config` are figures of its config.json, as far as it has one; `weight_bytes` those that the
    program has in its memory for weights and constants."""

    argument: str
    architecture: str
    task: str
    parameters: int
    weight_bytes: int
    config: Mapping[str, int | str]
    options: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class OutputAccuracy(Struct, frozen=True, kw_only=True):
    """An output against the float model's, over all samples.

    `cosine` and `least_cosine` are the mean and the worst of the samples; `largest` is the largest difference, `error`
    the norm of all differences to that of the values. `argmax` is the share of `choices` in which the largest of a row
    is the same element; `nearest`, of embeddings, the share of texts whose nearest other text is the same. None:
    there is no such thing. Positions that a mask leaves out do not count.
    """

    name: str
    values: int
    cosine: float | None
    least_cosine: float | None
    largest: float
    error: float | None
    argmax: float | None
    choices: int
    nearest: float | None


class SampleAccuracy(Struct, frozen=True):
    """A sample by number and text, "" if it was drawn; its worst cosine over the outputs."""

    number: int
    text: str
    cosine: float


class Accuracy(Struct, frozen=True, kw_only=True):
    """`source`: the file of the texts, or "drawn". `left_out` texts of it were not used. `worst` are the samples with
    the least cosine. `perplexity`: of a language model, on the chip and in float."""

    source: str
    samples: int
    left_out: int
    outputs: tuple[OutputAccuracy, ...]
    worst: tuple[SampleAccuracy, ...]
    perplexity: tuple[float, float] | None = None


class Memory(Struct, frozen=True):
    """Bytes of a memory that the program uses, and those that there are; 0: no limit of its own."""

    name: str
    used: int
    capacity: int


class ReportDocument(Struct, frozen=True, kw_only=True):
    """All of it. `command` made it; area is in mm² by component. Of a language model `steps` is what was verified,
    the profile is that of the step with which it writes, and `context` its figures over the length of the text."""

    document: Literal["llmchip report"] = "llmchip report"
    title: str
    command: str
    model: ModelFacts
    accuracy: Accuracy
    verification: Verification | None
    steps: StepsDocument | None = None
    profile: ProfileDocument
    area_mm2: Mapping[str, float]
    memory: tuple[Memory, ...]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    context: tuple[Mapping[str, int | float], ...] = ()

    @property
    def bit_exact(self) -> bool:
        """Whether no bit differs from PyTorch's."""
        return bool((self.verification is None or self.verification.bit_exact) and (self.steps or _NONE).bit_exact)


_NONE = StepsDocument(bit_exact=True, steps=())

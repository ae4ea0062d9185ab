"""What `llmcc quantize` finds out, as plain values: what `--json` says and the page shows. The types are the format;
docs/schemas/quantize.json is made from them."""

from collections.abc import Mapping

from msgspec import Struct


class Choice(Struct, frozen=True):
    """A layer alone in a scheme, all others in float. `error` is 1 - the mean cosine of the model's output to the float
    model's, `worst` the least cosine of a sample; `cycles` are predicted for the layer alone on the chip."""

    scheme: str
    error: float
    worst: float
    cycles: int


class Layer(Struct, frozen=True):
    """A linear layer by the path of its module: [rows, k] times [k, n]."""

    module: str
    rows: int
    k: int
    n: int
    choices: tuple[Choice, ...]


class Measured(Struct, frozen=True):
    """A whole model on the chip: `quantization` as the option's text, the mean and worst cosine of the samples, the share
    of equal choices of logits (None: there are none), cycles of a launch."""

    quantization: str
    cosine: float
    worst: float
    argmax: float | None
    cycles: int


class QuantizeDocument(Struct, frozen=True, kw_only=True):
    """`source`, `calibration`: files of texts, or "drawn"; `output`: the one that counts. `measured` are whole models in the
    order in which they were tried; `suggestion` is the text of the cheapest that reaches `target`, None if none did."""

    model: str
    chip: str
    source: str
    calibration: str
    samples: int
    output: str
    target: Mapping[str, float]
    smoothing: float | None
    layers: tuple[Layer, ...]
    measured: tuple[Measured, ...]
    suggestion: str | None

    def reaches(self, found: Measured) -> bool:
        """Whether a measurement is as good as the target asks."""
        known = {"cosine": found.cosine, "worst": found.worst, "argmax": found.argmax}
        return all((value := known[name]) is not None and value >= least for name, least in self.target.items())

    @property
    def best(self) -> Measured | None:
        """The measurement of the suggestion."""
        return next((found for found in self.measured if found.quantization == self.suggestion), None)

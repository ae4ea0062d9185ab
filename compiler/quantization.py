"""What a user says about the arithmetic of a model's products: one frozen type, which options keep as one line of text.

w8a8-dynamic,smoothing=0.5,encoder.layer.0.*=float
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from isa.errors import CompileError

DYNAMIC, STATIC, WEIGHT_ONLY, INT4 = "w8a8-dynamic", "w8a8-static", "w8a16", "w4a8-g32"
SCHEMES = {
    DYNAMIC: "int8 weights, a scale for each row of them; activations int8, with a scale for each row at run time",
    STATIC: "the same, but one scale for all rows of a linear layer's activations, from the calibration",
    WEIGHT_ONLY: "int8 weights, activations as they are: products of floats, summed in the order of k",
    INT4: "int4 weights and int8 activations, both with a scale for every 32 elements, where they fit",
}
ISLANDS = {
    "float": "nothing is quantized: products of float32",
    "bf16": "nothing is quantized: products of bfloat16, summed in float32",
}
EVERY = SCHEMES | ISLANDS
ALIASES = {"w8a8": DYNAMIC}
QUANTIZED_ROWS = (DYNAMIC, STATIC, INT4)  # of whose activations smoothing makes better rows
SMOOTHING = "smoothing"


@dataclass(frozen=True)
class QuantConfig:
    """How matrix products are computed.

        QuantConfig("w8a8-dynamic", smoothing=0.5, overrides={"encoder.layer.0.*": "float", "pooler.*": "bf16"})

    `smoothing` is SmoothQuant's alpha, 0 to 1; with it, and with w8a8-static, compiling takes a calibration.
    `overrides` are patterns (of fnmatch) of a module's path, or of its end, with the scheme, "float" or "bf16" that
    holds there; the first that fits decides. Raises CompileError for what does not exist.
    """

    scheme: str = DYNAMIC
    smoothing: float | None = None
    overrides: Mapping[str, str] | Iterable[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        given = self.overrides.items() if isinstance(self.overrides, Mapping) else self.overrides
        object.__setattr__(self, "scheme", _known(self.scheme, EVERY))
        object.__setattr__(self, "overrides", tuple((_pattern(name), _known(scheme, EVERY)) for name, scheme in given))
        if self.smoothing is not None:
            object.__setattr__(self, SMOOTHING, _alpha(self.smoothing))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The overrides in their order."""
        return tuple(self.overrides)  # type: ignore[arg-type]

    def of(self, module: str) -> str:
        """The scheme of a module, by its path."""
        parts = module.split(".")
        ends = [".".join(parts[first:]) for first in range(len(parts))]
        for pattern, scheme in self.pairs:
            if any(fnmatchcase(end, pattern) for end in ends):
                return scheme
        return self.scheme

    @property
    def calibrated(self) -> bool:
        """Whether compiling takes a calibration."""
        return self.smoothing is not None or STATIC in (self.scheme, *(scheme for _, scheme in self.pairs))

    def __str__(self) -> str:
        """As `parse` reads it."""
        smoothing = [] if self.smoothing is None else [f"{SMOOTHING}={self.smoothing!r}"]
        return ",".join([self.scheme, *smoothing, *(f"{pattern}={scheme}" for pattern, scheme in self.pairs)])

    @classmethod
    def parse(cls, text: str) -> "QuantConfig":
        """`scheme,smoothing=ALPHA,PATTERN=SCHEME,…`, of which only the first must be there. Raises CompileError."""
        scheme, *rest = (part.strip() for part in text.split(","))
        smoothing, overrides = None, []
        for part in rest:
            name, equals, value = part.rpartition("=")
            if not equals:
                raise _wrong(text, f"'{part}' is not PATTERN=SCHEME")
            if name.strip() == SMOOTHING:
                smoothing = _alpha(value)
            else:
                overrides.append((name.strip(), value.strip()))
        return cls(scheme, smoothing, tuple(overrides))


def _known(scheme: str, among: Mapping[str, str]) -> str:
    found = ALIASES.get(scheme, scheme)
    if found not in among:
        raise CompileError(f"option 'quantization' is '{scheme}'", hint=f"write one of {', '.join(among)}")
    return found


def _pattern(name: str) -> str:
    if not name or any(c in name for c in ",=") or name == SMOOTHING:
        raise _wrong(name, f"'{name}' is no pattern of a module's path")
    return name


def _alpha(given: object) -> float:
    try:
        alpha = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise _wrong(str(given), f"smoothing is '{given}', no number from 0 to 1")
    return alpha


def _wrong(text: str, what: str) -> CompileError:
    return CompileError(
        f"option 'quantization': {what}", text, "write, for example, w8a8-dynamic,smoothing=0.5,encoder.layer.0.*=float"
    )

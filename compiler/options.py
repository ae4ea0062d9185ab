"""Options of the compiler: one frozen type behind the command line, the API, torch.compile and the cache key."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from compiler.quantization import SCHEMES, QuantConfig
from isa.errors import CompileError

T = TypeVar("T")
OPTIMISATIONS = (
    "fuse",
    "find-loop",
    "fuse-epilogues",
    "split-batch",
    "schedule",
    "search",
)  # behind the frozen graph; none changes a bit
FUSING = ("fuse", "fuse-epilogues")  # those that keep values out of memory: without them every node's is in it
CHOICES = {  # what can be left out of the tile half and is no pass
    "search": "Try several tilings, and keep the one whose program is predicted to be the fastest.",
    "translation-check": "Check that the tile program computes what the frozen graph says.",
}
_OLD_NAMES = {"loop": "find-loop", "strips": "split-batch"}


def _option(default: T, help_text: str) -> T:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Options:
    """Every field is an option; its metadata says what it does."""

    chip: str = _option("edge", "chip configuration: a name or a .toml file")
    fallback: bool = _option(True, "under torch.compile, run unsupported operations in PyTorch (false: refuse)")
    quantization: str = _option(
        str(QuantConfig()),
        f"arithmetic of products: one of {', '.join(SCHEMES)}; behind it smoothing=ALPHA and PATTERN=SCHEME for modules, "
        "separated by commas (docs/quantization.md)",
    )
    disable: tuple[str, ...] = _option((), "passes to leave out, separated by commas")

    def __post_init__(self) -> None:
        given: str | QuantConfig = (
            self.quantization
        )  # what users write is either; kept is the text, which can be stored
        found = given if isinstance(given, QuantConfig) else QuantConfig.parse(given)
        object.__setattr__(self, "quantization", str(found))
        object.__setattr__(self, "disable", tuple(_OLD_NAMES.get(name, name) for name in self.disable))

    @property
    def quant_config(self) -> QuantConfig:
        """`quantization` as it was meant."""
        return QuantConfig.parse(self.quantization)

    def enables(self, name: str) -> bool:
        """Whether a pass is switched on."""
        return name not in self.disable

    @classmethod
    def from_strings(cls, given: Mapping[str, object], base: "Options | None" = None) -> "Options":
        """Options from text (`--option K=V`) or Python values (torch.compile's `options=`). Raises CompileError for an
        unknown option or value."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in given.items():
            name = key.replace("-", "_")
            if name not in known:
                raise CompileError(f"unknown option '{key}'", hint=f"the options are {', '.join(known)}")
            values[name] = _parse(key, value, known[name].default)
        return replace(base or cls(), **values)


_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _parse(key: str, value: Any, default: object) -> str | int | tuple[str, ...]:
    """`value` in the type of the option's default."""
    if isinstance(default, bool):
        word = str(value).lower()
        if word not in _TRUE + _FALSE:
            raise CompileError(f"option '{key}' is '{value}'", hint="write true or false")
        return word in _TRUE
    if isinstance(default, int):
        try:
            return int(value)
        except ValueError:
            raise CompileError(f"option '{key}' is '{value}'", hint="write a whole number") from None
    if isinstance(default, tuple):
        if not isinstance(value, str | list | tuple):
            raise CompileError(f"option '{key}' is '{value}'", hint="write names, separated by commas")
        items = value.split(",") if isinstance(value, str) else value
        return tuple(str(item).strip() for item in items if str(item).strip())
    return str(value)

"""Options of the compiler: one frozen type behind the command line, the API, torch.compile and the cache key."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from isa.errors import CompileError

T = TypeVar("T")
QUANTIZATIONS = ("w8a8", "w4a8-g32")
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
        "w8a8",
        "arithmetic of linear layers: w8a8, or w4a8-g32 (int4 weights, both sides in groups of 32, where they fit)",
    )
    disable: tuple[str, ...] = _option((), "passes to leave out, separated by commas")

    def __post_init__(self) -> None:
        if self.quantization not in QUANTIZATIONS:
            raise CompileError(
                f"option 'quantization' is '{self.quantization}'", hint=f"write one of {', '.join(QUANTIZATIONS)}"
            )
        object.__setattr__(self, "disable", tuple(_OLD_NAMES.get(name, name) for name in self.disable))

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

"""Chip configurations: validated, immutable, read from TOML.

    llmcc chips edge > mine.toml      edit mxu.rows      llmcc compile minilm --chip mine.toml

    llmcc compile minilm --set sram.bytes=4MiB        load_chip("edge").replace(sram={"bytes": "4MiB"})

A configuration changes the schedule and the figures, never a bit of a result. Every key carries its
bounds, its unit and its comment here, once: `to_toml` and docs/chip.md (isa/doc/chip_page.py) print them, and the
shipped files are what the former prints.
"""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli_w
from msgspec import Meta, Struct

from isa.errors import ChipError
from isa.files import read_text
from isa.parameters import Parameter, flat, meta_of, parameters_of, quantity
from isa.technology import Sizes, area, sram_followed, static_followed

ADDRESS_LIMIT = 2**36  # a view's base has 36 bits
DEFAULT_CHIP = "edge"


_TEXT_BYTES = 1 << 20
_MOST_DOTS = 200  # in a line: a key of a million parts nests as deep
_SHOWN = 80  # characters of a key in an error
_DEPTH = "words that may wait"
_MOST = 1e9
_TABLE2 = "pJ, 7 nm, Jouppi et al., ISCA 2021, table 2"
_MOST_NAME = 64


def _pj(description: str) -> Meta:
    return quantity("pJ", 0, _MOST, description)


class Mxu(Struct, frozen=True, forbid_unknown_fields=True):
    """The matrix array, weight-stationary, with double-buffered weights."""

    rows: Annotated[int, Meta(ge=1, le=65536, description="array rows (k)")] = 128
    cols: Annotated[int, Meta(ge=1, le=65536, description="array columns (n)")] = 128
    weight_rows_per_cycle: Annotated[int, Meta(ge=1, le=65536, description="weight rows loaded in a cycle")] = 4
    split: Annotated[bool, Meta(description="two halves of the rows may work on different heads")] = False


class Lanes(Struct, frozen=True, forbid_unknown_fields=True):
    """A vector engine."""

    lanes: Annotated[int, Meta(ge=1, le=65536, description="float32 lanes")] = 128


class Sram(Struct, frozen=True, forbid_unknown_fields=True):
    """The software-managed scratchpad."""

    bytes: Annotated[int, quantity("B", 1, ADDRESS_LIMIT, "size")] = 8 << 20


class Acc(Struct, frozen=True, forbid_unknown_fields=True):
    """The accumulators."""

    bytes: Annotated[int, quantity("B", 1, ADDRESS_LIMIT, "size")] = 2 << 20


class Dram(Struct, frozen=True, forbid_unknown_fields=True):
    """The memory that the three DMA queues share."""

    bytes_per_second: Annotated[int, quantity("B/s", 1, 10**15, "sustained bandwidth")] = 100_000_000_000
    latency_cycles: Annotated[
        int, quantity("cycles", 1, 10**6, "from request to data; delays completion, does not occupy the bus")
    ] = 200
    burst_bytes: Annotated[int, quantity("B", 1, 65536, "every row is rounded up to whole bursts")] = 64


class Queues(Struct, frozen=True, forbid_unknown_fields=True):
    """Depth of each engine's queue in words; dispatch stalls on a full one."""

    ldw: Annotated[int, Meta(ge=1, le=4096, description=_DEPTH)] = 16
    lda: Annotated[int, Meta(ge=1, le=4096, description=_DEPTH)] = 16
    sto: Annotated[int, Meta(ge=1, le=4096, description=_DEPTH)] = 16
    mxu: Annotated[int, Meta(ge=1, le=4096, description=_DEPTH)] = 16
    vec: Annotated[int, Meta(ge=1, le=4096, description=_DEPTH)] = 16
    act: Annotated[int, Meta(ge=1, le=4096, description=_DEPTH)] = 16


class Energy(Struct, frozen=True, forbid_unknown_fields=True):
    """Picojoule per operation, byte or word; static power in watts. Every figure is good to a factor of two at best."""

    i8_mac: Annotated[float, _pj(f"{_TABLE2}: mul 0.07 + int32 add 0.03")] = 0.10
    i32_add: Annotated[float, _pj(_TABLE2)] = 0.03
    i32_mul: Annotated[float, _pj(_TABLE2)] = 1.48
    f32_add: Annotated[float, _pj(_TABLE2)] = 0.38
    f32_mul: Annotated[float, _pj(_TABLE2)] = 1.31
    act: Annotated[float, _pj("assumed: ten float32 multiply-adds per element")] = 16.9
    sram_byte: Annotated[float, _pj("assumed for 8 MiB; the same table gives 1.75 for 1 MB")] = 2.6
    acc_byte: Annotated[float, _pj(f"{_TABLE2}: 1 MB SRAM, 14 per 64 bits")] = 1.75
    dram_byte: Annotated[
        float,
        _pj("assumed: 40 for LPDDR5; 43.75 for HBM2 is the middle of that table's 250 to 450 per 64 bits"),
    ] = 40.0
    word: Annotated[float, _pj("assumed: fetch, decode and dispatch of an instruction")] = 30.0
    static_watts: Annotated[
        float,
        quantity("W", 0, _MOST, "assumed: leakage, clock tree and idle DRAM; the only power among energies"),
    ] = 0.5


class Chip(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that the compiler and the emulator may know about a chip: `name`, `description`, `clock_hz`, and the
    tables `mxu`, `vec`, `act`, `sram`, `acc`, `dram`, `queues` and `energy`, as in a chip file: `chip.mxu.rows`."""

    name: Annotated[str, Meta(min_length=1, max_length=_MOST_NAME, description="shown in reports")] = "custom"
    description: Annotated[str, Meta(max_length=1000, description="one sentence")] = ""
    clock_hz: Annotated[int, quantity("Hz", 1, 10**12, "cycles per second")] = 1_000_000_000
    mxu: Mxu = Mxu()
    vec: Lanes = Lanes()
    act: Lanes = Lanes()
    sram: Sram = Sram()
    acc: Acc = Acc()
    dram: Dram = Dram()
    queues: Queues = Queues()
    energy: Energy = Energy()

    def replace(self, changes: Mapping[str, object] | None = None, /, **tables: object) -> "Chip":
        """This chip with other parameters: `replace({"sram.bytes": "4MiB"}, mxu={"rows": 64, "cols": 64})`.

        A value may be text with a unit. The name says what has changed, and energies that depend on sizes follow
        (isa/technology.py), unless they are changed too. Raises ChipError."""
        return changed(self, {**(changes or {}), **dict(flat(tables))}, f"chip '{self.name}'")

    @property
    def sizes(self) -> Sizes:
        """What area and static power depend on."""
        return Sizes(
            self.mxu.rows * self.mxu.cols, self.vec.lanes, self.act.lanes, self.sram.bytes, self.acc.bytes,
            self.dram.bytes_per_second,
        )  # fmt: skip

    def area(self) -> dict[str, float]:
        """mm² by component, at 7 nm, good to a factor of two at best (isa/technology.py)."""
        return area(self.sizes)


@cache
def parameters() -> Mapping[str, Parameter]:
    """Every key of a chip file, in the order in which `to_toml` prints them."""
    return parameters_of(Chip())


def parameter(key: str, where: str = "") -> Parameter:
    """The parameter of this key. Raises ChipError for one that no chip has."""
    known = parameters()
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key[:_SHOWN], known, 1) or [name for name in known if name.endswith(f".{key}")]
    guess = f"did you mean '{near[0]}'?" if near else "'llmcc chips edge' prints every key with its meaning"
    raise ChipError(f"a chip has no parameter '{key[:_SHOWN]}'", where, guess)


def changed(chip: Chip, changes: Mapping[str, object], where: str) -> Chip:
    """`chip` with other values of the parameters with these keys. Raises ChipError, which names `where` and the key."""
    data = msgspec.to_builtins(chip)
    for key, given in changes.items():
        known = parameter(key, where)
        try:
            value = known.value(given)
        except ValueError as error:
            raise ChipError(f"{key}: {error}", where, f"{key}: {known.meaning}") from error
        table, _, name = key.rpartition(".")
        (data[table] if table else data)[name] = value
    found = parse_chip(data, where)
    if found == chip:
        return chip
    differs = {key: parameters()[key].text(value) for key, value in _named(found) if key in changes}
    before = dict(_named(chip))
    differs = {key: text for key, text in differs.items() if text != parameters()[key].text(before[key])}
    energies = {
        "sram_byte": sram_followed(chip.energy.sram_byte, chip.sram.bytes, found.sram.bytes),
        "acc_byte": sram_followed(chip.energy.acc_byte, chip.acc.bytes, found.acc.bytes),
        "static_watts": static_followed(chip.energy.static_watts, chip.sizes, found.sizes),
    }
    data["energy"] |= {name: figure for name, figure in energies.items() if f"energy.{name}" not in changes}
    own = {"name": _renamed(chip.name, differs), "description": f"{chip.name}, changed"}
    data |= {key: text for key, text in own.items() if key not in changes}
    return parse_chip(data, where)


def _named(chip: Chip) -> Iterator[tuple[str, object]]:
    """Every parameter's key and value."""
    yield from flat(msgspec.to_builtins(chip))


def _renamed(name: str, differs: Mapping[str, str]) -> str:
    """The name of a chip that was made of another one: with what was changed, as far as there is room."""
    full = " ".join((name, *(f"{key}={text}" for key, text in differs.items())))
    return full if len(full) <= _MOST_NAME else f"{name[: _MOST_NAME - 24]} with {len(differs)} changes"


def chip_names() -> tuple[str, ...]:
    """Names of the chips that ship with the package."""
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    )


def load_chip(chip: str | PathLike[str] | Chip = DEFAULT_CHIP) -> Chip:
    """The chip of a stock name, a TOML file, or an object (which is validated again). Raises ChipError for a name that
    no chip has, and a file that cannot be read or describes no chip."""
    if isinstance(chip, Chip):
        return parse_chip(msgspec.to_builtins(chip), f"chip '{chip.name}'")
    if isinstance(chip, str) and chip in chip_names():
        return _stock(chip)
    path = Path(chip)
    try:
        text = read_text(path, _TEXT_BYTES)
    except FileNotFoundError:
        raise unknown_chip(chip, path) from None
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        hint = f"a chip file is TOML text in UTF-8; stock chips are: {', '.join(chip_names())}"
        raise ChipError(f"cannot read the chip file: {what}", str(path), hint) from error
    return read_toml(text, str(path))


def read_toml(text: str, where: str) -> Chip:
    """The chip of a TOML text; `where` names it in errors. Raises ChipError for a text that is too long, no TOML, or no
    chip."""
    if len(text) > _TEXT_BYTES:
        raise ChipError(
            f"the text has more than {_TEXT_BYTES} characters",
            where,
            "'llmcc chips edge' prints a complete chip file to start from",
        )
    if any(line.count(".") + line.count("[") + line.count("{") > _MOST_DOTS for line in text.splitlines()):
        raise ChipError(
            f"a line has more than {_MOST_DOTS} dots or brackets",
            where,
            "'llmcc chips edge' prints a complete chip file to start from",
        )
    try:
        data = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # of these TOMLDecodeError is one; long numbers and deep nesting give others
        what = " ".join(str(error).split())[:200]
        raise ChipError(
            f"not valid TOML: {what}", where, "'llmcc chips edge' prints a complete chip file to start from"
        ) from error
    return parse_chip(data, where)


def parse_chip(data: object, where: str) -> Chip:
    """The chip of plain dictionaries. Raises ChipError naming `where`, the key and the remedy."""
    try:
        return msgspec.convert(_normal(data, "", where), Chip)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), where) from error
    except (OverflowError, RecursionError) as error:
        raise ChipError(
            f"a value does not fit: {error}", where, "'llmcc chips edge' prints every key with its meaning"
        ) from error


def to_toml(chip: Chip) -> str:
    """Complete TOML, defaults included, with each key's meaning as a comment."""
    scalars, tables = [], []
    for name, value in ((f, getattr(chip, f)) for f in Chip.__struct_fields__):
        if isinstance(value, Struct):
            lines = "".join(_line(type(value), key, getattr(value, key)) for key in value.__struct_fields__)
            tables.append(f"\n# {' '.join((type(value).__doc__ or '').split())}\n[{name}]\n{lines}")
        else:
            scalars.append(_line(Chip, name, value))
    return "".join(scalars + tables)


def chip_hash(chip: Chip) -> bytes:
    """sha256 of the chip's canonical JSON."""
    return hashlib.sha256(msgspec.json.encode(chip)).digest()


def _line(owner: type[Struct], key: str, value: object) -> str:
    meta = meta_of(owner, key)
    return f"{tomli_w.dumps({key: value}).rstrip():<32} # {meta.description}\n"


def _folder() -> Any:
    return resources.files("isa") / "chips"


@lru_cache
def _stock(name: str) -> Chip:
    return read_toml((_folder() / f"{name}.toml").read_text(encoding="utf-8"), f"stock chip {name}")


def unknown_chip(chip: object, path: Path) -> ChipError:
    """The error for a chip that is neither a stock name nor a file."""
    names = ", ".join(chip_names())
    looks_like_path = path.suffix == ".toml" or len(path.parts) > 1
    if looks_like_path:
        return ChipError("the chip file does not exist", str(path), f"stock chips are: {names}")
    near = difflib.get_close_matches(str(chip), chip_names(), 1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return ChipError(
        f"unknown chip '{chip}'", "", f"{guess}stock chips are: {names}; a file of your own is given by its path"
    )


def _normal(data: object, key: str, where: str) -> object:
    """Whole floats as ints, so that `clock_hz = 1e9` is what it says; infinities and NaN refused by name."""
    if isinstance(data, dict):
        return {name: _normal(value, f"{key}.{name}".lstrip("."), where) for name, value in data.items()}
    if not isinstance(data, float):
        return data
    if data - data != 0:
        raise ChipError(f"{key} is not a finite number: {data}", where, "write a finite number")
    return int(data) if data.is_integer() else data


def _invalid(message: str, where: str) -> ChipError:
    """msgspec's message in our words: which key, what is wrong, what to do."""
    problem, _, path = message.partition(" - at `$")
    table = path.rstrip("`").lstrip(".")[:_SHOWN]
    unknown = re.search(r"unknown field `(.*)`", problem, re.DOTALL)
    if not unknown:
        problem = problem.lower().replace("`", "").replace("object", "a table")
        return ChipError(f"{table or 'chip'}: {problem}", where, "'llmcc chips edge' prints every key with its meaning")
    found = getattr(Chip(), table, None) if table else Chip()
    owner = found if isinstance(found, Struct) else Chip()
    near = difflib.get_close_matches(unknown[1][:_SHOWN], owner.__struct_fields__, 1)
    guess = f"did you mean '{near[0]}'?" if near else f"keys here are: {', '.join(owner.__struct_fields__)}"
    return ChipError(f"unknown key {'.'.join(filter(None, (table, unknown[1][:_SHOWN])))}", where, guess)

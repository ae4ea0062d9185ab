"""The image: one file with everything that a device needs to run a compiled model. Loads without torch.

    image = load_image("minilm.llmchip", chip="edge")    image.entry("main").inputs    image.data(Region.WEIGHTS)

`isa.image.container` has the bytes and their checksums, `isa.image.records` the small records.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from isa.architecture import IMAGE_REGIONS, LOOP_LEVELS, REGIONS, USER_TYPES, WORD_BYTES, Dtype, FilledBy, Region
from isa.chip import ADDRESS_LIMIT, Chip, chip_hash, load_chip, read_toml, to_toml
from isa.codec import Inst, decode
from isa.errors import ChipError, ImageError
from isa.extension import KEY, require, used_by
from isa.files import open_regular, write_atomic
from isa.image.container import DAMAGED, MAGIC, Data, pack, unpack
from isa.image.records import DebugMap, DebugNode, Entry, PlanRecord, Probe, Scalar, Span, Step, TensorSpec, pick

__all__ = [
    "Data",
    "DebugMap",
    "DebugNode",
    "Entry",
    "Image",
    "PlanRecord",
    "Probe",
    "Scalar",
    "Span",
    "Step",
    "TensorSpec",
    "image_bytes",
    "is_image",
    "load_image",
    "pick",
    "read_image",
    "write_image",
]  # fmt: skip

MAX_DIMENSIONS = 64  # of a tensor; numpy has no more
NO_SIZES = (0,) * len(Region)
Strings = dict[str, Any]
T = TypeVar("T")


class _Layout(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `layout`: what stands in DRAM."""

    sizes: tuple[int, ...] = NO_SIZES
    entries: tuple[Entry, ...] = ()
    states: tuple[TensorSpec, ...] = ()
    constants: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True)
class Image:
    """A program, its data, and what is known about both.

    `sizes` gives the bytes of each DRAM region, in the order of `Region`; regions with initial data are at least as
    large as it. `states` are tensors of STATE, kept between launches; `constants` are the packed constants in WEIGHTS
    and CONST, so that new weights can be packed into the same program. `metadata` is free JSON: model, options, weight
    hash.
    """

    code: bytes
    weights: Data = b""
    const: Data = b""
    sizes: tuple[int, ...] = NO_SIZES
    entries: tuple[Entry, ...] = (Entry(),)
    states: tuple[TensorSpec, ...] = ()
    constants: tuple[TensorSpec, ...] = ()
    plan: tuple[PlanRecord, ...] = ()
    debug: DebugMap = field(default_factory=DebugMap)
    metadata: Strings = field(default_factory=dict)
    chip: Chip = field(default_factory=load_chip)

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", bytes(self.code))  # small, hashable, and read in single words
        for name in ("weights", "const"):
            object.__setattr__(self, name, _flat(getattr(self, name)))
        grown = {int(region): len(self.data(region)) for region in IMAGE_REGIONS}
        sizes = (*self.sizes, *NO_SIZES[len(self.sizes) :])
        object.__setattr__(self, "sizes", tuple(max(size, grown.get(i, 0)) for i, size in enumerate(sizes)))

    @property
    def words(self) -> int:
        return len(self.code) // WORD_BYTES

    def word(self, pc: int) -> bytes:
        """The bits of the word at byte address `pc`."""
        return self.code[pc : pc + WORD_BYTES]

    def inst(self, pc: int) -> Inst:
        """The instruction at `pc`. Raises IllegalInstruction."""
        return decode(self.word(pc))

    def size(self, region: Region) -> int:
        return self.sizes[region]

    def data(self, region: Region) -> Data:
        """Initial bytes of a region; what lies behind them starts undefined."""
        return {Region.WEIGHTS: self.weights, Region.CONST: self.const}.get(region, b"")

    def entry(self, name: str | None = None) -> Entry:
        """The named entry point, or the first. Raises ImageError when there is none of the name."""
        found = self.entries[0] if name is None else next((e for e in self.entries if e.name == name), None)
        if found is None:
            raise ImageError(
                f"the image has no entry point '{name}'", "", f"it has: {', '.join(e.name for e in self.entries)}"
            )
        return found

    @cached_property
    def hash(self) -> bytes:
        """sha256 of the file that this image is."""
        digest = hashlib.sha256()
        for chunk in _chunks(self):
            digest.update(chunk)
        return digest.digest()


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the file starts like an image. False for what is missing, a folder, or unreadable."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def write_image(image: Image, path: str | os.PathLike[str]) -> None:
    """Write the file; it is complete or not there. The same image gives the same bytes. Raises ImageError where the
    folder cannot be written."""
    try:
        write_atomic(path, _chunks(image))
    except OSError as error:
        raise ImageError(
            f"cannot write the image: {error.strerror or error}",
            str(path),
            "choose a folder that can be written and has room",
        ) from error


def image_bytes(image: Image) -> bytes:
    """The file's bytes. Copies the weights; `write_image` does not."""
    return b"".join(_chunks(image))


def load_image(path: str | os.PathLike[str], chip: Chip | str | None = None) -> Image:
    """Read and verify an image file. With `chip`, one that was built for another chip is refused. Raises ImageError for
    a file that cannot be read, is damaged, or is of another version or chip.

    It is read, not mapped: who cuts a mapped file short kills the process that looks at it.
    """
    where = str(path)
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise ImageError(
            f"cannot read the image: {error.strerror or error}", where, "name an image file, made by 'llmcc compile'"
        ) from error
    return read_image(data, where, chip)


def read_image(data: Data, where: str = "image", chip: Chip | str | None = None) -> Image:
    """The image of a file's bytes, which it keeps and refers to. Every bit is verified; see `load_image`. Raises
    ImageError for a damaged image or one of another version."""
    header, sections = unpack(memoryview(data), where)
    missing = [name for name in _SECTIONS if name not in sections]
    if missing or len(sections) != len(_SECTIONS):
        raise ImageError(
            f"section table: sections are {', '.join(sections)}; expected {', '.join(_SECTIONS)}", where, DAMAGED
        )
    layout = _json(sections, "layout", _Layout, where)
    try:
        own_chip = read_toml(str(sections["chip"], "utf-8"), "section chip")
    except (ChipError, UnicodeDecodeError) as error:
        raise ImageError(f"section chip: {error}", where, "the image was made by another version of llmchip") from error
    if chip_hash(own_chip) != header.chip_hash:
        raise ImageError("section chip: does not agree with the header", where, DAMAGED)
    if chip is not None:
        _check_chip(own_chip, load_chip(chip), where)
    metadata = _json(sections, "metadata", Strings, where)
    require(metadata.get(KEY), where)
    image = Image(
        bytes(sections["code"]),
        sections["weights"],
        sections["const"],
        layout.sizes,
        layout.entries,
        layout.states,
        layout.constants,
        _json(sections, "plan", tuple[PlanRecord, ...], where),
        _json(sections, "debug", DebugMap, where),
        metadata,
        own_chip,
    )
    check_image(image, where)
    if used_by(image.code[::WORD_BYTES]) != (metadata.get(KEY) or {}):
        raise ImageError("it uses instructions of an extension that it does not record", where, "compile it again")
    return image


def check_image(image: Image, where: str = "image") -> None:
    """Raise ImageError, naming the section, unless the parts of the image fit each other."""
    for section, problem in _problems(image):
        raise ImageError(
            f"section {section}: {problem}",
            where,
            "the program that wrote this image is at fault; compile the model again",
        )


_SECTIONS = ("code", "weights", "const", "layout", "plan", "debug", "metadata", "chip")


def _chunks(image: Image) -> Iterator[Data]:
    check_image(image)
    layout = _Layout(image.sizes, image.entries, image.states, image.constants)
    extensions = used_by(bytes(image.code[::WORD_BYTES]))
    metadata = {**image.metadata, KEY: extensions} if extensions else image.metadata
    small = {"layout": layout, "plan": image.plan, "debug": image.debug, "metadata": metadata}
    sections: Mapping[str, Data] = {
        "code": image.code, "weights": image.weights, "const": image.const,
        **{name: _canonical(value, name) for name, value in small.items()}, "chip": to_toml(image.chip).encode(),
    }  # fmt: skip
    return pack({name: sections[name] for name in _SECTIONS}, chip_hash(image.chip))


def _canonical(value: object, section: str) -> bytes:
    """JSON that depends on the value alone: keys sorted, nothing optional."""
    try:
        return msgspec.json.encode(value, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ImageError(
            f"section {section}: not JSON: {error}",
            "",
            "use only dictionaries, lists, strings, numbers, booleans and None",
        ) from error


def _json(sections: Mapping[str, memoryview], name: str, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(sections[name], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ImageError(
            f"section {name}: {error}", where, "the image was made by another version of llmchip"
        ) from error


def _check_chip(own: Chip, expected: Chip, where: str) -> None:
    if own == expected:
        return
    mine, other = (msgspec.to_builtins(chip) for chip in (own, expected))
    keys = ", ".join(key for key in mine if mine[key] != other[key])
    raise ImageError(
        f"header: built for chip '{own.name}', not for '{expected.name}' (they differ in {keys})", where,
        "compile the model again with --chip, or run it on its own chip",
    )  # fmt: skip


def _problems(image: Image) -> Iterator[tuple[str, str]]:
    if len(image.code) % WORD_BYTES:
        yield "code", f"{len(image.code)} bytes are not a whole number of {WORD_BYTES}-byte words"
    yield from (
        ("layout", problem) for problem in (*_region_problems(image), *_tensor_problems(image), *_entry_problems(image))
    )
    count = len(image.debug.nodes)
    marks: tuple[Span | Probe, ...] = (*image.debug.spans, *image.debug.probes)
    for mark in marks:
        if not mark.nodes or not all(0 <= node < count for node in mark.nodes):
            yield "debug", f"{mark} names a node that does not exist"
        if not -1 <= mark.level < LOOP_LEVELS:
            yield "debug", f"{mark} names a loop level that does not exist"
    for span in image.debug.spans:
        if not (0 <= span.first <= len(image.code) and 0 <= span.end <= len(image.code)):
            yield "debug", f"{span} leaves the code"
    for probe in image.debug.probes:
        if not all(0 <= number < ADDRESS_LIMIT for number in (probe.offset, probe.ps, probe.rs, probe.cs)):
            yield "debug", f"{probe} has a stride or offset that no block has"
        if not all(
            0 <= s.level < LOOP_LEVELS and abs(s.inc) < ADDRESS_LIMIT and s.div > 0 and s.mod >= 0 for s in probe.steps
        ):
            yield "debug", f"{probe} has a step that no loop takes"
    for node in image.debug.nodes:
        if any(extent < 0 for extent in node.shape) or math.prod(node.shape) > ADDRESS_LIMIT:
            yield "debug", f"node {node.name} has the impossible shape {node.shape}"


def _region_problems(image: Image) -> Iterator[str]:
    if len(image.sizes) != len(Region) or not all(0 <= size <= ADDRESS_LIMIT for size in image.sizes):
        yield f"region sizes {image.sizes} are not {len(Region)} sizes of at most {ADDRESS_LIMIT:#x} bytes"
    tensors = [t for e in image.entries for t in (*e.inputs, *e.outputs)]
    for tensor in (*tensors, *image.states, *image.constants):
        end, size = tensor.offset + tensor.nbytes, image.size(tensor.region)
        if len(tensor.shape) > MAX_DIMENSIONS or math.prod(max(extent, 1) for extent in tensor.shape) > ADDRESS_LIMIT:
            yield f"tensor {tensor.name} has {len(tensor.shape)} extents, or such as no memory has"
        elif min((tensor.offset, *tensor.shape)) < 0 or end > size:
            yield f"tensor {tensor.name} [{tensor.offset}, {end}) leaves region {tensor.region.name.lower()} of {size} bytes"


def _tensor_problems(image: Image) -> Iterator[str]:
    for tensor in (t for entry in image.entries for t in (*entry.inputs, *entry.outputs)):
        kind = USER_TYPES.get(tensor.dtype)
        if kind is None or tensor.storage is Dtype.I4 or tensor.storage.is_float != kind.storage.is_float:
            yield f"tensor {tensor.name} of type '{tensor.dtype}' cannot be stored as {tensor.storage.name.lower()}"
    for what, tensors, filled_by in (
        ("input", [t for entry in image.entries for t in entry.inputs], FilledBy.HOST),
        ("output", [t for entry in image.entries for t in entry.outputs], FilledBy.PROGRAM),
        ("constant", image.constants, FilledBy.IMAGE),
    ):
        for tensor in tensors:
            if REGIONS[tensor.region].filled_by is not filled_by:
                region = tensor.region.name.lower()
                yield f"{what} {tensor.name} lies in region {region}, which is not filled by {filled_by.value}"
    for entry in image.entries:
        for specs in (entry.inputs, entry.outputs):
            if len({spec.name for spec in specs}) != len(specs):
                yield f"entry {entry.name} has two inputs or two outputs of one name"


def _entry_problems(image: Image) -> Iterator[str]:
    if not image.entries:
        yield "no entry point"
    if len({entry.name for entry in image.entries}) != len(image.entries):
        yield "two entry points have one name"
    for entry in image.entries:
        if entry.pc % WORD_BYTES or not 0 <= entry.pc < max(len(image.code), 1):
            yield f"entry {entry.name} starts at {entry.pc:#x}, outside the code"
        for scalar in entry.scalars:
            if scalar.offset % 4 or not 0 <= scalar.offset <= image.size(Region.PARAMS) - 4:
                yield f"scalar {scalar.name} of entry {entry.name} at {scalar.offset:#x} is not in region params"
            if not -(2**31) <= scalar.minimum <= scalar.maximum < 2**31:
                yield f"scalar {scalar.name} of entry {entry.name} has the range {scalar.minimum} to {scalar.maximum}, which is not one of int32"


def _flat(data: Data) -> Data:
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")

"""The fuzzers: corrupted images, mutated assembly, random programs, random chip files, debugger input."""

import contextlib
import hashlib
import itertools
import random
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from emulator.machine import Machine
from fuzz.harness import Fuzzer
from fuzz.mutate import INTERESTING, damage, damage_text, flip_bits, number, pieces
from fuzz.samples import program, sample
from isa.asm import assemble
from isa.check import check, lint
from isa.chip import Chip, chip_hash, chip_names, load_chip, read_toml, to_toml
from isa.container import ALIGN, HEADER_BYTES
from isa.disasm import disassemble
from isa.errors import Error, Trap
from isa.image import Image, image_bytes, read_image
from isa.spec import Region, Space
from isa.trace import ReplayError, trace
from runtime.arrays import host_dtype, to_user
from runtime.debugger.commands import COMMANDS, Shell
from runtime.debugger.history import Control
from runtime.debugger.session import Session

WORDS = 2000  # executed of a program; more would only be more of the same
DECLARED = 64 << 20  # an image that asks for more memory than this is read and printed, not run
_HEADER, _ROW = struct.Struct("<8sIIIIQ32s32s32s"), struct.Struct("<24sQQ32s")
Bytes = NDArray[np.uint8]
Sections = list[tuple[bytes, bytes]]


# ---- images


def make_image(rng: random.Random) -> bytes:
    image = sample() if rng.random() < 0.7 else program(rng)
    data = image_bytes(image)
    kind = rng.random()
    if kind < 0.25:
        return b"raw" + damage(rng, data)
    return b"sum" + (_repacked(rng, _sections(data)) if kind < 0.85 else _rechecked(rng, data))


def _sections(data: bytes) -> Sections:
    count = _HEADER.unpack(data[: _HEADER.size])[3]
    rows = _ROW.iter_unpack(data[HEADER_BYTES : HEADER_BYTES + count * _ROW.size])
    return [(name, data[offset : offset + size]) for name, offset, size, _ in rows]


def _repacked(rng: random.Random, sections: Sections) -> bytes:
    """Sections damaged, dropped, doubled or exchanged, in a container that is right again."""
    for _ in range(rng.randint(1, 3)):
        where = rng.randrange(len(sections))
        name, data = sections[where]
        kind = rng.randrange(12)
        if kind == 0:
            sections = sections[:where] + sections[where + 1 :] or sections
        elif kind == 1:
            sections = [*sections, (name, data)]
        elif kind == 2:
            sections[where] = (rng.choice(sections)[0], data)
        elif data[:1] in (b"{", b"["):
            sections[where] = (name, _damaged_json(rng, data))
        else:
            sections[where] = (name, rng.choice((flip_bits, pieces))(rng, data))
    return _packed(sections)


def _damaged_json(rng: random.Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    numbers = [i for i, c in enumerate(text) if c.isdigit()]
    if numbers and rng.random() < 0.7:
        at = rng.choice(numbers)
        end = at
        while end < len(text) and text[end].isdigit():
            end += 1
        text = text[:at] + number(rng) + text[end:]
    else:
        text = damage_text(rng, text)
    return text.encode("utf-8", "replace")


def _packed(sections: Sections) -> bytes:
    """The container, with all checksums right, and the chip's hash too if the chip is one."""
    offset = _aligned(HEADER_BYTES + _ROW.size * len(sections))
    rows, body = [], b""
    for name, data in sections:
        rows.append(_ROW.pack(name, offset + len(body), len(data), hashlib.sha256(data).digest()))
        body += data + bytes(_aligned(len(data)) - len(data))
    table = b"".join(rows)
    good = image_bytes(sample())
    magic, version, isa_version, _, zero, _, isa_hash, chip_digest, _ = _HEADER.unpack(good[: _HEADER.size])
    chip = next((data for name, data in sections if name.rstrip(b"\0") == b"chip"), b"")
    with contextlib.suppress(Error, UnicodeDecodeError):
        chip_digest = chip_hash(read_toml(chip.decode(), "chip"))
    size = offset + len(body)
    head = _HEADER.pack(magic, version, isa_version, len(sections), zero, size, isa_hash, chip_digest, hashlib.sha256(table).digest())
    gap = bytes(offset - HEADER_BYTES - len(table))
    return head + hashlib.sha256(head).digest() + table + gap + body


def _rechecked(rng: random.Random, data: bytes) -> bytes:
    """Header fields and section table rows changed, their checksums made right again."""
    fields = list(_HEADER.unpack(data[: _HEADER.size]))
    count = fields[3]
    table = bytearray(data[HEADER_BYTES : HEADER_BYTES + count * _ROW.size])
    row = rng.randrange(count) * _ROW.size
    struct.pack_into("<Q", table, row + rng.choice((24, 32)), abs(rng.choice((*INTERESTING, rng.randrange(len(data))))) % 2**64)
    if rng.random() < 0.3:
        fields[rng.choice((1, 2, 3, 4))] = rng.choice((0, 1, 2, 7, 63, 64, 65, 2**31, 2**32 - 1))
    if rng.random() < 0.2:
        fields[5] = abs(rng.choice(INTERESTING)) % 2**64
    fields[8] = hashlib.sha256(table).digest()
    head = _HEADER.pack(*fields)
    return head + hashlib.sha256(head).digest() + bytes(table) + data[HEADER_BYTES + len(table) :]


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def run_image(case: bytes) -> None:
    data = case[3:]
    image = read_image(data, "case")
    if case[:3] == b"raw" and data not in (image_bytes(sample()), image_bytes(image)):
        raise AssertionError("a changed file was accepted")
    exercise(image)


def exercise(image: Image) -> None:
    """Everything that reads an image."""
    text, files = disassemble(image)
    if not files and read_image(image_bytes(image)) == image:
        again = assemble(text, "again")
        assert image_bytes(again) == image_bytes(image), "assemble(disassemble(image)) differs"
    declared = sum(image.sizes) + image.chip.sram.bytes + image.chip.acc.bytes
    if declared > DECLARED or sum(t.elements for e in image.entries for t in (*e.inputs, *e.outputs)) > DECLARED:
        return
    if all(_is_short(image, name, values) for name, values in _launches(image)):
        lint(image)
    execute(image)


def _launches(image: Image) -> Iterator[tuple[str, dict[str, int]]]:
    """What lint follows: every entry, at both ends of its scalars."""
    for entry in image.entries:
        yield entry.name, {s.name: s.minimum for s in entry.scalars}
        yield entry.name, {s.name: s.maximum for s in entry.scalars}


def _is_short(image: Image, entry: str, values: dict[str, int]) -> bool:
    try:
        return sum(1 for _ in itertools.islice(trace(image, entry, values, control=True), WORDS)) < WORDS
    except ReplayError:
        return True


def execute(image: Image) -> None:
    entry = image.entry()
    inputs = {spec.name: np.zeros(spec.shape, host_dtype(spec.dtype)) for spec in entry.inputs}
    session = Session(image, inputs, scalars={s.name: max(s.minimum, min(s.maximum, 3)) for s in entry.scalars})
    session.step(WORDS)
    for spec in entry.outputs:
        to_user(spec, session.stepper.device.tensor(spec))
    for index in range(len(image.debug.nodes[:4])):
        try:
            session.collect(index)
        except Error:
            continue


_OUT = (Space.DRAM, Region.OUT)


# ---- assembly text


def make_assembly(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randint(0, 400))
    text = disassemble(sample() if rng.random() < 0.6 else program(rng))[0]
    for _ in range(1 if kind < 0.7 else 4):
        text = damage_text(rng, text)
    return damage(rng, text.encode()) if kind > 0.95 else text.encode()


def run_assembly(case: bytes) -> None:
    image = assemble(case.decode("utf-8", "replace"), "case", "/nonexistent")
    text, files = disassemble(image)
    if not files:
        assert image_bytes(assemble(text, "again", "/nonexistent")) == image_bytes(image), "text -> image -> text -> image differs"


# ---- programs


def make_program(rng: random.Random) -> bytes:
    return image_bytes(program(rng))


def run_program(case: bytes) -> None:
    """Stepping and launching must agree bit for bit; where lint finds no race, launching with overlapping engines, too."""
    image = read_image(case, "case")
    session = Session(image, {})
    while session.stepper.time < WORDS and session.trap is None and not session.stepper.ended():
        session.step(WORDS)
    if session.stepper.time >= WORDS:
        return
    if case[150] % 4 == 0:
        exercise(image)
    out, trap = _launched(image, None)
    same = session.trap is None if trap is None else session.trap is not None and (trap.what, trap.pc) == (session.trap.what, session.trap.pc)
    assert same, f"stepping says {session.trap}, launching {trap}"
    assert trap is not None or np.array_equal(session.stepper.memory.data(*_OUT), out), "stepping and launching give different bits"
    _check_time_travel(image, session)
    _check_plans(image)
    seeds = [_launched(image, seed) for seed in (1, 2)]
    if trap is None and not check(image):
        for other, problem in seeds:
            assert problem is None, f"lint finds nothing, but overlapping engines trap: {problem}"
            assert np.array_equal(out, other), "lint finds no race, but the order of the engines shows"


def _launched(image: Image, adversarial: int | None) -> tuple[Bytes, Trap | None]:
    """What a launch leaves in OUT, and how it failed."""
    out = np.zeros(image.size(Region.OUT), np.uint8)
    try:
        _machine(image, out).run(image.code, adversarial=adversarial)
    except Trap as trap:
        return out, trap
    return out, None


def _check_time_travel(image: Image, session: Session) -> None:
    """Any moment is the same whether it is reached forwards or backwards, with checkpoints merged on the way."""
    end, middle = session.stepper.time, session.stepper.time // 2
    last = _state(session)
    other = Session(image, {}, budget=1 << 16)
    other.stepper.history.interval = 4
    other.seek(middle)
    there = _state(other)
    session.seek(middle)
    assert _state(session) == there, f"moment {middle} differs when it is reached from {end}"
    for moved in (session, other):
        moved.seek(end)
        assert _state(moved) == last, f"moment {end} differs the second time"
    other.seek(middle)
    assert _state(other) == there, f"moment {middle} differs the second time"


def _state(session: Session) -> list[object]:
    core, memory = session.stepper.core, session.stepper.memory
    places = [(space, Region.OUT) for space in Space] + [(Space.DRAM, Region.STATE), (Space.DRAM, Region.SCRATCH)]
    return [Control.of(core), *(hash(memory.data(*place).tobytes()) for place in places)]


def _check_plans(image: Image) -> None:
    """A second launch on the same machine goes by a plan, and must do what it would do word by word."""
    results = []
    for interpret in (True, False):
        out = np.zeros(image.size(Region.OUT), np.uint8)
        machine, said = _machine(image, out, interpret), []
        for _ in range(3):
            out.fill(0)
            try:
                said.append(str(machine.run(image.code)))
            except Trap as trap:
                said.append(f"{trap.pc:#x}: {trap.what}")
            said.append(out.tobytes().hex())
        results.append(said)
    assert results[0] == results[1], f"interpreted {results[0][::2]}, by plans {results[1][::2]}, first bytes that differ: {_first(*results)}"


def _first(a: list[str], b: list[str]) -> str:
    launch = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    at = next((i for i, (x, y) in enumerate(zip(a[launch], b[launch], strict=False)) if x != y), 0)
    return f"launch {launch // 2}, byte {at // 2:#x}"


def _machine(image: Image, out: Bytes, interpret: bool = False) -> Machine:
    regions = {region: np.zeros(image.size(region), np.uint8) for region in Region}
    regions |= {Region.CONST: np.frombuffer(image.const, np.uint8), Region.WEIGHTS: np.frombuffer(image.weights, np.uint8), Region.OUT: out}
    born = frozenset({Region.WEIGHTS, Region.CONST, Region.IN, Region.PARAMS})
    return Machine(image.chip.sram.bytes, image.chip.acc.bytes, regions, born, interpret, compiled=False)


# ---- chip files


def make_chip(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randint(0, 200))
    text = to_toml(load_chip(rng.choice(chip_names())))
    if rng.random() < 0.5:
        lines = text.split("\n")
        for _ in range(rng.randint(1, 5)):
            where = rng.randrange(len(lines))
            key, equals, _ = lines[where].partition("=")
            if equals:
                lines[where] = f"{key}= {number(rng) if rng.random() < 0.8 else rng.choice(('nan', '[1]', 'true', 'inf'))}"
        text = "\n".join(lines)
    else:
        text = damage_text(rng, text)
    return text.encode("utf-8", "replace")


def run_chip(case: bytes) -> None:
    chip = read_toml(case.decode("utf-8", "replace"), "case")
    assert read_toml(to_toml(chip), "again") == chip, "to_toml loses something"
    chip_hash(chip)
    _time_on(chip)


def _time_on(chip: Chip) -> None:
    """Any legal chip can be simulated."""
    from emulator.timing.simulate import simulate

    fields = {name: getattr(sample(), name) for name in Image.__dataclass_fields__}
    simulate(Image(**{**fields, "chip": chip}))


# ---- the debugger's commands


def make_commands(rng: random.Random) -> bytes:
    words = [*(c.name for c in COMMANDS), "add", "v2", "s5", "sram[0x40]:i32", "dram.out[0..64]", "2x8", "write", "op", "vop", "3", "0x90", "m.py:3", "[0, :2]"]
    lines = []
    for _ in range(rng.randint(1, 12)):
        line = " ".join([rng.choice(COMMANDS).name, *(rng.choice(words) for _ in range(rng.randrange(3)))])
        lines.append(damage_text(rng, line).replace("\n", " ") if rng.random() < 0.4 else line)
    return "\n".join(lines).encode("utf-8", "replace")


def run_commands(case: bytes) -> None:
    shell = Shell(Session(sample(), {"x": np.zeros((3, 8), np.int32)}, scalars={"n": 3}))
    for line in case.decode("utf-8", "replace").split("\n"):
        for text in shell.execute(line):
            assert "\n" not in text or not text.startswith("error"), "an error of several lines"


FUZZERS = {
    fuzzer.name: fuzzer
    for fuzzer in (
        Fuzzer("images", make_image, run_image),
        Fuzzer("assembly", make_assembly, run_assembly),
        Fuzzer("programs", make_program, run_program),
        Fuzzer("chips", make_chip, run_chip),
        Fuzzer("commands", make_commands, run_commands),
    )
}

"""The fuzzers: corrupted images (fuzz.images) and GGUF files, mutated assembly, random programs, chips, debugger input,
decoders."""

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emulator.machine import Machine
from fuzz.decoders import DECODERS
from fuzz.gguf import GGUF
from fuzz.harness import Fuzzer
from fuzz.images import WORDS, exercise, make_image, run_image
from fuzz.mutate import damage, damage_text, number
from fuzz.readers import READERS
from fuzz.samples import program, sample
from isa.architecture import GIVEN_REGIONS, Region, Space
from isa.asm.assemble import assemble
from isa.asm.disassemble import disassemble
from isa.asm.problems import check_text
from isa.chip import Chip, chip_hash, chip_names, load_chip, read_toml, to_toml
from isa.errors import AssemblyError, Error, Trap
from isa.image.image import Image, image_bytes, read_image
from lint.analyse import check
from runtime.debug.commands import COMMANDS, Shell
from runtime.debug.history import Control
from runtime.debug.session import Session

Bytes = NDArray[np.uint8]
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
    text = case.decode("utf-8", "replace")
    wrong = check_text(text, "case", "/nonexistent").errors
    try:
        image = assemble(text, "case", "/nonexistent")
    except AssemblyError:
        assert wrong, "the assembler refuses what has no problem"
        raise
    assert not wrong, f"a problem that is none: {wrong[0]}"
    text, files = disassemble(image)
    if not files:
        assert image_bytes(assemble(text, "again", "/nonexistent")) == image_bytes(image), (
            "text -> image -> text -> image differs"
        )


# ---- programs


def make_program(rng: random.Random) -> bytes:
    return image_bytes(program(rng))


def run_program(case: bytes) -> None:
    """Stepping and launching must agree bit for bit; where lint finds no race, launching with overlapping engines,
    too."""
    image = read_image(case, "case")
    session = Session(image, {})
    while session.stepper.time < WORDS and session.trap is None and not session.stepper.ended():
        session.step(WORDS)
    if session.stepper.time >= WORDS:
        return
    if case[150] % 4 == 0:
        exercise(image)
    out, trap = _launched(image, None)
    same = (
        session.trap is None
        if trap is None
        else session.trap is not None and (trap.what, trap.pc) == (session.trap.what, session.trap.pc)
    )
    assert same, f"stepping says {session.trap}, launching {trap}"
    assert trap is not None or np.array_equal(session.stepper.memory.data(*_OUT), out), (
        "stepping and launching give different bits"
    )
    _check_time_travel(image, session)
    _check_traces(image)
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


def _check_traces(image: Image) -> None:
    """A second launch on the same machine goes by its trace, and must do what it would do instruction by
    instruction."""
    results = []
    for interpret in (True, False):
        out = np.zeros(image.size(Region.OUT), np.uint8)
        machine, outcome = _machine(image, out, interpret), []
        for _ in range(3):
            out.fill(0)
            try:
                outcome.append(str(machine.run(image.code)))
            except Trap as trap:
                outcome.append(f"{trap.pc:#x}: {trap.what}")
            outcome.append(out.tobytes().hex())
        results.append(outcome)
    assert results[0] == results[1], (
        f"interpreted {results[0][::2]}, by traces {results[1][::2]}, first bytes that differ: {_first(*results)}"
    )


def _first(a: list[str], b: list[str]) -> str:
    launch = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    at = next((i for i, (x, y) in enumerate(zip(a[launch], b[launch], strict=False)) if x != y), 0)
    return f"launch {launch // 2}, byte {at // 2:#x}"


def _machine(image: Image, out: Bytes, interpret: bool = False) -> Machine:
    regions = {region: np.zeros(image.size(region), np.uint8) for region in Region}
    regions |= {
        Region.CONST: np.frombuffer(image.const, np.uint8),
        Region.WEIGHTS: np.frombuffer(image.weights, np.uint8),
        Region.OUT: out,
    }
    return Machine(image.chip.sram.bytes, image.chip.acc.bytes, regions, GIVEN_REGIONS, interpret, compiled=False)


# ---- chip files


_EXTREME = (
    "a" + ".a" * 5000 + " = 1",
    "x = " + "[" * 3000,
    "x = " + "{a=" * 2000,
    "clock_hz = " + "9" * 5000,
    "clock_hz = 0x" + "f" * 9999,
    "clock_hz = 1e999",
    "[" * 400,
    '"' + "k" * 50_000 + '" = 1',
    "name = '" + "n" * 50_000 + "'",
    "[sram]\nbytes = 2e30",
    "mxu = 3",
    "mxu.rows.x = 1",
    'name = "\\u001b[2J\\u202e"',
    "clock_hz = 1979-05-27",
    "[[mxu]]\nrows = 1",
    "".join(f"k{n} = 1\n" for n in range(20_000)),
)


def make_chip(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randint(0, 200))
    if rng.random() < 0.1:
        return rng.choice(_EXTREME).encode()
    text = to_toml(load_chip(rng.choice(chip_names())))
    if rng.random() < 0.5:
        lines = text.split("\n")
        for _ in range(rng.randint(1, 5)):
            where = rng.randrange(len(lines))
            key, equals, _ = lines[where].partition("=")
            if equals:
                lines[where] = (
                    f"{key}= {number(rng) if rng.random() < 0.8 else rng.choice(('nan', '[1]', 'true', 'inf'))}"
                )
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
    words = [
        *(c.name for c in COMMANDS),
        "add",
        "v2",
        "s5",
        "sram[0x40]:i32",
        "dram.out[0..64]",
        "2x8",
        "write",
        "op",
        "vop",
        "3",
        "0x90",
        "m.py:3",
        "[0, :2]",
        "/x",
        "/q",
        "if",
        "by",
        "=",
        "i1 == 2",
        "elements",
    ]
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


# ---- graphs of PyTorch operations. PyTorch is imported where it is needed: the other fuzzers do without.


def make_graph(rng: random.Random) -> bytes:
    from fuzz.graphs.make import make

    return str(make(rng)).encode()


def run_graph(case: bytes) -> None:
    from fuzz.graphs.checks import run

    run(case.decode())


def shrink_graph(case: bytes, fails: Callable[[bytes], bool], seconds: float) -> bytes:
    from fuzz.graphs.shrink import shrink

    return shrink(case.decode(), lambda text: fails(text.encode()), seconds).encode()


def show_graph(case: bytes) -> str:
    from fuzz.graphs.case import parse, python_of

    return python_of(parse(case.decode()))


def prepare_graphs() -> None:
    from fuzz.graphs.checks import prepare

    prepare()


def refusal_of_graph(error: Error) -> str:
    from fuzz.graphs.checks import plain

    return f"{type(error).__name__}: {plain(error.what)}"


_GRAPHS = Fuzzer(
    "graphs",
    make_graph,
    run_graph,
    shrink_graph,
    show_graph,
    prepare_graphs,
    refusal_of_graph,
    case_seconds=60,
    shrink_seconds=90,
)

FUZZERS = {
    fuzzer.name: fuzzer
    for fuzzer in (
        Fuzzer("images", make_image, run_image),
        Fuzzer("assembly", make_assembly, run_assembly),
        Fuzzer("programs", make_program, run_program),
        Fuzzer("chips", make_chip, run_chip),
        Fuzzer("commands", make_commands, run_commands),
        _GRAPHS,
        *READERS,
        GGUF,
        DECODERS,
    )
}

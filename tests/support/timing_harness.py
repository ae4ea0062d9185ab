"""Short programs for timing tests: view registers that are ready to use, and words by name."""

from emulator.timing.simulate import simulate_instructions
from emulator.timing.timeline import Timeline
from isa.architecture import QUEUES, Dtype, Region, Space
from isa.chip import Chip, load_chip, parse_chip
from isa.codec import NO_WAITS, Inst, encode
from isa.replay import Dispatch, replay
from isa.timing import DEFAULT, Options

EDGE = load_chip("edge")
SRAM_F32, DRAM_F32, ACC_I32, SRAM_I8, DRAM_WIDE, SRAM_I32 = 1, 2, 3, 4, 5, 6
_VIEWS = (
    (SRAM_F32, Space.SRAM, Dtype.F32, 999),
    (DRAM_F32, Space.DRAM, Dtype.F32, 256),
    (ACC_I32, Space.ACC, Dtype.I32, 999),
    (SRAM_I8, Space.SRAM, Dtype.I8, 999),
    (DRAM_WIDE, Space.DRAM, Dtype.F32, 1000),
    (SRAM_I32, Space.SRAM, Dtype.I32, 1),
)
SETUP = [
    Inst.make("vset", v=v, space=int(space), region=int(Region.PARAMS), dtype=int(dtype), base=0, rs=rs)
    for v, space, dtype, rs in _VIEWS
]


def word(mnemonic: str, after: dict[str, int] | None = None, /, **operands: int) -> Inst:
    """`after` gives dependence counts by queue."""
    counts = tuple((after or {}).get(queue.value, full) for queue, full in zip(QUEUES, NO_WAITS, strict=True))
    return Inst.make(mnemonic, counts, **operands)


def load(rows: int, cols: int = 256, queue: str = "ldw", after: dict[str, int] | None = None) -> Inst:
    """A dense block of float32 (for 256 columns), so many bytes / 4."""
    return word(queue, after, d=SRAM_F32, a=DRAM_F32, rows=rows, cols=cols)


def mm(m: int, n: int, k: int, b: int = 1, after: dict[str, int] | None = None, **rest: int) -> Inst:
    return word("mm", after, c=ACC_I32, a=SRAM_I8, w=SRAM_I8, m=m, n=n, k=k, b=b, **rest)


def mmg(m: int, n: int, k: int, **rest: int) -> Inst:
    return word("mmg", None, c=ACC_I32, a=SRAM_I8, w=SRAM_I8, sa=SRAM_F32, sw=SRAM_F32, m=m, n=n, k=k, **rest)


def add(rows: int, cols: int, planes: int = 1, after: dict[str, int] | None = None) -> Inst:
    return word("vop", after, f=1, d=SRAM_F32, a=SRAM_F32, planes=planes, rows=rows, cols=cols)


def exp(rows: int, cols: int, after: dict[str, int] | None = None) -> Inst:
    return word("act", after, f=0, d=SRAM_F32, a=SRAM_F32, rows=rows, cols=cols)


def dispatched(words: list[Inst]) -> list[Dispatch]:
    code = b"".join(map(encode, [*SETUP, *words, Inst.make("halt")]))
    return list(replay(code, load=lambda _: 3, control=True))


def run(*words: Inst, chip: Chip = EDGE, options: Options = DEFAULT) -> Timeline:
    return simulate_instructions(dispatched(list(words)), chip, options)


def times(timeline: Timeline, index: int) -> tuple[int, int, int]:
    """(dispatch, start, end) of the index-th word after the setup, counted from the dispatch of the first."""
    at, zero = len(SETUP) + index, len(SETUP)
    return int(timeline.dispatch[at]) - zero, int(timeline.start[at]) - zero, int(timeline.end[at]) - zero


def chip(**tables: dict[str, int | bool]) -> Chip:
    """The edge chip's defaults with some keys changed."""
    return parse_chip(tables, "test chip")

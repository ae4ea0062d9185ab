"""What the machine is made of, before any instruction: engines and queues, memories and their regions, element types.

`isa.fields` says what an instruction consists of, `isa.spec` lists them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

ISA_VERSION = 1
WORD_BYTES = 16
VIEWS = 32  # v0 is the absent view: it reads as "no such operand"
SCALARS = 16
LOOP_LEVELS = 4
EXTENSION_OPCODES = range(0xC0, 0x100)  # never those of a stock instruction
MAX_K = 131071  # longest int8 dot product that cannot overflow int32


class Engine(Enum):
    """Where an instruction executes. CTL executes instructions itself; the others have a queue each."""

    CTL = "ctl"
    LDW = "ldw"
    LDA = "lda"
    STO = "sto"
    MXU = "mxu"
    VEC = "vec"
    ACT = "act"


QUEUES = (Engine.LDW, Engine.LDA, Engine.STO, Engine.MXU, Engine.VEC, Engine.ACT)
ALL_QUEUES = (1 << len(QUEUES)) - 1
DMA_ENGINES = (Engine.LDW, Engine.LDA, Engine.STO)
NO_WAIT = 7  # a dependence count of 7 waits for nothing; 0..6 means "at most n outstanding"
MAX_COUNT = 6


class Code(IntEnum):
    """Numbers that the encoding knows, with the hash of a number: they are keys in every inner loop, and Enum's own is
    in Python."""

    __hash__ = int.__hash__


class Space(Code):
    SRAM = 0
    ACC = 1
    DRAM = 2


class Region(Code):
    """DRAM regions, each with its own base register, so that images are relocatable."""

    WEIGHTS = 0
    CONST = 1
    IN = 2
    OUT = 3
    STATE = 4  # persists between launches (KV cache)
    SCRATCH = 5
    PARAMS = 6  # small per-launch values (lengths, positions)
    DEBUG = 7


class FilledBy(Enum):
    """Where the bytes of a DRAM region come from."""

    IMAGE = "the image file; programs only read it"
    HOST = "the host, before every launch"
    PROGRAM = "the program"


@dataclass(frozen=True, slots=True)
class RegionRule:
    """What is true of a DRAM region whatever the program. `read_later` says by whom, beyond the outputs that an entry
    names."""

    filled_by: FilledBy
    kept: bool = False  # what one launch wrote is there in the next
    read_later: str = ""


REGIONS: Mapping[Region, RegionRule] = {
    Region.WEIGHTS: RegionRule(FilledBy.IMAGE),
    Region.CONST: RegionRule(FilledBy.IMAGE),
    Region.IN: RegionRule(FilledBy.HOST),
    Region.OUT: RegionRule(FilledBy.PROGRAM),
    Region.STATE: RegionRule(FilledBy.PROGRAM, kept=True, read_later="the next launch"),
    Region.SCRATCH: RegionRule(FilledBy.PROGRAM),
    Region.PARAMS: RegionRule(FilledBy.HOST),
    Region.DEBUG: RegionRule(FilledBy.PROGRAM, read_later="a debugger"),
}
IMAGE_REGIONS = tuple(region for region, rule in REGIONS.items() if rule.filled_by is FilledBy.IMAGE)
GIVEN_REGIONS = tuple(
    region for region, rule in REGIONS.items() if rule.filled_by is not FilledBy.PROGRAM
)  # before every launch
KEPT_REGIONS = tuple(region for region, rule in REGIONS.items() if rule.kept)


class Dtype(Code):
    """Element types. `I4` packs two elements in a byte, the even one in the low half."""

    I4 = 0
    I8 = 1
    I32 = 2
    F32 = 3
    BF16 = 4
    F16 = 5

    @property
    def bits(self) -> int:
        return _DTYPES[self].bits

    @property
    def numpy(self) -> str:
        """The numpy type that holds its elements. bf16 has none: it is its bit pattern; i4 is unpacked by the
        memory."""
        return _DTYPES[self].numpy

    @property
    def user(self) -> str:
        """The user's type that is stored as this one without loss."""
        return _DTYPES[self].user

    @property
    def is_float(self) -> bool:
        return self in FLOATS


@dataclass(frozen=True, slots=True)
class _Element:
    bits: int
    numpy: str
    user: str


_DTYPES = {
    Dtype.I4: _Element(4, "int8", "int8"),
    Dtype.I8: _Element(8, "int8", "int8"),
    Dtype.I32: _Element(32, "int32", "int32"),
    Dtype.F32: _Element(32, "float32", "float32"),
    Dtype.BF16: _Element(16, "uint16", "bfloat16"),
    Dtype.F16: _Element(16, "float16", "float16"),
}


@dataclass(frozen=True, slots=True)
class UserType:
    """A type of inputs, outputs and weights, by the name that numpy and PyTorch give it."""

    name: str
    storage: Dtype  # integers are kept in 32 bits; a value that does not fit is refused
    short: str  # in printed graphs
    pack: str  # for `struct`; bfloat16 has none
    computes: bool = True  # else values of this type are converted on the way in


USER_TYPES: Mapping[str, UserType] = {
    row.name: row
    for row in (
        UserType("bool", Dtype.I8, "bool", "?"),
        UserType("int8", Dtype.I8, "i8", "b"),
        UserType("uint8", Dtype.I32, "u8", "B", False),
        UserType("int16", Dtype.I32, "i16", "h", False),
        UserType("int32", Dtype.I32, "i32", "i"),
        UserType("int64", Dtype.I32, "i64", "i"),
        UserType("float32", Dtype.F32, "f32", "f"),
        UserType("bfloat16", Dtype.BF16, "bf16", ""),
        UserType("float16", Dtype.F16, "f16", "e"),
    )
}
FLOATS = (Dtype.F32, Dtype.BF16, Dtype.F16)
INTS = (Dtype.I8, Dtype.I32)
ANY = tuple(Dtype)
ON_CHIP = (Space.SRAM, Space.ACC)

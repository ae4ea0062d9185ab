"""What the fuzzers start from: small images with something in every section, and random programs that mostly make sense."""

import random
from functools import cache

from isa.chip import Acc, Chip, Sram
from isa.codec import IllegalWord, Inst, encode
from isa.image import Image
from isa.records import DebugMap, DebugNode, Entry, PlanRecord, Scalar, Span, Step, Tap, TensorSpec
from isa.spec import ISA, NO_WAIT, QUEUES, VOP, Dtype, Field, Kind, Region, Space

SMALL = Chip(name="small", sram=Sram(bytes=1 << 16), acc=Acc(bytes=1 << 14))
REGION = 4096
COLS = 8


@cache
def sample() -> Image:
    """A looped program with entries, scalars, states, constants, plan, debug map and metadata."""
    row = 4 * COLS
    view = {"dtype": int(Dtype.I32), "rs": COLS}
    dram = {"space": int(Space.DRAM), **view}
    words = [
        Inst.make("vset", v=1, region=int(Region.IN), base=0, **dram),
        Inst.make("vset", v=2, space=int(Space.SRAM), base=64, **view),
        Inst.make("vset", v=3, region=int(Region.OUT), base=0, **dram),
        Inst.make("vset", v=4, region=int(Region.PARAMS), base=0, **dram),
        Inst.make("vinc", v=1, level=1, inc=row),
        Inst.make("vinc", v=3, level=1, inc=row),
        Inst.make("sld", d=5, v=4),
        Inst.make("loop", level=1, len=4, dyn=1, s=5),
        Inst.make("lda", d=2, a=1, rows=1, cols=COLS),
        Inst.make("vop", (7, 0, 7, 7, 7, 7), f=VOP.index("add"), d=2, a=2, rows=1, cols=COLS, imm=1),
        Inst.make("sto", (7, 7, 7, 7, 0, 7), d=3, a=2, rows=1, cols=COLS),
        Inst.make("nop"),
        Inst.make("halt"),
    ]
    spec = {"shape": (3, COLS), "dtype": "int32", "storage": Dtype.I32}
    entry = Entry("main", 0, (TensorSpec("x", region=Region.IN, **spec),), (TensorSpec("y", region=Region.OUT, **spec),), (Scalar("n", 0, 3, 3),))
    node = DebugNode("add", "aten.add", (3, COLS), "int32", "m.py", 3, "x + 1", ("add",), ("fuse",))
    tensor = TensorSpec("c", (4,), "float32", Dtype.F32, Region.CONST)
    return Image(
        b"".join(map(encode, words)), bytes(range(64)), bytes(range(32)), (64, 32, 96, 96, 64, 0, 4, 0), (entry, Entry("second", 0x60)),
        (TensorSpec("cache", (4, 4), "float32", Dtype.F32, Region.STATE),), (tensor,), (PlanRecord("x", Space.SRAM, 64, 32, 8, 10),),
        DebugMap((node,), (Tap(0x90, "d", (0,), steps=(Step(1, COLS),)),), (Span(0x80, 0xB0, (0,)),)),
        {"model": "fuzz", "options": {"seed": 1}, "names": ["a; b", "c"]}, SMALL,
    )  # fmt: skip


def program(rng: random.Random) -> Image:
    """A random program over small blocks: mostly legal words on views that were set, some nonsense in between."""
    words = [_vset(rng, number) for number in range(1, 16)]
    words += [_fill(rng, number) for number in range(24)] if rng.random() < 0.8 else []
    words = [word for group in words for word in group]
    for _ in range(rng.randint(1, 40)):
        words += _words(rng)
    words.append(encode(Inst.make("halt", code=rng.randrange(4))))
    const = rng.randbytes(REGION)
    sizes = (0, REGION, REGION, REGION, REGION, REGION, 64, 0)
    return Image(b"".join(words), const=const, sizes=sizes, chip=SMALL)


def _vset(rng: random.Random, number: int, **fixed: int) -> list[bytes]:
    dtype = fixed.pop("dtype", rng.randrange(len(Dtype)))
    space = rng.choice((0, 0, 0, 1, 2))
    base = rng.randrange(0, REGION, 64) + (0 if rng.random() < 0.95 else rng.randrange(64))
    rs = rng.choice((0, 1, 8, 16, 16, 16, 64))
    values = {"space": space, "region": rng.randrange(8), "dtype": dtype, "base": base, "rs": rs, "ps": rng.choice((0, 64, 256)), "cs": int(rng.random() < 0.9)}
    return [encode(Inst.make("vset", v=number, **{**values, **fixed}))]


def _fill(rng: random.Random, number: int) -> list[bytes]:
    """Give SRAM bytes a value, so that later words have something to read."""
    dram = {"space": int(Space.DRAM), "region": int(Region.CONST), "dtype": int(Dtype.I8), "base": 0}
    return [
        *(encode(Inst.make("vset", v=30, space=0, dtype=int(Dtype.I8), base=number * 1024, rs=1024)),),
        encode(Inst.make("vset", v=31, **dram)), encode(Inst.make("ldw", d=30, a=31, rows=1, cols=1024)),
    ]  # fmt: skip


def _words(rng: random.Random) -> list[bytes]:
    kind = rng.random()
    if kind < 0.03:
        return [rng.randbytes(16)]
    if kind < 0.2:
        return _vset(rng, rng.randrange(32))
    if kind < 0.3:
        count = rng.randrange(4) if rng.random() < 0.95 else (1 << 24) - 1
        return [encode(Inst.make("loop", level=rng.randrange(4), len=rng.randrange(6), count=count))]
    mnemonic = rng.choice(sorted(ISA))
    row = ISA[mnemonic]
    deps = tuple(rng.choice((NO_WAIT, NO_WAIT, 0, rng.randrange(8))) for _ in QUEUES)
    try:
        return [encode(Inst(mnemonic, tuple(_value(rng, field) for field in row.fields), deps, int(rng.random() < 0.02)))]
    except IllegalWord:
        return []


def _value(rng: random.Random, field: Field) -> int:
    top = (len(field.choices) if field.choices else 1 << field.bits) - 1
    if rng.random() < 0.03:
        return rng.choice((0, top, rng.randint(0, top)))
    if field.default is not None and rng.random() < 0.5:
        return field.default
    if field.kind is Kind.VIEW:
        return rng.randrange(1, 16)
    if field.kind is Kind.F32:
        return rng.choice((0, 0x3F800000, 0x7FC00000, 0x80000000, rng.getrandbits(32)))
    return rng.randint(0, top) if field.choices or field.bits <= 4 else min(top, rng.choice((1, 2, 4, 8, 16, rng.randrange(20))))

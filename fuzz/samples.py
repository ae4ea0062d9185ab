"""What the fuzzers start from: small images with something in every section, and random programs that mostly make
sense."""

import random
from functools import cache
from typing import Any

from isa.architecture import FLOATS, INTS, NO_WAIT, QUEUES, Dtype, Engine, Region, Space
from isa.chip import Acc, Chip, Sram
from isa.codec import NO_WAITS, IllegalInstruction, Inst, encode
from isa.fields import Access, Field, Kind
from isa.image.image import Image
from isa.image.records import DebugMap, DebugNode, Entry, PlanRecord, Probe, Scalar, Span, Step, TensorSpec
from isa.spec import ISA, MM_FORMAT, SALU, TAP, VOP, VRED

SMALL = Chip(name="small", sram=Sram(bytes=1 << 16), acc=Acc(bytes=1 << 14))
REGION = 8192
COLS = 8


@cache
def sample() -> Image:
    """A looped program with entries, scalars, states, constants, plan, debug map and metadata."""
    row = 4 * COLS
    view = {"dtype": int(Dtype.I32), "rs": COLS}
    dram = {"space": int(Space.DRAM), **view}
    instructions = [
        Inst.make("vset", NO_WAITS, v=1, region=int(Region.IN), base=0, **dram),
        Inst.make("vset", NO_WAITS, v=2, space=int(Space.SRAM), base=64, **view),
        Inst.make("vset", NO_WAITS, v=3, region=int(Region.OUT), base=0, **dram),
        Inst.make("vset", NO_WAITS, v=4, region=int(Region.PARAMS), base=0, **dram),
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
    spec: dict[str, Any] = {"shape": (3, COLS), "dtype": "int32", "storage": Dtype.I32}
    entry = Entry(
        "main",
        0,
        (TensorSpec("x", region=Region.IN, **spec),),
        (TensorSpec("y", region=Region.OUT, **spec),),
        (Scalar("n", 0, 3, 3),),
    )
    node = DebugNode("add", "aten.add", (3, COLS), "int32", "m.py", 3, "x + 1", ("add",), ("fuse",))
    tensor = TensorSpec("c", (4,), "float32", Dtype.F32, Region.CONST)
    return Image(
        b"".join(map(encode, instructions)),
        bytes(range(64)),
        bytes(range(32)),
        (64, 32, 96, 96, 64, 0, 4, 0),
        (entry, Entry("second", 0x60)),
        (TensorSpec("cache", (4, 4), "float32", Dtype.F32, Region.STATE),),
        (tensor,),
        (PlanRecord("x", Space.SRAM, 64, 32, 8, 10),),
        DebugMap((node,), (Probe(0x90, "d", (0,), steps=(Step(1, COLS),)),), (Span(0x80, 0xB0, (0,)),)),
        {"model": "fuzz", "options": {"seed": 1}, "names": ["a; b", "c"]},
        SMALL,
    )


def program(rng: random.Random) -> Image:
    """A random program over small blocks: legal instructions on views made for them, some nonsense in between."""
    instructions = (
        [instruction for number in range(FILLED) for instruction in _fill(number)] if rng.random() < 0.9 else []
    )
    nonsense = rng.choice((0.0, 0.0, 0.0, 0.03, 0.3))
    for _ in range(rng.randint(1, 30)):
        instructions += _nonsense(rng) if rng.random() < nonsense else _instruction(rng)
    instructions.append(encode(Inst.make("halt", code=rng.randrange(4))))
    small = b"".join(rng.randrange(4).to_bytes(4, "little") for _ in range(256))  # row numbers that are in every table
    const = small + rng.randbytes(REGION - len(small))
    return Image(
        b"".join(instructions), const=const, sizes=(0, REGION, REGION, REGION, REGION, REGION, 64, 0), chip=SMALL
    )


FILLED = 8  # KiB of SRAM, and half as much ACC, that have been written


def _fill(number: int) -> list[bytes]:
    """Give a KiB of SRAM, and one of ACC, a value, so that later instructions have something to read."""
    base, const = number * 1024, number % (REGION // 1024) * 1024
    instructions = [
        Inst.make("vset", v=30, space=int(Space.SRAM), dtype=int(Dtype.I8), base=base),
        Inst.make("vset", v=31, space=int(Space.DRAM), region=int(Region.CONST), dtype=int(Dtype.I8), base=const),
        Inst.make("ldw", d=30, a=31, rows=1, cols=1024),
        Inst.make("vset", v=29, space=int(Space.ACC), dtype=int(Dtype.I8), base=base),
        Inst.make("vop", (0,) * len(QUEUES), f=VOP.index("mov"), d=29, a=30, rows=1, cols=1024),
    ]
    return [encode(instruction) for instruction in instructions]


def _instruction(rng: random.Random) -> list[bytes]:
    """An instruction of an engine with a view for each operand, or a control instruction."""
    if rng.random() < 0.15:
        return _control(rng)
    row = ISA[rng.choice(_ENGINE_INSTRUCTIONS)]
    values = {field.name: _value(rng, field) for field in row.fields}
    views = {field.name: field for field in row.views if field.default is None or rng.random() < 0.6}
    dtypes = {name: rng.choice(field.dtypes) for name, field in views.items()}
    values |= {field.name: 0 for field in row.views}
    for name in ("planes", "rows", "cols", "n", "m", "k", "b"):
        if name in values:
            values[name] = rng.randint(0 if rng.random() < 0.02 else 1, {"cols": 24, "k": 40, "n": 12}.get(name, 4))
    if rng.random() < 0.98:
        _FITTED.get(row.mnemonic, _same)(rng, values, dtypes)
    instructions = []
    for register, name in enumerate(dtypes, rng.randrange(1, 20)):
        instructions.append(_view(rng, register, row.field(name), dtypes[name]))
        values[name] = register
    deps = tuple(rng.choice((NO_WAIT, 0, 0, rng.randrange(8))) for _ in QUEUES)
    if rng.random() < 0.9 and "dyn" in values:
        values["dyn"] = 0
    return [
        *instructions,
        encode(Inst(row.mnemonic, tuple(values[f.name] for f in row.fields), deps, int(rng.random() < 0.01))),
    ]


_ENGINE_INSTRUCTIONS = [name for name, row in ISA.items() if row.engine is not Engine.CTL]


def _view(rng: random.Random, register: int, field: Field, dtype: Dtype) -> bytes:
    written = field.access is not Access.R
    space = rng.choice(field.spaces)
    region = (
        rng.choice((Region.OUT, Region.SCRATCH, Region.STATE))
        if written
        else rng.choice((Region.CONST, Region.CONST, Region.IN))
    )
    limit = 3072 if space is Space.DRAM else FILLED * 512
    base = rng.randrange(0, limit, 64) if field.name != "idx" else rng.randrange(0, 768, 4)
    rows, planes = ((24, 40, 64), (256, 264, 320)) if written else ((0, 1, 24, 40), (0, 64, 160))
    strides = {"rs": rng.choice(rows), "ps": rng.choice(planes)}
    cs = 1 if written or field.name == "idx" or rng.random() < 0.8 else 0
    return encode(
        Inst.make(
            "vset",
            NO_WAITS,
            v=register,
            space=int(space),
            region=int(region),
            dtype=int(dtype),
            base=base,
            cs=cs,
            **strides,
        )
    )


Values = dict[str, int]
Dtypes = dict[str, Dtype]


def _same(rng: random.Random, values: Values, dtypes: Dtypes) -> None:
    """Copies do not convert."""
    for name in dtypes:
        if name != "idx":
            dtypes[name] = dtypes["d"]
    if "limit" in values:
        values["limit"] = rng.randint(4, 6)


def _fit_vop(rng: random.Random, values: Values, dtypes: Dtypes) -> None:
    kinds, without = rng.choice(((INTS, ("div",)), (FLOATS, ("and", "or", "xor"))))
    for name in dtypes:
        dtypes[name] = rng.choice(kinds)
    values["f"] = VOP.index(rng.choice([f for f in VOP if f not in without]))


def _fit_vred(rng: random.Random, values: Values, dtypes: Dtypes) -> None:
    dtypes["d"] = Dtype.I32 if VRED[values["f"]] == "argmax" else rng.choice(FLOATS)


def _fit_mm(rng: random.Random, values: Values, dtypes: Dtypes) -> None:
    fmt = MM_FORMAT[values["fmt"]]
    dtypes["a"] = rng.choice(FLOATS) if fmt == "float" else Dtype.I8
    dtypes["w"] = rng.choice(FLOATS) if fmt == "float" else Dtype.I8
    dtypes["c"] = Dtype.I32 if fmt == "i8" else Dtype.F32


def _fit_mmg(rng: random.Random, values: Values, dtypes: Dtypes) -> None:
    values["nib"] *= dtypes["w"] is Dtype.I4
    if "ss" not in dtypes:
        dtypes.pop("sm", None)
        return
    values |= dict.fromkeys(("pre", "half", "acc"), 0)
    if "zw" in dtypes:
        dtypes["sm"] = Dtype.I8
    else:
        dtypes.pop("sm", None)


def _fit_vaff(rng: random.Random, values: Values, dtypes: Dtypes) -> None:
    values["red"] = rng.randrange(1, len(TAP)) if "tap" in dtypes else 0


def _free(rng: random.Random, values: Values, dtypes: Dtypes) -> None:
    """Any types go together."""


_FITTED = {
    "vop": _fit_vop,
    "vred": _fit_vred,
    "mm": _fit_mm,
    "mmg": _fit_mmg,
    "vaff": _fit_vaff,
    "vqd": _free,
    "act": _free,
}


def _control(rng: random.Random) -> list[bytes]:
    kind = rng.randrange(6)
    scalars = {"d": rng.randrange(16), "a": rng.randrange(16), "b": rng.randrange(16)}
    if kind == 0:
        count = rng.choice((1, 2, 2, 3, 3)) if rng.random() < 0.9 else 0 if rng.random() < 0.97 else (1 << 24) - 1
        return [encode(Inst.make("loop", level=rng.randrange(4), len=rng.randrange(12), count=count))]
    if kind == 1:
        return [
            encode(
                Inst.make(
                    "salu",
                    NO_WAITS,
                    f=rng.randrange(len(SALU)),
                    bi=1,
                    imm=rng.choice((1, 2, 3, rng.getrandbits(32))),
                    **scalars,
                )
            )
        ]
    if kind == 2:
        return [encode(Inst.make("salu", NO_WAITS, f=rng.randrange(len(SALU)), **scalars))]
    if kind == 3:
        return [encode(Inst.make("fence", mask=rng.randrange(64)))]
    view = Inst.make(
        "vset", v=rng.randrange(1, 32), space=0, dtype=int(Dtype.I32), base=rng.randrange(0, 4096, 4), rs=8
    )
    if kind == 4:
        return [encode(view), encode(Inst.make("sld", d=rng.randrange(16), v=view.operands[0], off=rng.randrange(8)))]
    return [
        encode(view),
        encode(
            Inst.make(
                "vinc", v=view.operands[0], level=rng.randrange(4), inc=rng.randrange(0, 256, 4), mod=rng.randrange(4)
            )
        ),
    ]


def _nonsense(rng: random.Random) -> list[bytes]:
    """A word of random bits, or one with random fields on whatever its views are."""
    if rng.random() < 0.2:
        return [rng.randbytes(16)]
    row = ISA[rng.choice(sorted(ISA))]
    try:
        return [
            encode(
                Inst(row.mnemonic, tuple(_value(rng, field) for field in row.fields), rng.choice(((0,) * 6, (7,) * 6)))
            )
        ]
    except IllegalInstruction:
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
    return (
        rng.randint(0, top)
        if field.choices or field.bits <= 4
        else min(top, rng.choice((1, 2, 4, 8, 16, rng.randrange(20))))
    )

"""Random programs that scalars steer: extents, views and loop counts that follow from one or two of them by chains of
`salu`, with waits that are mostly, but not always, enough."""

from random import Random

from isa.asm.assemble import assemble
from isa.image.image import Image

_HEAD = """
.region params bytes=16
.region in bytes=0x1000
.region scratch bytes=0x1000
.region state bytes=0x1000
.region out bytes=64
.entry name="main", pc=0
{scalars}
.output name="y", shape=[16], dtype="float32", storage=f32, region=out
vset v=v1, space=dram, region=params, dtype=i32, base=0
"""
_WAITS = ("lda<=0", "lda<=1", "vec<=0", "vec<=1", "sto<=0", "sto<=1", "ldw<=0")
_ALL = "lda<=0, ldw<=0, sto<=0, vec<=0"
_REGISTERS = (1, 2, 3, 4)


def image(seed: int) -> Image:
    return assemble(text(seed), f"seed {seed}")


def text(seed: int) -> str:
    rng = Random(seed)
    names = ("n", "m")[: rng.choice((1, 1, 1, 2))]
    largest = {name: rng.choice((5, 20, 40) if len(names) == 1 else (3, 7)) for name in names}
    scalars = "\n".join(
        f'.scalar name="{name}", offset={4 * i}, minimum={rng.choice((0, 0, 1))}, maximum={largest[name]}'
        for i, name in enumerate(names)
    )
    lines = [_HEAD.format(scalars=scalars)]
    lines += [f"sld d=s{i + 1}, v=v1, off={rng.randrange(len(names))}" for i in range(len(_REGISTERS))]
    tame = seed % 4 > 0  # few faults but of waits and places
    for _ in range(rng.randint(0, 5)):
        lines.append(_salu(rng))
    if tame:  # extents that fit
        lines += [
            f"salu f={f}, d=s{s}, a=s{s}, bi, imm={number}" for s in (1, 2) for f, number in (("max", 0), ("min", 16))
        ]
    if tame or rng.random() < 0.6:
        lines += _filled(rng, tame)
    for register in range(3, 9):
        lines += _view(rng, register, tame)
    body = [line for _ in range(rng.randint(2, 7)) for line in _word(rng, tame)]
    if rng.random() < 0.3:
        count = f"dyn, s=s{rng.choice(_REGISTERS)}" if rng.random() < 0.5 else f"count={rng.choice((2, 3, 40))}"
        body = [*body[:1], f"loop level=0, len={len(body) - 1}, {count}", *body[1:]] if len(body) > 1 else body
    lines += body
    lines += [
        "vset v=v20, space=dram, region=out, dtype=f32, base=0",
        f"sto d=v20, a=v{rng.choice((4, 6))}, rows=1, cols=16 @ {_ALL}",
    ]
    return "\n".join((*lines, "halt\n"))


def _salu(rng: Random) -> str:
    f, number = rng.choice(
        (
            ("add", rng.choice((1, 3, 16))), ("add", 0xFFFFFFFF), ("add", 0xFFFFFFF0), ("min", rng.choice((4, 16))),
            ("max", rng.choice((0, 2))), ("mul", rng.choice((0, 2, 0xFFFFFFFF))), ("ceildiv", 4), ("shr", 1),
            ("and", 7), ("shl", 1),
        )
    )  # fmt: skip
    d, a = rng.choice(_REGISTERS), rng.choice(_REGISTERS)
    if rng.random() < 0.2:
        return f"salu f={rng.choice(('add', 'sub', 'min', 'max'))}, d=s{d}, a=s{a}, b=s{rng.choice(_REGISTERS)}"
    return f"salu f={f}, d=s{d}, a=s{a}, bi, imm={number:#x}"


def _filled(rng: Random, tame: bool) -> list[str]:
    """Memory defined before, all of it or a part."""
    size = 1024 if tame else rng.choice((1024, 1024, 512))
    return [
        "vset v=v9, space=sram, dtype=f32, base=0",
        "vset v=v10, space=dram, region=in, dtype=f32, base=0",
        "vset v=v11, space=dram, region=scratch, dtype=f32, base=0",
        f"lda d=v9, a=v10, rows=1, cols={size}",
        f"sto d=v11, a=v9, rows=1, cols={size} @ lda<=0",
        f"fence mask={63 if tame else rng.choice((63, 63, 4))}",
    ]


def _view(rng: Random, register: int, tame: bool) -> list[str]:
    """Even registers are in SRAM. Some move with a scalar, some with the loop."""
    place = "space=sram" if register % 2 == 0 else f"space=dram, region={rng.choice(('state', 'state', 'scratch'))}"
    base, stride = rng.choice((0, 0, 64, 0x200, 0x800)), rng.choice((4, 16, 16, 32))
    if tame:
        base, stride = rng.choice((0, 64, 0x200, 0x400 * (register // 3))), 16
    lines = [f"vset v=v{register}, {place}, dtype=f32, base={base:#x}, rs={stride}"]
    if rng.random() < 0.5:
        scale = 64 if tame else rng.choice((4, 16, 64, 64, 0x78, 2))
        lines.append(f"vadd v=v{register}, s=s{rng.choice((1, 2) if tame else _REGISTERS)}, scale={scale}")
    if rng.random() < 0.3:
        lines.append(f"vinc v=v{register}, level=0, inc={rng.choice((16, 64))}")
    return lines


def _word(rng: Random, tame: bool) -> list[str]:
    """A load, a store or arithmetic, with an extent from a register perhaps; waits mostly suffice."""
    sram, dram, other = rng.choice((4, 6, 8)), rng.choice((3, 5, 7)), rng.choice((4, 6, 8))
    shape = rng.choice(("rows=1, cols=16", "rows=2, cols=16", "rows=4, cols=4"))
    if rng.random() < 0.6:
        shape += f", dyn={rng.choice(('rows', 'cols', 'cols'))}, dyn_s=s{rng.choice((1, 2) if tame else _REGISTERS)}"
    some = rng.sample(_WAITS, rng.randrange(4))
    waits = _ALL if rng.random() < (0.9 if tame else 0.75) else ", ".join({wait[:3]: wait for wait in some}.values())
    mark = f" @ {waits}" if waits else ""
    kind = rng.choice(("lda", "lda", "ldw", "sto", "sto", "vop"))
    if kind == "vop":
        return [f"vop f=mul, d=v{sram}, a=v{other}, {shape}, imm=2.0{mark}"]
    d, a = (dram, sram) if kind == "sto" else (sram, dram)
    return [f"{kind} d=v{d}, a=v{a}, {shape}{mark}"]

"""Random programs with long loops: blocks that move through DRAM and SRAM, nested loops, words before and behind that
meet them."""

from random import Random

from isa.asm.assemble import assemble
from isa.image.image import Image

_WAITS = ("lda<=0", "lda<=1", "vec<=0", "vec<=1", "sto<=0", "sto<=1", "sto<=2", "ldw<=0", "ldw<=1")
_ALL = "lda<=0, ldw<=0, sto<=0, vec<=0"
_REGIONS = {1: ("in", "scratch"), 3: ("scratch", "scratch", "out"), 5: ("out", "scratch"), 7: ("scratch", "in")}
_HEAD = """
.region in bytes=0x8000
.region scratch bytes=0x8000
.region out bytes=0x8000
.entry name="main", pc=0
vset v=v9, space=sram, dtype=f32, base=0x0
vset v=v10, space=dram, region=in, dtype=f32, base=0x0
lda d=v9, a=v10, rows=1, cols=2048
"""


def image(seed: int) -> Image:
    return assemble(text(seed), f"seed {seed}")


def text(seed: int) -> str:
    rng = Random(seed)
    lines = [_HEAD, *_filled(rng)]
    views = [_view(rng, register) for register in range(1, 7)]
    lines += [line for view in views for line in view]
    lines += _loop(rng, nested=rng.random() < 0.4)
    for _ in range(rng.randrange(3)):  # behind the loop
        lines += [*_view(rng, 7), _word(rng, True, 7)]
    return "\n".join((*lines, "halt\n"))


def _filled(rng: Random) -> list[str]:
    """Scratch memory defined in one go, in a loop, in part, or not at all; perhaps still being written when the loop
    begins."""
    kind, wait = rng.choice((0, 1, 1, 1, 2, 3)), rng.choice(("", " @ sto<=0", " @ sto<=1"))
    if kind == 0:
        return []
    whole = [
        "vset v=v11, space=dram, region=scratch, dtype=f32, base=0x0",
        "sto d=v11, a=v9, rows=1, cols=2048 @ lda<=0",
    ]
    if kind == 1:
        return [*whole, f"fence mask={rng.choice((0, 4, 63))}"]
    step = rng.choice((64, 128))
    loop = [
        f"loop level=0, len=1, count={rng.choice((20, 100))}",
        f"  sto d=v11, a=v9, rows=1, cols=16 @ lda<=0{wait.replace(' @', ',')}",
    ]
    return [whole[0], f"vinc v=v11, level=0, inc={step}", *loop, f"fence mask={rng.choice((0, 4, 63))}"]


def _view(rng: Random, register: int) -> list[str]:
    """A view of 16 elements (in rows perhaps), that may move with one or two loops."""
    sram = register % 2 == 0
    place = "space=sram" if sram else f"space=dram, region={rng.choice(_REGIONS[register])}"
    base = rng.choice((0, 0, 64, 256, 0x1000, 0x2000)) if not sram else rng.choice((0, 64, 256, 1024))
    lines = [f"vset v=v{register}, {place}, dtype=f32, base={base:#x}, rs={rng.choice((16, 16, 32, 64))}"]
    for level in (0, 1):
        if rng.random() < 0.7:
            extra = rng.choice((", mod=2", ", mod=3", ", div=2")) if sram or rng.random() < 0.3 else ""
            lines.append(f"vinc v=v{register}, level={level}, inc={rng.choice((16, 64, 64, 128, 256))}{extra}")
    return lines


def _loop(rng: Random, nested: bool) -> list[str]:
    count = rng.choice((30, 60, 71, 100, 140))
    body = [_word(rng, rng.random() < 0.4) for _ in range(rng.randint(1, 5))]
    if nested:
        inner = [_word(rng, rng.random() < 0.4) for _ in range(rng.randint(1, 2))]
        body += [f"loop level=1, len={len(inner)}, count={rng.choice((0, 1, 2, 3, 40))}", *inner]
        body += [_word(rng, False) for _ in range(rng.randrange(2))]
    return [f"loop level=0, len={len(body)}, count={count}", *(f"  {line}" for line in body)]


def _word(rng: Random, load: bool, other: int = 0) -> str:
    """A load, a store or arithmetic; mostly with the waits that it needs."""
    kind = rng.choice(("lda", "ldw")) if load else rng.choice(("vop", "sto", "sto"))
    sram, dram = rng.choice((2, 4, 6)), other if other else rng.choice((1, 1, 3) if load else (3, 5, 5))
    shape = rng.choice(("rows=1, cols=16", "rows=2, cols=16", "rows=4, cols=4"))
    some = rng.sample(_WAITS, rng.randrange(4))
    waits = _ALL if rng.random() < 0.85 else ", ".join({wait[:3]: wait for wait in some}.values())
    mark = f" @ {waits}" if waits else ""
    if kind == "vop":
        return f"vop f=mul, d=v{sram}, a=v{rng.choice((2, 4, 6))}, {shape}, imm=2.0{mark}"
    return (
        f"{kind} d=v{dram}, a=v{sram}, {shape}{mark}"
        if kind == "sto"
        else f"{kind} d=v{sram}, a=v{dram}, {shape}{mark}"
    )

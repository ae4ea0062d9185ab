"""Random images: words of every kind, legal or not, and records with names that text has to quote."""

import random
from typing import Any

from isa.architecture import MAX_COUNT, NO_WAIT, QUEUES, REGIONS, Dtype, FilledBy, Region, Space
from isa.chip import Chip, Mxu
from isa.codec import Inst, encode
from isa.fields import Field, Kind
from isa.image.image import DebugMap, DebugNode, Entry, Image, PlanRecord, Probe, Scalar, Span, Step, TensorSpec
from isa.spec import ISA

_ODD = (
    "",
    "a",
    "x.y",
    "ä\u2028",
    'quo"te',
    "semi;colon",
    "back\\slash",
    "tab\tnew\nline",
    "[1, {",
    "v1",
    "true",
    "1e5",
    "@",
    "main",
    "K*2",
    "=",
)
_FLOATS = (0, 0x80000000, 0x3F800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 1, 0x00800000, 0x40490FDB)


def image(seed: int) -> Image:
    rng = random.Random(seed)
    count = rng.randint(1, 16)
    code = b"".join(_word(rng, count - i - 1) for i in range(count))
    sizes = tuple(rng.choice([0, 64, 4096]) for _ in Region)
    const = rng.randbytes(rng.choice([0, 1, 40]))
    tensors = [_tensor(rng, region, size) for region, size in zip(Region, sizes, strict=True) if size]

    def filled(by: FilledBy) -> list[TensorSpec]:
        return [tensor for tensor in tensors if REGIONS[tensor.region].filled_by is by]

    entries = tuple(
        Entry(
            f"{name}{rng.choice(_ODD)}",
            16 * rng.randrange(count),
            tuple(_some(rng, filled(FilledBy.HOST))),
            tuple(_some(rng, filled(FilledBy.PROGRAM))),
            _scalars(rng, sizes),
        )
        for name in ("main", "second")[: rng.randint(1, 2)]
    )
    nodes = tuple(_node(rng) for _ in range(rng.randint(0, 3)))
    return Image(
        code,
        rng.randbytes(rng.choice([0, 33])),
        const,
        sizes,
        entries,
        tuple(_some(rng, tensors)),
        tuple(_some(rng, filled(FilledBy.IMAGE))),
        _plan(rng, count),
        _debug(rng, nodes, count),
        {key: _free(rng, 3) for key in rng.sample(_ODD, rng.randint(0, 3))},
        Chip(mxu=Mxu(rows=rng.randint(1, 300))) if rng.random() < 0.3 else Chip(),
    )


def _word(rng: random.Random, left: int) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(16)
    row = ISA[rng.choice(list(ISA))]
    values = tuple(_value(rng, field, left) for field in row.fields)
    deps = tuple(rng.choice((NO_WAIT, NO_WAIT, rng.randint(0, MAX_COUNT))) for _ in QUEUES)
    return encode(Inst(row.mnemonic, values, deps, int(rng.random() < 0.1)))


def _value(rng: random.Random, field: Field, left: int) -> int:
    if field.default is not None and rng.random() < 0.4:
        return field.default
    if field.choices:
        return rng.randrange(len(field.choices))
    if field.kind is Kind.F32:
        return rng.choice((*_FLOATS, rng.getrandbits(32)))
    if field.name == "len" and rng.random() < 0.8:
        return rng.randint(0, left)
    return rng.getrandbits(rng.randint(0, field.bits))


def _tensor(rng: random.Random, region: Region, size: int) -> TensorSpec:
    dtype, storage = rng.choice((("float32", Dtype.F32), ("float32", Dtype.BF16), ("int64", Dtype.I32)))
    offset = rng.choice((0, 16, size - 32))
    return TensorSpec(rng.choice(_ODD) + region.name, (rng.randint(0, 2), 4), dtype, storage, region, offset)


def _some(rng: random.Random, items: list[Any]) -> list[Any]:
    return rng.sample(items, rng.randint(0, len(items)))


def _scalars(rng: random.Random, sizes: tuple[int, ...]) -> tuple[Scalar, ...]:
    return (
        (Scalar(rng.choice(_ODD), 4, rng.randint(-5, 5), rng.randint(6, 900)),)
        if sizes[Region.PARAMS] and rng.random() < 0.5
        else ()
    )


def _plan(rng: random.Random, count: int) -> tuple[PlanRecord, ...]:
    return tuple(_buffer(rng, count) for _ in range(rng.randint(0, 4)))


def _buffer(rng: random.Random, count: int) -> PlanRecord:
    space, region = rng.choice(list(Space)), rng.choice(list(Region))
    return PlanRecord(
        rng.choice(_ODD),
        space,
        rng.randrange(5000),
        rng.randrange(5000),
        rng.randrange(count),
        rng.randrange(count),
        region,
    )


def _node(rng: random.Random) -> DebugNode:
    odd = [rng.choice(_ODD) for _ in range(8)]
    shape, passes = (1, 2)[: rng.randint(0, 2)], (odd[6], "b")[: rng.randint(0, 2)]
    return DebugNode(
        odd[0], odd[1], shape, odd[2], odd[3], rng.randint(0, 99), odd[4], (odd[5],), passes, "fused", odd[7]
    )


def _debug(rng: random.Random, nodes: tuple[DebugNode, ...], count: int) -> DebugMap:
    if not nodes:
        return DebugMap()
    probes = tuple(
        Probe(
            16 * rng.randrange(count),
            "d",
            (rng.randrange(len(nodes)),),
            rng.randint(-1, 3),
            rng.getrandbits(20),
            0,
            rng.getrandbits(9),
            1,
            _steps(rng),
        )
        for _ in range(rng.randint(0, 2))
    )
    spans = tuple(
        Span(16 * rng.randrange(count), 16 * rng.randrange(count + 1), (0, len(nodes) - 1))
        for _ in range(rng.randint(0, 3))
    )
    return DebugMap(nodes, probes, spans)


def _steps(rng: random.Random) -> tuple[Step, ...]:
    return (Step(rng.randint(0, 3), rng.getrandbits(12), rng.randint(1, 4), rng.randint(0, 4)),) * rng.randint(0, 2)


def _free(rng: random.Random, depth: int) -> Any:
    """Any JSON value."""
    kinds: list[Any] = [None, True, rng.getrandbits(60) - 2**59, rng.uniform(-1e9, 1e9), -0.0, 1e300, rng.choice(_ODD)]
    if depth:
        kinds += [
            [_free(rng, depth - 1) for _ in range(rng.randint(0, 3))],
            {key: _free(rng, depth - 1) for key in rng.sample(_ODD, rng.randint(0, 2))},
        ]
    return rng.choice(kinds)

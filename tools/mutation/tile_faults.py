"""Faults in tile programs: what a planner, an emitter or a scheduler could get wrong. Every mutant still has the form
of a program."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Final

from compiler.tile.ir import Buffer, Loop, Op, Program, Ref, verify
from isa.architecture import Space
from isa.fields import Kind

Change = tuple[str, Program]


@dataclass(frozen=True)
class TileMutant:
    """A program with one fault, of a kind; `what` tells it."""

    kind: str
    what: str
    program: Program


def tile_mutants(program: Program, kind: str, random: Random, most: int) -> list[TileMutant]:
    """At most `most` mutants of one kind, by chance, that the tile program's verifier has nothing against."""
    found = []
    for what, mutant in TILE_FAULTS[kind](program, random):
        try:
            verify(mutant)
        except ValueError:
            continue
        found.append(TileMutant(kind, what, mutant))
        if len(found) == most:
            break
    return found


def _with(program: Program, index: int, op: Op) -> Program:
    return Program((*program.ops[:index], op, *program.ops[index + 1 :]), program.loop)


def _places(program: Program, random: Random) -> Iterator[tuple[int, Op, int, Ref]]:
    """Views of instructions in random order, for ever."""
    while True:
        index = random.randrange(len(program.ops))
        op = program.ops[index]
        number = random.choice([i for i, ref in enumerate(op.views) if ref is not None])
        ref = op.views[number]
        assert ref is not None
        yield index, op, number, ref


def _refer(program: Program, index: int, number: int, ref: Ref) -> Program:
    op = program.ops[index]
    return _with(program, index, replace(op, views=(*op.views[:number], ref, *op.views[number + 1 :])))


def _name(op: Op, number: int) -> str:
    return op.row.views[number].name


def _shifted(program: Program, random: Random) -> Iterator[Change]:
    for index, op, number, ref in _places(program, random):
        size = ref.dtype.bits // 8
        shift = random.choice((1, -1, ref.rs, -ref.rs, ref.ps, 16)) * size
        if shift:
            yield (
                f"'{op}': {_name(op, number)} moves by {shift} bytes",
                _refer(program, index, number, replace(ref, offset=ref.offset + shift)),
            )


def _restrided(program: Program, random: Random) -> Iterator[Change]:
    for index, op, number, ref in _places(program, random):
        strides = {"rs": ref.rs, "ps": ref.ps, "cs": ref.cs}
        name = random.choice(tuple(strides))
        old = strides[name]
        new = 1 - old if name == "cs" else random.choice((old + 1, max(old - 1, 0), 2 * old, 0))
        if new != old:
            strides[name] = new
            changed = replace(ref, rs=strides["rs"], ps=strides["ps"], cs=strides["cs"])
            yield f"'{op}': {name} of {_name(op, number)} becomes {new}", _refer(program, index, number, changed)


def _on_chip(program: Program) -> list[Buffer]:
    return [buffer for buffer in program.buffers if buffer.space is not Space.DRAM]


def _renamed(op: Op, names: Mapping[Buffer, Buffer]) -> Op:
    return replace(
        op,
        views=tuple(ref if ref is None else replace(ref, buffer=names.get(ref.buffer, ref.buffer)) for ref in op.views),
    )


def _wrong_buffer(program: Program, random: Random) -> Iterator[Change]:
    """A view of another buffer."""
    buffers = _on_chip(program)
    for index, op, number, ref in _places(program, random):
        if ref.buffer.space is not Space.DRAM:
            other = random.choice(buffers)
            if other != ref.buffer and other.space is ref.buffer.space:
                yield (
                    f"'{op}': {_name(op, number)} is of %{other.name}",
                    _refer(program, index, number, replace(ref, buffer=other)),
                )


def _swapped_buffers(program: Program, random: Random) -> Iterator[Change]:
    """From some instruction on two buffers have changed places."""
    buffers = _on_chip(program)
    while len(buffers) > 1:
        a, b = random.sample(buffers, 2)
        start = random.randrange(1, len(program.ops))
        if a.space is b.space:
            ops = (*program.ops[:start], *(_renamed(op, {a: b, b: a}) for op in program.ops[start:]))
            if ops != program.ops:
                yield f"%{a.name} and %{b.name} change places at instruction {start}", Program(ops, program.loop)


def _shared(program: Program, random: Random) -> Iterator[Change]:
    """Two values whose live ranges overlap have one buffer."""
    buffers, live = _on_chip(program), program.live
    while len(buffers) > 1:
        a, b = random.sample(buffers, 2)
        if a.space is b.space and b.bytes <= a.bytes and live[a][0] <= live[b][1] and live[b][0] <= live[a][1]:
            yield (
                f"%{b.name} lies in %{a.name}",
                Program(tuple(_renamed(op, {b: a}) for op in program.ops), program.loop),
            )


def _operand(program: Program, index: int, name: str, value: int) -> Program:
    op = program.ops[index]
    return _with(program, index, replace(op, attrs=tuple({**dict(op.attrs), name: value}.items())))


def _resized(program: Program, random: Random) -> Iterator[Change]:
    """A row too few or too many; half of the block."""
    while True:
        index = random.randrange(len(program.ops))
        op = program.ops[index]
        names = sorted({dim for field in op.row.views for dim in field.dims if dim in op.operands})
        name = random.choice(names)
        old = op.operands[name]
        new = random.choice((old - 1, old + 1, old // 2, 2 * old))
        if new > 0 and new != old:
            yield f"'{op}': {name} becomes {new}", _operand(program, index, name, new)


def _recomputed(program: Program, random: Random) -> Iterator[Change]:
    """Another function, flag or number."""
    while True:
        index = random.randrange(len(program.ops))
        op = program.ops[index]
        fields = [
            f for f in op.row.fields if f.kind in (Kind.CHOICE, Kind.FLAG, Kind.F32) and not f.name.startswith("dyn")
        ]
        if not fields:
            continue
        field = random.choice(fields)
        old = op.operands[field.name]
        new = (
            random.randrange(len(field.choices))
            if field.kind is Kind.CHOICE
            else 1 - old
            if field.kind is Kind.FLAG
            else old ^ (1 << random.randrange(32))
        )
        if new != old:
            yield f"'{op}': {field.name} becomes {new:#x}", _operand(program, index, field.name, new)


def _without(loop: Loop | None, index: int) -> Loop | None:
    if loop is None or index >= loop.end:
        return loop
    return Loop(loop.first - (index < loop.first), loop.end - 1, loop.count)


def _dropped(program: Program, random: Random) -> Iterator[Change]:
    for index in random.sample(range(len(program.ops)), len(program.ops)):
        ops = (*program.ops[:index], *program.ops[index + 1 :])
        yield f"'{program.ops[index]}' is dropped", Program(ops, _without(program.loop, index))


def _reordered(program: Program, random: Random) -> Iterator[Change]:
    """Two instructions that touch the same buffer change places."""
    last: dict[Buffer, int] = {}
    pairs = set()
    for index, op in enumerate(program.ops):
        for buffer in {ref.buffer for ref in op.views if ref is not None}:
            if buffer in last and program.in_loop(last[buffer]) == program.in_loop(index):
                pairs.add((last[buffer], index))
            last[buffer] = index
    for a, b in random.sample(sorted(pairs | set(pairwise(range(len(program.ops))))), len(pairs)):
        ops = list(program.ops)
        ops[a], ops[b] = ops[b], ops[a]
        yield f"'{program.ops[a]}' and '{program.ops[b]}' change places", Program(tuple(ops), program.loop)


def _stepped(program: Program, random: Random) -> Iterator[Change]:
    """What moves with the loop moves by another step, or what stands still moves."""
    inside = program.ops[program.loop.first : program.loop.end] if program.loop else ()
    moving = sorted(
        {ref.buffer for op in inside for ref in op.views if ref is not None and ref.buffer.step}, key=lambda b: b.name
    )
    while moving:
        buffer = random.choice(moving)
        step = random.choice(
            (0, 2 * buffer.step, buffer.step + 64, max(buffer.step - 64, 0), random.choice(moving).step)
        )
        if step != buffer.step:
            ops = tuple(_renamed(op, {buffer: replace(buffer, step=step)}) for op in program.ops)
            yield f"%{buffer.name} moves by {step} instead of {buffer.step}", Program(ops, program.loop)


def _swapped_operands(program: Program, random: Random) -> Iterator[Change]:
    for index, op, number, ref in _places(program, random):
        other = random.choice([i for i, view in enumerate(op.views) if view is not None])
        if op.views[other] != ref:
            views = list(op.views)
            views[number], views[other] = views[other], views[number]
            yield (
                f"'{op}': {_name(op, number)} and {_name(op, other)} change places",
                _with(program, index, replace(op, views=tuple(views))),
            )


def _lost_operands(program: Program, random: Random) -> Iterator[Change]:
    """An optional operand is forgotten."""
    for index, op, number, _ in _places(program, random):
        if op.row.views[number].default is not None:
            views = (*op.views[:number], None, *op.views[number + 1 :])
            yield f"'{op}': {_name(op, number)} is missing", _with(program, index, replace(op, views=views))


def _miscounted(program: Program, random: Random) -> Iterator[Change]:
    """The loop runs too often or not often enough, or its body ends elsewhere."""
    loop = program.loop
    if loop is None:
        return
    for changed in (
        Loop(loop.first, loop.end, loop.count - 1),
        Loop(loop.first, loop.end, loop.count + 1),
        Loop(loop.first + 1, loop.end, loop.count),
        Loop(loop.first, loop.end - 1, loop.count),
        Loop(loop.first, loop.end + 1, loop.count),
        Loop(max(loop.first - 1, 0), loop.end, loop.count),
    ):
        yield f"loop {changed} instead of {loop}", Program(program.ops, changed)


TILE_FAULTS: Final[Mapping[str, Callable[[Program, Random], Iterator[Change]]]] = {
    "shift view": _shifted,
    "change stride": _restrided,
    "wrong buffer": _wrong_buffer,
    "swap buffers": _swapped_buffers,
    "share buffer": _shared,
    "resize block": _resized,
    "wrong function": _recomputed,
    "drop instruction": _dropped,
    "reorder instructions": _reordered,
    "change step": _stepped,
    "swap operands": _swapped_operands,
    "lose operand": _lost_operands,
    "miscount loop": _miscounted,
}

"""Codegen: placed tile programs to instructions, with probes and spans for the debug map."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from compiler.codegen.scalar_registers import ScalarFile
from compiler.codegen.view_registers import LEVEL, Moving, ViewFile
from compiler.codegen.wait_counts import Tracker
from compiler.tile.decisions import Placement
from compiler.tile.ir import Length, Op, Probe, Program, Ref, span
from isa.architecture import NO_WAIT, QUEUES, WORD_BYTES, Dtype, Region, Space
from isa.chip import Chip
from isa.codec import NO_WAITS, Inst, encode
from isa.fields import Kind
from isa.views import Extents, View

REPLAYS = (
    3  # iterations after which a loop has shown every count that it can ask for: the first, the second, a steady one
)


@dataclass(frozen=True)
class Code:
    """The instructions of a program; (pc, probe) of every instruction that completes part of a node; (first pc, end pc,
    node) of its spans.

    `pc_of` is the instruction index of each tile op; `loop` the first and end pc of the loop body.
    """

    instructions: tuple[Inst, ...]
    probes: tuple[tuple[int, Probe], ...]
    spans: tuple[tuple[int, int, str], ...]
    pc_of: tuple[int, ...]
    loop: tuple[int, int] = (0, 0)

    def in_loop(self, pc: int) -> bool:
        return self.loop[0] <= pc < self.loop[1]

    @property
    def bytes(self) -> bytes:
        return b"".join(map(encode, self.instructions))


def generate(program: Program, placement: Placement, chip: Chip, region_sizes: Mapping[Region, int]) -> Code:
    """Instructions of a placed program, dependence counts included."""
    sizes = {(Space.SRAM, 0): chip.sram.bytes, (Space.ACC, 0): chip.acc.bytes}
    sizes |= {(Space.DRAM, int(region)): size for region, size in region_sizes.items()}
    counts = dependence_counts(program, placement, sizes)
    registers = ViewFile()
    scalars = ScalarFile(registers)
    instructions: list[Inst] = []
    probes: list[tuple[int, Probe]] = []
    spans: list[tuple[int, int, str]] = []
    pc_of: list[int] = []
    loop, loop_at = program.loop, 0
    for index, op in enumerate(program.ops):
        if loop and index in (loop.first, loop.end):
            registers.forget()
            scalars.forget()
        if loop and index == loop.first:
            instructions.append(Inst.make("fence"))  # so that counts inside need only hold between iterations
            loop_at = len(instructions)
            instructions.append(
                Inst.make("loop", level=LEVEL, len=0, count=loop.count)
            )  # the length is known at the end
        first = len(instructions)
        lengths, held = scalars.load(op.lengths)
        views = [
            None
            if ref is None
            else _moving(ref, placement, program.in_loop(index), dict(zip(op.lengths, held, strict=True)))
            for ref in op.views
        ]
        sets, numbers = registers.load(views)
        instructions += [*lengths, *sets]
        pc_of.append(len(instructions))
        instructions.append(_instruction(op, numbers, counts[index], held[-1] if op.cut else 0))
        probes += [((len(instructions) - 1) * WORD_BYTES, probe) for probe in op.probes]
        if spans and spans[-1][1:] == (first * WORD_BYTES, op.node):
            spans[-1] = (spans[-1][0], len(instructions) * WORD_BYTES, op.node)
        else:
            spans.append((first * WORD_BYTES, len(instructions) * WORD_BYTES, op.node))
        if loop and index == loop.end - 1:
            instructions[loop_at] = Inst.make(
                "loop", level=LEVEL, len=len(instructions) - loop_at - 1, count=loop.count
            )
    instructions.append(Inst.make("halt"))
    inside = ((loop_at + 1) * WORD_BYTES, (pc_of[loop.end - 1] + 1) * WORD_BYTES) if loop else (0, 0)
    return Code(tuple(instructions), tuple(probes), tuple(spans), tuple(pc_of), inside)


def dependence_counts(
    program: Program, placement: Placement, sizes: Mapping[tuple[Space, int], int]
) -> list[tuple[int, ...]]:
    """The counts of every op.

    Counts inside a loop must hold in every iteration, so iterations are replayed and each instruction keeps the
    strictest count that any of them asked for, until nothing changes. A stricter count is always safe."""
    touches = [
        (op.row.engine, [(*_block(ref, extents, placement), access) for _, ref, extents, access in op.accesses])
        for op in program.ops
    ]
    order = list(range(len(program.ops)))
    loop = program.loop
    if loop is not None:
        body = list(range(loop.first, loop.end))
        order = [*range(loop.first), *(body * min(loop.count, REPLAYS)), *range(loop.end, len(program.ops))]
    counts: list[tuple[int, ...]] = [NO_WAITS] * len(program.ops)
    while True:
        tracker, before = Tracker(sizes), list(counts)
        needless = [set(range(len(QUEUES))) for _ in program.ops]  # waits that mattered in no iteration
        for position, index in enumerate(order):
            if loop is not None and position == loop.first:
                tracker.fence()
            needless[index] &= tracker.implied(touches[index][0], counts[index])
            counts[index] = tracker.wait_counts(*touches[index], floor=counts[index])
        if loop is None:
            return counts
        if counts == before and not any(needless):
            return counts
        if counts == before:  # one of each instruction at a time: two waits may imply each other
            counts = [
                tuple(NO_WAIT if q == min(n) else c for q, c in enumerate(count)) if n else count
                for count, n in zip(counts, needless, strict=True)
            ]


def place_view(ref: Ref, placement: Placement) -> View:
    """The view of a symbolic reference, now that its buffer has an address."""
    region = ref.buffer.region if ref.buffer.space is Space.DRAM else Region.WEIGHTS
    return View(ref.buffer.space, region, ref.dtype, placement.offsets[ref.buffer] + ref.offset, ref.rs, ref.ps, ref.cs)


def _moving(ref: Ref, placement: Placement, in_loop: bool, held: Mapping[Length, int]) -> Moving:
    shift = None if ref.moved is None else (ref.moved, held[ref.moved], ref.unit)
    return place_view(ref, placement), ref.buffer.step if in_loop else 0, shift


def _block(ref: Ref, extents: Extents, placement: Placement) -> tuple[View, Extents]:
    """The view of a block, or of all the bytes that one touches which launches move."""
    view = place_view(ref, placement)
    if ref.moved is None:
        return view, extents
    low, high = span(ref, extents)
    return View(view.space, view.region, Dtype.I8, view.base), (1, 1, high - low)


def _instruction(op: Op, numbers: list[int], counts: tuple[int, ...], scalar: int) -> Inst:
    registers = iter(numbers)
    by_name = {field.name: next(registers) for field in op.row.views}
    if op.cut is not None:
        dyn = op.row.field("dyn").choices.index(op.cut[0])
        op = replace(op, attrs=(*op.attrs, ("dyn", dyn), ("dyn_s", scalar)))
    values = tuple(by_name[f.name] if f.kind is Kind.VIEW else op.operands[f.name] for f in op.row.fields)
    return Inst(op.mnemonic, values, counts)

"""Codegen: placed tile programs to instruction words, with taps and spans for the debug map."""

from collections.abc import Mapping
from dataclasses import dataclass

from compiler.codegen.dependences import Tracker
from compiler.codegen.views import ViewFile
from compiler.tile.ir import Op, Program, Ref, Tap
from compiler.tile.place import Placement
from isa.chip import Chip
from isa.codec import Inst, encode
from isa.spec import WORD_BYTES, Kind, Region, Space
from isa.views import View


@dataclass(frozen=True)
class Code:
    """The words of a program; (pc, tap) of every word that completes part of a node; (first pc, end pc, node) of its spans.

    `pc_of` is the word index of each tile op.
    """

    words: tuple[Inst, ...]
    taps: tuple[tuple[int, Tap], ...]
    spans: tuple[tuple[int, int, str], ...]
    pc_of: tuple[int, ...]

    @property
    def bytes(self) -> bytes:
        return b"".join(map(encode, self.words))


def generate(program: Program, placement: Placement, chip: Chip, region_sizes: Mapping[Region, int]) -> Code:
    """Instruction words of a placed program, dependence counts included."""
    sizes = {(Space.SRAM, 0): chip.sram.bytes, (Space.ACC, 0): chip.acc.bytes}
    sizes |= {(Space.DRAM, int(region)): size for region, size in region_sizes.items()}
    tracker, registers = Tracker(sizes), ViewFile()
    words: list[Inst] = []
    taps: list[tuple[int, Tap]] = []
    spans: list[tuple[int, int, str]] = []
    pc_of = []
    for op in program.ops:
        first = len(words)
        views = [None if ref is None else place_view(ref, placement) for ref in op.views]
        sets, numbers = registers.load(views)
        words += sets
        counts = tracker.wait_counts(op.row.engine, [(place_view(ref, placement), ext, acc) for _, ref, ext, acc in op.accesses()])
        pc_of.append(len(words))
        words.append(_word(op, numbers, counts))
        taps += [((len(words) - 1) * WORD_BYTES, tap) for tap in op.taps]
        if spans and spans[-1][2] == op.node:
            spans[-1] = (spans[-1][0], len(words) * WORD_BYTES, op.node)
        else:
            spans.append((first * WORD_BYTES, len(words) * WORD_BYTES, op.node))
    words.append(Inst.make("halt"))
    return Code(tuple(words), tuple(taps), tuple(spans), tuple(pc_of))


def place_view(ref: Ref, placement: Placement) -> View:
    """The view of a symbolic reference, now that its buffer has an address."""
    region = ref.buffer.region if ref.buffer.space is Space.DRAM else Region.WEIGHTS
    return View(ref.buffer.space, region, ref.dtype, placement.offsets[ref.buffer] + ref.offset, ref.rs, ref.ps, ref.cs)


def _word(op: Op, numbers: list[int], counts: tuple[int, ...]) -> Inst:
    registers = iter(numbers)
    by_name = {field.name: next(registers) for field in op.row.views}
    values = tuple(by_name[f.name] if f.kind is Kind.VIEW else op.operands[f.name] for f in op.row.fields)
    return Inst(op.mnemonic, values, counts)

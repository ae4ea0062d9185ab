"""Static checks of a program: everything that can be known about it without data.

    for finding in lint(load_image("minilm.llmchip")):    print(finding)         check: errors only; lint: warnings too

Replays the program (`isa.replay`; of long loops only as many iterations as prove the rest, `lint.induction`; no more
than `lint.analyse` allows) and checks each instruction: kinds, bounds and alignment of its operands here, their
agreement in `lint.type_rules`; memory never written and races between engines in `lint.races`; what can never matter
(implied waits, unreachable instructions, dead stores) in `lint.dead_code`. Imports nothing of planner, scheduler and
emulator, on purpose; `overlaps_itself` restates the emulator's rule, because it must predict that trap.

What is proved: every instruction keeps the rules of the table, and every pair of instructions that touch the same byte,
one of them writing, is ordered by counts, fences or the order of one engine. So every execution that the chip may
choose gives the bits of program order, whatever the scalar arguments in their ranges (`lint.between`).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain, islice
from operator import itemgetter

from isa.architecture import LOOP_LEVELS, WORD_BYTES, Dtype, Region, Space
from isa.asm.text import format_inst
from isa.codec import IllegalInstruction, Inst, decode
from isa.fields import Access, Field
from isa.image.image import Image
from isa.image.records import Entry, PlanRecord
from isa.replay import Dispatch
from isa.views import Extents, View, access_of
from lint.steering import Steered
from lint.type_rules import type_error

MAX_FINDINGS = 100
_PAGE, _MANY, _EVERYWHERE = 1 << 14, 1 << 12, -1


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or (severity warning) something that can never matter.

    `kind` is stable. Errors: structure, kind, bounds, alignment, overlap, buffer, uninitialized, race, plan, output,
    unproved. Warnings: wait, unreachable, dead. `other` is the pc of the conflicting instruction, `node` the graph node
    of this one.
    """

    kind: str
    pc: int
    instruction: str
    message: str
    other: int | None = None
    severity: str = "error"
    node: str = ""
    other_instruction: str = ""

    def __str__(self) -> str:
        node = f" of {self.node}" if self.node else ""
        other = f" ('{self.other_instruction}')" if self.other_instruction else ""
        return f"pc {self.pc:#06x} '{self.instruction}'{node}: {self.severity}: {self.kind}: {self.message}{other}"


@dataclass(frozen=True, slots=True)
class Touch:
    """One operand of one dispatched instruction, in memory. Of one that is `steered` the block holds what it touches in
    any launch."""

    instruction: Dispatch
    field: Field
    view: View
    extents: Extents
    access: Access
    steered: Steered | None = None


class Findings:
    """Collects findings, each (kind, pc, operand, other pc) once, so that a loop does not repeat itself."""

    def __init__(self, image: Image | None = None) -> None:
        self.found: dict[tuple[object, ...], Finding] = {}
        self.image = image
        self.launch = ""  # scalars of the launch that is looked at, for messages

    @property
    def full(self) -> bool:
        return len(self.found) >= MAX_FINDINGS

    def add(
        self, kind: str, pc: int, inst: Inst | None, message: str, other: int | None = None, operand: str = "",
        indices: tuple[int, ...] = (), severity: str = "error",
    ) -> None:  # fmt: skip
        key = (kind, pc, operand, other)
        if self.full or key in self.found:
            return
        node = self.image.debug.node_at(pc, indices) if self.image else None
        text = format_inst(inst) if inst else ""
        self.found[key] = Finding(
            kind, pc, text, message + self.launch, other, severity, node.name if node else "", self._text(other)
        )

    def merge(self, found: Mapping[tuple[object, ...], Finding]) -> None:
        for key, finding in found.items():
            if not self.full:
                self.found.setdefault(key, finding)

    def _text(self, pc: int | None) -> str:
        if pc is None or self.image is None:
            return ""
        try:
            return format_inst(decode(self.image.word(pc)))
        except IllegalInstruction:
            return ""


def check_plan(image: Image, findings: Findings | None = None) -> list[Finding]:
    """Live buffers of the memory plan may not overlap or leave their memory. At most MAX_FINDINGS overlaps are
    listed."""
    findings = Findings(image) if findings is None else findings
    memories: dict[tuple[Space, Region | None], list[tuple[int, PlanRecord]]] = {}
    for number, record in enumerate(image.plan):
        limit = capacity(image, record.space, record.region)
        place = _place(record)
        if record.offset < 0 or record.bytes < 0 or record.offset + record.bytes > limit:
            findings.add(
                "plan",
                record.first * WORD_BYTES,
                None,
                f"buffer {place} does not fit: there are {limit:#x} bytes",
                operand=str(number),
            )
        if record.first > record.last:
            findings.add(
                "plan", record.first * WORD_BYTES, None, f"buffer {place} ends before it begins", operand=str(number)
            )
        memories.setdefault((record.space, record.region if record.space is Space.DRAM else None), []).append(
            (number, record)
        )
    for (number, record), (_, other) in islice(
        chain.from_iterable(_overlaps(records) for records in memories.values()), MAX_FINDINGS
    ):
        message = f"buffers {_place(other)} and {_place(record)} overlap while both are live"
        findings.add("plan", record.first * WORD_BYTES, None, message, other.first * WORD_BYTES, str(number))
    return list(findings.found.values())


_Numbered = tuple[int, PlanRecord]


def _overlaps(records: list[_Numbered]) -> Iterator[tuple[_Numbered, _Numbered]]:
    """Pairs of buffers of one memory that share bytes and instructions, the later one of the plan first.

    A sweep over the instructions in n log n. What is alive lies apart, sorted by address, so that a buffer meets any of
    it only if it meets a neighbour. One that does is reported and left out: at least one pair is found if there is any.
    """
    alive: list[tuple[int, int, int, PlanRecord]] = []  # offset, end, number, record; by offset, apart from each other
    leaving: list[tuple[int, int, int]] = []  # last instruction, offset, number
    usual = ((n, r) for n, r in records if r.bytes > 0 and r.first <= r.last)
    for number, record in sorted(usual, key=lambda item: (item[1].first, item[0])):
        while leaving and leaving[0][0] < record.first:
            _, offset, gone = heappop(leaving)
            at = bisect_left(alive, offset, key=itemgetter(0))
            if at < len(alive) and alive[at][2] == gone:
                del alive[at]
        at = bisect_left(alive, record.offset, key=itemgetter(0))
        end, clear = record.offset + record.bytes, True
        for neighbour in (at - 1, at):
            if 0 <= neighbour < len(alive) and alive[neighbour][0] < end and record.offset < alive[neighbour][1]:
                first, second = sorted(
                    [(number, record), (alive[neighbour][2], alive[neighbour][3])], key=itemgetter(0)
                )
                yield second, first
                clear = False
        if clear:
            alive.insert(at, (record.offset, end, number, record))
            heappush(leaving, (record.last, record.offset, number))


def capacity(image: Image, space: Space, region: Region) -> int:
    """Bytes of a memory."""
    return {Space.SRAM: image.chip.sram.bytes, Space.ACC: image.chip.acc.bytes, Space.DRAM: image.size(region)}[space]


def _place(record: PlanRecord) -> str:
    memory = f"dram.{record.region.name.lower()}" if record.space is Space.DRAM else record.space.name.lower()
    return f"{record.name} {memory}[{record.offset:#x}, {record.offset + record.bytes:#x}) instructions {record.first} to {record.last}"


def check_structure(image: Image, findings: Findings) -> None:
    """What a reader sees without running: illegal instructions, loop bodies, levels. Finds it in code that is never
    reached, too."""
    loops: list[tuple[int, int]] = []  # end, level
    for pc in range(0, len(image.code), WORD_BYTES):
        loops = [loop for loop in loops if loop[0] > pc]
        try:
            inst = decode(image.word(pc))
        except IllegalInstruction as error:
            findings.add("structure", pc, None, f"illegal instruction: {error}")
            continue
        named = inst.named()
        if not named.get("len"):
            continue
        end = pc + WORD_BYTES * (1 + named["len"])
        if end > (loops[-1][0] if loops else len(image.code)):
            findings.add("structure", pc, inst, f"the loop body leaves the {'enclosing loop' if loops else 'program'}")
        elif any(level == named["level"] for _, level in loops):
            findings.add("structure", pc, inst, f"loop level {named['level']} is already in use")
        elif len(loops) < LOOP_LEVELS:
            loops.append((end, named["level"]))


def sound_touches(
    image: Image, instructions: list[Dispatch], buffers: "Buffers", findings: Findings
) -> Iterator[tuple[int, Touch]]:
    """Index of the instruction and operand, for each operand whose access is possible at all; the others become
    findings."""
    for index, instruction in enumerate(instructions):
        for touch in touches_of(image, instruction, buffers, findings):
            yield index, touch


def touches_of(image: Image, instruction: Dispatch, buffers: "Buffers", findings: Findings) -> Iterator[Touch]:
    """The operands of one instruction whose access is possible at all; the others become findings."""
    if instruction.empty:
        return
    written: list[Touch] = []
    problem = type_error(instruction.inst.mnemonic, instruction.operands, instruction.views)
    if problem:
        findings.add("kind", instruction.pc, instruction.inst, problem, None, "", instruction.indices)
    for field in instruction.inst.row.views:
        view = instruction.views.get(field.name)
        if view is not None:
            extents = (
                (1, 1, instruction.operands["off"] + 1) if "off" in instruction.operands else instruction.extents(field)
            )
            touch = Touch(instruction, field, view, extents, access_of(field, instruction.operands))
            if _is_sound(image, touch, buffers, written, findings):
                yield touch
            if touch.access is not Access.R:
                written.append(touch)


def _is_sound(image: Image, touch: Touch, buffers: "Buffers", written: list[Touch], findings: Findings) -> bool:
    faults = list(_faults(image, touch)) or list(_misplaced(touch, buffers, written))
    instruction = touch.instruction
    for kind, message in faults:
        findings.add(
            kind,
            instruction.pc,
            instruction.inst,
            f"operand {touch.field.name} = {touch.view}: {message}{_iteration(touch)}",
            None,
            touch.field.name,
            instruction.indices,
        )
    return not any(kind != "buffer" for kind, _ in faults)


def _misplaced(touch: Touch, buffers: "Buffers", written: list[Touch]) -> Iterator[tuple[str, str]]:
    """Accesses that the chip would carry out, but that no compiler means."""
    low, high = touch.view.span(touch.extents)
    problem = buffers.problem(touch.view, low, high, touch.instruction.pc // WORD_BYTES)
    if not problem and touch.field.partial:
        problem = buffers.beyond(touch.view, low, high)
    if problem:
        yield "buffer", problem
    for other in written if touch.access is not Access.R else ():
        begin, end = other.view.span(other.extents)
        if other.view.space is touch.view.space and low < end and begin < high:
            yield "overlap", f"the same instruction also writes {other.field.name} = {other.view} there"


_Lives = tuple[int, int, int, int]  # of a buffer: its bytes, and its first and last instruction
_FIRST = itemgetter(2)


class Buffers:
    """What the image says lies where: planned buffers with their live ranges, and the tensors of the interface.

    An operand must lie inside one of them. Memories about which the image says nothing are left alone.
    """

    def __init__(self, image: Image, entry: Entry) -> None:
        self.constants = image.constants
        self.described: set[tuple[Space, Region]] = set()
        self.records: dict[
            tuple[Space, Region, int, int], list[_Lives]
        ] = {}  # by page and length of life, so that few need a look
        self.longest = 0  # class of the longest life
        for record in image.plan:
            region = record.region if record.space is Space.DRAM else Region.WEIGHTS
            self._add(record.space, region, (record.offset, record.offset + record.bytes, record.first, record.last))
        for tensor in (*entry.inputs, *entry.outputs):
            self._add(Space.DRAM, tensor.region, (tensor.offset, tensor.offset + tensor.nbytes, 0, image.words))
        for records in self.records.values():
            records.sort(key=_FIRST)

    def beyond(self, view: View, low: int, high: int) -> str:
        """Why a table that begins in a packed constant is longer than it; "" if it is not."""
        for tensor in self.constants if view.space is Space.DRAM else ():
            end = tensor.offset + tensor.nbytes
            if tensor.region is view.region and tensor.offset <= low < end < high:
                return (
                    f"the table's bytes {low:#x} to {high:#x} go beyond constant {tensor.name}, which ends at {end:#x}"
                )
        return ""

    def _add(self, space: Space, region: Region, record: "_Lives") -> None:
        self.described.add((space, region))
        if record[2] > record[3]:
            return
        length = (record[3] - record[2]).bit_length()
        self.longest = max(self.longest, length)
        first, end = record[0] // _PAGE, -(-record[1] // _PAGE)
        for page in range(first, end) if end - first <= _MANY else (_EVERYWHERE,):
            self.records.setdefault((space, region, page, length), []).append(record)

    def problem(self, view: View, low: int, high: int, instruction: int) -> str:
        memory = view.space, view.region if view.space is Space.DRAM else Region.WEIGHTS
        if memory not in self.described:
            return ""
        for page in (low // _PAGE, _EVERYWHERE):
            for length in range(self.longest + 1):
                records = self.records.get((*memory, page, length), ())
                for number in range(bisect_right(records, instruction, key=_FIRST) - 1, -1, -1):
                    begin, end, first, last = records[number]
                    if first + (1 << length) <= instruction:
                        break
                    if begin <= low and high <= end and instruction <= last:
                        return ""
        return f"bytes {low:#x} to {high:#x} do not lie inside one buffer that is alive here"


def _faults(image: Image, touch: Touch) -> Iterator[tuple[str, str]]:
    view, field = touch.view, touch.field
    if view.dtype not in field.dtypes:
        yield "kind", f"type {view.dtype.name.lower()} is not one of {', '.join(d.name.lower() for d in field.dtypes)}"
    if view.space not in field.spaces:
        yield (
            "kind",
            f"memory {view.space.name.lower()} is not one of {', '.join(s.name.lower() for s in field.spaces)}",
        )
    low, high = view.span(touch.extents)
    limit = capacity(image, view.space, view.region)
    if low < 0 or high > limit:
        yield "bounds", f"bytes {low:#x} to {high:#x} leave the memory of {limit:#x} bytes"
    if view.dtype is not Dtype.I4 and low % (view.dtype.bits // 8):
        yield "alignment", f"the base is not a multiple of {view.dtype.bits // 8} bytes"
    if touch.access is not Access.R and overlaps_itself(view, touch.extents):
        yield "overlap", "two elements of the destination share a byte"


def overlaps_itself(view: View, extents: Extents) -> bool:
    """Whether two elements of a block may share an address: each stride must exceed the reach of all smaller ones."""
    reach = 0
    for stride, extent in sorted(zip((view.ps, view.rs, view.cs), extents, strict=True)):
        if extent > 1 and stride <= reach:
            return True
        reach += stride * (extent - 1)
    return False


def _iteration(touch: Touch) -> str:
    return f" (loop indices {', '.join(map(str, touch.instruction.indices))})" if any(touch.instruction.indices) else ""

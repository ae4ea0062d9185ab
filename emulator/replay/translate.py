"""Recorded instructions as steps of the compiled kernels. An instruction that no kernel takes stays with its handler.

Weights are the bulk of the bytes: where a matrix instruction reads what a copy brought from read-only memory, it is
given the packed weights (kept from launch to launch) and the copy is left out if nothing else reads it. SRAM does not
survive a launch, so no program can tell.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator import threads
from emulator.context import Core
from emulator.formats import float_of_bits
from emulator.memory import Memory
from emulator.pieces import Bytes
from emulator.replay import executor
from emulator.replay.executor import Kind, Steps, Workspace
from emulator.replay.recording import Recorded, Run, aliases, handled
from emulator.replay.rows import FIRST_MICRO, FIRST_SLOT, MICROS, SLOT_WIDTH, SLOTS, WIDTH, Micro
from emulator.replay.weight_tracking import WeightTracker, packed
from isa.architecture import FLOATS, Dtype
from isa.fields import Access
from isa.spec import MM_FORMAT, ROUND, TAP, VOP, VRED
from isa.views import Extents, View

Row = list[int]
SHARED: Final = 1 << 13  # elements of work that are worth the meeting of two threads
PIECE: Final = 1 << 13
RETRY: Final = 32  # launches
_ONE: Final = 0x3F800000
_ARITHMETIC: Final = {
    "add": Micro.ADD,
    "sub": Micro.SUB,
    "mul": Micro.MUL,
    "div": Micro.DIV,
    "max": Micro.MAX,
    "min": Micro.MIN,
}
_REDUCTIONS: Final = {
    "sum": Micro.SUM,
    "sumsq": Micro.SUMSQ,
    "max": Micro.LARGEST,
    "min": Micro.SMALLEST,
    "absmax": Micro.ABSMAX,
}
_TYPES: Final = {"bf16": Dtype.BF16, "f16": Dtype.F16}


@dataclass(slots=True)
class Compiled:
    """Consecutive instructions as one table.

    Threads meet at every step, which pays on processors that are free and costs dearly on busy ones. So both ways are
    timed, and the quicker one is taken; now and then the other gets another chance. The bits are the same.
    """

    at: int
    steps: Steps
    spaces: list[Workspace]  # one per thread
    kept: Any  # what the addresses in the table point to
    launches: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])  # with all threads, with one

    def __call__(self, core: Core) -> None:
        single = int(self.seconds[1] < self.seconds[0]) if self.launches > 1 else self.launches
        if self.launches % RETRY == RETRY - 1:
            single = 1 - single
        start = time.perf_counter()
        executor.run(self.steps, self.spaces[:1] if single else self.spaces)
        spent = time.perf_counter() - start
        self.seconds[single] = (self.seconds[single] + spent) / 2 if self.launches > 1 else spent
        self.launches += 1


@dataclass(slots=True)
class _Chain:
    """A step under construction: operands, and what happens to a row."""

    item: Recorded
    memory: Memory
    slots: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    micros: list[tuple[Micro, int]] = field(default_factory=list)

    def slot(self, name: str) -> int:
        self.slots.append(place(self.memory, self.item.call.views[name], self.item.call.extents[name]))
        return len(self.slots) - 1

    def immediate(self, address: int) -> int:
        self.slots.append((address, 0, 0, 0, int(Dtype.F32)))
        return len(self.slots) - 1

    def then(self, micro: Micro, name: str) -> None:
        self.micros.append((micro, self.slot(name)))

    def row(self, kind: Kind, extents: tuple[int, int, int], *more: int) -> Row:
        if kind in (Kind.ROWS, Kind.COPY):
            extents = self._cut(kind, extents)
        assert len(self.slots) <= SLOTS and len(self.micros) <= MICROS
        step = [0] * WIDTH
        step[0:4] = (int(kind), *extents)
        step[4] = len(self.micros)
        step[5 : 5 + len(more)] = more
        work = extents[0] * extents[1] * extents[2] * (more[0] // 16 if kind is Kind.MATMUL else 1)
        step[executor.SOLO] = int(work < SHARED)
        for number, slot in enumerate(self.slots):
            step[FIRST_SLOT + SLOT_WIDTH * number : FIRST_SLOT + SLOT_WIDTH * (number + 1)] = slot
        for number, micro in enumerate(self.micros):
            step[FIRST_MICRO + 2 * number : FIRST_MICRO + 2 * number + 2] = (int(micro[0]), micro[1])
        return step

    def _cut(self, kind: Kind, extents: tuple[int, int, int]) -> tuple[int, int, int]:
        """One long row, if nothing is reduced along it, as several rows that threads can share."""
        planes, rows, cols = extents
        pieces = -(-cols // PIECE)
        if planes * rows > 1 or pieces < 2 or cols % pieces or any(micro >= Micro.SUM for micro, _ in self.micros):
            return extents
        width = cols // pieces
        steps = [1 if kind is Kind.COPY else stride for _, _, _, stride, _ in self.slots]
        self.slots = [
            (at, 0, width * step, stride, dtype)
            for (at, _, _, stride, dtype), step in zip(self.slots, steps, strict=True)
        ]
        return 1, pieces, width


def place(memory: Memory, view: View, extents: Extents) -> tuple[int, int, int, int, int]:
    """Address and strides in bytes."""
    size = view.dtype.bits // 8
    data, start = memory.store_of(view).at(*view.span(extents))
    return data.ctypes.data + start, view.ps * size, view.rs * size, view.cs * size, int(view.dtype)


class Constants:
    """Immediates in memory, where the kernels look for operands."""

    def __init__(self) -> None:
        self.blocks: list[NDArray[np.float32]] = []
        self._addresses: dict[int, int] = {}

    def address(self, bits: int) -> int:
        if bits not in self._addresses:
            self.blocks.append(np.array([float_of_bits(bits)], np.float32))
            self._addresses[bits] = self.blocks[-1].ctypes.data
        return self._addresses[bits]


class _Translator:
    def __init__(self, memory: Memory) -> None:
        self.memory, self.constants, self.origins = memory, Constants(), WeightTracker(memory)
        self.panels: list[Bytes] = []
        self.by_name = {
            "vaff": self.vaff,
            "vop": self.vop,
            "act": self.act,
            "vred": self.vred,
            "vqd": self.vqd,
            "mm": self.mm,
        }
        self.by_name |= dict.fromkeys(("ldw", "lda", "sto"), self.copy)

    def step(self, item: Recorded) -> Row | None:
        """The table row of an instruction; None if its handler must do it."""
        make = self.by_name.get(item.instruction.inst.mnemonic)
        if make is None or not aliases(self.memory, item) or not _plain(item):
            return None
        return make(item)

    def vaff(self, item: Recorded) -> Row | None:
        call, chain = item.call, _Chain(item, self.memory)
        rnd = _TYPES.get(ROUND[call.operands["rnd"]])
        chain.then(Micro.LOAD, "a")
        order = (("sub", Micro.SUB), ("rs", Micro.MUL), ("cs", Micro.MUL), ("bi", Micro.ADD), ("res", Micro.ADD))
        rounds = {"rs", "bi"} if "bi" in call.views else {"rs", "cs"}
        for name, micro in order:
            if name in call.views:
                chain.then(micro, name)
                if rnd is not None and name in rounds:
                    chain.micros.append((Micro.ROUND, int(rnd)))
        chain.then(Micro.STORE, "d")
        if "tap" in call.views:
            if call.dtype("d") is not Dtype.F32:
                chain.micros.append((Micro.ROUND, int(call.dtype("d"))))
            chain.then(_REDUCTIONS[TAP[call.operands["red"]]], "tap")
        return chain.row(Kind.ROWS, call.extents["d"])

    def vop(self, item: Recorded) -> Row | None:
        call, chain, f = item.call, _Chain(item, self.memory), VOP[item.call.operands["f"]]
        if call.dtype("d") not in FLOATS or not (f == "mov" or f in _ARITHMETIC):
            return None
        chain.then(Micro.LOAD, "a")
        if f != "mov":
            if "b" in call.views:
                chain.then(_ARITHMETIC[f], "b")
            else:
                chain.micros.append((_ARITHMETIC[f], chain.immediate(self.constants.address(call.operands["imm"]))))
        chain.then(Micro.STORE, "d")
        return chain.row(Kind.ROWS, call.extents["d"])

    def act(self, item: Recorded) -> Row | None:
        call, chain = item.call, _Chain(item, self.memory)
        chain.then(Micro.LOAD, "a")
        if call.operands["scale"] != _ONE:
            chain.micros.append((Micro.MUL, chain.immediate(self.constants.address(call.operands["scale"]))))
        if "bi" in call.views:
            chain.then(Micro.SUB if call.operands["neg"] else Micro.ADD, "bi")
        chain.micros.append((Micro.FUNCTION, call.operands["f"]))
        chain.then(Micro.STORE, "d")
        if "sum" in call.views:
            chain.then(Micro.SUM, "sum")
        return chain.row(Kind.ROWS, call.extents["d"])

    def vred(self, item: Recorded) -> Row | None:
        call, chain = item.call, _Chain(item, self.memory)
        micro = _REDUCTIONS.get(VRED[call.operands["f"]])
        if micro is None or call.operands["down"]:
            return None
        chain.then(Micro.LOAD, "a")
        if "sub" in call.views:
            chain.then(Micro.SUB, "sub")
        chain.then(micro, "d")
        return chain.row(Kind.ROWS, call.extents["a"])

    def vqd(self, item: Recorded) -> Row | None:
        call, chain = item.call, _Chain(item, self.memory)
        if call.operands["norm"] or call.operands["ties"]:
            return None
        names = [name for name in ("d", "s", "a", "rs", "cs", "am") if name in call.views]
        for name in names:
            chain.slot(name)
        return chain.row(Kind.QUANTIZE, call.extents["d"], len({"rs", "cs"} & set(names)), int("am" in names))

    def copy(self, item: Recorded) -> Row | None:
        call, chain = item.call, _Chain(item, self.memory)
        source, target = call.views["a"], call.views["d"]
        planes, rows, cols = call.extents["d"]
        if source.dtype is Dtype.I4 or (not source.cs and cols > 1):
            return None
        if rows > 1 and source.rs == target.rs == cols:
            rows, cols = 1, rows * cols
        if planes > 1 and rows == 1 and source.ps == target.ps == cols:
            planes, cols = 1, planes * cols
        for name in ("d", "a"):
            chain.slot(name)
        return chain.row(Kind.COPY, (planes, rows, cols * (source.dtype.bits // 8)))

    def mm(self, item: Recorded) -> Row | None:
        call, chain = item.call, _Chain(item, self.memory)
        if MM_FORMAT[call.operands["fmt"]] != "i8" or call.dtype("w") is not Dtype.I8:
            return None
        operands = call.operands
        for name in ("c", "a", "w"):
            chain.slot(name)
        address, ps, rs, cs, kind = chain.slots[2]
        ns, ks = (rs, cs) if operands["wt"] else (cs, rs)
        chain.slots[2] = (address, ps, ns, ks, kind)
        k, n, planes = operands["k"], operands["n"], operands["b"]
        origin = self.origins.of(call.views["w"], call.extents["w"])
        if origin is not None:
            panels, stride = packed(*origin, ps, ks, ns, k, n, planes)
            self.panels.append(panels)
            chain.slots.append((panels.ctypes.data, stride, 0, 0, 0))
        return chain.row(Kind.MATMUL, (planes, operands["m"], n), k, operands["acc"])


def _plain(item: Recorded) -> bool:
    """Whether destinations are contiguous along rows and do not lie over one another."""
    call = item.call
    targets = [operand.field.name for operand in item.instruction.views if operand.access is not Access.R]
    if any(not call.views[name].cs and call.extents[name][2] > 1 for name in targets):
        return False
    spans = [(call.views[name].space, *call.views[name].span(call.extents[name])) for name in targets]
    return not any(a[0] is b[0] and a[1] < b[2] and b[1] < a[2] for i, a in enumerate(spans) for b in spans[:i])


def runs(memory: Memory, instructions: Sequence[Recorded]) -> Iterator[Run]:
    """The instructions of a launch as tables and handlers, in order."""
    translator = _Translator(memory)
    rows: list[Row | None] = []
    for number, item in enumerate(instructions):
        row = translator.step(item)
        rows.append(row)
        direct = row is not None and row[0] == Kind.MATMUL and row[executor.PACKED] != 0
        translator.origins.executed(
            number, item, row is not None and row[0] == Kind.COPY, frozenset({"w"}) if direct else frozenset()
        )
    left_out = translator.origins.unread()
    groups: list[tuple[int, list[Row]] | Run] = []
    for number, (item, row) in enumerate(zip(instructions, rows, strict=True)):
        if number in left_out:
            continue
        if row is None:
            groups.append(handled(memory, item))
        elif groups and isinstance(groups[-1], tuple):
            groups[-1][1].append(row)
        else:
            groups.append((item.at, [row]))
    tables = [np.array(group[1], np.int64) if isinstance(group, tuple) else None for group in groups]
    everything = np.concatenate([t for t in tables if t is not None] or [np.zeros((0, WIDTH), np.int64)])
    spaces = [executor.workspace(everything) for _ in range(threads.WORKERS)]
    kept = (translator.constants, translator.panels)
    for group, table in zip(groups, tables, strict=True):
        if isinstance(group, tuple):
            assert table is not None
            yield Compiled(group[0], table, spaces, kept)
        else:
            yield group

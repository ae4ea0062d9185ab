"""A timing run as a trace for Perfetto (ui.perfetto.dev) or chrome://tracing.

One track per resource that does one thing at a time; counters for DRAM bandwidth and SRAM in use; arrows for the waits
that held an instruction up.
"""

from collections.abc import Iterator
from os import PathLike

import msgspec
import numpy as np

from emulator.timing.timeline import CTL, ENGINES, Timeline
from isa.architecture import Engine, Space
from isa.files import write_atomic
from isa.image.image import Image
from isa.image.records import DebugNode
from runtime.profile.buffer_lifetimes import lives
from runtime.profile.run import NO_NODE, Run
from runtime.profile.trace import Counter, FlowEnd, FlowStart, Kind, Name, Slice, Trace, Work

Event = Name | Slice | FlowStart | FlowEnd | Counter
_TRACKS = {
    Engine.CTL: "dispatch", Engine.LDW: "ldw transfer", Engine.LDA: "lda transfer", Engine.STO: "sto transfer",
    Engine.MXU: "mxu array", Engine.VEC: "vec", Engine.ACT: "act",
}  # fmt: skip
_WEIGHTS = len(_TRACKS)  # the track of weight loads that nothing hides


def write_trace(report: Run, path: str | PathLike[str]) -> None:
    """Write the trace as a JSON file."""
    write_atomic(path, [msgspec.json.encode(Trace(events=tuple(trace_events(report))))])


def trace_events(report: Run) -> Iterator[Event]:
    """All events; times in microseconds of the chip."""
    micro = 1e6 / report.timeline.chip.clock_hz
    for engine, name in [*_TRACKS.items(), (None, "mxu weight load")]:
        tid = ENGINES.index(engine) if engine else _WEIGHTS
        yield Name(tid=tid, name="thread_name", args={"name": name})
        yield Name(tid=tid, name="thread_sort_index", args={"sort_index": tid})
    yield Name(name="process_name", args={"name": f"chip {report.timeline.chip.name}"})
    yield from _slices(report, micro)
    yield from _flows(report.timeline, micro)
    yield from _bandwidth(report.timeline, micro)
    yield from _sram(report.image, report.timeline, micro)


def _slices(report: Run, micro: float) -> Iterator[Event]:
    t = report.timeline
    columns = (t.engine, t.dispatch, t.ready, t.start, t.work_start, t.work_end, t.end, t.bytes, report.node)
    for instruction, engine, dispatch, ready, start, begin, stop, end, moved, number in zip(
        t.instructions, *(c.tolist() for c in columns), strict=True
    ):
        node = report.image.debug.nodes[number] if number >= 0 else NO_NODE
        label = f"{node.name if number >= 0 else ''} {instruction.inst.mnemonic}".strip()
        about = Work(
            node=node.name, op=node.op, layer=node.layer, source=_source(node), pc=f"{instruction.pc:#06x}",
            indices=tuple(instruction.indices), dispatch=dispatch, ready=ready, start=start, end=end, bytes=moved,
        )  # fmt: skip
        spans: list[tuple[int, int, int, str, Kind]] = (
            [(engine, ready, begin, f"{label} waits", "stall")]
            if engine == CTL
            else [(engine, begin, stop, label, "work")]
        )
        if ENGINES[engine] is Engine.MXU:
            spans.append((_WEIGHTS, start, begin, label, "load"))
        for tid, low, high, name, kind in spans:
            if high > low:
                yield Slice(tid=tid, ts=low * micro, dur=(high - low) * micro, name=name, cat=kind, args=about)


def _source(node: DebugNode) -> str:
    """The line of the model, or of the hand-written program, that a node comes from; "" if that is not known."""
    return f"{node.file}:{node.line}: {' '.join(node.code.split())}" if node.line else ""


def _flows(t: Timeline, micro: float) -> Iterator[Event]:
    """An arrow from the instruction that came last to each instruction that its completion released."""
    for index in np.flatnonzero((t.engine != CTL) & (t.ready > t.dispatch + 1) & (t.work_end > t.work_start)).tolist():
        for other in t.waits[index]:
            if t.end[other] == t.ready[index] and t.work_end[other] > t.work_start[other]:
                yield FlowStart(tid=int(t.engine[other]), ts=(int(t.work_end[other]) - 1) * micro, id=index)
                yield FlowEnd(tid=int(t.engine[index]), ts=int(t.work_start[index]) * micro, id=index)
                break


def _bandwidth(t: Timeline, micro: float) -> Iterator[Event]:
    """GB/s that each queue gets of the bus."""
    rate, last = t.chip.dram.bytes_per_second / 1e9, 0
    for low, high, *instructions in t.bus.tolist():
        if low > last:
            yield Counter(name="DRAM GB/s", ts=last * micro, args=dict.fromkeys(("ldw", "lda", "sto"), 0.0))
        sharing = sum(instruction >= 0 for instruction in instructions)
        shares = {
            name: rate / sharing if instruction >= 0 else 0.0
            for name, instruction in zip(("ldw", "lda", "sto"), instructions, strict=True)
        }
        yield Counter(name="DRAM GB/s", ts=low * micro, args=shares)
        last = high
    yield Counter(name="DRAM GB/s", ts=last * micro, args=dict.fromkeys(("ldw", "lda", "sto"), 0.0))


def _sram(image: Image, t: Timeline, micro: float) -> Iterator[Event]:
    """Bytes of planned buffers alive."""
    changes: dict[int, int] = {}
    for life in lives(image, t, Space.SRAM):
        changes[life.low] = changes.get(life.low, 0) + life.record.bytes
        changes[life.high] = changes.get(life.high, 0) - life.record.bytes
    used = 0
    for at in sorted(changes):
        used += changes[at]
        yield Counter(name="SRAM bytes", ts=at * micro, args={"planned": used})

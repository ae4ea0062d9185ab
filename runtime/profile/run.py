"""Why a program takes as long as it does: cycles, energy and what each node, layer and source line has to do with it.

    report = profile(image, compiled)     report.as_dict()["waterfall"]     write_trace(report, "run.json")

Everything comes from one timing run of the binary. With `compiled` the speed of light is that of the model's operations
(runtime.profile.roofline); an image alone does not know them, so its own instructions give the figure instead, and
`limit_source` says so.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from emulator.timing.energy import Activity
from emulator.timing.timeline import ENGINES, Timeline
from emulator.timing.waterfall import CAUSES, Share, gaps, waterfall
from isa.architecture import DMA_ENGINES, QUEUES, Engine
from isa.image.image import Image
from isa.image.records import DebugNode
from runtime.models.recorded import Record, record_of
from runtime.profile.document import Instruction, Link, ProfileDocument, Row, Stall
from runtime.profile.limit import Limit

NO_NODE = DebugNode("(control)", "control")


@dataclass(frozen=True, eq=False)
class Run:
    """A timing run and what follows from it."""

    image: Image
    timeline: Timeline
    activity: Activity
    limit: Limit
    limit_source: str  # "graph" or "program"
    entry: str
    resource: str  # the one whose waterfall it is: that of the limit, unless `seen_from` says otherwise
    node: NDArray[np.int64]  # of each instruction: index into image.debug.nodes, or -1

    @property
    def cycles(self) -> int:
        """From the first instruction to the end of the last."""
        return self.timeline.cycles

    def seen_from(self, resource: str) -> Self:
        """The same run with the waterfall of another resource."""
        return replace(self, resource=resource)

    @cached_property
    def shares(self) -> Sequence[Share]:
        """The cycles of the waterfall and the instructions that they are charged to."""
        return waterfall(self.timeline, self.resource)

    @cached_property
    def waterfall(self) -> dict[str, int]:
        """Cycles by cause; they add up to `cycles`."""
        totals = dict.fromkeys(CAUSES, 0)
        for share in self.shares:
            totals[share.cause] += share.cycles
        return totals

    @cached_property
    def utilisation(self) -> dict[str, float]:
        """Share of the time in which each engine works; `dram` is the bus, `macs` the useful share of the array's
        multipliers."""
        t, mxu = self.timeline, self.timeline.chip.mxu
        used = {engine.value: t.busy(engine) for engine in QUEUES} | {"dram": t.bus_busy()}
        return {name: count / t.cycles for name, count in used.items()} | {
            "macs": self.macs / (mxu.rows * mxu.cols * t.cycles)
        }

    @property
    def macs(self) -> int:
        """Multiply-adds of matrix instructions."""
        return int(self.activity.macs.sum())

    @property
    def dram_bytes(self) -> int:
        """Bytes on the bus, whole bursts."""
        return int(self.timeline.bytes.sum())

    @cached_property
    def nodes(self) -> tuple[Row, ...]:
        """By node of the graph: cycles, their waterfall, busy engines, multiply-adds, bytes, energy."""
        return self._table([self._node(i).name for i in self.node.tolist()], _node_detail)

    @cached_property
    def lines(self) -> tuple[Row, ...]:
        """By line of the user's model."""
        return self._table([place_of(self._node(i)) for i in self.node.tolist()], _line_detail)

    @cached_property
    def layers(self) -> tuple[Row, ...]:
        """By layer of the model."""
        return self._table([self._node(i).layer for i in self.node.tolist()], lambda _: {})

    def stalls(self, count: int = 10, nodes: Container[str] | None = None) -> tuple[Stall, ...]:
        """The longest times that the resource stood idle, before instructions of these `nodes` (default: all), and the
        chain of waits behind each, the latest first."""
        found = (
            gap
            for gap in gaps(self.timeline, self.resource)
            if nodes is None or self._describe(gap.instruction)["node"] in nodes
        )
        longest = sorted(found, key=lambda gap: (gap.low - gap.high, gap.low))[:count]
        return tuple(
            Stall(
                begin=gap.low,
                end=gap.high,
                cycles=gap.high - gap.low,
                before=Instruction(**self._describe(gap.instruction)),
                chain=tuple(
                    Link(cause=link.cause, cycles=link.high - link.low, **self._describe(link.instruction))
                    for link in gap.links
                ),
            )
            for gap in longest
        )

    def _describe(self, instruction: int) -> dict[str, Any]:
        here = self.timeline.instructions[instruction]
        return {
            "pc": here.pc,
            "word": here.inst.mnemonic,
            "node": self._node(int(self.node[instruction])).name,
            "indices": here.indices,
        }

    def document(self, program: str = "") -> ProfileDocument:
        """All figures, as plain values; `program` is what the user calls it."""
        t, energy = self.timeline, self.activity.totals()
        joules, record = sum(energy.values()), record_of(self.image, program)
        return ProfileDocument(
            program=program,
            model=record.model,
            entry=self.entry,
            chip=t.chip.name,
            parameters=msgspec.to_builtins(t.chip),
            settings=_settings(record),
            code_sha256=hashlib.sha256(self.image.code).hexdigest(),
            nodes_by_status=Counter(node.status for node in self.image.debug.nodes),
            cycles=t.cycles,
            seconds=t.seconds,
            launches_per_second=1 / t.seconds,
            limit_cycles=self.limit.cycles,
            limit_resource=self.limit.resource,
            limit_source=self.limit_source,
            limits=dict(self.limit.by_resource),
            of_limit=self.limit.cycles / t.cycles,
            utilisation=self.utilisation,
            waterfall_resource=self.resource,
            waterfall=self.waterfall,
            excess_cycles=self.waterfall["compute"] - self.limit.by_resource[self.resource],
            energy_joules=energy,
            total_joules=joules,
            watts=joules / t.seconds,
            instructions=len(t.instructions),
            instructions_by_engine={e.value: int((t.engine == i).sum()) for i, e in enumerate(ENGINES)},
            program_words=self.image.words,
            macs=self.macs,
            dram_bytes=self.dram_bytes,
            dram_bytes_by_engine={e.value: int(t.bytes[t.of(e)].sum()) for e in (*DMA_ENGINES, Engine.CTL)},
            bandwidth_bytes_per_second=self.dram_bytes / t.seconds,
            arithmetic_intensity=self.macs / max(self.dram_bytes, 1),
            layers=self.layers,
            nodes=self.nodes,
            lines=self.lines,
            stalls=self.stalls(),
        )

    def as_dict(self, program: str = "") -> dict[str, Any]:
        """The document as dictionaries and lists."""
        return self.document(program).as_dict()

    def _node(self, index: int) -> DebugNode:
        return self.image.debug.nodes[index] if index >= 0 else NO_NODE

    def _table(self, names: Sequence[str], detail: Callable[[DebugNode], dict[str, Any]]) -> tuple[Row, ...]:
        """Instructions grouped by name, in the order of first appearance."""
        t = self.timeline
        number: dict[str, int] = {}
        which = np.array([number.setdefault(name, len(number)) for name in names], np.int64)
        causes: list[dict[str, int]] = [defaultdict(int) for _ in number]
        for share in self.shares:
            causes[which[share.instruction]][share.cause] += share.cycles
        first = {key: int(self.node[i]) for i, key in reversed(list(enumerate(names)))}
        work = t.work_end - t.work_start
        busy = {e.value: _sums(which, np.where(t.engine == i, work, 0), len(number)) for i, e in enumerate(ENGINES)}
        macs, moved, ones = (_sums(which, v, len(number)) for v in (self.activity.macs, t.bytes, np.ones_like(t.bytes)))
        joules = np.bincount(which, self.activity.joules.sum(1), len(number)).tolist()
        return tuple(
            Row(
                name=name,
                cycles=sum(causes[i].values()),
                waterfall=dict(causes[i]),
                busy={e: counts[i] for e, counts in busy.items() if counts[i]},
                macs=macs[i],
                dram_bytes=moved[i],
                energy_joules=joules[i],
                instructions=ones[i],
                **detail(self._node(first[name])),
            )
            for name, i in number.items()
        )


def _settings(record: Record) -> dict[str, Any]:
    weights = {"weights_sha256": record.weights_sha256} if record.weights_sha256 else {}
    return {**(record.recipe or {}), **(record.options or {}), **(record.versions or {}), **weights}


def _node_detail(node: DebugNode) -> dict[str, Any]:
    return {"op": node.op, "shape": node.shape, "layer": node.layer, "module": node.module, **_line_detail(node)}


def _line_detail(node: DebugNode) -> dict[str, Any]:
    return {"file": node.file, "line": node.line, "code": node.code}


def place_of(node: DebugNode) -> str:
    """The source line of a node, as the rows of `lines` are called."""
    return f"{node.file}:{node.line}" if node.line else "(no line)"


def _sums(which: NDArray[np.int64], values: NDArray[np.int64], count: int) -> list[int]:
    totals = np.zeros(count, np.int64)
    np.add.at(totals, which, values)
    return [int(v) for v in totals.tolist()]

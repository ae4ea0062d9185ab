"""Why a program takes as long as it does: cycles, energy and what each node, layer and source line has to do with it.

    report = profile(image, compiled)     report.as_dict()["waterfall"]     write_trace(report, "run.json")

Everything comes from one timing run of the binary. With `compiled` the speed of light is that of the model's operations
(runtime.profile.roofline); an image alone does not know them, so its own instructions give the figure instead, and
`limit_source` says so.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.timing.energy import COMPONENTS, Activity, activity
from emulator.timing.simulate import simulate
from emulator.timing.timeline import ENGINES, Timeline
from emulator.timing.waterfall import CAUSES, Share, gaps, waterfall
from isa.architecture import QUEUES, WORD_BYTES, Engine
from isa.chip import Mxu
from isa.image.image import Image
from isa.image.records import DebugNode, Span, pick
from isa.replay import Dispatch
from isa.timing import DEFAULT, Options, ceil_div, grouped_pace, matmul_passes
from isa.views import part_length
from runtime.profile.layers import layers_of
from runtime.profile.roofline import Limit, speed_of_light
from runtime.pytorch.compilation import Known

NO_NODE = DebugNode("(control)", "control")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a node, a layer or a source line. `cycles` are its share of the total; those of all rows add
    up to it."""

    name: str
    cycles: int
    waterfall: Mapping[str, int]
    busy: Mapping[str, int]
    macs: int
    dram_bytes: int
    joules: float
    instructions: int
    detail: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        own = {
            name: getattr(self, name)
            for name in ("name", "cycles", "waterfall", "busy", "macs", "dram_bytes", "instructions")
        }
        return {**own, "energy_joules": self.joules, **self.detail}


@dataclass(frozen=True, eq=False)
class Profile:
    """A timing run and what follows from it."""

    image: Image
    timeline: Timeline
    activity: Activity
    limit: Limit
    limit_source: str  # "graph" or "program"
    shares: Sequence[Share]
    node: NDArray[np.int64]  # of each instruction: index into image.debug.nodes, or -1
    layers: Mapping[str, str]  # of each node, as far as known

    @property
    def cycles(self) -> int:
        return self.timeline.cycles

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
        return int(self.activity.macs.sum())

    @property
    def dram_bytes(self) -> int:
        """Bytes on the bus, whole bursts."""
        return int(self.timeline.bytes.sum())

    @cached_property
    def nodes(self) -> list[Row]:
        return self._table([self._node(i).name for i in self.node.tolist()], self._node_detail)

    @cached_property
    def lines(self) -> list[Row]:
        """By line of the user's model."""
        return self._table([_place(self._node(i)) for i in self.node.tolist()], self._line_detail)

    @cached_property
    def layer_rows(self) -> list[Row]:
        return self._table([self.layers.get(self._node(i).name, "") for i in self.node.tolist()], lambda _: {})

    def stalls(self, count: int = 10) -> list[dict[str, Any]]:
        """The longest times that the limiting resource stood idle, and the chain of waits behind each, the latest
        first."""
        longest = sorted(gaps(self.timeline, self.limit.resource), key=lambda gap: (gap.low - gap.high, gap.low))[
            :count
        ]
        return [
            {
                "from": gap.low,
                "to": gap.high,
                "cycles": gap.high - gap.low,
                "before": self._describe(gap.instruction),
                "chain": [
                    {"cause": link.cause, "cycles": link.high - link.low, **self._describe(link.instruction)}
                    for link in gap.links
                ],
            }
            for gap in longest
        ]

    def _describe(self, instruction: int) -> dict[str, Any]:
        here = self.timeline.instructions[instruction]
        return {
            "pc": here.pc,
            "word": here.inst.mnemonic,
            "node": self._node(int(self.node[instruction])).name,
            "indices": here.indices,
        }

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        t, energy = self.timeline, self.activity.totals()
        joules = sum(energy.values())
        return {
            "chip": t.chip.name,
            "cycles": t.cycles,
            "seconds": t.seconds,
            "launches_per_second": 1 / t.seconds,
            "limit_cycles": self.limit.cycles,
            "limit_resource": self.limit.resource,
            "limit_source": self.limit_source,
            "limits": dict(self.limit.by_resource),
            "of_limit": self.limit.cycles / t.cycles,
            "utilisation": self.utilisation,
            "waterfall": self.waterfall,
            "excess_cycles": self.waterfall["compute"] - self.limit.cycles,
            "energy_joules": energy,
            "total_joules": joules,
            "watts": joules / t.seconds,
            "instructions": len(t.instructions),
            "program_words": self.image.words,
            "macs": self.macs,
            "dram_bytes": self.dram_bytes,
            "bandwidth_bytes_per_second": self.dram_bytes / t.seconds,
            "arithmetic_intensity": self.macs / max(self.dram_bytes, 1),
            "layers": [row.as_dict() for row in self.layer_rows],
            "nodes": [row.as_dict() for row in self.nodes],
            "lines": [row.as_dict() for row in self.lines],
            "stalls": self.stalls(),
        }

    def _node(self, index: int) -> DebugNode:
        return self.image.debug.nodes[index] if index >= 0 else NO_NODE

    def _node_detail(self, index: int) -> dict[str, Any]:
        node = self._node(index)
        return {
            "op": node.op,
            "shape": node.shape,
            "file": node.file,
            "line": node.line,
            "layer": self.layers.get(node.name, ""),
        }

    def _line_detail(self, index: int) -> dict[str, Any]:
        node = self._node(index)
        return {"file": node.file, "line": node.line, "code": node.code}

    def _table(self, names: Sequence[str], detail: Any) -> list[Row]:
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
        return [
            Row(
                name,
                sum(causes[i].values()),
                dict(causes[i]),
                {e: counts[i] for e, counts in busy.items() if counts[i]},
                macs[i],
                moved[i],
                joules[i],
                ones[i],
                detail(first[name]),
            )
            for name, i in number.items()
        ]


def profile(
    image: Image,
    compiled: Known | None = None,
    *,
    entry: str | None = None,
    values: Mapping[str, int] | None = None,
    options: Options = DEFAULT,
) -> Profile:
    """Run an image's program in timing mode. `values` gives scalar arguments, which otherwise take their maximum.
    Raises ReplayError."""
    timeline = simulate(image, None, options, entry, values)
    done = activity(timeline)
    graph = compiled.lowered.main.graph if compiled is not None else None
    limit = speed_of_light(graph, image.chip) if graph is not None else own_limit(timeline)
    source = "graph" if graph is not None else "program"
    layers = layers_of(graph) if graph is not None else {}
    return Profile(
        image,
        timeline,
        done,
        limit,
        source,
        waterfall(timeline, limit.resource),
        node_of_instructions(image, timeline),
        layers,
    )


def own_limit(timeline: Timeline) -> Limit:
    """The limit of a program's own instructions: what its engines must do if nothing ever waits. Knows nothing of
    better programs."""
    chip = timeline.chip
    mxu = sum(_streamed(w, chip.mxu) for w in timeline.instructions if w.engine is Engine.MXU)
    dram = ceil_div(int(timeline.bytes.sum()) * chip.clock_hz, chip.dram.bytes_per_second)
    return Limit({"mxu": mxu, "vec": timeline.busy(Engine.VEC), "act": timeline.busy(Engine.ACT), "dram": ceil(dram)})


def _streamed(instruction: Dispatch, mxu: Mxu) -> int:
    """Cycles in which rows enter the array."""
    o = instruction.operands
    depth, pace = grouped_pace(part_length("g", o), "ss" in instruction.views) if "glog" in o else (0, 1)
    return matmul_passes(o.get("b", 1), o["k"], o["n"], mxu, depth) * o["m"] * pace


def node_of_instructions(image: Image, timeline: Timeline) -> NDArray[np.int64]:
    """The debug node that each dispatched instruction works for, or -1."""
    at: dict[int, Span] = {}
    for span in sorted(image.debug.spans, key=lambda s: s.first - s.end):  # long ones first, so that nested ones win
        for pc in range(span.first, span.end, WORD_BYTES):
            at[pc] = span
    known: dict[Hashable, int] = {}
    found = []
    for instruction in timeline.instructions:
        key = instruction.pc, instruction.indices
        if key not in known:
            span_here = at.get(instruction.pc)
            known[key] = pick(span_here.nodes, span_here.level, instruction.indices) if span_here is not None else -1
        found.append(known[key])
    return np.array(found, np.int64)


def _place(node: DebugNode) -> str:
    return f"{node.file}:{node.line}" if node.line else "(no line)"


def _sums(which: NDArray[np.int64], values: NDArray[np.int64], count: int) -> list[int]:
    totals = np.zeros(count, np.int64)
    np.add.at(totals, which, values)
    return [int(v) for v in totals.tolist()]


def summary(report: Profile) -> Iterable[str]:
    """A few lines for the terminal."""
    d = report.as_dict()
    limit = (
        f"{d['of_limit']:.2f} of the limit ({d['limit_cycles']:,}, {d['limit_resource']}, from the {d['limit_source']})"
    )
    yield f"{d['cycles']:,} cycles, {d['seconds'] * 1e6:,.1f} µs, {limit}"
    yield "waterfall    " + "  ".join(
        f"{name} {count / d['cycles']:.1%}" for name, count in d["waterfall"].items() if count
    )
    yield "utilisation  " + "  ".join(f"{name} {share:.1%}" for name, share in d["utilisation"].items())
    yield "energy (µJ)  " + "  ".join(f"{name} {d['energy_joules'][name] * 1e6:,.0f}" for name in COMPONENTS)
    rate = d["bandwidth_bytes_per_second"] / 1e9
    yield f"{d['instructions']:,} instructions, {d['macs']:,} MACs, {d['dram_bytes']:,} DRAM bytes, {rate:.1f} GB/s"

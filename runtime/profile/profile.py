"""Why a program takes as long as it does: cycles, energy and what each node, layer and source line has to do with it.

    report = profile(image, compiled)     report.as_dict()["waterfall"]     write_trace(report, "run.json")

Everything comes from one timing run of the binary. With `compiled` the speed of light is that of the model's operations
(runtime.profile.roofline); an image alone does not know them, so its own instructions give the figure instead, and
`limit_source` says so.
"""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from math import ceil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from emulator.timing.energy import activity
from emulator.timing.simulate import simulate
from emulator.timing.timeline import Timeline
from isa.architecture import WORD_BYTES, Engine
from isa.chip import Chip, Mxu
from isa.errors import InputError
from isa.image.image import Image
from isa.image.records import Span, pick
from isa.replay import Dispatch, ReplayError
from isa.timing import DEFAULT, Options, ceil_div, grouped_pace, matmul_passes
from isa.views import part_length
from runtime.plotting import plotting
from runtime.profile.limit import Limit
from runtime.profile.run import Run
from runtime.profile.words import cause
from runtime.tables import frame, html_table

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

    from compiler.lower import Lowered
    from runtime.pytorch.compilation import Known


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Run):
    """Where the cycles and the energy of a launch go, as Python and notebooks show it.

    `limit` is the speed of light, `limit_source` whose: the model's ("graph") or that of the program's own instructions.
    """

    def __repr__(self) -> str:
        joules = sum(self.activity.totals().values())
        return (
            f"Profile({self.cycles:,} cycles, {self.timeline.seconds * 1e6:,.1f} µs, {joules * 1e3:,.3f} mJ, "
            f"{self.limit.cycles / self.cycles:.2f} of the limit ({self.limit.resource}), chip {self.timeline.chip.name})"
        )

    def _repr_html_(self) -> str:
        """The run, its waterfall and its layers."""
        causes = {cause(name, self.resource): count for name, count in self.waterfall.items() if count}
        parts = [(name, count, f"{count / self.cycles:.1%}") for name, count in causes.items()]
        layers = [
            (row.name or "(none)", row.cycles, f"{row.cycles / self.cycles:.1%}", row.macs, row.dram_bytes)
            for row in self.layers
        ]
        return (
            f"<p>{escape(repr(self))}</p>"
            + html_table(("waterfall", "cycles", "share"), parts)
            + html_table(("layer", "cycles", "share", "MACs", "DRAM bytes"), layers)
        )

    def to_json(self) -> str:
        """The document of `llmcc profile --json`; docs/schemas/profile.json describes it."""
        return msgspec.json.encode(self.document()).decode()

    def to_pandas(self, table: str = "nodes") -> "pandas.DataFrame":
        """A row for each of `nodes`, `layers`, `lines` or `stalls`. Raises InputError for another table, and without
        pandas."""
        tables = {"nodes": self.nodes, "layers": self.layers, "lines": self.lines, "stalls": self.stalls()}
        if table not in tables:
            raise InputError(f"a profile has no table '{table}'", hint=f"its tables are {', '.join(tables)}")
        return frame(map(msgspec.to_builtins, tables[table]))

    def figure(self, name: str = "timeline") -> "Figure":
        """A plot: timeline, waterfall, roofline, utilisation, energy, energy_tree, sram or acc, as a plotly figure.
        Raises InputError for another one, and without plotly."""
        with plotting("a figure"):
            from runtime.profile.figures import PLOTS

        if name not in PLOTS:
            raise InputError(f"a profile has no figure '{name}'", hint=f"its figures are {', '.join(PLOTS)}")
        return PLOTS[name](self, self.as_dict())


def profile(
    image: Image,
    compiled: "Known | Lowered | None" = None,
    *,
    entry: str | None = None,
    values: Mapping[str, int] | None = None,
    options: Options = DEFAULT,
) -> Profile:
    """Run an image's program in timing mode. `values` gives scalar arguments, which otherwise take their maximum.
    Raises ReplayError."""
    timeline = simulate(image, None, options, entry, values)
    done = activity(timeline)
    limit = own_limit(timeline) if compiled is None else _of_model(compiled, image.chip)
    source = "program" if compiled is None else "graph"
    node = node_of_instructions(image, timeline)
    return Profile(image, timeline, done, limit, source, image.entry(entry).name, limit.resource, node)


def _of_model(compiled: "Known | Lowered", chip: Chip) -> Limit:
    from runtime.profile.roofline import speed_of_light  # torch only where there is a model

    lowered = compiled.lowered if hasattr(compiled, "lowered") else compiled
    return speed_of_light(lowered.main.graph, chip)


@contextmanager
def timing(where: str) -> Iterator[None]:
    """While a program is timed. Raises InputError for one that cannot be."""
    try:
        yield
    except ReplayError as error:
        raise InputError(
            f"the program cannot be timed: {error.what}",
            f"{where}, pc {error.pc:#06x}",
            "llmcc lint says what is wrong with it",
        ) from error


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

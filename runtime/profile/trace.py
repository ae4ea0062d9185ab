"""The events of a trace, as ui.perfetto.dev and chrome://tracing read them: the JSON of the Trace Event Format.

The types are the format; docs/schemas/trace.json is made from them. Times are in microseconds of the chip, `dispatch` to
`end` in cycles.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field


class Event(Struct, frozen=True, kw_only=True, tag_field="ph"):
    """`pid` is the chip, `tid` a track of it."""

    pid: int = 1


class Name(Event, frozen=True, kw_only=True, tag="M"):
    """What the chip and its tracks are called, and in which order they stand."""

    name: Literal["process_name", "thread_name", "thread_sort_index"]
    tid: int | UnsetType = UNSET
    args: Mapping[str, str | int]


class Work(Struct, frozen=True, kw_only=True):
    """What a slice is about: the instruction, and the node, layer and source line of the model that it works for."""

    node: str
    op: str
    layer: str
    source: str  # file:line: code
    pc: str
    indices: tuple[int, ...]
    dispatch: int
    ready: int
    start: int
    end: int
    bytes: int


Kind = Literal["work", "load", "stall"]


class Slice(Event, frozen=True, kw_only=True, tag="X"):
    """Something that a track does for a while."""

    tid: int
    ts: float
    dur: float
    name: str
    cat: Kind
    args: Work


class FlowStart(Event, frozen=True, kw_only=True, tag="s"):
    """Where an arrow begins: at the instruction whose completion was waited for."""

    tid: int
    ts: float
    id: int
    name: Literal["wait"] = "wait"
    cat: Literal["dependence"] = "dependence"


class FlowEnd(Event, frozen=True, kw_only=True, tag="f"):
    """Where it ends: at the instruction that it released. `bp` e: at the slice that is there."""

    tid: int
    ts: float
    id: int
    name: Literal["wait"] = "wait"
    cat: Literal["dependence"] = "dependence"
    bp: Literal["e"] = "e"


class Counter(Event, frozen=True, kw_only=True, tag="C"):
    """Values from this time on, stacked."""

    ts: float
    name: str
    args: Mapping[str, float]


class Trace(Struct, frozen=True, kw_only=True):
    """The whole file."""

    unit: Literal["ns"] = field(name="displayTimeUnit", default="ns")
    events: tuple[Name | Slice | FlowStart | FlowEnd | Counter, ...] = field(name="traceEvents")

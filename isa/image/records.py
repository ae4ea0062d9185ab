"""What an image says about its program: entries, tensors, memory plan, debug map.

Every `pc` is a byte address, 16 * the index of the instruction. All records are frozen and go to JSON as they stand.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from isa.architecture import Dtype, Region, Space


class TensorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor in a DRAM region: dense, row-major, at `offset` bytes. `dtype` is the user's, `storage` the chip's."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: Dtype
    region: Region
    offset: int = 0

    @property
    def elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def nbytes(self) -> int:
        return -(-self.elements * self.storage.bits // 8)


class Scalar(Struct, frozen=True, forbid_unknown_fields=True):
    """An integer argument of a launch (a length, a position): int32 at `offset` of PARAMS, where the program loads
    it."""

    name: str
    offset: int
    minimum: int = 0
    maximum: int = 2**31 - 1


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a launch may start, and what it reads and writes. All entries share weights, constants and STATE."""

    name: str = "main"
    pc: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    scalars: tuple[Scalar, ...] = ()


class PlanRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A buffer of the memory plan: alive from instruction index `first` to instruction index `last`, both included."""

    name: str
    space: Space
    offset: int
    bytes: int
    first: int
    last: int
    region: Region = Region.SCRATCH


BY_LINE = "line"  # the status of a line of a hand-written program (`isa.asm.source_map`)
# Reasons that name other nodes, separated by commas.
FUSED_INTO, VIEW_OF, RESULTS = "into ", "a view of ", "several results: "


class DebugNode(Struct, frozen=True, forbid_unknown_fields=True):
    """A node of the frozen graph. `status` is materialized, fused, view, folded or constant; `reason` says why not
    materialized; `layer` is the part of the model that it belongs to, "" if none; `module` the path of the module that
    called it, "" if that is not known; `also` those of other calls whose work it does, too, as of a norm that is folded
    into a product.

    Of a hand-written program a node is a line of its text (status `line`), under the label `origins`.
    """

    name: str
    op: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    file: str = ""
    line: int = 0
    code: str = ""
    origins: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    status: str = "materialized"
    reason: str = ""
    layer: str = ""
    module: str = ""
    also: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The node and the line of the model that it comes from, for messages."""
        if self.status == BY_LINE or not self.line:
            return self.name
        return f"{self.name} ({self.file}:{self.line}: {self.code})"

    @property
    def into(self) -> tuple[str, ...]:
        """The nodes whose instructions compute a fused node's value."""
        return self._named(FUSED_INTO)

    @property
    def base(self) -> str:
        """The node that this one is a view of, "" if none."""
        return next(iter(self._named(VIEW_OF)), "")

    @property
    def results(self) -> tuple[str, ...]:
        """The nodes that hold the results of an operation that has several."""
        return self._named(RESULTS)

    def _named(self, prefix: str) -> tuple[str, ...]:
        return tuple(self.reason[len(prefix) :].split(", ")) if self.reason.startswith(prefix) else ()


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """A tap's offset grows by inc * ((i[level] // div) % mod) elements, like `vinc`; mod 0: no modulus."""

    level: int
    inc: int
    div: int = 1
    mod: int = 0


class Probe(Struct, frozen=True, forbid_unknown_fields=True):
    """After the instruction at `pc`, the block written through view operand `operand` is part of a node's value.

    Element (p, r, c) of the block is flat[offset + p*ps + r*rs + c*cs] of node `nodes[i[level]]` (level -1:
    `nodes[0]`).
    """

    pc: int
    operand: str
    nodes: tuple[int, ...]
    level: int = -1
    offset: int = 0
    ps: int = 0
    rs: int = 0
    cs: int = 1
    steps: tuple[Step, ...] = ()


class Span(Struct, frozen=True, forbid_unknown_fields=True):
    """The instructions at first <= pc < end work for node `nodes[i[level]]` (level -1: `nodes[0]`)."""

    first: int
    end: int
    nodes: tuple[int, ...]
    level: int = -1


class DebugMap(Struct, frozen=True, forbid_unknown_fields=True, rename={"probes": "taps"}):
    """From the binary back to the graph and to the user's lines. Files call the probes `taps`, as they always did."""

    nodes: tuple[DebugNode, ...] = ()
    probes: tuple[Probe, ...] = ()
    spans: tuple[Span, ...] = ()

    def node_at(self, pc: int, indices: Mapping[int, int] | Sequence[int] = ()) -> DebugNode | None:
        """The node that the instruction at `pc` works for; of nested spans the shortest. `indices` are the loop indices
        by level."""
        covering = [span for span in self.spans if span.first <= pc < span.end]
        if not covering:
            return None
        span = min(covering, key=lambda s: s.end - s.first)
        return self.nodes[pick(span.nodes, span.level, indices)]


def pick(nodes: tuple[int, ...], level: int, indices: Mapping[int, int] | Sequence[int] = ()) -> int:
    """The node number that a span or tap names at these loop indices."""
    if level < 0:
        return nodes[0]
    index = indices.get(level, 0) if isinstance(indices, Mapping) else (indices[level] if level < len(indices) else 0)
    return nodes[min(index, len(nodes) - 1)]

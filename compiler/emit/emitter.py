"""The context in which one kernel's operations are emitted, block by block.

It answers the questions every operation has: where is this operand (staging it from DRAM if need be), where does the
result go (its storage, or a buffer of the block), and which instructions cover an N-d block.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeVar

from compiler.tile.access import follow
from compiler.tile.batch_tile import Part
from compiler.tile.decisions import TileSizes
from compiler.tile.ir import Buffer, Length, Op, Probe, Ref
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel, Step
from compiler.tile.layout import DMA_LIMITS, Layout, Range, contiguous, dense, limits_of, pieces
from compiler.tile.storage import Storage
from isa.architecture import IMAGE_REGIONS, Dtype, Region, Space
from isa.fields import Kind
from isa.spec import ISA, VOP
from isa.timing import ceil_div

T = TypeVar("T")

EMITTERS: dict[str, "Emit"] = {}  # by the name of the operation, see compiler/ops/table.py
FLAT = Buffer("flat", Space.DRAM, 0)  # the row-major flattened value, for debug probes


@dataclass(frozen=True, slots=True)
class Tile:
    """The block of a value: where it lies on chip, and which elements of the whole value it holds."""

    layout: Layout
    logical: Layout
    node: str

    def narrow(self, ranges: Sequence[Range]) -> "Tile":
        return replace(self, layout=self.layout.narrow(ranges), logical=self.logical.narrow(ranges))

    def columns(self, low: int, high: int) -> "Tile":
        return replace(self, layout=columns(self.layout, low, high), logical=columns(self.logical, low, high))

    def unsqueeze(self) -> "Tile":
        return replace(self, layout=self.layout.unsqueeze(), logical=self.logical.unsqueeze())


def _as_it_lies(layout: Layout) -> Sequence[int]:
    """The dimensions from far steps to near ones; as they are if they already are so, whatever those of size 1 are."""
    steps = [(layout.strides[dim], dim) for dim, size in enumerate(layout.shape) if size > 1]
    order = sorted(steps, key=lambda one: -one[0])
    ones = (dim for dim, size in enumerate(layout.shape) if size <= 1)
    return range(len(layout.shape)) if order == steps else [*(dim for _, dim in order), *ones]


def columns(layout: Layout, low: int, high: int) -> Layout:
    """Columns low..high of the last dimension."""
    if layout.shape[-1] == 1:
        return layout
    return layout.seen(layout.offset + low * layout.strides[-1], (*layout.shape[:-1], high - low), layout.strides)


@dataclass
class Emitter:
    """Emits one kernel. Buffers are single-assignment: every staged operand and every result of a block is a new
    one."""

    kernel: Kernel
    storage: Storage
    tiling: TileSizes
    prefix: str
    part: Part | None = None  # that is emitted
    ops: list[Op] = field(default_factory=list)
    tiles: dict[KernelOp, Tile] = field(default_factory=dict)
    ranges: tuple[Range, ...] = ()
    # what was brought on chip, with the last block that used it
    staged: dict[tuple[object, ...], tuple[Layout, int]] = field(default_factory=dict)
    block: int = 0
    group: int = 0
    block_starts: list[int] = field(default_factory=list)  # number of ops before each block
    kept: set[Buffer] = field(default_factory=set)
    step: Step | None = None  # that is being emitted
    handed: dict[tuple[KernelOp, str], Layout] = field(default_factory=dict)  # by steps of this block to later ones
    constants: dict[Buffer, bytes] = field(default_factory=dict)
    count: int = 0
    measuring: bool = False  # of tiles that are alike, only some are wanted
    runs: list[tuple[int, int, int]] = field(default_factory=list)  # ops first .. end stand for so many like them

    # ---- tiles

    def some(self, items: Sequence[T]) -> Iterator[T]:
        """Tiles of which each but the first and the last is like the second: all of them. To measure them the first
        three and the last, of which the third stands for all between: what is there at once, three neighbours show (one
        that is computed, one that is loaded, one whose load has its place)."""
        if not self.measuring or len(items) < 5:
            yield from items
            return
        for item, times in zip((*items[:3], items[-1]), (1, 1, len(items) - 3, 1), strict=True):
            first = len(self.ops)
            yield item
            self.runs.append((first, len(self.ops), times))

    @property
    def times(self) -> list[int]:
        """For how many ops each of `ops` stands."""
        counts = [1] * len(self.ops)
        for first, end, times in self.runs:
            if times > 1:
                counts[first:end] = [count * times for count in counts[first:end]]
        return counts

    # ---- buffers

    def temp(self, sizes: Sequence[int], kind: Dtype, label: str, space: Space = Space.SRAM) -> Layout:
        """A new dense buffer of this block."""
        self.count += 1
        buffer = Buffer(f"{self.prefix}{label}.{self.count}", space, max(1, -(-prod(sizes) * kind.bits // 8)))
        return dense(buffer, kind, sizes)

    def block_ranges(self, sizes: Sequence[int], lead: int = 0) -> tuple[Range, ...]:
        """The part of a tensor of these sizes, whose first dimension is the reader's dimension `lead`, that the block
        covers."""
        ranges, axis = self.ranges[lead:], len(self.ranges) - lead
        if self.tiling.groups > 1 and 0 <= axis < len(sizes):
            part = ceil_div(sizes[axis], self.tiling.groups)
            ranges = (*ranges, (min(self.group * part, sizes[axis]), min((self.group + 1) * part, sizes[axis])))
        return ranges

    def block_shape(self, node: KernelOp) -> tuple[int, ...]:
        """The shape of the block of a value of this kernel."""
        ranges = self.block_ranges(node.shape)
        return tuple(high - low for low, high in ranges) + node.shape[len(ranges) :]

    def result(self, node: KernelOp) -> Tile:
        """Where to write the block of value `node`: straight into its storage on chip, or a buffer of the block."""
        stored = self.storage.layouts.get(node)
        logical = self._logical(node)
        if stored is not None and stored.buffer.space is not Space.DRAM:
            tile = Tile(stored.narrow(self.block_ranges(node.shape)), logical, node.name)
        else:
            tile = Tile(self.temp(self.block_shape(node), node.dtype, node.name), logical, node.name)
        self.tiles[node] = tile
        return tile

    def result_over(self, node: KernelOp, operand: KernelOp, layout: Layout) -> Tile:
        """Where to write an elementwise result: over its operand, if that is a buffer of this block that nobody else
        reads."""
        free = (
            operand.base is operand
            and len(operand.users) == 1
            and operand in self.tiles
            and operand not in self.storage.layouts
        )
        if (
            not free
            or node in self.storage.layouts
            or layout.dtype is not node.dtype
            or layout is not self.tiles[operand].layout
        ):
            return self.result(node)
        tile = Tile(layout, self._logical(node), node.name)
        self.tiles[node] = tile
        return tile

    def direct_target(self, node: KernelOp) -> Tile | None:
        """The block of `node` in DRAM, if its storage is there and its kernel does not read it: what need not be
        gathered on chip first."""
        stored = self.storage.layouts.get(node)
        inside = any(n.base is node for member in self.kernel.nodes for n in member.operands)
        if stored is None or stored.buffer.space is not Space.DRAM or inside:
            return None
        return Tile(stored.narrow(self.block_ranges(node.shape)), self._logical(node), node.name)

    def store(self, node: KernelOp, target: Tile, source: Layout) -> None:
        """Write a part of `node` straight to its storage in DRAM."""
        source, order = self._to_lie_like(target.layout, source, node)
        there, here, logical = (layout.permuted(order) for layout in (target.layout, source, target.logical))
        for piece in pieces(there.shape, (there, here), [(logical.offset, logical.strides)], limits=DMA_LIMITS):
            self.ops.append(
                Op("sto", piece.refs, piece.extents, node.name, (Probe("d", node.name, *piece.logical[0]),))
            )

    def _logical(self, node: KernelOp) -> Layout:
        """Which elements of the whole value the block holds."""
        return Layout(FLAT, node.dtype, node.shape, contiguous(node.shape)).narrow(self.block_ranges(node.shape))

    def finish(self, node: KernelOp) -> None:
        """The block of `node` is complete: store it if its storage is in DRAM."""
        stored = self.storage.layouts.get(node)
        if stored is not None and stored.buffer.space is Space.DRAM:
            target = stored.narrow(self.block_ranges(node.shape))
            source, order = self._to_lie_like(target, self.tiles[node].layout, node)
            self.copy("sto", target.permuted(order), source.permuted(order), node.name)

    def _to_lie_like(self, target: Layout, source: Layout, node: KernelOp) -> tuple[Layout, Sequence[int]]:
        """What is to be stored, with its elements in the order in which they will lie in DRAM, and the dimensions in this
        order: elements stored one by one are some bytes of each burst."""
        order = _as_it_lies(target)
        near = next((dim for dim in reversed(order) if target.shape[dim] > 1), None)
        if near is None or target.strides[near] != 1 or source.strides[near] in (0, 1):
            return source, order
        moved = self.temp([source.shape[dim] for dim in order], source.dtype, node.name + ".out")
        moved = moved.permuted([order.index(dim) for dim in range(len(order))])
        self.emit("vop", node, source.shape, {"d": moved}, {"a": source}, {"f": VOP.index("mov")})
        return moved, order

    def copy(self, mnemonic: str, target: Layout, source: Layout, node: str) -> None:
        for piece in pieces(target.shape, (target, source), limits=DMA_LIMITS):
            d, a = piece.refs
            self.ops.append(Op(mnemonic, (d, a), piece.extents, node))

    # ---- operands

    def operand(
        self, node: KernelOp, rank: int, grouped: bool = True, staged: bool = True, any_strides: bool = False
    ) -> Layout:
        """The block of an operand, on chip, right-aligned to the `rank` dimensions of its reader.

        `grouped=False` for the left side of a matmul, of which every group of columns reads all; `staged=False` to
        leave it where it is; `any_strides` for a reader to which it is the same in which order elements lie.
        """
        if node.is_empty:
            return dense(FLAT, node.dtype, node.shape)
        lead = max(rank - len(node.shape), 0)
        ranges = self.block_ranges(node.shape, lead) if grouped else self.ranges[lead:]
        inside = self._inside(node, ranges)
        if inside is not None:
            return inside
        layout = self.storage.resolve(node).narrow(ranges)
        return self.stage(node, layout, any_strides=any_strides) if staged else layout

    def batched(self, node: KernelOp, batch: int) -> Layout:
        """The right side of a batched matmul: cut along the leading `batch` dimensions only, not staged yet."""
        return self.storage.resolve(node).narrow(self.ranges[:batch])

    def stage(
        self, node: KernelOp, layout: Layout, many: bool = False, once: bool = False, any_strides: bool = False
    ) -> Layout:
        """Bring a part of a value on chip unless it is there; `many` blocks read it, or only `once` an instruction
        does."""
        return self.stage_layout(layout, node.base.name, many, once, any_strides)

    def stage_layout(
        self, layout: Layout, name: str, many: bool = False, once: bool = False, any_strides: bool = False
    ) -> Layout:
        """Bring a layout on chip unless it is there. Repeated dimensions are loaded once; what `many` blocks read
        (weights) stays if the tile sizes say so.

        With `any_strides` elements lie on chip in their order in DRAM: what is read through a permute is not loaded one
        by one, of each burst a few bytes.
        """
        if layout.buffer.space is not Space.DRAM:
            return layout
        thin = layout.seen(
            layout.offset,
            tuple(1 if s == 0 else n for n, s in zip(layout.shape, layout.strides, strict=True)),
            layout.strides,
        )
        order = _as_it_lies(thin) if any_strides else range(len(thin.shape))
        key = (layout.buffer.name, layout.offset, layout.shape, layout.strides, tuple(order))
        found, used = self.staged.get(key, (None, 0))
        if (
            found is not None and used >= self.block - self.tiling.groups
        ):  # what the blocks before did not need is forgotten
            self.staged[key] = (found, self.block)
            return found
        thin = thin.permuted(order)
        local = self.temp(thin.shape, layout.dtype, name + ".in")
        constant = layout.buffer.region in IMAGE_REGIONS
        self.copy("ldw" if constant else "lda", local, thin, name)
        places = [order.index(dim) for dim in range(len(order))]
        strides = tuple(
            0 if n != thin.shape[at] else local.strides[at] for n, at in zip(layout.shape, places, strict=True)
        )
        local = local.seen(local.offset, layout.shape, strides)
        if once or (not self.tiling.keep and (many or (constant and layout.elements > 1 << 14))):
            return local
        self.staged[key] = (local, self.block)
        if constant or many:
            self.kept.add(local.buffer)
        return local

    def constant(self, bits: int, kind: Dtype = Dtype.F32) -> Layout:
        """One element of the constant region, on chip, to be repeated over anything."""
        buffer = Buffer(f"constant.{kind.name.lower()}.{bits:08x}", Space.DRAM, 4, Region.CONST)
        self.constants[buffer] = bits.to_bytes(4, "little")
        return self.stage_layout(dense(buffer, kind, (1,)), buffer.name)

    def filled(self, sizes: Sequence[int], kind: Dtype, bits: int, node: KernelOp) -> Layout:
        """A buffer of this block with one value everywhere."""
        local = self.temp(sizes, kind, node.name + ".fill")
        self.emit("vop", node, sizes, {"d": local}, {"a": self.constant(bits, kind)}, {"f": VOP.index("mov")})
        return local

    def hands(self, what: str) -> bool:
        """Whether the step being emitted leaves `what` to one behind it, see compiler/fuse/epilogues.py."""
        return self.step is not None and what in self.step.hands

    def _inside(self, node: KernelOp, ranges: Sequence[Range]) -> Layout | None:
        """The block of a value that this kernel has just computed, or of a view of one."""
        origin = node.base
        if origin.maker not in self.kernel.members:
            return None
        if origin not in self.tiles:
            raise AssertionError(f"{node.name}: its kernel has not computed {origin.name} yet")
        layout = self.tiles[origin].layout
        if node is origin:
            return layout
        return follow(layout.widen(self.block_ranges(origin.shape), origin.shape), node).narrow(ranges)

    # ---- instructions

    def emit(
        self,
        mnemonic: str,
        node: KernelOp,
        sizes: Sequence[int],
        outs: Mapping[str, Tile | Layout],
        ins: Mapping[str, Layout | None],
        attrs: Mapping[str, int] | None = None,
        *,
        row_op: bool = False,
        down: bool = False,
    ) -> None:
        """Emit as many instructions as it takes to cover the iteration space `sizes`."""
        row = ISA[mnemonic]
        has_planes = any(f.name == "planes" for f in row.fields)
        moves: list[tuple[Tile | Layout, Layout]] = []
        if row_op or down:
            outs, moves = self.results_with_columns(node, outs)
        layouts: list[Layout | None] = []
        tapped = [(name, out) for name, out in outs.items() if isinstance(out, Tile)]
        for view in row.views:
            given = outs.get(view.name) or ins.get(view.name)
            layout = given.layout if isinstance(given, Tile) else given
            if layout is not None and (row_op or down):
                layout = self.with_columns(layout, node)
            layouts.append(layout.broadcast(sizes) if layout is not None else None)
        logical = [(t.logical.offset, t.logical.broadcast(sizes).strides) for _, t in tapped]
        names = {f.name for f in row.fields if f.kind is not Kind.VIEW}
        for piece in pieces(
            sizes,
            layouts,
            logical,
            row_op=row_op,
            down=down,
            planes=has_planes,
            limits=limits_of(mnemonic),
            lanes=self.tiling.lanes,
        ):
            extents = tuple((k, v) for k, v in piece.extents if k in names)
            probes = tuple(Probe(name, t.node, *where) for (name, t), where in zip(tapped, piece.logical, strict=True))
            self.ops.append(Op(mnemonic, piece.refs, (*extents, *(attrs or {}).items()), node.name, probes))
        self.move(node, moves)

    def with_columns(self, layout: Layout, node: KernelOp) -> Layout:
        """The same block with its last dimension addressable as columns: a copy where it is read through a permute."""
        if layout.has_columns:
            return layout
        local = self.temp(layout.shape, layout.dtype, node.name + ".cols")
        self.emit("vop", node, layout.shape, {"d": local}, {"a": layout}, {"f": VOP.index("mov")})
        return local

    def results_with_columns(
        self, node: KernelOp, outs: Mapping[str, Tile | Layout]
    ) -> tuple[Mapping[str, Tile | Layout], list[tuple[Tile | Layout, Layout]]]:
        """Results whose columns cannot be addressed are made beside their place; what is then to `move` there."""
        found: dict[str, Tile | Layout] = {}
        moves: list[tuple[Tile | Layout, Layout]] = []
        for name, out in outs.items():
            layout = out.layout if isinstance(out, Tile) else out
            if layout.has_columns:
                found[name] = out
            else:
                local = self.temp(layout.shape, layout.dtype, f"{node.name}.{name}")
                found[name] = local
                moves.append((out, local))
        return found, moves

    def move(self, node: KernelOp, moves: Sequence[tuple[Tile | Layout, Layout]]) -> None:
        for target, local in moves:
            self.emit("vop", node, local.shape, {"d": target}, {"a": local}, {"f": VOP.index("mov")})

    def emit_one(
        self,
        mnemonic: str,
        node: KernelOp,
        views: Mapping[str, Ref],
        attrs: Mapping[str, int],
        probes: tuple[Probe, ...] = (),
        cut: tuple[str, Length] | None = None,
    ) -> None:
        """Emit one instruction as given."""
        operands = tuple(views.get(f.name) for f in ISA[mnemonic].views)
        self.ops.append(Op(mnemonic, operands, tuple(attrs.items()), node.name, probes, cut))


Emit = Callable[[Emitter, KernelOp], None]


def emits(*names: str) -> Callable[[Emit], Emit]:
    """Registers the emitter of these operations."""

    def register(emit: Emit) -> Emit:
        for name in names:
            assert name not in EMITTERS, f"two emitters for {name}"
            EMITTERS[name] = emit
        return emit

    return register

"""BatchTile: a run of kernels that is executed for a part of the batch, or of the tokens, at a time, and where values of
a part lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler.tile.ir import Buffer
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.layout import Layout, dense
from compiler.tile.storage import ALIGN, Storage, size_of, stored_order


@dataclass(frozen=True, slots=True)
class Part:
    """Indices low … high of a dimension of a kernel's domain, or of one of its result behind that."""

    axis: int
    low: int
    high: int


@dataclass(frozen=True)
class BatchTile:
    """Kernels first .. end, executed for `parts` parts of one of their dimensions in turn: of the batch, or with `axes`
    of the tokens of one sequence, which each kernel has somewhere else. Of these, the `stages` that begin with such
    kernels overlap with the next part's stage before. `inner` are the values between them, with the
    dimension along which each is cut; later parts read those that are `kept`."""

    first: int
    end: int
    parts: int = 1
    inner: Mapping[KernelOp, int] = field(default_factory=dict)
    axes: tuple[int, ...] = ()
    stages: tuple[int, ...] = ()
    kept: frozenset[KernelOp] = frozenset()

    def part(self, index: int, kernel: Kernel, number: int) -> Part | None:
        """What the kernel `index` does in part `number`; None for all of it."""
        if self.parts == 1:
            return None
        axis, whole = self._cut(index, kernel)
        size = whole // self.parts
        return Part(axis, number * size, (number + 1) * size)

    def divides(self, index: int, kernel: Kernel) -> bool:
        """Whether the parts of a kernel are all of one size."""
        return self._cut(index, kernel)[1] % self.parts == 0

    def _cut(self, index: int, kernel: Kernel) -> tuple[int, int]:
        """The dimension of a kernel that is cut, and its size."""
        axis = self.axes[index - self.first] if self.axes else 0
        return axis, kernel.domain[axis] if axis < len(kernel.domain) else kernel.nodes[-1].shape[axis]


def part_storage(storage: Storage, batch_tile: BatchTile, part: int) -> Storage:
    """Storage as one part sees them: values between its kernels have a place as large as the part, and what the parts
    before it have left is known."""
    layouts = dict(storage.layouts)
    for node in batch_tile.inner:
        layouts[node] = _part_layout(storage, batch_tile, node, part)
    parts = {node: [_part_layout(storage, batch_tile, node, n) for n in range(part + 1)] for node in batch_tile.kept}
    return Storage(layouts, parts)


def _part_layout(storage: Storage, batch_tile: BatchTile, node: KernelOp, part: int) -> Layout:
    """Where a part of an inner value lies, with the indices of the whole."""
    whole, axis = storage.layouts[node], batch_tile.inner[node]
    size = node.shape[axis] // batch_tile.parts
    shape = (*node.shape[:axis], size, *node.shape[axis + 1 :])
    place = Buffer(
        f"{whole.buffer.name}.{part}", whole.buffer.space, _part_bytes(node, batch_tile), whole.buffer.region
    )
    own = dense(place, whole.dtype, shape, stored_order(node))
    return own.seen(-part * size * own.strides[axis], node.shape, own.strides)


def _part_bytes(node: KernelOp, batch_tile: BatchTile) -> int:
    return -(-size_of(node) // batch_tile.parts // ALIGN) * ALIGN


def inner_sizes(batch_tiles: Sequence[BatchTile]) -> Mapping[KernelOp, int]:
    """Bytes that every inner value takes at a time: one part, unless later ones read it."""
    return {
        node: _part_bytes(node, batch_tile) * (batch_tile.parts if node in batch_tile.kept else 1)
        for batch_tile in batch_tiles
        for node in batch_tile.inner
    }

"""BatchTile: a run of kernels that is executed for a part of the batch at a time, and where values of a part lie."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.layout import Range
from compiler.tile.storage import ALIGN, Storage, size_of


@dataclass(frozen=True)
class BatchTile:
    """Kernels first .. end, executed for `parts` parts of their first dimension in turn. `inner` are the values between
    them."""

    first: int
    end: int
    parts: int = 1
    inner: frozenset[KernelOp] = frozenset()

    def ranges(self, kernel: Kernel) -> Iterator[Range | None]:
        """The part of the first dimension, for each part; None for all of it."""
        if self.parts == 1:
            yield None
            return
        size = kernel.domain[0] // self.parts
        for low in range(0, kernel.domain[0], size):
            yield low, low + size


def part_storage(storage: Storage, batch_tile: BatchTile, part: int) -> Storage:
    """Storage as one part sees them: values between its kernels have a place as large as the part."""
    layouts = dict(storage.layouts)
    for node in batch_tile.inner:
        whole = layouts[node]
        start = part * (node.shape[0] // batch_tile.parts)
        layouts[node] = replace(
            whole, buffer=replace(whole.buffer, name=f"{whole.buffer.name}.{part}"), offset=-start * whole.strides[0]
        )
    return Storage(layouts)


def inner_sizes(batch_tiles: Sequence[BatchTile]) -> Mapping[KernelOp, int]:
    """Bytes of the storage of every value that lives in one part at a time."""
    return {
        node: -(-size_of(node) // batch_tile.parts // ALIGN) * ALIGN
        for batch_tile in batch_tiles
        for node in batch_tile.inner
    }

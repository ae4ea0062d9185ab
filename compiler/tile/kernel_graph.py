"""KernelGraph: kernels in order, the loop among them, the tensors of the interface, and what lies between kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.layout import Layout
from compiler.tile.storage import Storage
from isa.architecture import Dtype, Region


@dataclass(frozen=True)
class Tensor:
    """A tensor of the interface or a packed constant: where it lies in DRAM."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: Dtype
    region: Region
    offset: int
    node: str = ""
    limits: tuple[int, int] | None = None  # of the elements of an input that steers the program

    @property
    def bytes(self) -> int:
        count = 1
        for n in self.shape:
            count *= n
        return -(-count * self.storage.bits // 8)


@dataclass(frozen=True)
class Shared:
    """What other programs of the image have in DRAM: the places of constants that this one has too, by name, and where
    each region is free."""

    places: Mapping[str, int] = field(default_factory=dict)
    free: Mapping[Region, int] = field(default_factory=dict)


NOTHING = Shared()
Copy = tuple[str, KernelOp, Layout]


@dataclass(frozen=True)
class Repeat:
    """Kernels start .. start + period*count are `count` iterations of one body.

    `canonical` maps nodes of later iterations to their counterparts in the first; `instances` maps a node of the first
    iteration to its counterparts in all; `carried` maps a value from before the loop to the value of the body that
    takes its place; `constants` maps a constant of the first iteration to those of all iterations.
    """

    start: int
    period: int
    count: int
    canonical: dict[KernelOp, KernelOp] = field(default_factory=dict)
    instances: dict[KernelOp, list[KernelOp]] = field(default_factory=dict)
    carried: dict[KernelOp, KernelOp] = field(default_factory=dict)
    constants: dict[KernelOp, list[KernelOp]] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Index of the first kernel after the loop."""
        return self.start + self.period * self.count

    def reduced(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """The kernels with one copy of the body."""
        return [*kernels[: self.start + self.period], *kernels[self.end :]]

    def storage_of(self, node: KernelOp) -> KernelOp:
        """The value whose storage this one shares."""
        node = self.canonical.get(node, node)
        return self.carried.get(node, node)

    def sharing(self, node: KernelOp) -> list[KernelOp]:
        """A value and those that share its storage: its counterparts in the other iterations, what it is carried
        from."""
        return [node, *self.instances.get(node, ()), *(old for old, new in self.carried.items() if new is node)]


@dataclass(frozen=True)
class KernelGraph:
    """Kernels in execution order (one copy of a repeated body), layouts of everything in DRAM, live ranges in kernel
    indices.

    `ops` is the whole graph. `copies` are outputs that are copied to their place at the end. `instances` names, for a
    node that the loop computes, the nodes of all iterations."""

    ops: tuple[KernelOp, ...]
    kernels: tuple[Kernel, ...]
    repeat: Repeat | None
    storage: Storage
    live: Mapping[KernelOp, tuple[int, int]]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    copies: tuple[Copy, ...]
    shared: Shared = NOTHING

    @property
    def instances(self) -> dict[str, tuple[str, ...]]:
        groups = {**self.repeat.instances, **self.repeat.constants} if self.repeat else {}
        return {first.name: tuple(node.name for node in group) for first, group in groups.items()}

    @property
    def stored(self) -> frozenset[KernelOp]:
        """Values that must lie somewhere: other kernels, other iterations or the caller read them."""
        values = {*self.live, *self.storage.layouts}
        if self.repeat is not None:
            values |= {other for value in self.live for other in self.repeat.sharing(value)}
        return frozenset(values)

    @property
    def stretches(self) -> tuple[tuple[int, int], ...]:
        """First and end kernel of what stands before, in and behind the loop."""
        if self.repeat is None:
            return ((0, len(self.kernels)),)
        start, end = self.repeat.start, self.repeat.start + self.repeat.period
        return ((0, start), (start, end), (end, len(self.kernels)))

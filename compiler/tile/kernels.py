"""Kernels: operations that go through the chip block by block, and what of them is emitted at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from compiler.tile.kernel_op import GETITEM, KernelOp

MAXIMUM, MAGNITUDE, EXP, RECIP = "max", "absmax", "exp", "recip"  # what steps hand to each other


@dataclass(frozen=True, slots=True)
class Step:
    """What is emitted at once: an operation, and what is done on its way (compiler/fuse/epilogues.py).

    A dequantize takes the sums of its `product` as they leave the array, and may end with the addition of a `residual`.
    `hands` are names of intermediate results that it leaves to the operation behind it.
    """

    op: KernelOp
    product: KernelOp | None = None
    residual: KernelOp | None = None
    hands: tuple[str, ...] = ()

    @property
    def ops(self) -> tuple[KernelOp, ...]:
        """All that it computes, in order."""
        return tuple(op for op in (self.product, self.op, self.residual) if op is not None)

    @property
    def last(self) -> KernelOp:
        """The operation whose value it makes; those before it are nowhere."""
        return self.residual or self.op

    def __str__(self) -> str:
        named = "+".join(f"{op.kind}({op.name})" for op in self.ops)
        return named + (f"{{{', '.join(self.hands)}}}" if self.hands else "")


@dataclass(frozen=True, eq=False)
class Kernel:
    """Operations in execution order, the leading sizes over which they are cut into blocks, and how they are emitted:
    one by one, or some on the way of others."""

    nodes: tuple[KernelOp, ...]
    domain: tuple[int, ...]
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, nodes: Iterable[KernelOp], domain: tuple[int, ...]) -> "Kernel":
        """A kernel of which every operation is a step of its own."""
        given = tuple(nodes)
        return cls(given, domain, tuple(map(Step, given)))

    @cached_property
    def members(self) -> frozenset[KernelOp]:
        return frozenset(self.nodes)

    def values(self) -> list[KernelOp]:
        """Every value that it makes (the parts of tuples too) or reads."""
        parts = (user for node in self.nodes for user in node.users if user.kind == GETITEM)
        return list(
            dict.fromkeys([*self.nodes, *parts, *(operand.base for node in self.nodes for operand in node.operands)])
        )

    def __str__(self) -> str:
        return f"[{'x'.join(map(str, self.domain)) or 'scalar'}] {' → '.join(map(str, self.steps))}"


def signature(kernel: Kernel) -> tuple[object, ...]:
    """What two kernels have in common that are alike, whatever they read: hashable."""
    number = {node: i for i, node in enumerate(kernel.nodes)}
    return (
        kernel.domain,
        tuple((node.target, node.static, node.results) for node in kernel.nodes),
        tuple((tuple(number[op] for op in step.ops), step.hands) for step in kernel.steps),
    )


def views(node: KernelOp) -> tuple[object, ...]:
    """How a view looks at its base, the last step first."""
    steps: list[object] = []
    while node is not node.base:
        steps.append((node.target, node.static))
        node = node.first
    return tuple(steps)

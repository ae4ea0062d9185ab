"""Fuse: group the operations of the frozen graph into kernels.

A kernel is a run of operations that can be executed block by block over one row domain without leaving the chip:

    linear → + residual → layer_norm → quantize          over the rows of all tokens
    scores → mask → softmax → quantize → values          over (batch, head, query)

Values used only inside a kernel never leave its blocks. Kernels execute in list order; the grouping changes no bit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from compiler.ops.record import Role
from compiler.tile.access import Read, reads, straight
from compiler.tile.kernel_op import INPUT, OUTPUT, KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.state import TileState

MOST_JOINED = 1 << 12  # elements in a block of what is computed for a `cat` in its own kernel


@dataclass(frozen=True)
class Fuse:
    """Group operations into kernels, which go through the chip block by block."""

    name: ClassVar[str] = "fuse"
    joins: bool = True

    def run(self, state: TileState) -> TileState:
        return replace(state, kernels=tuple(group(state.ops, self.joins)))


def fuse(ops: Iterable[KernelOp], enabled: bool = True) -> list[Kernel]:
    """Partition all of `ops` that compute into kernels. With `enabled=False`, one operation each (matmuls keep their
    dequantize)."""
    return _Fuser(enabled).run(ops)


@dataclass(frozen=True)
class _Group:
    """A kernel to be: operations in order, without a second copy of any."""

    domain: tuple[int, ...]
    nodes: dict[KernelOp, None]


class _Fuser:
    """Walks the graph once. `owner` maps a computing node to the index of its kernel.

    Nodes that depend on no kernel (embeddings, masks, casts of inputs) and matmuls are *deferred*: they join the kernel
    of their first user.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.groups: list[_Group] = []
        self.owner: dict[KernelOp, int] = {}
        self.deferred: set[KernelOp] = set()

    def run(self, ops: Iterable[KernelOp]) -> list[Kernel]:
        for node in ops:
            if node.kind == OUTPUT:
                for producer in _producers(node):
                    self._settle(producer)
            if not node.is_operation or node.is_view or node.is_empty:
                continue
            alone = not any(p in self.owner for p in _producers(node))
            if node.role is Role.MATMUL or (self.enabled and _users(node) == 1 and (alone or _is_row_scale(node))):
                self.deferred.add(node)
            else:
                self._assign(node)
        return [Kernel.of(group.nodes, group.domain) for group in self.groups]

    def _assign(self, node: KernelOp) -> None:
        """Put `node` and what was deferred for it into the latest kernel among its producers, or a new one."""
        while True:
            waiting = self._waiting(node)
            known = [self.owner[p] for n in (node, *waiting) for p in _producers(n) if p in self.owner]
            latest = max(known, default=-1)
            joins = latest >= 0 and self._fits(self.groups[latest], node, waiting)
            domain = self.groups[latest].domain if joins else _natural_domain(node)
            elsewhere = _read_elsewhere((*waiting, node), domain)
            stray = [
                n
                for n in waiting
                if not _cuttable(n, domain) or n in elsewhere or (node.role is Role.CAT and _is_large(n, domain))
            ]
            if not stray:
                break
            for n in stray:
                self._settle(n)
        if not joins:
            self.groups.append(_Group(domain, {}))
            latest = len(self.groups) - 1
        for n in (*waiting, node):
            self.groups[latest].nodes.setdefault(n)
            self.owner[n] = latest
            self.deferred.discard(n)

    def _settle(self, node: KernelOp) -> None:
        if node in self.deferred:
            self.deferred.discard(node)
            self._assign(node)

    def _waiting(self, node: KernelOp) -> list[KernelOp]:
        """Deferred producers of `node`, deepest first."""
        order: dict[KernelOp, None] = {}
        todo = [(node, False)]
        while todo:
            at, done = todo.pop()
            if done:
                order[at] = None
            elif at is node or at not in order:
                todo += [(at, True)] if at is not node else []
                todo += [(producer, False) for producer in reversed(list(_producers(at))) if producer in self.deferred]
        return list(order)

    def _fits(self, group: _Group, node: KernelOp, waiting: list[KernelOp]) -> bool:
        """Can `node` be computed block by block behind what `kernel` already computes?"""
        if node.role is Role.ATTENTION or any(n.role is Role.ATTENTION for n in group.nodes):
            return False  # blocks of its own kind
        weights = any(n.role is Role.MATMUL and n.operands[1].base.kind == INPUT for n in (*waiting, node))
        if weights and not _columns(group):
            return False  # one set of weights per kernel, so that they are loaded once
        if any(n.role is Role.CAT for n in group.nodes) and _coarser(node, group.domain):
            return False  # a `cat` along the rows needs all of them at once, and leaves them where others find them
        if not self.enabled or (node.role is Role.DEQUANTIZE and group.domain != _natural_domain(node)):
            return False
        return all(_cuttable(n, group.domain) and self._inputs_fit(group, n) for n in (*waiting, node))

    def _inputs_fit(self, group: _Group, node: KernelOp) -> bool:
        """Values of the kernel itself must be read at the same block, through views that keep the domain."""
        return all(_from_block(read, group.domain) for read in reads(node) if read.operand.maker in group.nodes)


def _columns(group: _Group) -> bool:
    """Whether a kernel has made the columns of windows and multiplied nothing yet: they are many times their map, and
    should not leave the chip."""
    return any(n.kind == "im2col" for n in group.nodes) and not any(n.role is Role.MATMUL for n in group.nodes)


def _is_row_scale(node: KernelOp) -> bool:
    """Arithmetic on the row scales of one dequantize: cheap, and best done in its blocks."""
    if len(node.users) != 1 or node.role is not Role.ELEMENTWISE:
        return False
    (user,) = node.users
    return user.role is Role.DEQUANTIZE and user.operands[1] is node


def _natural_domain(node: KernelOp) -> tuple[int, ...]:
    domain = node.row_domain
    return domain[:-1] if node.role is Role.ELEMENTWISE and domain else domain


def _cuttable(node: KernelOp, domain: tuple[int, ...]) -> bool:
    return node.row_domain[: len(domain)] == domain


def _is_large(node: KernelOp, domain: tuple[int, ...]) -> bool:
    """Whether a block has so much of a value that a small scratchpad should not have to hold it for a `cat`, which can
    take it from DRAM."""
    return prod(node.shape[len(domain) :]) > MOST_JOINED


def _coarser(node: KernelOp, domain: tuple[int, ...]) -> bool:
    """Whether blocks over `domain` have more rows of a large value than it needs at once."""
    return len(_natural_domain(node)) > len(domain) and _is_large(node, domain)


def _read_elsewhere(group: Iterable[KernelOp], domain: tuple[int, ...]) -> set[KernelOp]:
    """Operations whose value some node of the group reads elsewhere than at its own block."""
    return {read.operand.maker for node in group for read in reads(node) if not _from_block(read, domain)}


def _from_block(read: Read, domain: tuple[int, ...]) -> bool:
    """Whether an operand can be read from the block that its own kernel has just computed, which is stored in logical
    order."""
    return not read.stored and straight(read.operand) and read.own_block(domain)


def _producers(node: KernelOp) -> Iterable[KernelOp]:
    """Computing nodes that `node` reads, through views."""
    return dict.fromkeys(n.maker for n in node.operands if n.maker.is_operation and not n.base.is_empty)


def _users(node: KernelOp) -> int:
    """How many nodes read the value of `node`, looking through views and getitems."""
    count, todo = 0, [node]
    while todo:
        for user in todo.pop().users:
            if user.is_view:
                todo.append(user)
            else:
                count += 1
    return count


def group(ops: Sequence[KernelOp], fused: bool = True) -> list[Kernel]:
    """The operations of a frozen graph as kernels in execution order."""
    return hoist(fuse(ops, fused))


def hoist(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels that depend on inputs alone (masks) first, so that they do not stand in the middle of the first layer."""
    made = {node for kernel in kernels for node in kernel.nodes}
    free = [
        k
        for k in kernels
        if not any(
            m in made and m not in k.members for node in k.nodes for m in (operand.maker for operand in node.operands)
        )
    ]
    first = [k for k in free if k is not kernels[0]]
    moved = set(map(id, first))
    return [*kernels[:1], *first, *(k for k in kernels[1:] if id(k) not in moved)]

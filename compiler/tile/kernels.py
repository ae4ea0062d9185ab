"""Fuse: group the nodes of the frozen graph into kernels.

A kernel is a run of operations that can be executed block by block over one row domain without leaving the chip:

    linear → + residual → layer_norm → quantize          over the rows of all tokens
    scores → mask → softmax → quantize → values          over (batch, head, query)

Values used only inside a kernel never leave its blocks. Kernels execute in list order; the grouping changes no bit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from operator import getitem

from torch import fx

from compiler.ops.record import Role
from compiler.tile.access import Read, reads, straight
from compiler.tile.nodes import base, computing, is_empty, op_name, role, row_domain, shape, tensors

MOST_JOINED = 1 << 12  # elements in a block of what is computed for a `cat` in its own kernel


@dataclass
class Kernel:
    """Nodes in execution order and the leading sizes over which they are cut into blocks."""

    nodes: list[fx.Node]
    domain: tuple[int, ...]
    members: set[fx.Node] = field(default_factory=set)

    def add(self, node: fx.Node) -> None:
        if node not in self.members:
            self.nodes.append(node)
            self.members.add(node)

    def values(self) -> list[fx.Node]:
        """Every value that it makes (the parts of tuples too) or reads."""
        parts = (user for node in self.nodes for user in node.users if user.target is getitem)
        return list(
            dict.fromkeys(
                [*self.nodes, *parts, *(base(operand) for node in self.nodes for operand in node.all_input_nodes)]
            )
        )

    def __str__(self) -> str:
        steps = " → ".join(f"{op_name(n)}({n.name})" for n in self.nodes)
        return f"[{'x'.join(map(str, self.domain)) or 'scalar'}] {steps}"


def fuse(graph: fx.Graph, enabled: bool = True) -> list[Kernel]:
    """Partition every computing node of `graph` into kernels. With `enabled=False`, one operation each (matmuls keep
    their dequantize)."""
    return _Fuser(enabled).run(graph)


class _Fuser:
    """Walks the graph once. `owner` maps a computing node to the index of its kernel.

    Nodes that depend on no kernel (embeddings, masks, casts of inputs) and matmuls are *deferred*: they join the kernel
    of their first user.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.kernels: list[Kernel] = []
        self.owner: dict[fx.Node, int] = {}
        self.deferred: set[fx.Node] = set()

    def run(self, graph: fx.Graph) -> list[Kernel]:
        for node in graph.nodes:
            if node.op == "output":
                for producer in _producers(node):
                    self._settle(producer)
            if node.op != "call_function" or role(node) is Role.VIEW or is_empty(node):
                continue
            alone = not any(p in self.owner for p in _producers(node))
            if role(node) is Role.MATMUL or (self.enabled and _users(node) == 1 and (alone or _is_row_scale(node))):
                self.deferred.add(node)
            else:
                self._assign(node)
        return self.kernels

    def _assign(self, node: fx.Node) -> None:
        """Put `node` and what was deferred for it into the latest kernel among its producers, or a new one."""
        while True:
            waiting = self._waiting(node)
            known = [self.owner[p] for n in (node, *waiting) for p in _producers(n) if p in self.owner]
            latest = max(known, default=-1)
            joins = latest >= 0 and self._fits(self.kernels[latest], node, waiting)
            domain = self.kernels[latest].domain if joins else _natural_domain(node)
            elsewhere = _read_elsewhere((*waiting, node), domain)
            stray = [
                n
                for n in waiting
                if not _cuttable(n, domain) or n in elsewhere or (role(node) is Role.CAT and _is_large(n, domain))
            ]
            if not stray:
                break
            for n in stray:
                self._settle(n)
        if not joins:
            self.kernels.append(Kernel([], domain))
            latest = len(self.kernels) - 1
        for n in (*waiting, node):
            self.kernels[latest].add(n)
            self.owner[n] = latest
            self.deferred.discard(n)

    def _settle(self, node: fx.Node) -> None:
        if node in self.deferred:
            self.deferred.discard(node)
            self._assign(node)

    def _waiting(self, node: fx.Node) -> list[fx.Node]:
        """Deferred producers of `node`, deepest first."""
        order: dict[fx.Node, None] = {}
        todo = [(node, False)]
        while todo:
            at, done = todo.pop()
            if done:
                order[at] = None
            elif at is node or at not in order:
                todo += [(at, True)] if at is not node else []
                todo += [(producer, False) for producer in reversed(list(_producers(at))) if producer in self.deferred]
        return list(order)

    def _fits(self, kernel: Kernel, node: fx.Node, waiting: list[fx.Node]) -> bool:
        """Can `node` be computed block by block behind what `kernel` already computes?"""
        if any(role(n) is Role.MATMUL and base(n.args[1]).op == "placeholder" for n in waiting):  # type: ignore[arg-type]
            return False  # one set of weights per kernel, so that they are loaded once
        if not self.enabled or (role(node) is Role.DEQUANTIZE and kernel.domain != _natural_domain(node)):
            return False
        return all(_cuttable(n, kernel.domain) and self._inputs_fit(kernel, n) for n in (*waiting, node))

    def _inputs_fit(self, kernel: Kernel, node: fx.Node) -> bool:
        """Values of the kernel itself must be read at the same block, through views that keep the domain."""
        return all(
            _from_block(read, kernel.domain) for read in reads(node) if computing(base(read.operand)) in kernel.members
        )


def _is_row_scale(node: fx.Node) -> bool:
    """Arithmetic on the row scales of one dequantize: cheap, and best done in its blocks."""
    (user,) = node.users if len(node.users) == 1 else (None,)
    if user is None or user.op != "call_function":
        return False
    return role(node) is Role.ELEMENTWISE and role(user) is Role.DEQUANTIZE and user.args[1] is node


def _natural_domain(node: fx.Node) -> tuple[int, ...]:
    domain = row_domain(node)
    return domain[:-1] if role(node) is Role.ELEMENTWISE and domain else domain


def _cuttable(node: fx.Node, domain: tuple[int, ...]) -> bool:
    return row_domain(node)[: len(domain)] == domain


def _is_large(node: fx.Node, domain: tuple[int, ...]) -> bool:
    """Whether a block has so much of a value that a small scratchpad should not have to hold it for a `cat`, which can
    take it from DRAM."""
    return prod(shape(node)[len(domain) :]) > MOST_JOINED


def _read_elsewhere(group: Iterable[fx.Node], domain: tuple[int, ...]) -> set[fx.Node]:
    """Operations whose value some node of the group reads elsewhere than at its own block."""
    return {computing(base(read.operand)) for node in group for read in reads(node) if not _from_block(read, domain)}


def _from_block(read: Read, domain: tuple[int, ...]) -> bool:
    """Whether an operand can be read from the block that its own kernel has just computed, which is stored in logical
    order."""
    return not read.home and straight(read.operand) and read.own_block(domain)


def _producers(node: fx.Node) -> Iterable[fx.Node]:
    """Computing nodes that `node` reads, through views."""
    return dict.fromkeys(
        computing(base(n)) for n in tensors(node) if computing(base(n)).op == "call_function" and not is_empty(base(n))
    )


def _users(node: fx.Node) -> int:
    """How many nodes read the value of `node`, looking through views and getitems."""
    count, todo = 0, [node]
    while todo:
        for user in todo.pop().users:
            if user.op == "call_function" and role(user) is Role.VIEW:
                todo.append(user)
            else:
                count += 1
    return count

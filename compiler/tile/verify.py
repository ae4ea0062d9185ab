"""What must be true of kernels and of a tile program, whichever pass has made them.

kernels   each computes what nobody else does, from what is there already
program   each op is well formed (`ir.verify`); no byte is read that nobody has written, or written twice by one node
before it is read

These checks see one program; whether it computes what the graph says is for the translation check
(compiler/translation/).
"""

from collections.abc import Mapping, Sequence, Set
from itertools import chain
from math import gcd

import numpy as np
from numpy.typing import NDArray

from compiler.tile.ir import Buffer, Op, Program, Ref, launches, span, verify
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from isa.architecture import GIVEN_REGIONS, KEPT_REGIONS, Space
from isa.fields import Access
from isa.views import Extents

_NOT_WRITTEN, _WRITTEN, _READ = range(3)  # what is known of a byte
_GIVEN = frozenset((*GIVEN_REGIONS, *KEPT_REGIONS))  # holds values before the first op


def verify_kernels(
    kernels: Sequence[Kernel],
    same: Mapping[KernelOp, KernelOp] | None = None,
    stored: Set[KernelOp] = frozenset(),
) -> None:
    """Raise ValueError unless every operation is in one kernel and in its steps, behind those that it reads, and what
    is `stored` is made by a step.

    `same` maps what later iterations of a loop compute to what stands for it: the node of the first iteration.
    """
    made: set[KernelOp] = set()
    same = same or {}
    for index, kernel in enumerate(kernels):
        for node in kernel.nodes:
            if node in made:
                raise ValueError(f"{node.name} is computed a second time in kernel {index}")
            for operand in node.operands:
                origin = operand.base
                if origin.is_operation and not origin.is_empty and same.get(origin, origin).maker not in made:
                    raise ValueError(f"{node.name} in kernel {index} reads {operand.name}, which is not computed yet")
            made.add(node)
        _verify_steps(kernel, index, stored)


def _verify_steps(kernel: Kernel, index: int, stored: Set[KernelOp]) -> None:
    """Values of a step but its last are nowhere: only the step itself can read them."""
    done: set[KernelOp] = set()
    for step in kernel.steps:
        own: set[KernelOp] = set()
        for op in step.ops:
            for operand in op.operands:
                if operand.maker in kernel.members - done - own and not operand.base.is_empty:
                    raise ValueError(f"step {step} of kernel {index} reads {operand.name}, which is not there yet")
            own.add(op)
        if step.last in done:
            raise ValueError(f"{step.last.name} is made a second time by step {step} of kernel {index}")
        done.add(step.last)
    inner = {op for step in kernel.steps for op in step.ops} - done
    for op in kernel.nodes:
        if op not in done | inner or op in stored - done:
            raise ValueError(f"{op.name} is made by no step of kernel {index}")


def verify_program(program: Program) -> None:
    """Raise ValueError unless every op is well formed and reads bytes that are given or were written before.

    The iterations of a loop are alike, so that the first one decides: nothing is written before it that a later one
    does not find, too.
    """
    verify(program)
    for _, launch in launches(program):
        _verify_bytes(launch)


def _verify_bytes(program: Program) -> None:
    known = {buffer: _Bytes(buffer) for buffer in program.buffers}
    touched = [
        [
            (known[ref.buffer], _block(ref, extents), access, op.row.field(name))
            for name, ref, extents, access in op.accesses
        ]
        for op in program.ops
    ]
    for found, block, _, _ in chain.from_iterable(touched):
        found.expect(block)
    for op, blocks in zip(program.ops, touched, strict=True):
        for found, block, access, field in blocks:
            if access is not Access.W and not field.partial:
                found.read(op, block)
        for found, block, access, _ in blocks:
            if access is not Access.R:
                found.write(op, block, fresh=access is Access.W)
            found.leave()


Block = tuple[
    int, int, tuple[int, ...], tuple[int, ...]
]  # first byte, bytes of a run; how many runs, at which steps in bytes, outermost first


def _block(ref: Ref, extents: Extents) -> Block:
    """The bytes that an op touches, in as few and as long runs as can be."""
    if ref.dtype.bits < 8:
        low, high = span(ref, extents)
        return low, high - low, (), ()
    run = size = ref.dtype.bits // 8
    counts: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    for count, stride in ((extents[2], ref.cs), (extents[1], ref.rs), (extents[0], ref.ps)):
        if count == 1:
            continue
        if stride * size == run and not counts:
            run *= count
        else:
            counts, steps = (count, *counts), (stride * size, *steps)
    return ref.offset, run, counts, steps


class _Bytes:
    """What is known of the bytes of a buffer: one answer for all, or one for each `grain` of bytes that every op
    treats alike."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer, self.whole = buffer, (0, buffer.bytes, (), ())
        self.given = buffer.space is Space.DRAM and buffer.region in _GIVEN
        self.state: int | NDArray[np.uint8] | None = None
        self.grain = self.left = 0
        self.writer = ""

    def expect(self, block: Block) -> None:
        """An op will touch this block."""
        self.grain = gcd(self.grain, block[0], block[1], *block[3])
        self.left += 1

    def leave(self) -> None:
        """One of those that were expected has done so. Behind the last one nothing needs to be known."""
        self.left -= 1
        if not self.left:
            self.state = None

    def read(self, op: Op, block: Block) -> None:
        if self.state is None:
            if not self.given:
                raise ValueError(f"%{self.buffer.name} is read before anything is written to it in: {op}")
        elif isinstance(self.state, int):
            self.state = _READ
        else:
            part = self._part(self.state, block)
            if not part.all():
                raise ValueError(f"bytes of %{self.buffer.name} are read that nobody has written in: {op}")
            part[...] = _READ

    def write(self, op: Op, block: Block, fresh: bool) -> None:
        """`fresh`: the value does not go on from what is there."""
        if isinstance(self.state, int) or (self.state is None and block == self.whole):
            # one answer for all bytes: a part may well be written where another part was read
            if fresh and self.state == _WRITTEN and self.writer == op.node and block == self.whole:
                raise ValueError(f"%{self.buffer.name} is written again before it was read in: {op}")
            self.state = _WRITTEN
        else:
            if self.state is None:
                before = _READ if self.given else _NOT_WRITTEN
                self.state = np.full(-(-self.buffer.bytes // self.grain), before, np.uint8)
            part = self._part(self.state, block)
            if fresh and self.writer == op.node and (part == _WRITTEN).any():
                raise ValueError(f"bytes of %{self.buffer.name} are written again before they were read in: {op}")
            part[...] = _WRITTEN
        self.writer = op.node

    def _part(self, state: NDArray[np.uint8], block: Block) -> NDArray[np.uint8]:
        first, run = block[0] // self.grain, block[1] // self.grain
        if not block[2]:
            return state[first : first + run]
        return np.ndarray((*block[2], run), np.uint8, state, first, (*(step // self.grain for step in block[3]), 1))

"""Token tiles: one sequence, whose tokens go through a run of kernels in parts.

    for each layer:  for each part of the tokens:  query key value rotate attention output up down

Attention mixes tokens, but none sees those behind it: with the parts in order, each finds the keys and values that it
needs. So attention of a part, which keeps VEC busy, goes on beside the products of the parts before and behind it, which
keep the array busy.
"""

from collections.abc import Iterator, Mapping, Sequence

from compiler.ops.record import Role
from compiler.tile.access import follow, reads
from compiler.tile.batch_tile import BatchTile
from compiler.tile.ir import Buffer
from compiler.tile.kernel_graph import KernelGraph
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.layout import dense
from compiler.tile.storage import stored_order
from isa.architecture import Dtype, Space

MIN_ROWS = 128  # rows that each kernel of a part must have, so that weights are worth their loading
RESULT = 3  # the dimension of tokens of what attention over a cache gives: [batch, heads, group, tokens, size]
QUERIES = {"q": 3, "sq": 3}  # and of its operands: of these a token reads its own
BEFORE = {"k": 2, "sk": 2, "v": 2, "sv": 2}  # of these also those before it

_NOWHERE = Buffer("nowhere", Space.DRAM, 0)

Axes = Mapping[KernelOp, int]  # the dimension of tokens of what operations make, or of values that are given


def find_token_tile(kernel_graph: KernelGraph, start: int, stop: int, parts: int) -> BatchTile | None:
    """The first run of kernels between `start` and `stop` with attention over a cache, of one sequence, none of which
    reads what the run makes of later tokens than its own. None if there is none, or if parts would be small."""
    for at in range(start, stop):
        attention = kernel_graph.kernels[at].nodes[-1]
        if not _is_causal(kernel_graph.kernels[at]) or attention.shape[RESULT] % parts:
            continue
        if (tokens := attention.shape[RESULT]) // parts < MIN_ROWS:
            continue
        for first in range(start, at):
            if (tile := _run(kernel_graph, first, stop, tokens, parts)).end > at + 1:
                return tile
    return None


def _is_causal(kernel: Kernel) -> bool:
    """Whether a kernel is attention over a cache, of one sequence, that new tokens are added to."""
    node = kernel.nodes[-1]
    new = node.role is Role.ATTENTION and node.optional("k") is not None and node.integer("block") > 0
    return new and len(kernel.nodes) == 1 and node.shape[0] == 1


def _run(kernel_graph: KernelGraph, first: int, stop: int, tokens: int, parts: int) -> BatchTile:
    """The longest run from `first` on that can be cut."""
    made: dict[KernelOp, int] = {}
    for old in kernel_graph.repeat.carried if kernel_graph.repeat else ():  # written in the loop
        made[old.maker] = 1 if old.shape[:2] == (1, tokens) else -1
    axes: list[int] = []
    for kernel in kernel_graph.kernels[first:stop]:
        axis = next(_cuts(kernel, made, tokens), None)
        if axis is None:
            break
        axes.append(axis)
        made |= dict.fromkeys(kernel.members, axis)
    end = first + len(axes)
    before = {
        node.tensor(name).base
        for kernel in kernel_graph.kernels[first:end]
        for node in kernel.nodes
        if node.role is Role.ATTENTION
        for name in BEFORE
    }
    inner = {
        value: made[value.maker]
        for value, (a, b) in kernel_graph.live.items()
        if first <= a and b < end and value not in kernel_graph.storage.layouts
    }
    stages = _stages(kernel_graph.kernels[first:end])
    return BatchTile(
        first, end, parts, inner, tuple(axes), tuple(first + at for at in stages), frozenset(inner.keys() & before)
    )


def _stages(kernels: Sequence[Kernel]) -> tuple[int, ...]:
    """Where projections, what attention does, and the rest begin: in turn they keep the array busy, the others, and the
    array again."""
    attention = next((at for at, kernel in enumerate(kernels) if _is_causal(kernel)), 0)
    products = [at for at, k in enumerate(kernels[:attention]) if any(node.role is Role.MATMUL for node in k.nodes)]
    return (0, *([products[-1] + 1] if products else []), attention + 1)


def _cuts(kernel: Kernel, made: Axes, tokens: int) -> Iterator[int]:
    """The dimensions along which a kernel can be cut so that each token is made of its own in what was `made`."""
    if any(node.role is Role.ATTENTION for node in kernel.nodes):
        if _is_causal(kernel) and _attends_before(kernel.nodes[-1], made, tokens):
            yield RESULT
        return
    shape = kernel.domain
    if all(node.role is Role.ELEMENTWISE and node.shape == kernel.nodes[-1].shape for node in kernel.nodes):
        shape = kernel.nodes[-1].shape
    for axis in (axis for axis, size in enumerate(shape) if size == tokens):
        if all(_reads_own(node, axis, made, kernel, tokens) for node in kernel.nodes):
            yield axis


def _reads_own(node: KernelOp, axis: int, made: Axes, kernel: Kernel, tokens: int) -> bool:
    """Whether `node` reads what others made at its own token alone."""
    outside = [r for r in reads(node) if r.operand.maker in made and r.operand.maker not in kernel.members]
    return all(
        0 <= axis - read.lead < read.follows
        and _at_token(read.operand, axis - read.lead, made[read.operand.maker], tokens)
        for read in outside
    )


def _attends_before(node: KernelOp, made: Axes, tokens: int) -> bool:
    """Whether attention has the tokens of what was `made` where it expects them, and reads nothing else of it."""
    named = {name: node.tensor(name) for name in (*QUERIES, *BEFORE)}
    others = [operand for operand in node.operands if operand not in named.values()]
    return not any(operand.maker in made for operand in others) and all(
        operand.maker not in made or _at_token(operand, axis, made[operand.maker], tokens)
        for name, operand in named.items()
        for axis in ({**QUERIES, **BEFORE}[name],)
    )


def _at_token(operand: KernelOp, axis: int, base_axis: int, tokens: int) -> bool:
    """Whether index t of a view's dimension is what its base has at index t of its own, for all tokens."""
    base = operand.base
    if base_axis < 0 or base.shape[base_axis] != tokens or operand.shape[axis] != tokens:
        return False
    stored = dense(_NOWHERE, Dtype.I8, base.shape, stored_order(base))
    try:
        view = follow(stored, operand)
    except RuntimeError:  # a view that takes a copy
        return False
    step = stored.strides[base_axis]
    low = view.offset % (step * tokens)
    for dim, (size, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        if dim != axis and stride % (step * tokens):  # else it leads to the same token
            low += (size - 1) * stride
    return view.strides[axis] == step and low < step

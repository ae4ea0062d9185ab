"""The speed of light: cycles that no program for a model can beat, from the shapes of its operations and the chip
alone.

    limit = speed_of_light(compiled.lowered.main.graph, chip)      limit.cycles      limit.by_resource["dram"]

Each engine must at least do its share: the MXU pass every row of every GEMM through every tile of weights, VEC and ACT
stream over the elements they alone can process, DRAM deliver each byte once. The largest share is the limit; a perfect
schedule hides all others. Nothing here looks at a program. What a memory too small for a product must read again is
counted, see `reread_bytes`. Where the instruction set leaves a choice the cheapest is taken: a reduction rides on the
instruction that produces its operand, an addition on the instruction that produces or consumes it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, isqrt, prod

from torch import fx

from compiler.ops import record
from compiler.ops.record import Affine, Role
from compiler.ops.table import OPS
from compiler.reference.windows import windows
from compiler.tile.kernel_op import CHOSEN, INPUT, OUTPUT, KernelOp, kernel_ops
from isa.chip import Chip
from isa.timing import FLOAT_SLOWDOWN, ceil_div, grouped_pace, matmul_passes, vector_cycles
from runtime.profile.limit import Limit

RESULT = "output "  # before the name of a value that only goes out
STEPS = 5  # elementwise steps that one vaff can do: sub, rs, cs, bi, res
_TAPS = frozenset({"sum", "max", "absmax"})


@dataclass(frozen=True, slots=True)
class Gemm:
    """C[b][m, n] = A[b][m, k] · W[b][k, n]; `depth` limits the rows of a tile of k, a row takes `pace` cycles."""

    b: int
    m: int
    n: int
    k: int
    depth: int = 0
    pace: int = 1

    @property
    def macs(self) -> int:
        return self.b * self.m * self.n * self.k


@dataclass(frozen=True, slots=True)
class Stream:
    """`passes` over `rows` rows of `cols` elements on a vector engine."""

    rows: int
    cols: int
    passes: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Operation:
    """What one operation of the model asks of each resource, whatever the program."""

    name: str
    gemm: Gemm | None = None
    vec: Stream | None = None
    act: Stream | None = None
    dram_bytes: int = 0


def limit(operations: Iterable[Operation], chip: Chip) -> Limit:
    """The limit of a list of operations."""
    mxu, vec, act, count = 0, Fraction(0), Fraction(0), 0
    for op in operations:
        if op.gemm is not None:
            passes = matmul_passes(op.gemm.b, op.gemm.k, op.gemm.n, chip.mxu, op.gemm.depth)
            mxu += passes * op.gemm.m * op.gemm.pace
            count += reread_bytes(op.gemm, chip.sram.bytes + chip.acc.bytes)
        vec += _cycles(op.vec, chip.vec.lanes)
        act += _cycles(op.act, chip.act.lanes)
        count += op.dram_bytes
    return Limit(
        {
            "mxu": mxu,
            "vec": ceil(vec),
            "act": ceil(act),
            "dram": ceil_div(count * chip.clock_hz, chip.dram.bytes_per_second),
        }
    )


def reread_bytes(gemm: Gemm, memory: int) -> int:
    """Bytes that a product must move beyond one look at its weights, if `memory` bytes are all there is on chip and it
    is finished before the next begins.

    After Hong & Kung (1981) and Irony, Toledo & Tiskin (2004). Cut the run into phases that move as many bytes as
    memory has. A phase sees at most T = 2 * memory bytes of operands. A sum that it touches
    - lives on at its beginning or end, or comes in or goes out: at most T / 2 of them, 4 bytes each. By Loomis and
      Whitney sqrt(A * B * sums) products add to these; A + B <= T, so at most T * sqrt(T / 8);
    - or begins and ends inside. Then all of its row and its column is there: (rows + columns) * k <= T, so at most T *
      T / 4k products.
    Every phase but the last moves `memory` bytes. With several planes (attention) operands need never have been in
    DRAM: nothing is counted.
    """
    if gemm.b > 1:
        return 0
    seen = 2 * memory
    products = seen * isqrt(seen // 8 + 1) + seen * seen // (4 * gemm.k) + 1 if gemm.k else 1
    return max((ceil_div(gemm.macs, products) - 1) * memory - gemm.n * gemm.k, 0)


def _cycles(stream: Stream | None, lanes: int) -> Fraction:
    return Fraction(0) if stream is None else vector_cycles(1, stream.rows, stream.cols, lanes) * stream.passes


def speed_of_light(graph: fx.Graph, chip: Chip, steered: int = 0) -> Limit:
    """The limit of a lowered graph; of one with a cache, where `steered` tokens are in it already."""
    return limit(operations(graph, steered), chip)


def operations(graph: fx.Graph, steered: int = 0) -> list[Operation]:
    """The operations of a lowered graph, and the DRAM bytes that go in and out once."""
    found = []
    for node in kernel_ops(graph):
        if node.role is Role.ATTENTION:
            found += _cached_attention(node, steered)
        elif node.kind == INPUT and node.is_state:
            continue  # counted with what reads it
        elif node.kind == INPUT and node.users:
            found.append(Operation(node.name, dram_bytes=_loaded(node)))
        elif node.is_operation and not node.is_view:
            found.append(_rule(node)(node))
        elif node.kind == OUTPUT:
            found += [Operation(f"{RESULT}{n.name}", dram_bytes=_bytes(n)) for n in dict.fromkeys(node.operands)]
    return found


def _bytes(node: KernelOp) -> int:
    return ceil_div(prod(node.shape) * node.dtype.bits, 8)


def _loaded(node: KernelOp) -> int:
    """Bytes of an input or constant that must come in: looked-up rows of a table, parts of what is only read in
    parts."""
    count = 0
    for user in node.users:
        if user.kind == OUTPUT:
            return _bytes(node)
        if user.is_view:
            count += min(_bytes(user), _bytes(node))
        elif user.kind == CHOSEN and user.operands[1] is node:
            blocks = min(prod(user.tensor("chosen").shape), node.shape[0])
            count += blocks * ceil_div(prod(node.shape[1:]) * node.dtype.bits, 8)
        elif user.role is Role.GATHER and user.operands[0] is node:
            rows = min(prod(user.shape[:-1]), node.shape[0])
            count += rows * ceil_div(prod(node.shape[1:]) * node.dtype.bits, 8)
        else:
            return _bytes(node)
    return min(count, _bytes(node))


def _rows(node: KernelOp, passes: int | Fraction = 1) -> Stream:
    """Row by row: each row has a scalar of its own, so that rows cannot share a cycle."""
    sizes = node.shape
    if not sizes or sizes[-1] == 1:
        return _flat(prod(sizes), passes)
    return Stream(prod(sizes[:-1]), sizes[-1], Fraction(passes))


def _flat(elements: int, passes: int | Fraction = 1) -> Stream:
    """Element by element: as one long row."""
    return Stream(1, elements, Fraction(passes))


def _producer(node: KernelOp) -> str:
    """Name of the operation behind a value, seen through views; "" for inputs."""
    origin = node.maker
    return origin.kind if origin.is_operation else ""


def _consumers(node: KernelOp) -> Iterable[str]:
    for user in node.users:
        if user.is_view:
            yield from _consumers(user)
        else:
            yield user.kind if user.is_operation else "output"


def _tappable(node: KernelOp) -> bool:
    return Affine.MADE in _affine(_producer(node))


def _matmul(node: KernelOp) -> Operation:
    a, b = (operand.shape for operand in node.operands)
    n = node.shape[-1]
    if len(b) == 2:
        return Operation(node.name, Gemm(1, prod(a[:-1]), n, a[-1]))
    return Operation(node.name, Gemm(prod(node.shape[:-2]), a[-2], n, a[-1]))


def _matmul_float(node: KernelOp) -> Operation:
    found = _matmul(node)
    return replace(found, gemm=None if found.gemm is None else replace(found.gemm, pace=FLOAT_SLOWDOWN))


def _matmul_chosen(node: KernelOp) -> Operation:
    """A product for each row, with weights of its own."""
    rows, k = node.first.shape
    return Operation(node.name, Gemm(rows, 1, node.shape[-1], k))


def _matmul_groups(node: KernelOp) -> Operation:
    a = node.first.shape
    pace = grouped_pace(node.integer("group"), node.optional("ss") is not None)
    return Operation(node.name, Gemm(1, prod(a[:-1]), node.shape[-1], a[-1], *pace))


def _quantize_groups(node: KernelOp) -> Operation:
    """Two passes: no producer finds the maxima of groups."""
    return Operation(node.name, vec=_flat(prod(node.first.shape), 2))


def _dequantize(node: KernelOp) -> Operation:
    """Rows may be cut so that all lanes are at work."""
    return Operation(node.name, vec=_flat(prod(node.shape)))


def _quantize(node: KernelOp) -> Operation:
    """Two passes, one if the absmax is given or comes with the producer; that of exp is known to be exp(0), that of the
    columns of windows follows from their map's."""
    x = node.first
    known = _producer(x) in ("softmax", "im2col") and node.args["col"] is None
    once = node.args["absmax"] is not None or _tappable(x) or known
    return Operation(node.name, vec=_rows(x, 1 if once else 2))


def _softmax(node: KernelOp) -> Operation:
    """exp with its sum on ACT; the maximum comes with the producer, the division goes with the consumer, where they
    can."""
    x = node.first
    passes = (not _tappable(x)) + (not all(_affine(user) & (Affine.AFTER | Affine.STEP) for user in _consumers(node)))
    return Operation(node.name, vec=_rows(x, passes), act=_rows(x))


def _layer_norm(node: KernelOp) -> Operation:
    """Sum, sum of squares, normalise; the sum may come with the producer. Without a mean there is none."""
    x = node.first
    return Operation(node.name, vec=_rows(x, 2 if _tappable(x) or not node.args["center"] else 3))


def _activation(node: KernelOp) -> Operation:
    """One pass of ACT. relu could as well be done on VEC, so neither is sure to do it."""
    free = node.args["kind"] == "relu"
    return Operation(node.name, act=None if free else _flat(prod(node.shape)))


def _reduce(node: KernelOp) -> Operation:
    x = node.first
    free = node.role is Role.ROWS and node.args["kind"] in _TAPS and _tappable(x)
    return Operation(node.name, vec=None if free else _flat(prod(x.shape)))


def _argmax(node: KernelOp) -> Operation:
    return Operation(node.name, vec=_flat(prod(node.first.shape)))


def _depthwise(node: KernelOp) -> Operation:
    """One pass for each tap over the places that have it inside the map: an instruction adds one product to a sum."""
    x, weight = node.tensor("x"), node.tensor("weight")
    over = (node.integers(name) for name in ("stride", "dilation", "padding", "places"))
    along = windows(x.shape[1:-1], weight.shape[:-1], *over)
    terms = (sum(high - low for low, high in map(w.inside, range(w.taps))) for w in along)
    return Operation(node.name, vec=_flat(node.shape[0] * prod(terms) * node.shape[-1]))


def _clamp(node: KernelOp) -> Operation:
    """A pass of VEC for each bound; ACT could do that of zero from below."""
    passes = [node.args[name] is not None for name in ("min", "max")]
    return Operation(node.name, vec=_flat(prod(node.shape), sum(passes) - (node.args["min"] == 0)))


def _cached_attention(node: KernelOp, steered: int) -> list[Operation]:
    """Two products over the keys that a token sees; the cache is read once, and what is new is written.

    The scores pass VEC when they are dequantized, and twice when the weights are quantized (their absmax comes after
    the values' scales); the maximum may come with the former."""
    batch, heads, group, tokens, size = node.tensor("q").shape
    width = node.shape[-1]
    window = node.integer("window")
    old = min(steered, window - 1) if window else steered
    new = 1 if node.optional("k") is None else tokens  # the place of the last key is given where none is new
    keys, rows = min(old + new, node.tensor("keys").shape[-2]), batch * heads * group * tokens
    moved = batch * heads * (keys * (size + width + 2 * SCALE_BYTES))
    if node.optional("bias") is not None:
        moved += heads * group * keys * SCALE_BYTES
    seen = old + ceil_div(tokens + 1, 2) if node.integer("block") else keys  # of a new token, on average
    scores = Stream(rows, seen, Fraction(3))
    return [
        Operation(
            node.name, Gemm(batch * heads, group * tokens, seen, size), scores, Stream(rows, seen, Fraction(1)), moved
        ),
        Operation(node.name, Gemm(batch * heads, group * tokens, width, seen), Stream(rows, width, Fraction(1))),
    ]


def _nothing(node: KernelOp) -> Operation:
    """Gathers and joins are DMA or strides; a cast or a comparison goes with its neighbour."""
    return Operation(node.name)


def _elementwise(node: KernelOp) -> Operation:
    """One pass over what is really there: values repeated by broadcasting may be computed once."""
    if node.copies or not node.dtype.is_float:
        return _nothing(node)
    sources = [prod(operand.base.shape) for operand in node.operands]
    elements = min(prod(node.shape), max(sources, default=0))
    return Operation(node.name, vec=_flat(elements, _share(node)))


def _share(node: KernelOp) -> Fraction:
    """Passes of an elementwise operation: none if a neighbour's instruction has a step for it, a fifth in a chain of
    its like."""
    if Affine.STEP not in OPS[node.kind].affine:
        return Fraction(1)
    before, after = (
        [_affine(_producer(operand)) for operand in node.operands],
        [_affine(user) for user in _consumers(node)],
    )
    if any(Affine.BEFORE in other for other in before) or any(Affine.AFTER in other for other in after):
        return Fraction(0)
    return Fraction(1, STEPS) if any(Affine.STEP in other for other in (*before, *after)) else Fraction(1)


SCALE_BYTES = 4  # of a key or value in a cache


_RULES: dict[str, Callable[[KernelOp], Operation]] = {  # of operations whose record says Limit.OWN
    "matmul_i8": _matmul,
    "matmul_float": _matmul_float,
    "dequantize": _dequantize,
    "quantize_groups": _quantize_groups,
    CHOSEN: _matmul_chosen,
    "matmul_groups": _matmul_groups,
    "quantize_rows": _quantize,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "activation": _activation,
    "reduce": _reduce,
    "argmax": _argmax,
    "clamp": _clamp,
    "depthwise": _depthwise,
}


def _rule(node: KernelOp) -> Callable[[KernelOp], Operation]:
    op = OPS[node.kind]
    return {record.Limit.NOTHING: _nothing, record.Limit.ELEMENTS: _elementwise}.get(op.limit) or _RULES[op.name]


def _affine(name: str) -> Affine:
    return OPS[name].affine if name in OPS else Affine.NONE

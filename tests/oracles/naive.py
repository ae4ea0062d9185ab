"""A second, deliberately naive interpreter of the instruction set, written from docs/numerics.md and the table's
pseudocode.

Scalar loops, Python integers, one numpy scalar per rounding; nothing is fast and nothing is shared with the emulator
but the table (`isa.spec`), its constants (`isa.constants`) and the decoder. About 2 microseconds per integer and 10 per
float operation: programs of some hundred words on blocks of some hundred elements take well under a second, a 1-layer
BERT of the tests some seconds.

A word reads all its sources before it writes anything. Where the documents leave a choice, a comment says AMBIGUOUS and
which was taken.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from naive_math import FUNCTIONS, bits_of, f32, narrow, of_bits, ordered_sum, reduce_row

from isa.architecture import WORD_BYTES, Dtype, Region, Space
from isa.codec import Inst, decode
from isa.fields import Field
from isa.spec import ACT, MM_FORMAT, NIBBLES, ROUND, SALU, TAP, TIES, VOP, VQD_NORM, VRED

Key = tuple[Space, Region]
Value = Any  # a Python int, or an np.float32


class NaiveTrap(Exception):
    """The program does something that no program may do."""


@dataclass
class Block:
    """A view operand of one word: where it lies and how far it reaches."""

    memory: "Memory"
    dtype: Dtype
    base: int
    strides: tuple[int, int, int]
    extents: tuple[int, int, int]

    def bit(self, p: int, r: int, c: int) -> int:
        return self.base * 8 + (p * self.strides[0] + r * self.strides[1] + c * self.strides[2]) * self.dtype.bits

    def raw(self, p: int, r: int, c: int) -> int:
        return self.memory.load(self.bit(p, r, c), self.dtype.bits)

    def value(self, p: int, r: int, c: int) -> Value:
        """A signed integer, or a float32."""
        raw, bits = self.raw(p, r, c), self.dtype.bits
        if self.dtype.is_float:
            return widen(raw, self.dtype)
        return raw - (1 << bits) if raw >> (bits - 1) else raw

    def real(self, p: int, r: int, c: int) -> np.float32:
        value = self.value(p, r, c)
        return value if self.dtype.is_float else f32(value)

    def indices(self) -> Iterator[tuple[int, int, int]]:
        return product(*map(range, self.extents))  # type: ignore[return-value]

    def put(self, p: int, r: int, c: int, raw: int) -> None:
        self.memory.store(self.bit(p, r, c), self.dtype.bits, raw)


def widen(raw: int, dtype: Dtype) -> np.float32:
    if dtype is Dtype.F16:
        return f32(np.frombuffer(raw.to_bytes(2, "little"), np.float16)[0])
    return of_bits(raw << 16 if dtype is Dtype.BF16 else raw)


def pack(value: Value, dtype: Dtype) -> int:
    """The bits of a number in a type: floats are rounded, integers keep their low bits."""
    if not dtype.is_float:
        return int(value) & ((1 << dtype.bits) - 1)
    if dtype is Dtype.F16:
        return int.from_bytes(np.float16(value).tobytes(), "little")
    return bits_of(narrow(value, dtype)) >> (16 if dtype is Dtype.BF16 else 0)


@dataclass
class Memory:
    data: bytearray
    written: bytearray

    def load(self, bit: int, bits: int) -> int:
        first, end = bit // 8, -(-(bit + bits) // 8)
        if first < 0 or end > len(self.data) or not all(self.written[first:end]):
            raise NaiveTrap(f"read of byte {first}")
        return int.from_bytes(self.data[first:end], "little") >> (bit % 8) & ((1 << bits) - 1)

    def store(self, bit: int, bits: int, raw: int) -> None:
        first, end = bit // 8, -(-(bit + bits) // 8)
        if first < 0 or end > len(self.data):
            raise NaiveTrap(f"write of byte {first}")
        old = int.from_bytes(self.data[first:end], "little")
        mask = ((1 << bits) - 1) << bit % 8
        self.data[first:end] = ((old & ~mask) | raw << bit % 8).to_bytes(end - first, "little")
        self.written[first:end] = bytes([1]) * (end - first)


@dataclass
class Register:
    operands: dict[str, int]
    moves: list[dict[str, int]] = field(default_factory=list)
    added: int = 0


@dataclass
class Loop:
    level: int
    start: int
    end: int
    count: int


class Word:
    """One word being executed: its operands by name and its blocks by name."""

    def __init__(self, machine: "Naive", inst: Inst) -> None:
        self.ops = inst.named()
        if self.ops.get("dyn") and "dyn_s" in self.ops:
            self.ops[inst.row.field("dyn").choices[self.ops["dyn"]]] = machine.scalars[self.ops["dyn_s"]]
        self.empty = any(self.ops.get(dim) == 0 for f in inst.row.views for dim in f.dims)
        # AMBIGUOUS: a word with an extent of 0 does nothing, so mm with k = 0 does not even clear c.
        self.blocks = (
            {}
            if self.empty
            else {f.name: machine.block(self.ops[f.name], self.extents(f)) for f in inst.row.views if self.ops[f.name]}
        )

    def extents(self, f: Field) -> tuple[int, int, int]:
        dims = next((w.dims for w in f.when if w.dims and self.ops[w.field] == w.value), f.dims)
        count = {"1": 1}
        if "glog" in self.ops:
            count["g"] = -(-self.ops["k"] // (32 * 2 ** self.ops["glog"]))
            count["j"] = -(-self.ops["k"] // (16 * 2 ** self.ops["slog"]))
        planes, rows, cols = (count[dim] if dim in count else self.ops[dim] for dim in dims)
        return planes, rows, cols

    def real(self, name: str, at: tuple[int, int, int], absent: Value = None) -> Value:
        return self.blocks[name].real(*at) if name in self.blocks else absent


class Naive:
    """The chip. `regions` are copied; after `run` the memories are in `memories`."""

    def __init__(self, sram: int, acc: int, regions: dict[Region, bytes], born: set[Region]) -> None:
        self.memories: dict[Key, Memory] = {}
        for space, size in ((Space.SRAM, sram), (Space.ACC, acc)):
            self.memories[space, Region.WEIGHTS] = Memory(bytearray(size), bytearray(size))
        for region, data in regions.items():
            self.memories[Space.DRAM, region] = Memory(bytearray(data), bytearray([region in born]) * len(data))
        self.scalars = [0] * 16
        self.views: dict[int, Register] = {}
        self.index = [0] * 4
        self.loops: list[Loop] = []
        self.pc = 0

    def run(self, code: bytes) -> int:
        with np.errstate(all="ignore"):
            while True:
                inst = decode(code[self.pc : self.pc + WORD_BYTES])
                self.pc += WORD_BYTES
                if inst.mnemonic == "halt":
                    return inst.operands[0]
                word = Word(self, inst)
                if not word.empty:
                    MEANING[inst.mnemonic](self, word)
                while self.loops and self.pc == self.loops[-1].end:
                    self._turn()

    def _turn(self) -> None:
        loop = self.loops[-1]
        self.index[loop.level] += 1
        if self.index[loop.level] < loop.count:
            self.pc = loop.start
        else:
            self.index[loop.level] = 0  # AMBIGUOUS: outside its loop an index counts as 0, so vinc adds nothing
            self.loops.pop()

    def block(self, number: int, extents: tuple[int, int, int]) -> Block:
        register = self.views[number]
        v = register.operands
        base = v["base"] + register.added
        for move in register.moves:
            turn = self.index[move["level"]] // move["div"]
            base += move["inc"] * (turn % move["mod"] if move["mod"] else turn)
        dtype, space = Dtype(v["dtype"]), Space(v["space"])
        if dtype.bits >= 8 and base % (dtype.bits // 8):
            raise NaiveTrap("misaligned")
        memory = self.memories[space, Region(v["region"]) if space is Space.DRAM else Region.WEIGHTS]
        return Block(memory, dtype, base, (v["ps"], v["rs"], v["cs"]), extents)


Meaning = Callable[[Naive, Word], None]
MEANING: dict[str, Meaning] = {}


def means(*mnemonics: str) -> Callable[[Meaning], Meaning]:
    def register(meaning: Meaning) -> Meaning:
        MEANING.update(dict.fromkeys(mnemonics, meaning))
        return meaning

    return register


@means("nop", "fence")
def nothing(machine: Naive, word: Word) -> None:
    pass


@means("loop")
def loop(machine: Naive, word: Word) -> None:
    ops = word.ops
    count = machine.scalars[ops["s"]] if ops["dyn"] else ops["count"]
    end = machine.pc + WORD_BYTES * ops["len"]
    if count > 0 and ops["len"]:
        machine.loops.append(Loop(ops["level"], machine.pc, end, count))
    else:
        machine.pc = end


def signed(value: int) -> int:
    """AMBIGUOUS: the table says 32-bit and wrapping, not that scalars are signed."""
    return ((value + (1 << 31)) % (1 << 32)) - (1 << 31)


@means("salu")
def salu(machine: Naive, word: Word) -> None:
    ops = word.ops
    a, y = machine.scalars[ops["a"]], signed(ops["imm"]) if ops["bi"] else machine.scalars[ops["b"]]
    f = SALU[ops["f"]]
    if f == "ceildiv" and y == 0:
        raise NaiveTrap("division by zero")
    results: dict[str, Callable[[], int]] = {
        "mov": lambda: y,
        "add": lambda: a + y,
        "sub": lambda: a - y,
        "mul": lambda: a * y,
        "min": lambda: min(a, y),
        "max": lambda: max(a, y),
        "ceildiv": lambda: (a + y - (1 if y > 0 else -1)) // y if a % y else a // y,
        "shl": lambda: a << y % 32,
        "shr": lambda: a >> y % 32,
        "and": lambda: a & y,  # AMBIGUOUS: amounts above 31, sign of shr
    }
    machine.scalars[ops["d"]] = signed(results[f]())


@means("sld")
def sld(machine: Naive, word: Word) -> None:
    machine.scalars[word.ops["d"]] = word.blocks["v"].value(0, 0, word.ops["off"])


@means("vset")
def vset(machine: Naive, word: Word) -> None:
    machine.views[word.ops["v"]] = Register(word.ops)


@means("vinc")
def vinc(machine: Naive, word: Word) -> None:
    machine.views[word.ops["v"]].moves.append(word.ops)


@means("vadd")
def vadd(machine: Naive, word: Word) -> None:
    machine.views[word.ops["v"]].added += machine.scalars[word.ops["s"]] * word.ops["scale"]


@means("ldw", "lda", "sto")
def copy(machine: Naive, word: Word) -> None:
    d, a = word.blocks["d"], word.blocks["a"]
    if d.dtype is not a.dtype:
        raise NaiveTrap("a copy converts nothing")
    write(d, {at: a.raw(*at) for at in d.indices()})


@means("gather")
def gather(machine: Naive, word: Word) -> None:
    d, a, idx = word.blocks["d"], word.blocks["a"], word.blocks["idx"]
    rows = [idx.value(0, i, 0) for i in range(word.ops["n"])]
    if not all(0 <= row < word.ops["limit"] for row in rows):
        raise NaiveTrap("row outside the table")
    write(d, {(0, i, c): a.raw(0, rows[i], c) for _, i, c in d.indices()})


def write(block: Block, raws: dict[tuple[int, int, int], int]) -> None:
    for at, raw in raws.items():
        block.put(*at, raw)


@means("mm")
def mm(machine: Naive, word: Word) -> None:
    c = word.blocks["c"]
    rule = {"i8": _integer_product, "float": _float_product}[MM_FORMAT[word.ops["fmt"]]]
    write(c, {at: pack(rule(word, *at), c.dtype) for at in c.indices()})


def _pairs(word: Word, b: int, m: int, n: int) -> Iterator[tuple[Value, Value]]:
    a, w = word.blocks["a"], word.blocks["w"]
    for k in range(word.ops["k"]):
        yield a.value(b, m, k), w.value(b, n, k) if word.ops["wt"] else w.value(b, k, n)


def _integer_product(word: Word, b: int, m: int, n: int) -> int:
    start = word.blocks["c"].value(b, m, n) if word.ops["acc"] else 0
    return start + sum(x * y for x, y in _pairs(word, b, m, n))  # type: ignore[no-any-return]


def _float_product(word: Word, b: int, m: int, n: int) -> np.float32:
    total = word.blocks["c"].real(b, m, n) if word.ops["acc"] else f32(0)
    for x, y in _pairs(word, b, m, n):
        total = f32(total + f32(x * y))
    return total


@means("mmg")
def mmg(machine: Naive, word: Word) -> None:
    c = word.blocks["c"]
    rule = _lane_product if "ss" in word.blocks else _group_product
    write(c, {at: pack(rule(word, *at), c.dtype) for at in c.indices()})


E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)  # by exponent and mantissa; the fourth bit is the sign


def _codes(word: Word, m: int, n: int) -> tuple[list[int], list[int]]:
    a = [word.blocks["a"].value(0, m, k) for k in range(word.ops["k"])]
    w = [word.blocks["w"].value(0, n, k) for k in range(word.ops["k"])]
    kind = NIBBLES[word.ops["nib"]]
    if kind == "e2m1":
        return a, [int(2 * E2M1[y % 8]) * (-1 if y < 0 else 1) for y in w]
    return a, [y % 16 for y in w] if kind == "u4" else w


def _group_product(word: Word, b: int, m: int, n: int) -> np.float32:
    total = word.blocks["c"].real(b, m, n) if word.ops["acc"] else f32(0)
    (a, w), size = _codes(word, m, n), 32 * 2 ** word.ops["glog"]
    for g in range(-(-len(a) // size)):
        x, y = a[g * size : (g + 1) * size], w[g * size : (g + 1) * size]
        c, sa, sw = f32(sum(map(int.__mul__, x, y))), word.real("sa", (0, m, g)), word.real("sw", (0, n, g))
        used = f32(np.float16(sa)) if word.ops["half"] else sa
        t = f32(f32(c * sw) * used) if word.ops["pre"] else f32(c * f32(sw * used))
        if "zw" in word.blocks:
            unit = f32(f32(sum(x)) * sa)
            t = f32(t + f32(word.real("zw", (0, n, g)) * (f32(np.float16(unit)) if word.ops["half"] else unit)))
        total = f32(total + t)
    return total


def _lane_product(word: Word, b: int, m: int, n: int) -> np.float32:
    lanes, low = [f32(0)] * 8, f32(0)
    (a, w), size, sub = _codes(word, m, n), 32 * 2 ** word.ops["glog"], 16 * 2 ** word.ops["slog"]
    for start in range(0, len(a), size):
        ks = range(start, min(start + size, len(a)))
        sa, sw = word.real("sa", (0, m, start // size)), word.real("sw", (0, n, start // size))
        for lane in range(8):
            c = sum(word.blocks["ss"].value(0, n, k // sub) * w[k] * a[k] for k in ks if k % 8 == lane)
            lanes[lane] = f32(lanes[lane] + f32(f32(c) * f32(sw * sa)))
        if "zw" in word.blocks:
            minimum = f32(sum(word.blocks["sm"].value(0, n, k // sub) * a[k] for k in ks))
            low = f32(low + f32(minimum * f32(word.real("zw", (0, n, start // size)) * sa)))
    for lane_sum in lanes:
        low = f32(low + lane_sum)
    return low


COMPARE: dict[str, Callable[[Value, Value], bool]] = {
    "eq": lambda a, y: a == y,
    "ne": lambda a, y: a != y,
    "lt": lambda a, y: a < y,
    "le": lambda a, y: a <= y,
}
INTEGER: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, y: a + y, "sub": lambda a, y: a - y, "mul": lambda a, y: a * y, "max": max, "min": min,
    "and": lambda a, y: a & y, "or": lambda a, y: a | y, "xor": lambda a, y: a ^ y,
}  # fmt: skip


def _extreme(pick: Callable[..., Value]) -> Callable[[Value, Value], Value]:
    return lambda a, y: a + y if a != a or y != y else f32(pick(a, y)) + f32(0)


REAL: dict[str, Callable[[Value, Value], Value]] = {
    "add": lambda a, y: a + y, "sub": lambda a, y: a - y, "mul": lambda a, y: a * y, "div": lambda a, y: a / y,
    "max": _extreme(max), "min": _extreme(min),
}  # fmt: skip


@means("vop")
def vop(machine: Naive, word: Word) -> None:
    f, d, a, b = VOP[word.ops["f"]], word.blocks["d"], word.blocks["a"], word.blocks.get("b")
    integer = not any(block.dtype.is_float for block in word.blocks.values())
    imm = signed(word.ops["imm"]) if integer or (f == "sel" and not d.dtype.is_float) else of_bits(word.ops["imm"])

    def one(at: tuple[int, int, int]) -> int:
        if f == "mov":
            if a.dtype is d.dtype:
                return a.raw(*at)
            return pack(
                a.real(*at) if d.dtype.is_float else a.value(*at), d.dtype
            )  # AMBIGUOUS: a float b, though ignored, makes no float word
        if f == "sel":  # the operand is taken as it is: what is kept are bits
            other = imm if b is None else b.real(*at) if d.dtype.is_float else b.value(*at)
            return d.raw(*at) if a.value(*at) != 0 else pack(other, d.dtype)
        if integer:
            x, y = a.value(*at), int(imm) if b is None else b.value(*at)
            return pack(COMPARE[f](x, y) if f in COMPARE else INTEGER[f](x, y), d.dtype)
        x, y = a.real(*at), imm if b is None else b.real(*at)
        return pack(f32(COMPARE[f](x, y)) if f in COMPARE else f32(REAL[f](x, y)), d.dtype)

    write(d, {at: one(at) for at in d.indices()})


@means("vred")
def vred(machine: Naive, word: Word) -> None:
    d, a, down = word.blocks["d"], word.blocks["a"], word.ops["down"]

    def line(p: int, r: int, c: int) -> list[np.float32]:
        places = [(p, i, c) for i in range(a.extents[1])] if down else [(p, r, i) for i in range(a.extents[2])]
        return [_minus(word, at) for at in places]

    write(d, {at: pack(reduce_row(VRED[word.ops["f"]], line(*at)), d.dtype) for at in d.indices()})


def _minus(word: Word, at: tuple[int, int, int]) -> np.float32:
    x = word.real("a", at)
    return f32(x - word.real("sub", at)) if "sub" in word.blocks else f32(x)


@means("vaff")
def vaff(machine: Naive, word: Word) -> None:
    d = word.blocks["d"]
    stored = {at: pack(_affine(word, at), d.dtype) for at in d.indices()}
    write(d, stored)
    if "tap" in word.blocks:
        tap = word.blocks["tap"]
        for p, r, _ in tap.indices():
            row = [widen(stored[p, r, c], d.dtype) for c in range(d.extents[2])]
            tap.put(p, r, 0, pack(reduce_row(TAP[word.ops["red"]], row), tap.dtype))


def _affine(word: Word, at: tuple[int, int, int]) -> np.float32:
    kind = {"none": Dtype.F32, "bf16": Dtype.BF16, "f16": Dtype.F16}[ROUND[word.ops["rnd"]]]
    t = _minus(word, at)
    rs, cs, bi, res = (word.real(name, at) for name in ("rs", "cs", "bi", "res"))
    if rs is not None:
        t = narrow(f32(t * rs), kind)
    if cs is not None:
        t = f32(t * cs)
    if bi is not None:
        t = f32(t + bi)
    if cs is not None or bi is not None:
        t = narrow(t, kind)
    return t if res is None else f32(t + res)


@means("vqd")
def vqd(machine: Naive, word: Word) -> None:
    d, s = word.blocks["d"], word.blocks["s"]
    quantized, scales = {}, {}
    for p, r in product(range(d.extents[0]), range(d.extents[1])):
        row = [word.real("a", (p, r, c)) for c in range(d.extents[2])]
        for name in ("rs", "cs"):
            if name in word.blocks:
                row = [f32(x * word.real(name, (p, r, c))) for c, x in enumerate(row)]
        m = word.real("am", (p, r, 0)) if "am" in word.blocks else reduce_row("absmax", row)
        scale, inverse = _scale_and_inverse(VQD_NORM[word.ops["norm"]], m, s.dtype)
        scales[p, r, 0] = pack(scale, s.dtype)
        for c, x in enumerate(row):
            quantized[p, r, c] = pack(_saturated(f32(x * inverse), TIES[word.ops["ties"]]), Dtype.I8)
    write(d, quantized)
    write(s, scales)


def _scale_and_inverse(norm: str, m: np.float32, kind: Dtype) -> tuple[np.float32, np.float32]:
    if norm == "half_range":
        scale = narrow(f32(m / f32(127.5)), kind)
        scale = f32(2.0**-23) if scale < f32(2.0**-23) else scale
        return scale, f32(f32(1) / scale)
    if norm == "scale":
        scale = f32(m / f32(127))
        inverse = f32(f32(1) / scale)
    else:
        inverse = f32(f32(127) / m)
        scale = f32(f32(1) / inverse)
    return scale, inverse if abs(inverse) < f32(float("inf")) else f32(0)


def _saturated(t: np.float32, ties: str) -> int:
    if t != t:
        return 0
    exact = float(max(f32(-128), min(f32(127), t)))
    if ties == "even":
        return round(exact)
    return int(abs(exact) + 0.5) * (-1 if exact < 0 else 1)  # in float64, where adding a half is exact


@means("act")
def act(machine: Naive, word: Word) -> None:
    d, scale = word.blocks["d"], of_bits(word.ops["scale"])

    def one(at: tuple[int, int, int]) -> np.float32:
        t, bias = f32(word.real("a", at) * scale), word.real("bi", at)
        if bias is not None:
            t = f32(t - bias) if word.ops["neg"] else f32(t + bias)
        return FUNCTIONS[ACT[word.ops["f"]]](t)

    values = {at: one(at) for at in d.indices()}
    write(d, {at: pack(y, d.dtype) for at, y in values.items()})
    if "sum" in word.blocks:
        total = word.blocks["sum"]
        write(
            total,
            {
                (0, r, 0): pack(ordered_sum([values[0, r, c] for c in range(d.extents[2])]), total.dtype)
                for r in range(d.extents[1])
            },
        )

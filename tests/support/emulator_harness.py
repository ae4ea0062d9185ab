"""Builds small programs for the emulator's tests: data goes in by DMA, results are read back from memory."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.machine import Machine
from isa.architecture import Dtype, Region, Space
from isa.codec import NO_WAITS, Inst, encode
from isa.spec import ROUND
from isa.views import View

Array = NDArray[Any]
STORAGE: Mapping[Dtype, Any] = {
    Dtype.I8: np.int8,
    Dtype.I32: np.int32,
    Dtype.F32: np.float32,
    Dtype.BF16: np.uint16,
    Dtype.F16: np.float16,
}
NAN, INF = float("nan"), float("inf")


def bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def f32(*values: Any) -> Array:
    return np.array(values, np.float32)


def same_bits(got: Any, want: Any) -> bool:
    """Equal bit for bit, where every NaN is one value."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if got.dtype.kind == "f":
        nan = np.isnan(got)
        if not np.array_equal(nan, np.isnan(want)):
            return False
        got, want = np.where(nan, 0, got), np.where(nan, 0, want)
    return bool(got.tobytes() == want.tobytes())


class Program:
    """Words and data of one test. `source` and `target` give view register numbers."""

    def __init__(self, sram: int = 1 << 18, acc: int = 1 << 16) -> None:
        self.words: list[Inst] = []
        self.const = bytearray()
        self.views: dict[int, View] = {}
        self.shapes: dict[int, tuple[int, int, int]] = {}
        self.sizes = sram, acc
        self.free = {Space.SRAM: 0, Space.ACC: 0}
        self.machine: Machine | None = None

    def word(self, mnemonic: str, **operands: int) -> "Program":
        self.words.append(Inst.make(mnemonic, NO_WAITS, **operands))
        return self

    def view(
        self,
        dtype: Dtype,
        base: int,
        rs: int = 0,
        ps: int = 0,
        cs: int = 1,
        space: Space = Space.SRAM,
        region: Region = Region.CONST,
    ) -> int:
        number = len(self.views) + 1
        self.views[number] = View(space, region, dtype, base, rs, ps, cs)
        self.word(
            "vset", v=number, space=int(space), region=int(region), dtype=int(dtype), base=base, rs=rs, ps=ps, cs=cs
        )
        return number

    def place(self, size: int, space: Space = Space.SRAM) -> int:
        base = self.free[space]
        self.free[space] = base + -(-size // 64) * 64
        return base

    def source(self, values: Array, dtype: Dtype, rs: int | None = None, ps: int | None = None, cs: int = 1) -> int:
        """Place `values` (dense, up to three dimensions) in SRAM and view them, densely unless strides are given."""
        values = np.ascontiguousarray(values, STORAGE[dtype])
        shape = (1, 1, 1, *values.shape)[-3:]
        base = self.place(values.nbytes)
        self._fill(base, values.tobytes())
        dense = shape[2]
        return self.view(dtype, base, dense if rs is None else rs, dense * shape[1] if ps is None else ps, cs)

    def _fill(self, base: int, data: bytes, piece: int = 1 << 19) -> None:
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            self.word("vset", v=30, space=int(Space.SRAM), dtype=int(Dtype.I8), base=base + start)
            self.word(
                "vset", v=31, space=int(Space.DRAM), region=int(Region.CONST), dtype=int(Dtype.I8), base=len(self.const)
            )
            self.word("ldw", d=30, a=31, rows=1, cols=len(part))
            self.const += part

    def target(self, dtype: Dtype, *shape: int, space: Space = Space.SRAM) -> int:
        planes, rows, cols = (1, 1, 1, *shape)[-3:]
        size = planes * rows * cols * np.dtype(STORAGE[dtype]).itemsize
        number = self.view(dtype, self.place(size, space), cols, rows * cols, space=space)
        self.shapes[number] = (planes, rows, cols)
        return number

    def code(self) -> bytes:
        return b"".join(encode(inst) for inst in [*self.words, Inst.make("halt")])

    def run(self, scalars: Sequence[int] = (), **kwargs: Any) -> "Program":
        const = np.frombuffer(bytes(self.const), np.uint8)
        out = np.zeros(4096, np.uint8)
        self.machine = Machine(*self.sizes, {Region.CONST: const, Region.OUT: out}, {Region.CONST})
        self.machine.run(self.code(), scalars=scalars, **kwargs)
        return self

    def read(self, number: int) -> Array:
        """The block of a target, in its storage type, without a plane dimension of 1."""
        assert self.machine is not None
        block = self.machine.memory.load(self.views[number], self.shapes[number])
        if block.shape[0] == 1:
            block = block[0]
        return block


def bf16_bits(x: float) -> int:
    """Round one number to bf16, written independently of the emulator: by comparing the two neighbours."""
    if x != x:
        return 0x7FC0
    word = bits(x)
    low, rest = word >> 16, word & 0xFFFF
    if rest > 0x8000 or (rest == 0x8000 and low & 1):
        low += 1
    return low


def bf16_value(word: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", word << 16))[0])


def narrow(x: Any, dtype: Dtype) -> np.float32:
    """The value of one float32 after rounding to `dtype`, as float32."""
    with np.errstate(all="ignore"):
        if dtype is Dtype.BF16:
            return np.float32(bf16_value(bf16_bits(float(x))))
        return np.float32(np.float16(x)) if dtype is Dtype.F16 else np.float32(x)


def stored(values: Array, dtype: Dtype) -> Array:
    """float32 values as they are stored in `dtype`, element by element."""
    with np.errstate(all="ignore"):
        if dtype is Dtype.BF16:
            return np.array([bf16_bits(float(v)) for v in values.ravel()], np.uint16).reshape(values.shape)
        return np.array([STORAGE[dtype](v) for v in values.ravel()], STORAGE[dtype]).reshape(values.shape)


def value_of(block: Array, dtype: Dtype) -> Array:
    """Stored elements as float32."""
    if dtype is Dtype.BF16:
        return np.array([bf16_value(int(w)) for w in block.ravel()], np.float32).reshape(block.shape)
    return block.astype(np.float32)


def slow_sum(values: Sequence[np.float32]) -> np.float32:
    """The ordered sum, one addition at a time."""
    with np.errstate(all="ignore"):
        lanes = [np.float32(0)] * 64
        for i, v in enumerate(values):
            lanes[i % 64] = np.float32(lanes[i % 64] + np.float32(v))
        size = 32
        while size:
            for j in range(size):
                lanes[j] = np.float32(lanes[j] + lanes[j + size])
            size //= 2
        return lanes[0]


ROUND_OF = {name: i for i, name in enumerate(ROUND)}

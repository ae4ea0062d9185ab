"""GGUF's block formats: bytes to codes and scales, and the product that each is made for. One row per type.

    weights = WEIGHT_TYPES["Q4_K"].decode(rows)         rows: uint8 [N, bytes of a row]
    weights.codes, weights.scales, ...                  what `mmg` (docs/isa.md) takes
    weights.values()                                    float32 [N, K], ggml's own bits

Little endian throughout. A byte array of nibbles holds its low halves first, then its high halves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.constants import E2M1_TWICE

Blocks = NDArray[np.uint8]  # (rows, blocks of a row, bytes of a block)
Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Activations:
    """How the rows that meet weights of a type are quantized: the parameters of `vqd`."""

    name: str
    group: int
    norm: str
    ties: str
    scale: str  # numpy's name of the type in which a scale is stored


@dataclass(frozen=True, slots=True)
class Product:
    """The parameters of `mmg`. `storage` is the smallest form in which the chip holds the codes: i4, u4, e2m1
    (`isa.spec.NIBBLES`) or i8."""

    group: int
    storage: str
    sub: int = 0
    pre: bool = False
    half: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Weights:
    """Weight rows taken apart: codes int8 [N, K], scales [N, groups], and where the type has them what each group adds
    (`minima`, float16 [N, groups]), sub-scales and factors of the minima (int8 [N, sub-blocks])."""

    codes: Codes
    scales: NDArray[Any]
    minima: NDArray[Any] | None = None
    sub_scales: Codes | None = None
    sub_minima: Codes | None = None

    @np.errstate(over="ignore", invalid="ignore")
    def values(self) -> NDArray[np.float32]:
        """The dequantized weights, float32 [N, K]."""
        scale = _single(self.scales)
        if self.sub_scales is not None:
            scale = _stretched(scale, self.sub_scales.shape[1]) * _single(self.sub_scales)
        out: NDArray[np.float32] = _single(self.codes) * _stretched(scale, self.codes.shape[1])
        if self.minima is None:
            return out
        minimum = _single(self.minima)
        if self.sub_minima is not None:
            minimum = _stretched(minimum, self.sub_minima.shape[1]) * _single(self.sub_minima)
        out += _stretched(minimum, self.codes.shape[1])
        return out


def _single(x: NDArray[Any]) -> NDArray[np.float32]:
    single: NDArray[np.float32] = x.astype(np.float32)
    return single


def _stretched(x: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    return np.repeat(x, columns // x.shape[1], axis=1) if x.shape[1] else np.zeros((x.shape[0], columns), x.dtype)


@dataclass(frozen=True, slots=True)
class WeightType:
    """One of GGUF's block formats. `number` is ggml's, in tensor infos; a block of `elements` takes `nbytes`."""

    name: str
    number: int
    elements: int
    nbytes: int
    activations: Activations
    product: Product
    decoder: Callable[[Blocks], Weights]

    def decode(self, rows: NDArray[np.uint8]) -> Weights:
        """Take rows apart: uint8 [N, bytes]. Raises ValueError for rows that are not whole blocks."""
        if rows.ndim != 2 or rows.dtype != np.uint8 or rows.shape[1] % self.nbytes:
            raise ValueError(f"{self.name}: rows of {rows.shape} {rows.dtype} are not blocks of {self.nbytes} bytes")
        with np.errstate(over="ignore", invalid="ignore"):
            return self.decoder(
                np.ascontiguousarray(rows).reshape(rows.shape[0], rows.shape[1] // self.nbytes, self.nbytes)
            )


def _half(blocks: Blocks, at: int) -> NDArray[np.float16]:
    """The float16 field at a byte of each block, [N, blocks]."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2")[..., 0].astype(np.float16, copy=False)


def _nibbles(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Low halves, then high halves, along the last axis."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _high_bits(blocks: Blocks, at: int) -> NDArray[np.uint8]:
    """The 32 bits at a byte of each block as 0 or 16."""
    return np.left_shift(np.unpackbits(blocks[..., at : at + 4], axis=-1, bitorder="little"), 4, dtype=np.uint8)


def _rows(codes: NDArray[Any]) -> Codes:
    return codes.astype(np.int8).reshape(codes.shape[0], prod(codes.shape[1:]))


def _q4_0(blocks: Blocks) -> Weights:
    return Weights(_rows(_nibbles(blocks[..., 2:]).astype(np.int8) - 8), _half(blocks, 0))


def _q4_1(blocks: Blocks) -> Weights:
    return Weights(_rows(_nibbles(blocks[..., 4:])), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Blocks) -> Weights:
    codes = _nibbles(blocks[..., 6:]) | _high_bits(blocks, 2)
    return Weights(_rows(codes.astype(np.int8) - 16), _half(blocks, 0))


def _q5_1(blocks: Blocks) -> Weights:
    codes = _nibbles(blocks[..., 8:]) | _high_bits(blocks, 4)
    return Weights(_rows(codes), _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Blocks) -> Weights:
    return Weights(_rows(blocks[..., 2:].view(np.int8)), _half(blocks, 0))


_E2M1_TWICE = np.array(E2M1_TWICE, np.int8)


def _mxfp4(blocks: Blocks) -> Weights:
    """Codes are twice the e2m1 values, so the scale is half of 2^(e - 127); the smallest are subnormal."""
    scales = np.ldexp(np.float32(1), blocks[..., 0].astype(np.int32) - 128)
    return Weights(_rows(_E2M1_TWICE[_nibbles(blocks[..., 1:])]), scales.astype(np.float32))


def _six_bits(packed: NDArray[np.uint8]) -> tuple[Codes, Codes]:
    """Eight sub-scales and eight factors of minima from 12 bytes."""
    first, second, rest = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=-1)
    minima = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=-1)
    return _rows(scales), _rows(minima)


def _q4_k(blocks: Blocks) -> Weights:
    scales, minima = _six_bits(blocks[..., 4:16])
    codes = _nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    return Weights(_rows(codes), _half(blocks, 0), -_half(blocks, 2), scales, minima)


def _q5_k(blocks: Blocks) -> Weights:
    """Bit i of byte l of the high bits belongs to element 32 i + l."""
    high = np.unpackbits(blocks[..., 16:48, None], axis=-1, bitorder="little").swapaxes(-1, -2)
    four = _q4_k(np.concatenate([blocks[..., :16], blocks[..., 48:]], axis=-1))
    return replace(four, codes=four.codes | _rows(high << 4))


def _q6_k(blocks: Blocks) -> Weights:
    """Bits 2r and 2r + 1 of byte l of the pairs belong to element 32 r + l of their half."""
    low = _nibbles(blocks[..., :128].reshape(*blocks.shape[:2], 2, 64)).reshape(*blocks.shape[:2], 2, 4, 32)
    pairs = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32)
    high = pairs >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = (low | high << 4).astype(np.int8) - 32
    return Weights(_rows(codes), _half(blocks, 208), sub_scales=_rows(blocks[..., 192:208].view(np.int8)))


Q8_0 = Activations("Q8_0", 32, "scale", "away", "float16")
Q8_1 = Activations("Q8_1", 32, "scale", "away", "float32")  # `half` of the product rounds where it should
Q8_K = Activations("Q8_K", 256, "multiplier", "even", "float32")

WEIGHT_TYPES: Mapping[str, WeightType] = {
    row.name: row
    for row in (
        WeightType("Q4_0", 2, 32, 18, Q8_0, Product(32, "i4", pre=True), _q4_0),
        WeightType("Q4_1", 3, 32, 20, Q8_1, Product(32, "u4", half=True), _q4_1),
        WeightType("Q5_0", 6, 32, 22, Q8_0, Product(32, "i8"), _q5_0),
        WeightType("Q5_1", 7, 32, 24, Q8_1, Product(32, "i8", half=True), _q5_1),
        WeightType("Q8_0", 8, 32, 34, Q8_0, Product(32, "i8"), _q8_0),
        WeightType("Q4_K", 12, 256, 144, Q8_K, Product(256, "u4", sub=32), _q4_k),
        WeightType("Q5_K", 13, 256, 176, Q8_K, Product(256, "i8", sub=32), _q5_k),
        WeightType("Q6_K", 14, 256, 210, Q8_K, Product(256, "i8", sub=16), _q6_k),
        WeightType("MXFP4", 39, 32, 17, Q8_0, Product(32, "e2m1"), _mxfp4),
    )
}


@dataclass(frozen=True, slots=True)
class PlainType:
    """A type of single numbers, which are taken as they are."""

    name: str
    number: int
    nbytes: int
    elements: int = 1

    def values(self, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Rows of bytes, uint8 [N, bytes], as float32 [N, K]. Raises ValueError for rows that are not whole numbers."""
        if rows.ndim != 2 or rows.dtype != np.uint8 or rows.shape[1] % self.nbytes:
            raise ValueError(f"{self.name}: rows of {rows.shape} {rows.dtype} are not numbers of {self.nbytes} bytes")
        rows = np.ascontiguousarray(rows)
        if self.name == "BF16":
            return (rows.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        return rows.view("<f2" if self.name == "F16" else "<f4").astype(np.float32)


PLAIN_TYPES: Mapping[str, PlainType] = {
    row.name: row for row in (PlainType("F32", 0, 4), PlainType("F16", 1, 2), PlainType("BF16", 30, 2))
}
NUMBERS: Mapping[int, WeightType | PlainType] = {
    **{row.number: row for row in WEIGHT_TYPES.values()},
    **{row.number: row for row in PLAIN_TYPES.values()},
}
OTHER_TYPES: Mapping[int, str] = {  # refused by name
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
}  # fmt: skip


def pack_i4(codes: Codes, storage: str) -> Codes:
    """Codes [N, K], K even, as the chip's i4, u4 or e2m1: two to a byte, the even one in the low half. int8
    [N, K / 2]."""
    nibbles = _E2M1_NIBBLES[codes] if storage == "e2m1" else codes.view(np.uint8)
    packed: Codes = (nibbles[:, 0::2] & 15 | nibbles[:, 1::2] << 4).astype(np.uint8).view(np.int8)
    return packed


_E2M1_NIBBLES = np.zeros(256, np.uint8)  # by the code, also a negative one
_E2M1_NIBBLES[np.array(E2M1_TWICE[::-1])] = np.arange(16, dtype=np.uint8)[::-1]


def unpack_i4(packed: Codes, storage: str) -> Codes:
    """What `pack_i4` was given: codes int8 [N, K]."""
    nibbles = np.stack([packed & 15, packed >> 4 & 15], -1).reshape(packed.shape[0], -1)
    if storage == "e2m1":
        return _E2M1_TWICE[nibbles]
    return (nibbles ^ 8) - 8 if storage == "i4" else nibbles

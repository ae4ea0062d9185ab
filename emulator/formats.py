"""Number formats: how stored elements become float32 and how float32 becomes stored elements.

bf16 has no numpy type: it is kept as its uint16 bit pattern. All rounding is to nearest even, and subnormals are kept.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isa.architecture import Dtype

Block = NDArray[Any]
Floats = NDArray[np.float32]

# i4 is stored two to a byte and unpacked to int8 by the memory.
STORAGE: Final[Mapping[Dtype, np.dtype[Any]]] = {dtype: np.dtype(dtype.numpy) for dtype in Dtype}
_BF16_NAN = np.uint32(0x7FC00000)


def float_of_bits(bits: int) -> np.float32:
    """The float32 that an immediate field holds."""
    return np.frombuffer(bits.to_bytes(4, "little"), np.float32)[0]  # type: ignore[no-any-return]


def int_of_bits(bits: int, width: int = 32) -> int:
    """The two's complement integer in the low `width` bits."""
    bits &= (1 << width) - 1
    return bits - (1 << width) if bits >> (width - 1) else bits


def widen(block: Block, dtype: Dtype, out: Floats | None = None) -> Floats:
    """The elements as float32; a float32 block is returned itself, anything else is converted (into `out` if given)."""
    if dtype is Dtype.F32:
        return block
    if out is None:
        out = np.empty(block.shape, np.float32)
    if dtype is Dtype.BF16:
        bits = out.view(np.uint32)
        np.copyto(bits, block)
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(out, block)
    return out


def store(block: Block, dtype: Dtype, values: Floats) -> None:
    """Round `values` to `dtype` and write them."""
    if dtype is Dtype.BF16:
        np.copyto(block, _bf16_rounded(values) >> np.uint32(16), casting="unsafe")
    else:
        np.copyto(block, values, casting="same_kind")


def round_to(values: Floats, dtype: Dtype) -> None:
    """Round to `dtype` in place, staying float32."""
    if dtype is Dtype.BF16:
        np.bitwise_and(_bf16_rounded(values), np.uint32(0xFFFF0000), out=values.view(np.uint32))
    elif dtype is Dtype.F16:
        np.copyto(values, values.astype(np.float16))


def _bf16_rounded(values: Floats) -> NDArray[np.uint32]:
    """Bits whose upper half is the nearest bf16; the lower half is rubbish. NaN by hand: the carry could make it
    infinite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits >> np.uint32(16)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, 0x7FFF, out=rounded)
    np.add(rounded, bits, out=rounded)
    nan = np.isnan(values)
    if nan.any():
        rounded[nan] = _BF16_NAN
    return rounded


def unpack_i4(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """The first `count` nibbles along the last axis, sign-extended; the even element is in the low half."""
    out = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.int8)
    signed = packed.view(np.int8)
    np.right_shift(np.left_shift(signed, 4), 4, out=out[..., 0::2])
    np.right_shift(signed, 4, out=out[..., 1::2])
    return out[..., :count]

"""What ggml's scalar kernels computed (tests/data/ggml): blocks, activations, quantized activations and results."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.gguf.blocks import WEIGHT_TYPES, WeightType

FOLDER = Path(__file__).parent.parent / "data" / "ggml"
NAN = 0x7FC00000
SETS = ("one", "rows", "long", "aligned", "edge", "over", "raw")
_SCALE = {"Q8_0": "<f2", "Q8_1": "<f2", "Q8_K": "<f4"}
_HEAD = {"Q8_0": 2, "Q8_1": 4, "Q8_K": 4}


@dataclass(frozen=True, eq=False)
class Vectors:
    """One set of one type. `codes` int8 [M, K] and `scales` [M, groups] are what ggml makes of `x`, which `raw` lacks;
    `bits` are those of the results [M, N], every NaN as one value."""

    type: WeightType
    name: str
    blocks: NDArray[np.uint8]
    x: NDArray[np.float32] | None
    codes: NDArray[np.int8]
    scales: NDArray[Any]
    bits: NDArray[np.uint32]

    def __str__(self) -> str:
        return f"{self.type.name}-{self.name}"

    def quantized(self, codes: NDArray[np.int8], scales: NDArray[Any]) -> bool:
        """Whether these are ggml's codes and scales. Q8_K's scale may be negative there, with negated codes."""
        sign = np.where(np.signbit(self.scales), -1, 1)
        same_codes = np.array_equal(codes, self.codes * np.repeat(sign, codes.shape[1] // sign.shape[1], axis=1))
        stored = np.float32 if self.type.activations.name == "Q8_K" else np.float16
        with np.errstate(over="ignore"):
            got, want = (bits(s.astype(stored)) for s in (scales, np.abs(self.scales)))
        return same_codes and np.array_equal(got, want)


@cache
def arrays(name: str) -> dict[str, NDArray[Any]]:
    """Everything in a file of vectors."""
    with np.load(FOLDER / f"{name}.npz") as data:
        return {key: data[key] for key in data.files}


def vectors() -> Iterator[Vectors]:
    """All sets of all nine types."""
    for kind in WEIGHT_TYPES.values():
        data = arrays(kind.name)
        for name in SETS:
            if f"{name}_y" in data:
                codes, scales = activations(kind, data[f"{name}_q"])
                yield Vectors(kind, name, data[f"{name}_w"], data.get(f"{name}_x"), codes, scales, data[f"{name}_y"])


def activations(kind: WeightType, rows: NDArray[np.uint8]) -> tuple[NDArray[np.int8], NDArray[Any]]:
    """Blocks of quantized activations: codes [M, K] and stored scales [M, groups]."""
    name, size = kind.activations.name, kind.activations.group
    head = _HEAD[name]
    tail = 2 * size // 16 if name == "Q8_K" else 0
    blocks = rows.reshape(rows.shape[0], -1, head + size + tail)
    scales = np.ascontiguousarray(blocks[..., : np.dtype(_SCALE[name]).itemsize]).view(_SCALE[name])[..., 0]
    codes = np.ascontiguousarray(blocks[..., head : head + size]).view(np.int8)
    if name == "Q8_1":
        sums = np.ascontiguousarray(blocks[..., 2:4]).view("<f2")[..., 0]
        scales = _behind(scales, sums, codes.sum(axis=-1, dtype=np.int32).astype(np.float32))
    return codes.reshape(rows.shape[0], -1), scales


@np.errstate(over="ignore", invalid="ignore")
def _behind(scales: NDArray[Any], sums: NDArray[Any], totals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Q8_1 stores its float32 scale rounded to float16, and the rounded product of it and the codes' sum: a float32
    that gives both."""
    wide = scales.astype(np.float32)
    width = np.abs(np.spacing(scales).astype(np.float32))
    steps = np.concatenate([[0.0], np.linspace(-0.5, 0.5, 2001)]).astype(np.float32)
    tried = wide[..., None] + width[..., None] * steps
    right = (tried.astype(np.float16) == scales[..., None]) & (
        (tried * totals[..., None]).astype(np.float16) == sums[..., None]
    )
    found = np.take_along_axis(tried, right.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    assert (right.any(axis=-1) | ~np.isfinite(sums) | ~np.isfinite(scales)).all()
    return np.where(right.any(axis=-1), found, wide)


def bits(x: NDArray[Any]) -> NDArray[np.uint32]:
    """The bits of float32 numbers, every NaN as one value."""
    x = np.ascontiguousarray(x, np.float32)
    return np.where(np.isnan(x), np.uint32(NAN), x.view(np.uint32))

"""Where the new tokens of a step stand in their texts, read from what transformers gives a model: positions, and masks
of any form. Everything that is not left padding, a causal mask or a sliding window is refused.

cache      3 rows, of which the first of sequence 1 is padding
masks      sequence 0: 1 1 1 1; sequence 1: 0 1 1 1         → 1 new token each, behind 3 and 2 others
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isa.errors import UnsupportedError
from runtime.device.arrays import Array

WINDOWED = "sliding_attention"  # kinds of layers, as transformers names their masks
KINDS = ("", "full_attention", WINDOWED)


@dataclass(frozen=True)
class Places:
    """Of new tokens [B, T]: which are real, how many rows of padding are before each sequence in the cache, and how
    many real tokens."""

    real: Array
    padding: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(self.real.sum(1).tolist())


def places(ids: Tensor, positions: Tensor | None, masks: Mapping[str, Tensor], past: int, window: int) -> Places:
    """For new tokens [B, T] behind `past` rows of a cache; `window` is that of layers with a sliding one, or 0. Raises
    UnsupportedError for masks and positions that say anything else than padding on the left."""
    batch, tokens = ids.shape
    row = past + torch.arange(tokens)
    padding = (
        row[-1] - positions[:, -1].expand(batch) if positions is not None else torch.zeros(batch, dtype=torch.int64)
    )
    real = row >= padding[:, None]
    if positions is not None and not bool(((positions == row - padding[:, None]) | ~real).all()):
        raise UnsupportedError("position_ids that do not count the tokens")
    for kind, mask in masks.items():
        if kind not in KINDS:
            raise UnsupportedError(f"a mask for layers of {kind}")
        if mask.dim() == 2:
            _check_counted(mask, padding, past + tokens)
        else:
            _check_mask(mask, padding, past, tokens, window if kind != "full_attention" else 0)
    if bool((padding < 0).any()) or (bool(padding.any()) and not masks):
        raise UnsupportedError("position_ids that do not begin behind the tokens of the cache")
    before = (past - padding).clamp(min=0)
    return Places(real.numpy(), tuple(padding.tolist()), tuple(before.tolist()))


def _check_counted(mask: Tensor, padding: Tensor, rows: int) -> None:
    """Raise unless a mask [B, rows] has 1 for all tokens but the padding."""
    if mask.shape != (len(padding), rows):
        raise UnsupportedError(f"an attention_mask of {list(mask.shape)} for {len(padding)} x {rows} tokens")
    seen = mask != 0
    if not bool((seen[:, 1:] >= seen[:, :-1]).all()):
        raise UnsupportedError("padding that is not on the left")
    if not torch.equal(seen, torch.arange(rows) >= padding[:, None]):
        raise UnsupportedError("position_ids that count padding")


def _check_mask(mask: Tensor, padding: Tensor, past: int, tokens: int, window: int) -> None:
    """Raise unless a mask [B, 1, T, rows] lets real tokens see all before them that are real, in the window."""
    if mask.dim() != 4 or mask.shape[1:3] != (1, tokens) or mask.shape[0] not in (1, len(padding)):
        raise UnsupportedError(f"an attention_mask of {list(mask.shape)} for {len(padding)} x {tokens} tokens")
    first = max(past - window + 1, 0) if window else 0  # transformers' caches of a window begin there
    allowed = _allowed(mask)[:, 0]
    row = past + torch.arange(tokens)[:, None]
    column = first + torch.arange(mask.shape[3])
    seen = (column <= row) & (column >= padding[:, None, None])
    if window:
        seen = seen & (column > row - window)
    if first + mask.shape[3] < past + tokens:
        raise UnsupportedError(f"an attention_mask of {list(mask.shape)} for {past + tokens} rows")
    unread = (row < padding[:, None, None]) | torch.zeros_like(seen)
    if not bool(((allowed == seen) | unread).all()):
        raise UnsupportedError("an attention_mask that is not causal with padding on the left")


def _allowed(mask: Tensor) -> Tensor:
    """What a mask lets tokens see."""
    if mask.dtype is torch.bool:
        return mask
    if not mask.is_floating_point() or not bool(((mask == 0) | (mask <= torch.finfo(mask.dtype).min)).all()):
        raise UnsupportedError("an attention_mask that adds to scores")
    return mask == 0


def aligned(rows: Array, count: int, padding: int) -> Array:
    """Rows [H, n, …] of the last tokens in the places of `count`, 0 before them."""
    result = np.zeros((rows.shape[0], count, *rows.shape[2:]), rows.dtype)
    result[:, padding:] = rows
    return result

"""Where new tokens stand in their texts: masks and positions in transformers' forms."""

from typing import Any

import pytest
import torch

from isa.errors import UnsupportedError
from runtime.pytorch.step_inputs import places

LOW = torch.finfo(torch.float32).min
IDS = torch.zeros(2, 2, dtype=torch.long)
POSITIONS = torch.tensor([[3, 4], [1, 2]])  # behind 3 rows, of which sequence 1 has 2 of padding
PADDED = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])


def causal(window: int = 0, columns: int = 5, first: int = 0) -> torch.Tensor:
    """The mask [2, 1, 2, columns] of these texts."""
    row, column = 3 + torch.arange(2)[:, None], first + torch.arange(columns)
    seen = (column <= row) & (column >= torch.tensor([0, 2])[:, None, None])
    return (seen & (column > row - window) if window else seen)[:, None]


@pytest.mark.parametrize(
    "masks",
    [
        {"": PADDED},
        {"": PADDED.bool()},
        {"": causal()},
        {"": causal(columns=9)},
        {"": torch.where(causal(), 0.0, LOW)},
        {"full_attention": causal(), "sliding_attention": causal(3, 5, 1)},
    ],
)
def test_forms_of_one_mask(masks: dict[str, torch.Tensor]) -> None:
    """Breaks when a form of mask that transformers makes is not understood."""
    found = places(IDS, POSITIONS, masks, 3, 3 if len(masks) == 2 else 0)
    assert (found.padding, found.before, found.counts) == ((0, 2), (3, 1), (2, 2))


def test_a_prompt_with_padding() -> None:
    """Breaks when padding among the new tokens counts as tokens."""
    found = places(IDS, torch.tensor([[0, 1], [1, 0]]), {"": torch.tensor([[1, 1], [0, 1]])}, 0, 0)
    assert (found.padding, found.before, found.counts) == ((0, 1), (0, 0), (2, 1))


def _with(at: tuple[int, ...], value: Any) -> torch.Tensor:
    mask = causal()
    mask[at] = value
    return mask


@pytest.mark.parametrize(
    ("positions", "masks", "reason"),
    [
        (POSITIONS + 1, {"": PADDED}, "count padding"),
        (POSITIONS * 2, {"": PADDED}, "do not count the tokens"),
        (POSITIONS, {}, "do not begin behind"),
        (POSITIONS + 3, {"": causal()}, "not causal|begin behind"),
        (None, {"": PADDED}, "count padding"),
        (POSITIONS, {"": PADDED.flip(1)}, "not on the left"),
        (POSITIONS, {"": PADDED[:, 1:]}, r"\[2, 4\] for 2 x 5"),
        (POSITIONS, {"": _with((0, 0, 0, 1), False)}, "not causal"),
        (POSITIONS, {"": _with((0, 0, 0, 4), True)}, "not causal"),
        (POSITIONS, {"": torch.where(causal(), 0.5, LOW)}, "adds to scores"),
        (POSITIONS, {"chunked_attention": causal()}, "chunked_attention"),
        (POSITIONS, {"full_attention": causal(), "sliding_attention": causal(2, 5, 1)}, "not causal"),
    ],
)
def test_everything_else_is_refused(positions: Any, masks: dict[str, torch.Tensor], reason: str) -> None:
    """Breaks when a mask or positions that the decoder does not have are taken for those that it has."""
    with pytest.raises(UnsupportedError, match=reason):
        places(IDS, positions, masks, 3, 3 if len(masks) == 2 else 0)

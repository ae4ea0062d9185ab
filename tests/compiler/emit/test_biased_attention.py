"""Attention over a cache that adds a bias to the scores: of each key, or of each distance."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.entries import compile_entries
from compiler.frontend.capture import export, from_exported
from compiler.ops import library as ops
from isa.image.steps import POSITIONS, TOKENS
from lint.analyse import check
from runtime.device.executable import Executable

BATCH, HEADS, SIZE, CAPACITY, VOCABULARY = 2, 2, 8, 19, 13


class Step(nn.Module):
    """One layer of attention, `group` query heads to each of keys."""

    keys: Tensor
    values: Tensor
    keys_scales: Tensor
    values_scales: Tensor
    bias: Tensor

    def __init__(self, tokens: int, group: int, by_distance: bool, window: int) -> None:
        super().__init__()
        self.tokens, self.group, self.by_distance, self.window = tokens, group, by_distance, window
        self.embedding = nn.Embedding(VOCABULARY, (group + 2) * HEADS * SIZE)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(BATCH, HEADS, CAPACITY, SIZE, dtype=torch.int8))
            self.register_buffer(f"{name}_scales", torch.zeros(BATCH, HEADS, CAPACITY))
        self.register_buffer("bias", 3 * torch.randn(HEADS * group, CAPACITY))

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        heads = self.embedding(input_ids).view(BATCH, self.tokens, -1, SIZE).transpose(1, 2)
        q, k, v = heads.split([HEADS * self.group, HEADS, HEADS], 1)
        caches = [self.keys, self.keys_scales, self.values, self.values_scales]
        rule = (SIZE**-0.5, self.window, 0.0, self.bias, self.by_distance)
        out, *new = ops.attention_with_cache(q, k, v, *caches, positions, *rule)
        for cache, value in zip(caches, new, strict=True):
            cache.copy_(value)
        result: Tensor = out.transpose(1, 2).reshape(BATCH, self.tokens, -1)
        return result


@pytest.mark.parametrize(
    ("group", "by_distance", "window", "tokens", "keys"),
    [(1, False, 0, 3, 512), (2, False, 6, 4, 4), (1, True, 0, 1, 4), (2, True, 0, 3, 512)],
)
def test_a_bias_belongs_to_a_key_or_a_distance(
    group: int, by_distance: bool, window: int, tokens: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when the bias of another key, query or head is added, at any position, or read from beyond its table."""
    monkeypatch.setattr("compiler.emit.tile_sizes.KEYS_AND_TOKENS", ((keys, 2),))
    torch.manual_seed(0)
    step = Step(tokens, group, by_distance, window).eval()
    example = {TOKENS: torch.zeros(BATCH, tokens, dtype=torch.int32), POSITIONS: torch.zeros(BATCH, dtype=torch.int32)}
    captured = from_exported(export(step, (), example))
    (given,) = (node for node in captured.gm.graph.find_nodes(op="placeholder") if node.name == POSITIONS)
    given.meta["limits"] = (0, CAPACITY - tokens)
    compiled = compile_entries({"step": captured})
    image, lowered = compiled.image(), compiled.programs["step"].lowered
    assert not check(image)
    chip, constants = Executable(image), lowered.pack_weights()
    for at in (*range(0, CAPACITY - tokens, tokens), CAPACITY - tokens, 0, 1):
        ids, places = torch.randint(0, VOCABULARY, (BATCH, tokens), dtype=torch.int32), [at, at // 2]
        (wanted,) = lowered.run((ids, torch.tensor(places, dtype=torch.int32)), constants)
        (got,) = chip({TOKENS: ids.numpy()}, "step", {f"{POSITIONS}.{b}": p for b, p in enumerate(places)}).values()
        assert np.array_equal(got.view(np.int32), wanted.numpy().view(np.int32)), f"at {places}"


def test_a_bias_is_what_is_added_to_the_scores() -> None:
    """Breaks when the reference itself takes a bias for that of another key: here by its definition, in float64."""
    torch.manual_seed(1)
    q, k, v = torch.randn(1, 2, 1, SIZE), torch.randn(1, 2, 5, SIZE), torch.randn(1, 2, 5, SIZE)
    bias, last = torch.randn(2, 7), 7 - 1
    for by_distance in (False, True):
        caches = [x for _ in "kv" for x in (torch.zeros(1, 2, 7, SIZE, dtype=torch.int8), torch.zeros(1, 2, 7))]
        for at in range(5):
            parts = (x[:, :, at : at + 1] for x in (k, v))
            at_ = torch.tensor([at], dtype=torch.int32)
            found = ops.attention_in_cache(q, *parts, *caches, at_, 0.5, 0, 0.0, bias, by_distance)
        number = last - (4 - torch.arange(5)) if by_distance else torch.arange(5)
        scores = (q @ k.transpose(2, 3)).double() * 0.5 + bias[:, None, number]
        wanted = torch.softmax(scores, -1) @ v.double()
        assert (found - wanted).abs().max() < 0.05

"""Token tiles: a prompt that goes through each layer in parts, with the reference's bits."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from decoders import VOCABULARY, Steps, decoder

from compiler.emit import token_tiles
from compiler.emit.batch_tiles import find_batch_tiles, token_parts
from compiler.emit.interleave import pipelined
from compiler.emit.token_tiles import RESULT, find_token_tile
from compiler.frontend.decoder import capture_decoder
from compiler.lower import lower
from compiler.ops.record import Role
from compiler.options import Options
from compiler.passes import quantize
from compiler.schedule import autotune
from compiler.tile.ir import Op
from compiler.tile.kernel_graph import KernelGraph
from compiler.tile.manager import TileManager
from compiler.tile.state import made
from compiler.tiling import kernel_state
from isa.chip import Chip, load_chip
from lint.analyse import check

TOKENS, CAPACITY = 64, 160
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 40},
    "Gemma2": {"head_dim": 16, "attn_logit_softcapping": 20.0, "sliding_window": 50},
    "Bloom": {"n_head": 4, "n_layer": 2},
    "GPTNeoX": {"num_key_value_heads": None},
    "Falcon": {"alibi": False, "new_decoder_architecture": False, "multi_query": True},
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of tests have few tokens."""
    monkeypatch.setattr(token_tiles, "MIN_ROWS", 16)
    monkeypatch.setattr(quantize, "CAUSAL_BLOCK", 8)


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        ("Llama", 4),
        *(
            pytest.param(*case, marks=pytest.mark.wide)
            for case in (("Mistral", 2), ("Bloom", 4), ("Gemma2", 2), ("GPTNeoX", 4), ("Falcon", 2))
        ),
    ],
)  # fmt: skip
def test_a_prompt_in_parts_has_the_references_bits(family: str, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a part reads keys that are not there yet, finds those of another part elsewhere than they lie, sees
    keys behind its own tokens, takes rows of a mask or a bias that belong to another token, or stores a part of the cache
    in the wrong place: a prompt of three chunks, each beside the reference, and one token behind them."""
    found = []

    def cut(kernel_graph: KernelGraph, _: Chip) -> int:
        found.append(any(tile.axes for tile in find_batch_tiles(kernel_graph, load_chip("edge"), 1.0, parts)))
        return parts

    monkeypatch.setattr(autotune, "token_parts", cut)
    model = decoder(family, max_position_embeddings=256, **FAMILIES[family])
    steps = Steps.of(model, (TOKENS, 1), CAPACITY)
    assert found.count(True) == 1, "of both programs one is of many tokens"
    assert not check(steps.image)
    ids = torch.randint(0, VOCABULARY, (1, 2 * TOKENS + 1), generator=torch.Generator().manual_seed(1))
    steps.run(ids, (TOKENS, TOKENS, 1))
    assert steps.finish() == 0


def kernel_graph_of(tokens: int, batch: int = 1) -> KernelGraph:
    captured = capture_decoder(decoder("Llama", max_position_embeddings=256), batch, tokens, CAPACITY)
    state = kernel_state(lower(captured, Options()), Options(), load_chip("edge"), TileManager())
    return made(state.kernel_graph)


def test_a_layer_is_cut_from_its_projections_on() -> None:
    """Breaks when the run begins behind the projections or ends before the next layer's, when keys and values are not
    kept for later parts, or when a stage begins with another kernel."""
    graph = kernel_graph_of(TOKENS)
    (start, stop) = graph.stretches[1]
    tile = find_token_tile(graph, start, stop, 2)
    assert tile is not None and (tile.first, tile.end) == (start, stop)
    (attention,) = [n for kernel in graph.kernels[start:stop] for n in kernel.nodes if n.role is Role.ATTENTION]
    named = {attention.tensor(name).base for name in ("k", "sk", "v", "sv")}
    assert tile.kept == named and named <= tile.inner.keys()
    first, rotated, after = tile.stages
    assert first == start and graph.kernels[after - 1].nodes == (attention,)
    assert any(node.role is Role.MATMUL for node in graph.kernels[rotated - 1].nodes)
    assert tile.axes[after - 1 - start] == RESULT
    for index in range(start, stop):
        part = tile.part(index, graph.kernels[index], 1)
        assert part is not None and (part.low, part.high) == (TOKENS // 2, TOKENS)


@pytest.mark.parametrize(("tokens", "batch", "parts"), [(TOKENS, 2, 2), (24, 1, 2), (1, 1, 2), (TOKENS, 1, 3)])
def test_what_is_not_cut(tokens: int, batch: int, parts: int) -> None:
    """Breaks when several sequences, few tokens, or tokens that no number of parts divides are cut."""
    graph = kernel_graph_of(tokens, batch)
    assert all(find_token_tile(graph, *stretch, parts) is None for stretch in graph.stretches)


def test_parts_are_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a part ends within a block, of which every token sees the keys."""
    monkeypatch.setattr(quantize, "CAUSAL_BLOCK", 24)
    graph = kernel_graph_of(96)
    assert [any(find_token_tile(graph, *stretch, parts) for stretch in graph.stretches) for parts in (2, 4, 3)] == [
        True, True, False,
    ]  # fmt: skip


def test_parts_are_worth_their_weights() -> None:
    """Breaks when weights are loaded for each part although the bus is what a chip waits for."""
    graph = kernel_graph_of(TOKENS)
    small = {"mxu.rows": 16, "mxu.cols": 16}
    assert token_parts(graph, load_chip("edge").replace({**small, "dram.bytes_per_second": "400GB/s"})) == 4
    assert token_parts(graph, load_chip("edge").replace({**small, "dram.bytes_per_second": "1GB/s"})) == 1


def test_stages_of_parts_stand_beside_each_other() -> None:
    """Breaks when a stage is not beside the one before it of the next part: hand-worked for two parts of three."""
    ops = {name: Op("fence", (), (), name) for name in ("a0", "b0", "c0", "a1", "b1", "c1")}
    parts: Sequence[Sequence[Sequence[Op]]] = [[[ops[f"{s}{p}"]] for s in "abc"] for p in range(2)]
    order = [op.node for op in pipelined(parts, lambda _: 10)]
    assert order == ["a0", "b0", "a1", "c0", "b1", "c1"]

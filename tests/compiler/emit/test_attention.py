"""Attention over a cache on the chip, and what the translation check sees of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from choice import few
from decoders import Steps, decoder, random_ids

from compiler.emit import attention
from compiler.entries import compile_entries
from compiler.frontend.decoder import capture_decoder, within
from compiler.options import Options
from compiler.pipeline import compile_captured
from compiler.tile.ir import Length, Op, Program
from compiler.translation.check import Interface, TranslationError, check_translation
from emulator.timing.simulate import simulate
from lint.analyse import check
from runtime.device.executable import Executable


@pytest.mark.parametrize(
    ("family", "sizes", "tokens", "capacity"),
    [
        ("Llama", {}, [7, 1, 1, 7, 1], 24),
        pytest.param(
            "Llama", {"num_key_value_heads": 4, "num_hidden_layers": 3}, [5, 5, 1], 16, marks=pytest.mark.slow
        ),
        pytest.param("Llama", {"num_key_value_heads": 1}, [3, 1, 3, 1], 9, marks=pytest.mark.slow),
        pytest.param("Mistral", {"sliding_window": 4}, [6, 1, 1, 6, 1], 32, marks=pytest.mark.wide),
        pytest.param("Mistral", {"sliding_window": 9}, [4, 1, 4, 4, 1], 32, marks=pytest.mark.slow),
        pytest.param(
            "Gemma2",
            {"head_dim": 16, "sliding_window": 6, "attn_logit_softcapping": 5.0},
            [5, 1, 5],
            24,
            marks=pytest.mark.wide,
        ),
    ],
)
def test_steps_equal_the_reference(family: str, sizes: dict[str, Any], tokens: list[int], capacity: int) -> None:
    """Breaks when a key, a value, a scale or a mask is taken from the wrong place at some position."""
    model = decoder(family, **sizes)
    steps = Steps.of(model, tokens, capacity)
    ids = random_ids(sum(tokens))
    logits = steps.run(ids, tokens)
    assert steps.finish() == 0
    assert not check(steps.image)
    with torch.no_grad():
        wanted = model(ids.long()).logits
    assert float(torch.nn.functional.cosine_similarity(logits, wanted, dim=-1).min()) > 0.99


@pytest.mark.wide
def test_sequences_of_different_lengths() -> None:
    """Breaks when a sequence of a batch takes the length, or the cache, of another."""
    model = decoder("Llama")
    many, one = Steps.of(model, [1], 16, batch=3), Steps.of(model, [1], 16)
    ids = random_ids(9, batch=3)
    starts = [0, 4, 2]
    alone = [one_by_one(one, ids[b : b + 1, : 9 - starts[b]]) for b in range(3)]
    for at in range(9):
        active = [at - start for start in starts]
        given = torch.stack([ids[b, max(a, 0)] for b, a in enumerate(active)]).unsqueeze(1)
        logits = many.launch(given, [max(a, 0) for a in active])
        for b, a in enumerate(active):
            if a >= 0:
                assert torch.equal(logits[b, 0], alone[b][a])
    assert many.finish() == 0


def one_by_one(steps: Steps, ids: torch.Tensor) -> list[torch.Tensor]:
    return [steps.launch(ids[:, at : at + 1], [at])[0, 0] for at in range(ids.shape[1])]


@pytest.mark.wide
def test_capacity_and_chunks_change_no_bit() -> None:
    """Breaks when a sum, a maximum or a scale depends on keys that are not there, or on how tokens are grouped."""
    model, ids = decoder("Llama", max_position_embeddings=256), random_ids(20)
    first = Steps.of(model, [1], 20).run(ids, [1] * 20)
    for tokens, capacity in (([5] * 4, 20), ([8, 8, 1, 1, 1, 1], 200)):
        assert torch.equal(Steps.of(model, tokens, capacity).run(ids, tokens), first)


@pytest.mark.wide
def test_cycles_follow_the_length_not_the_capacity() -> None:
    """Breaks when a program of a large cache moves, or computes with, what is not there."""
    cycles = {}
    for capacity in (64, 4096):
        model = decoder("Llama", max_position_embeddings=4096)
        image = compile_captured(capture_decoder(model, 1, 1, capacity)).image()
        cycles[capacity] = [simulate(image, values={"positions.0": length}).cycles for length in (8, 60)]
    assert cycles[4096][1] < 1.1 * cycles[64][1]
    assert cycles[4096][0] < cycles[4096][1]


FAULTS = {
    "a tile of old keys lies elsewhere": ("lda", "a", 16),
    "new keys are stored elsewhere": ("sto", "d", 16),
    "old values are weighted by others' weights": ("mm", "a", 1),
}


@pytest.mark.parametrize("fault", few(FAULTS, "new keys are stored elsewhere"))
def test_the_translation_check_sees_a_fault(fault: str) -> None:
    """Breaks when a program that reads or writes the cache at the wrong place passes."""
    mnemonic, operand, by = FAULTS[fault]
    compiled = compile_captured(capture_decoder(decoder("Llama"), 1, 3, 16), Options(disable=("schedule",)))
    tiled, graph = compiled.tiled, compiled.lowered.main.graph
    interface = Interface(tiled.inputs, tiled.constants, tiled.outputs, tiled.literals, tiled.instances)
    check_translation(graph, tiled.program, interface)
    at = next(i for i, op in enumerate(tiled.program.ops) if op.mnemonic == mnemonic and op.lengths)
    ops = [*tiled.program.ops[:at], moved(tiled.program.ops[at], operand, by), *tiled.program.ops[at + 1 :]]
    with pytest.raises(TranslationError):
        check_translation(graph, Program(tuple(ops), tiled.program.loop), interface)


def moved(op: Op, operand: str, by: int) -> Op:
    """The op with a view some bytes further on."""
    views = tuple(
        ref if ref is None or field.name != operand else replace(ref, offset=ref.offset + by)
        for field, ref in zip(op.row.views, op.views, strict=True)
    )
    return replace(op, views=views)


@pytest.mark.wide
@pytest.mark.parametrize("keys", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_tiles_of_keys_and_blocks_of_tokens_change_no_bit(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a tile begins or ends at the wrong key, which one tile for all never shows."""
    monkeypatch.setattr("compiler.emit.tile_sizes.KEYS_AND_TOKENS", ((keys, 2),))
    model, tokens = decoder("Mistral", sliding_window=7), [5, 1, 5, 1]
    steps = Steps.of(model, tokens, 16)
    steps.run(random_ids(12), tokens)
    assert steps.finish() == 0


def test_a_length_is_what_a_launch_makes_of_it() -> None:
    """Breaks when a length leaves its bounds: extents below nothing, or beyond their tile."""
    from compiler.tile.ir import Buffer
    from isa.architecture import Region, Space

    buffer = Buffer("params.positions", Space.DRAM, 4, Region.PARAMS, 0)
    length = Length(buffer, 0, 100, -32, 16)
    assert [length.at(given) for given in (0, 32, 40, 48, 100)] == [0, 0, 8, 16, 16]
    assert length.most == 16 and Length(buffer, 0, 100, 1).most == 101
    falling = Length(buffer, 0, 100, 120, 90, falling=True)
    assert [falling.at(given) for given in (0, 40, 100)] == [90, 80, 20] and falling.most == 90
    assert attention.MOST_KEYS == (1 << 16) - 1


@pytest.mark.wide
def test_a_program_for_short_sequences_uses_the_same_caches() -> None:
    """Breaks when a step that plans for few tokens lays its caches out otherwise, so that the next finds nothing."""
    decode = capture_decoder(decoder("Llama"), 1, 1, 64)
    compiled = compile_entries({"short": within(decode, 8), "decode": decode})
    image, ids = compiled.image(), random_ids(16)
    assert [entry.scalars[0].maximum for entry in image.entries] == [7, 63]
    lowered = compiled.programs["decode"].lowered
    constants, executable = lowered.pack_weights(), Executable(image)
    for at in range(16):
        entry = "short" if at < 8 else "decode"
        (got,) = executable({"input_ids": ids[:, at : at + 1].numpy()}, entry, {"positions.0": at}).values()
        (wanted,) = lowered.run((ids[:, at : at + 1], torch.tensor([at], dtype=torch.int32)), constants)
        assert torch.equal(torch.from_numpy(got), wanted)

"""Sessions: what a decoder gives depends on the tokens of the session alone. Zero differing bits."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import VOCABULARY, tiny

import llmchip
from llmchip import DecoderProgram, InputError
from runtime.device.arrays import Array

CAPACITY, CHUNK = 48, 6


def tokens(batch: int, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, count), generator=torch.Generator().manual_seed(seed))


def compiled(batch: int = 1, capacity: int = CAPACITY, chunk: int = CHUNK, **changes: Any) -> DecoderProgram:
    return llmchip.compile(tiny("llama", **changes), {"input_ids": tokens(batch, chunk)}, max_length=capacity)


@pytest.fixture(scope="module")
def program() -> DecoderProgram:
    return compiled()


@pytest.fixture(scope="module")
def pair() -> DecoderProgram:
    return compiled(batch=2)


@pytest.fixture(scope="module")
def expected(program: DecoderProgram) -> torch.Tensor:
    """Logits of 20 tokens, at once in a fresh session."""
    return program.new_session().prefill(tokens(1, 20))


@pytest.mark.wide
def test_chunks_or_at_once(program: DecoderProgram, expected: torch.Tensor) -> None:
    """Breaks when a chunk sees another cache than the tokens before it, or the padding of the last one is seen."""
    session, ids = program.new_session(), tokens(1, 20)
    cuts = [0, 2, 3, 9, 10, 17, 20]
    parts = [session.prefill(ids[:, a:b]) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(parts, 1), expected)
    one_by_one = program.new_session()
    assert torch.equal(torch.cat([one_by_one.decode(ids[:, i]) for i in range(20)], 1), expected)


def test_batch_of_one_or_eight(expected: torch.Tensor) -> None:
    """Breaks when a sequence's bits depend on its neighbours."""
    ids = torch.cat([tokens(1, 20, seed) for seed in (5, 6, 7, 0, 8, 9, 10, 11)])
    assert torch.equal(compiled(batch=8).new_session().prefill(ids)[3:4], expected)


@pytest.mark.wide
def test_capacity_4096_or_less(expected: torch.Tensor) -> None:
    """Breaks when bits depend on how much room the cache has."""
    program = compiled(capacity=4096, max_position_embeddings=4096)
    assert torch.equal(program.new_session().prefill(tokens(1, 20)), expected)


def test_forked_and_rolled_back_or_fresh(program: DecoderProgram, expected: torch.Tensor) -> None:
    """Breaks when a fork shares what it writes with its origin, or a rollback leaves something to be seen."""
    session, ids = program.new_session(), tokens(1, 20)
    session.prefill(ids[:, :8])
    fork = session.fork()
    session.prefill(tokens(1, 15, seed=3))
    assert torch.equal(fork.prefill(ids[:, 8:]), expected[:, 8:])
    session.rollback(5)
    assert session.length == 5
    assert torch.equal(session.prefill(ids[:, 5:]), expected[:, 5:])
    twin = fork.fork()
    assert torch.equal(twin.decode([7]), fork.decode([7]))


def test_interleaved_or_alone(program: DecoderProgram, expected: torch.Tensor) -> None:
    """Breaks when sessions see each other's caches."""
    session, other, ids = program.new_session(), program.new_session(), tokens(1, 20)
    parts = []
    for at in range(0, 20, 4):
        parts.append(session.prefill(ids[:, at : at + 4]))
        other.prefill(tokens(1, 5, seed=at))
        if at == 8:
            del other  # a session that nobody has any more is not copied
            other = program.new_session()
    assert torch.equal(torch.cat(parts, 1), expected)


def test_recorded_or_instruction_by_instruction(program: DecoderProgram, expected: torch.Tensor) -> None:
    """Breaks when a recorded launch ignores what the host has put into the caches."""
    session, ids = program.new_session(), tokens(1, 20)
    for _ in range(3):
        session.rollback(0)
        session.prefill(ids[:, :6])
        program.new_session().prefill(tokens(1, 9, seed=4))
        assert torch.equal(session.prefill(ids[:, 6:]), expected[:, 6:])


@pytest.mark.wide
def test_batch_of_different_lengths(pair: DecoderProgram, expected: torch.Tensor) -> None:
    """Breaks when padding takes a place in the cache, or a shorter sequence is not at its own position."""
    ids = torch.cat([tokens(1, 20, seed=1), torch.zeros(1, 20, dtype=torch.long)])
    ids[1, :11] = tokens(1, 20)[0, :11]
    mask = torch.ones(2, 20)
    mask[1, 11:] = 0
    session = pair.new_session()
    logits = session.prefill(ids, mask)
    assert session.lengths == (20, 11)
    assert torch.equal(logits[1, :11], expected[0, :11])
    assert not logits[1, 11:].any()
    more = torch.stack([tokens(1, 4, seed=2)[0], tokens(1, 20)[0, 11:15]])
    assert torch.equal(session.prefill(more)[1], expected[0, 11:15])
    left = torch.stack([ids[0], ids[1].roll(9)])
    again = pair.new_session().prefill(left, torch.stack([mask[0], mask[1].roll(9)]))
    assert torch.equal(again[1, 9:], logits[1, :11])


def test_generate_goes_on_from_a_session(program: DecoderProgram) -> None:
    """Breaks when the session lacks a token that generate has given, or stream gives others."""
    ids = tokens(1, 7)
    whole = program.generate(ids, 9)
    session = program.new_session()
    first = session.generate(ids, 4)
    assert torch.equal(first, whole[:, :11])
    assert session.length == 11
    assert np.array_equal(session.tokens[0], first[0])
    assert torch.equal(session.generate(whole[:, 11:12], 3), whole[:, 11:15])
    new = list(program.new_session().stream(ids, 9))
    assert np.array_equal(np.stack(new, 1)[0], whole[0, 7:])


def test_a_text_ends(pair: DecoderProgram) -> None:
    """Breaks when a sequence goes on behind its end, or the others stop with it."""
    ids = tokens(2, 7)
    free = pair.generate(ids, 6, eos_token_id=-1)
    end = int(free[0, 8])
    found = pair.generate(ids, 6, eos_token_id=end, pad_token_id=0)
    stop = [int((row[7:] == end).nonzero()[0]) if (row[7:] == end).any() else 5 for row in free]
    assert found.shape[1] == 8 + max(stop)
    for row, want, last in zip(found, free, stop, strict=True):
        assert torch.equal(row[: 8 + last], want[: 8 + last])
        assert not row[8 + last :].any()


def test_saved_and_loaded_or_kept(program: DecoderProgram, expected: torch.Tensor, tmp_path: Path) -> None:
    """Breaks when a file lacks something, or a loaded session is another. The program may be saved and loaded, too."""
    session, ids = program.new_session(), tokens(1, 20)
    session.prefill(ids[:, :9])
    session.save(tmp_path / "talk")
    program.save(tmp_path / "model.llmchip")
    loaded = llmchip.load(tmp_path / "model.llmchip")
    assert isinstance(loaded, llmchip.LoadedDecoder)
    for found in (program.new_session(), session, loaded.new_session()):
        found.load(tmp_path / "talk")
        assert found.length == 9
        rest: Any = found.prefill(ids[:, 9:])
        assert np.array_equal(np.asarray(rest), expected[:, 9:].numpy())


def test_loaded_without_the_model(program: DecoderProgram, expected: torch.Tensor, tmp_path: Path) -> None:
    """Breaks when an image of a decoder does not give what the program gives."""
    program.save(tmp_path / "model.llmchip")
    loaded = llmchip.load(tmp_path / "model.llmchip")
    assert isinstance(loaded, llmchip.LoadedDecoder)
    ids: Array = tokens(1, 20).numpy()
    assert np.array_equal(loaded(input_ids=ids)["logits"], expected.numpy())
    assert np.array_equal(loaded.generate(ids, 5), program.generate(tokens(1, 20), 5).numpy())
    with pytest.raises(InputError, match="'top_k' needs the model itself"):
        loaded.new_session().generate(ids, 5, top_k=3)
    with pytest.raises(InputError, match="input 'x' is unknown"):
        loaded(x=ids)


Use = Callable[[llmchip.Session[torch.Tensor]], object]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda s: s.prefill(tokens(1, CAPACITY)), f"would have {CAPACITY + 10}; the cache has room for {CAPACITY}"),
        (lambda s: s.generate(tokens(1, 3), CAPACITY), "the cache has room"),
        (lambda s: s.generate(tokens(1, 3), 0), "max_new_tokens is 0"),
        (lambda s: s.generate(tokens(1, 3), 3, num_beams=4), "num_beams is 4"),
        (lambda s: s.generate(tokens(1, 3), 3, wings=2), "'wings' is no option"),
        (lambda s: s.generate(tokens(1, 3), 3, temperature=-1.0, do_sample=True), "cannot be used"),
        (lambda s: s.prefill(tokens(1, 0)), "the prompt is empty"),
        (lambda s: s.prefill(tokens(2, 3)), "2 sequences; the program was compiled for 1"),
        (lambda s: s.prefill([[1, VOCABULARY]]), rf"{VOCABULARY} at \[0, 1\]; the vocabulary has {VOCABULARY}"),
        (lambda s: s.prefill([[1, -1]]), r"-1 at \[0, 1\]"),
        (lambda s: s.prefill([[1.5]]), "float64"),
        (lambda s: s.prefill([[1, 2], [3]]), "is no array"),
        (lambda s: s.prefill(tokens(1, 4), [[1, 0, 1, 1]]), "padding between"),
        (lambda s: s.prefill(tokens(1, 4), [[0, 0, 0, 0]]), "without tokens"),
        (lambda s: s.prefill(tokens(1, 4), [[1, 1]]), "attention_mask is"),
        (lambda s: s.decode(tokens(1, 2)), "prefill takes several"),
        (lambda s: s.decode([VOCABULARY]), "token_ids holds"),
        (lambda s: s.rollback(11), "rollback to 11"),
        (lambda s: s.rollback(-1), "rollback to -1"),
    ],
)
def test_bad_input_leaves_a_session_as_it_was(
    program: DecoderProgram, expected: torch.Tensor, use: Use, words: str
) -> None:
    """Breaks when something is written before all is checked, or a message does not say what is wrong."""
    session = program.new_session()
    session.prefill(tokens(1, 10))
    with pytest.raises(InputError, match=words) as raised:
        use(session)
    assert "\n" not in str(raised.value)
    assert session.length == 10
    assert torch.equal(session.prefill(tokens(1, 20)[:, 10:]), expected[:, 10:])


def test_the_cache_can_be_filled_to_the_last_row(program: DecoderProgram) -> None:
    """Breaks when a chunk needs room behind the capacity for its padding."""
    session, ids = program.new_session(), tokens(1, CAPACITY)
    session.prefill(ids[:, : CAPACITY - 3])
    session.prefill(ids[:, CAPACITY - 3 :])
    assert session.length == CAPACITY
    with pytest.raises(InputError, match="the cache has room"):
        session.decode([1])


def test_texts_join_and_leave_between_steps(program: DecoderProgram, pair: DecoderProgram) -> None:
    """Breaks when a text in a batch depends on who was in its place before, on who joins beside it, or on resting while
    the other goes on."""
    one, two, three = tokens(1, 20, 1)[0], tokens(1, 20, 2)[0], tokens(1, 20, 3)[0]
    alone = [program.new_session().prefill(text[None])[0] for text in (one, two, three)]
    session = pair.new_session()
    found: list[list[torch.Tensor]] = [[], [], []]

    def advance(**texts: torch.Tensor) -> None:
        for place, part in session.advance({int(name[1:]): text for name, text in texts.items()}).items():
            found[owners[place]].append(part)

    owners = {0: 0, 1: 1}
    advance(_0=one[:9])
    advance(_0=one[9:10], _1=two[:4])  # joins
    advance(_1=two[4:20])
    advance(_0=one[10:13])
    session.drop(1)  # leaves
    owners[1] = 2
    advance(_0=one[13:14], _1=three[:8])
    advance(_0=one[14:20], _1=three[8:20])
    for parts, wanted in zip(found, alone, strict=True):
        assert torch.equal(torch.cat(parts), wanted)
    assert session.lengths == (20, 20)
    for wrong in ({2: one}, {0: one[:0]}, {0: torch.cat([one, one])}):
        with pytest.raises(InputError):
            session.advance(wrong)
        assert session.lengths == (20, 20)

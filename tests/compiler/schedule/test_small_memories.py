"""Small memories: a tiling down to the smallest scratchpad, the same bits on each, more memory never slower, and always
an answer."""

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pytest
import torch
from transformers import BertConfig, BertModel

import llmchip
from compiler import tiling
from compiler.emit.banks import movable
from compiler.frontend.capture import capture
from compiler.lower import Lowered, lower
from compiler.options import Options
from compiler.pipeline import finish
from compiler.schedule import addresses
from compiler.schedule import autotune as search
from compiler.schedule.addresses import place
from compiler.schedule.autotune import Search, _Tried
from compiler.tile.decisions import Placement, Schedule
from compiler.tile.ir import Buffer, Program
from compiler.tile.manager import TileManager
from compiler.tile.state import TileState, made
from compiler.tiling import kernel_state
from emulator.timing.simulate import simulate
from isa.architecture import Space
from isa.chip import Acc, Chip, Dram, Mxu, Sram, load_chip
from isa.errors import CompileError
from runtime.profile.roofline import Gemm, reread_bytes

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 50,
}
MXU = Mxu(rows=16, cols=16, weight_rows_per_cycle=1)
SLOW = Dram(bytes_per_second=4_000_000_000)


def chip(sram: int, acc: int = 32 << 10, mxu: Mxu = MXU, dram: Dram = SLOW) -> Chip:
    return msgspec.structs.replace(load_chip("edge"), name="small", sram=Sram(sram), acc=Acc(acc), mxu=mxu, dram=dram)


@cache
def model() -> BertModel:
    torch.manual_seed(0)
    return BertModel._from_config(BertConfig(**SHAPE)).eval()


def inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.arange(32).reshape(1, 32) * 7 % 50}


@cache
def lowered() -> Lowered:
    return lower(capture(model(), (), inputs()))


def cycles(on: Chip) -> int:
    return simulate(finish(lowered(), Options(), on).image()).cycles


@pytest.mark.parametrize(
    ("sram", "acc"), [(24 << 10, 16 << 10), pytest.param(8 << 10, 8 << 10, marks=pytest.mark.slow)]
)
def test_small_memories_change_no_bit(sram: int, acc: int) -> None:
    """Breaks if a tile does not fit, or what moves to ACC, to DRAM or through the array in parts is not what it was."""
    program = llmchip.compile(model(), inputs(), chip=chip(sram, acc))
    got, wanted = program(**inputs()), program.reference(**inputs())
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name].view(torch.int32), value.view(torch.int32)) for name, value in wanted.items())


def test_what_fits_in_no_way_is_said_in_one_line() -> None:
    """Breaks if the error does not name the value and both sizes, or comes from somewhere else."""
    with pytest.raises(CompileError) as error:
        finish(lowered(), Options(), chip(128, 64))
    assert re.search(
        r"the smallest tile of \w+ needs \d+ bytes of SRAM and \d+ of ACC; chip 'small' has", error.value.what
    )
    assert "fault of llmchip" not in str(error.value)


@pytest.mark.wide
def test_more_is_never_slower() -> None:
    """Breaks if the search misses, on a larger chip, what it finds on a smaller one: more than 2 % slower with more
    SRAM, bandwidth or a larger array."""
    base = cycles(chip(16 << 10))
    faster, wider = Dram(bytes_per_second=8 * 10**9), Mxu(rows=32, cols=32, weight_rows_per_cycle=2)
    for larger in (chip(64 << 10), chip(16 << 10, dram=faster), chip(16 << 10, mxu=wider)):
        assert cycles(larger) <= base * 1.02


def test_floats_move_to_acc_where_the_scratchpad_is_small() -> None:
    """Breaks if wide rows stay in a scratchpad that they fill, so that weights are read again for every few rows."""
    found = finish(lowered(), Options(), chip(12 << 10, 64 << 10))
    floats = [b for b in found.placement.live if b.space is Space.ACC and "acc" not in b.name]
    assert floats
    weights = sum(t.bytes for t in found.tiled.constants)
    assert simulate(found.image()).bytes.sum() < 1.5 * weights


def test_only_what_vec_and_act_touch_may_move() -> None:
    """Breaks if an operand of the array or of a DMA queue is offered to ACC: the ISA table allows no such word."""
    graph = lowered()
    start = kernel_state(graph, Options(), chip(96 << 10), TileManager())
    drafted = tiling.search(start, lambda name: name != "search").candidates()
    ops = drafted[0].tiled.program.ops
    bound = {
        ref.buffer
        for op in ops
        if op.mnemonic in ("mm", "ldw", "lda", "sto", "gather")
        for ref in op.views
        if ref is not None
    }
    assert movable(ops) and not movable(ops) & bound


def test_a_search_leaves_no_tiling_behind() -> None:
    """Breaks if an error of a tiling that did not fit keeps all tilings that there were until Python looks for cycles:
    the check behind the search needs as much memory again."""
    start = kernel_state(lowered(), Options(), chip(8 << 10, 8 << 10), TileManager())
    failures: list[CompileError] = []
    caught = search._caught

    def counted(found: list[CompileError], work: Callable[[], Any]) -> Any:
        result = caught(found, work)
        failures.extend(found)
        return result

    gc.collect()
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "_caught", counted)
            tiling.search(start, lambda name: True).run()
        assert failures
        assert not any(isinstance(found, search.Candidate) for found in gc.get_objects())
    finally:
        gc.enable()


@pytest.mark.wide
def test_a_search_that_finds_no_plan_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if plans are tried for ever, or if the last resort is not the order of the kernels with nothing
    resident."""
    tried: list[tuple[int, bool]] = []

    def refuse(program: object, on: object, times: object = None, lower: bool = True, rest: int = 0) -> None:
        tried.append((len(program.ops), times is None))  # type: ignore[attr-defined]
        raise CompileError("no plan")

    monkeypatch.setattr(addresses, "place", refuse)
    with pytest.raises(CompileError, match="no plan"):
        finish(lowered(), Options(), chip(12 << 10))
    shares = 2 * len(search.SHARES) * len(search.FILLS)  # of two tilings each
    assert len(tried) <= search.FEWER + 2 * search.PLANS + shares + 2
    assert [plain for _, plain in tried[-2:]] == [True, True] and not any(plain for _, plain in tried[:-2])


def test_unavoidable_reads() -> None:
    """Breaks if the limit counts reads that a program can avoid: none where a memory holds the product, more the
    smaller it is."""
    product = Gemm(1, 128, 3072, 768)
    assert reread_bytes(product, 64 << 10) == 0
    large = [reread_bytes(Gemm(1, 4096, 4096, 4096), size << 10) for size in (16, 64, 256, 1 << 16)]
    assert large == sorted(large, reverse=True) and large[0] > 0 and large[-1] == 0
    assert reread_bytes(Gemm(12, 4096, 4096, 64), 1 << 10) == 0


class Joined(torch.nn.Module):
    def __init__(self, parts: Callable[[torch.Tensor], list[torch.Tensor]]) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.parts(torch.tanh(x)))


@pytest.mark.parametrize("parts", [lambda y: [y, y, y], lambda y: [y[3:], y[:3]], lambda y: [y[:, :1], y[:, 1:2]]])
def test_what_is_joined_need_not_fit(parts: Callable[[torch.Tensor], list[torch.Tensor]]) -> None:
    """Breaks if a value along whose first dimension others are joined must be on chip as a whole, as computed or as
    loaded."""
    x = torch.randn(10, 8, 64)
    program = llmchip.compile(Joined(parts).eval(), (x,), chip=chip(8 << 10))
    assert program.verify(x).bit_exact


@pytest.mark.wide
def test_a_rival_that_is_faster_with_addresses_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the schedules decide alone, or the winner gets its place twice."""
    start = kernel_state(lowered(), Options(), chip(64 << 10), TileManager())
    plain = tiling.search(start, lambda name: True).run()
    judged: list[int] = []

    def rivals_are_faster(program: Program, *_: object) -> int:
        judged.append(len(program.ops))
        return 1000 - len(judged)  # the first that fits is asked first

    monkeypatch.setattr(search, "predicted_cycles", rivals_are_faster)
    found = tiling.search(start, lambda name: True).run()
    assert len(judged) > 1 and [step.last for step in found.history()].count("place") == 1
    assert made(found.schedule).cycles > made(plain.schedule).cycles, "another than the first that fits"
    monkeypatch.setattr(search, "RIVALS", 0)
    assert made(tiling.search(start, lambda name: True).run().schedule).cycles <= made(plain.schedule).cycles


def test_a_longer_program_must_be_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the length of a program weighs nothing in what the search takes."""
    start = kernel_state(lowered(), Options(), chip(64 << 10), TileManager())
    found = {}
    for weight in (0.0, 1e-3):  # one thousand ops as much as nothing, and as all of the cycles
        monkeypatch.setattr(search, "WEIGHT", weight)
        found[weight] = tiling.search(start, lambda name: True).candidates()[0]
    fast, short = found.values()
    assert fast.cycles < short.cycles < 1.05 * fast.cycles
    assert len(short.tiled.program.ops) < 0.9 * len(fast.tiled.program.ops)


def test_a_lower_plan_that_is_slower_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if bytes are used again sooner although that holds the engines up."""
    plain, lower = TileState.__new__(TileState), TileState.__new__(TileState)
    monkeypatch.setattr(Search, "_placed", lambda self, state, lower_=True, rest=0: lower)
    tried = Search.__new__(Search)
    for cycles, taken in ((110, plain), (100, lower), (90, lower)):
        monkeypatch.setattr(Search, "_tried", lambda self, state, placed, cycles=cycles: _Tried(cycles, state, placed))
        assert tried._lowered(_Tried(100, plain, plain)) is taken


def test_bytes_rest_longer_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the search does not ask for more rest, takes it where it is slower, or tells `place` another one; or if
    more rest is no rest."""
    start, asked = kernel_state(lowered(), Options(), chip(64 << 10), TileManager()), list[int]()
    tried = Search._tried

    def slower_with(*rests: int) -> TileState:
        def weighed(self: Search, state: TileState, placed: TileState | None = None, rest: int = 0) -> _Tried:
            one = tried(self, state, placed, rest)
            asked.append(rest)
            return replace(one, cycles=10 * one.cycles) if rest in rests and placed is None else one

        monkeypatch.setattr(Search, "_tried", weighed)
        return tiling.search(start, lambda name: True).run()

    slower_with(0)
    assert {*asked} - {0} <= {*search.RESTS} and len({*asked}) > 1
    chosen = slower_with(*search.RESTS)
    monkeypatch.setattr(search, "RESTS", ())
    without = slower_with()
    assert made(chosen.placement).offsets == made(without.placement).offsets
    schedule = made(without.schedule)
    for rest in (0, 300):
        placement = place(schedule.program, start.chip, schedule.times, rest=rest)
        assert all(wait >= rest for wait in _waits(schedule, placement))


def _waits(schedule: Schedule, placement: Placement) -> Iterator[int]:
    """Cycles between the end of a buffer's last use and the start of the first of one that takes its bytes."""
    ends: dict[Buffer, int] = {}
    begins: dict[Buffer, int] = {}
    for op, (start, end) in zip(schedule.program.ops, schedule.times, strict=True):
        for ref in op.views:
            if ref is not None and ref.buffer.space is Space.SRAM:
                ends[ref.buffer] = max(ends.get(ref.buffer, 0), end)
                begins.setdefault(ref.buffer, start)
    order = list(begins)
    for number, later in enumerate(order):
        for earlier in order[:number]:
            low, high = placement.offsets[later], placement.offsets[later] + later.bytes
            if low < placement.offsets[earlier] + earlier.bytes and placement.offsets[earlier] < high:
                yield begins[later] - ends[earlier]

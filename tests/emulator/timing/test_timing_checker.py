"""Random programs on random chips: the timing mode and the cycle-by-cycle machine agree on every word, to the cycle."""

import os
from typing import Any

from cycle_machine import CycleMachine
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.timing.simulate import simulate_instructions
from emulator.timing.waterfall import RESOURCES, waterfall
from isa.architecture import Dtype, Engine, Region, Space
from isa.chip import Chip, parse_chip
from isa.codec import Inst, encode
from isa.replay import Dispatch, replay

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "20"))


def view(number: int, space: Space, dtype: Dtype, **strides: int) -> Inst:
    return Inst.make("vset", v=number, space=int(space), region=int(Region.PARAMS), dtype=int(dtype), base=0, **strides)


SETUP = [
    view(1, Space.SRAM, Dtype.F32, rs=7),
    view(2, Space.DRAM, Dtype.F32, rs=7, ps=21),
    view(3, Space.DRAM, Dtype.I4, rs=6, ps=18),
    view(4, Space.SRAM, Dtype.I32, rs=1),
    view(5, Space.ACC, Dtype.I32, rs=9),
    view(6, Space.SRAM, Dtype.I8, rs=5),
    view(7, Space.DRAM, Dtype.F32, cs=0),
]


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    """Small and odd: everything is reached within few cycles."""
    size = st.integers(1, 8)
    queues = {name: draw(st.integers(1, 3)) for name in ("ldw", "lda", "sto", "mxu", "vec", "act")}
    mxu = {
        "rows": draw(size),
        "cols": draw(size),
        "weight_rows_per_cycle": draw(st.integers(1, 3)),
        "split": draw(st.booleans()),
    }
    dram = {"bytes_per_second": draw(st.integers(5, 90)), "latency_cycles": draw(st.integers(1, 30))}
    dram["burst_bytes"] = draw(st.sampled_from((1, 8, 64)))
    rest = {"clock_hz": draw(st.integers(1, 5)), "vec": {"lanes": draw(size)}, "act": {"lanes": draw(size)}}
    return parse_chip({"mxu": mxu, "dram": dram, "queues": queues, **rest}, "random chip")


def extent(low: int = 1) -> st.SearchStrategy[int]:
    return st.integers(low, 7)


@st.composite
def words(draw: st.DrawFn) -> Inst:
    deps = tuple(draw(st.sampled_from((7, 7, 7, 0, 1, 2))) for _ in range(6))
    block = {"planes": draw(st.integers(1, 3)), "rows": draw(extent(0)), "cols": draw(extent())}
    remote = draw(st.sampled_from((2, 3, 7)))
    kinds: dict[str, dict[str, Any]] = {
        "ldw": {"d": 1, "a": remote, **block},
        "lda": {"d": 1, "a": remote, **block},
        "sto": {"d": remote, "a": 1, **block},
        "gather": {"d": 1, "a": 2, "idx": 4, "n": draw(extent(0)), "cols": block["cols"], "limit": 9},
        "mm": {
            "c": 5,
            "a": 6,
            "w": 6,
            "b": block["planes"],
            "m": draw(st.integers(0, 30)),
            "fmt": draw(st.sampled_from((0, 0, 1))),
        }
        | {"n": draw(extent()) * 2, "k": draw(extent()) * 3},
        "mmg": {"c": 1, "a": 6, "w": 6, "sa": 1, "sw": 1, "ss": draw(st.sampled_from((0, 6)))}
        | {"m": draw(st.integers(0, 30)), "n": draw(extent()) * 2, "k": draw(extent()) * 40}
        | {"glog": draw(st.integers(0, 3))},
        "vop": {"f": 1, "d": 1, "a": 1, **block},
        "vqd": {"d": 6, "s": 1, "a": 1, "am": draw(st.sampled_from((0, 1))), **block},
        "act": {"f": 0, "d": 1, "a": 1, "rows": block["rows"], "cols": block["cols"]},
        "nop": {},
        "fence": {"mask": draw(st.integers(0, 63))},
        "sld": {"d": 1, "v": draw(st.sampled_from((2, 4)))},
    }
    engines = ("ldw", "lda", "sto", "gather", "mm", "mmg", "vop", "vqd", "act")
    mnemonic = draw(st.sampled_from((*engines, *engines, *engines, "nop", "fence", "sld")))
    return Inst.make(mnemonic, deps, **kinds[mnemonic])


@st.composite
def programs(draw: st.DrawFn) -> list[Dispatch]:
    body = draw(st.lists(words(), min_size=1, max_size=25))
    loop = [Inst.make("loop", level=0, len=len(body), count=draw(st.integers(1, 3)))] if draw(st.booleans()) else []
    code = b"".join(map(encode, [*SETUP, *loop, *body, Inst.make("halt")]))
    return list(replay(code, load=lambda _: 1, control=True))


@settings(max_examples=5 * EXAMPLES, deadline=None)
@given(programs(), chips())
def test_both_machines_agree_to_the_cycle(program: list[Dispatch], chip: Chip) -> None:
    """Breaks if any rule (queue room, counts, fences, sharing of the bus, weight buffers, split) is read differently by
    the two."""
    timeline = simulate_instructions(program, chip)
    stepped = CycleMachine(program, chip).run()
    found = list(zip(timeline.dispatch.tolist(), timeline.start.tolist(), timeline.end.tolist(), strict=True))
    assert found == [(t.dispatch, t.start, t.end) for t in stepped]
    assert timeline.cycles == max(t.end for t in stepped)


def test_an_empty_product_on_an_array_of_one_cell_takes_no_time() -> None:
    """Breaks when what ends in the cycle in which it begins is seen one cycle later: 1 (dispatch) + 7 is the fence."""
    empty = Inst.make("mm", c=5, a=6, w=6, b=1, m=0, n=1, k=1)
    code = [*SETUP, empty, Inst.make("fence", mask=63), Inst.make("halt")]
    program = list(replay(b"".join(map(encode, code)), load=lambda _: 1, control=True))
    chip = parse_chip({"mxu": {"rows": 1, "cols": 1}}, "one cell")
    assert [t.start for t in CycleMachine(program, chip).run()[7:9]] == [8, 8]
    assert simulate_instructions(program, chip).start[7:9].tolist() == [8, 8]


@settings(max_examples=60, deadline=None)
@given(programs(), chips())
def test_waterfall_adds_up_for_every_resource(program: list[Dispatch], chip: Chip) -> None:
    """Breaks if a cycle is charged twice or not at all, or if the walk back loses its way."""
    timeline = simulate_instructions(program, chip)
    for resource in RESOURCES:
        shares = waterfall(timeline, resource)
        assert sum(share.cycles for share in shares) == timeline.cycles
        assert all(share.cycles > 0 for share in shares)
        busy = timeline.bus_busy() if resource == "dram" else timeline.busy(Engine(resource))
        assert sum(share.cycles for share in shares if share.cause == "compute") == busy


@settings(max_examples=60, deadline=None)
@given(programs(), chips())
def test_times_are_in_order_and_engines_never_overlap(program: list[Dispatch], chip: Chip) -> None:
    """Breaks if a word ends before it starts, or two words work on one engine at once."""
    t = simulate_instructions(program, chip)
    for earlier, later in (
        (t.ready, t.start),
        (t.start, t.work_start),
        (t.work_start, t.work_end),
        (t.work_end, t.end),
    ):
        assert (earlier <= later).all()
    for engine in Engine:
        mine = t.of(engine)
        assert (t.work_end[mine][:-1] <= t.work_start[mine][1:]).all()
        assert (t.end[mine][:-1] <= t.end[mine][1:]).all()

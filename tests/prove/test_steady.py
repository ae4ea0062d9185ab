"""Long loops: proved from a few iterations, with the same verdict as a replay of them all."""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.asm import assemble
from isa.check import _analyse, check
from isa.trace import Cut, trace

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "40"))
# Layers in a loop: weights stream from DRAM into two buffers, the activation stays in SRAM.
LAYERS = """
.region weights bytes=0x100000
.region in bytes=64
.region out bytes=64
.entry name="main", pc=0
.output name="y", shape=[16], dtype="float32", storage=f32, region=out
vset v=v1, space=dram, region=weights, dtype=f32, base=0
vinc v=v1, level=0, inc=64
vset v=v2, space=sram, dtype=f32, base=0x100
vinc v=v2, level=0, inc=64, mod=2
vset v=v3, space=sram, dtype=f32, base=0
vset v=v4, space=dram, region=in, dtype=f32, base=0
vset v=v5, space=dram, region=out, dtype=f32, base=0
lda d=v3, a=v4, rows=1, cols=16
loop level=0, len=end, count={count}
  ldw d=v2, a=v1, rows=1, cols=16 {load}
  vop f=mul, d=v3, a=v3, b=v2, rows=1, cols=16 {work}
  act f=tanh, d=v3, a=v3, rows=1, cols=16 {act}
end: sto d=v5, a=v3, rows=1, cols=16 {store}
halt
"""
SOUND = {"load": "@ vec<=1", "work": "@ ldw<=0, lda<=0, act<=0", "act": "@ vec<=0", "store": "@ act<=0"}


def layers(count: int, **changed: str) -> str:
    return LAYERS.format(count=count, **{**SOUND, **changed})


def test_a_long_loop_costs_no_more_than_a_short_one() -> None:
    """Breaks when every iteration is replayed although the state repeats."""
    image = assemble(layers(16000))
    cuts: list[Cut] = []
    assert len(list(trace(image, control=True, cuts=cuts))) < 150 and len(cuts) == 1
    start = time.perf_counter()
    assert check(image) == []
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("count", [1, 32, 33, 60, 61])
@pytest.mark.parametrize("fault", [{}, {"load": ""}, {"load": "@ vec<=2"}, {"work": "@ ldw<=1, lda<=0, act<=0"}, {"act": ""}, {"store": ""}])
def test_the_verdict_is_that_of_the_whole_replay(count: int, fault: dict[str, str]) -> None:
    """Breaks when leaving iterations out hides a race or invents one."""
    image = assemble(layers(count, **fault))
    whole = _analyse(image, None, None, waste=False, shortcuts=False)
    assert {(f.kind, f.pc) for f in check(image)} == {(f.kind, f.pc) for f in whole}


def test_the_last_iterations_are_checked() -> None:
    """Breaks when a view may run out of its memory towards the end of a long loop."""
    small = ".region weights bytes=0x8000"  # 512 layers
    assert check(assemble(layers(512).replace(".region weights bytes=0x100000", small))) == []
    assert {f.kind for f in check(assemble(layers(513).replace(".region weights bytes=0x100000", small)))} == {"bounds"}


waits = st.sampled_from(["", "ldw<=0", "ldw<=1", "lda<=0", "vec<=0", "vec<=1", "vec<=2", "act<=0", "act<=1"])
deps = st.lists(waits.filter(bool), max_size=3, unique_by=lambda wait: wait[:3]).map(lambda found: "@ " + ", ".join(found) if found else "")


@settings(max_examples=EXAMPLES, deadline=None)
@given(deps, deps, deps, deps, st.integers(14, 140), st.sampled_from(["mod=2", "mod=3", "div=2, mod=2", "mod=1"]))
def test_random_waits_have_the_same_verdict(load: str, work: str, act: str, store: str, count: int, step: str) -> None:
    """As above, for random dependence counts and buffers."""
    image = assemble(layers(count, load=load, work=work, act=act, store=store).replace("mod=2", step))
    whole = _analyse(image, None, None, waste=False, shortcuts=False)
    assert {(f.kind, f.pc) for f in check(image)} == {(f.kind, f.pc) for f in whole}

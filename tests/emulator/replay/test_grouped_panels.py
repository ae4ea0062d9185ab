"""Grouped products by panels against the interpreter: the same launch word by word and by a plan."""

import os
from typing import Any

import numpy as np
import pytest
from emulator_harness import Program, f32, same_bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("emulator.replay.expand", reason="numba is not installed")

from emulator.machine import Machine
from emulator.pieces import Piece, Pieces
from emulator.replay import layout
from isa.architecture import Dtype, Region, Space
from isa.spec import NIBBLES, VOP

I4, I8, F32, F16, BF16 = Dtype.I4, Dtype.I8, Dtype.F32, Dtype.F16, Dtype.BF16
EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "20"))
quick = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def scales(p: Program, rng: Any, kind: Dtype, *shape: int) -> int:
    values = rng.standard_normal(shape).astype(np.float32)
    return p.source((values.view(np.uint32) >> 16).astype(np.uint16) if kind is BF16 else values, kind)


def plan_of(machine: Machine | None) -> Any:
    assert machine is not None and machine._replays is not None and machine._replays._plans is not None
    return machine._replays._plans


def check(p: Program, c: int, const: Any) -> Machine:
    """Three launches of one machine give the same bits, and no product went back to its handler."""
    regions = {Region.CONST: const, Region.OUT: np.zeros(4096, np.uint8)}
    machine = p.machine = Machine(*p.sizes, regions, {Region.CONST})
    machine.run(p.code())
    want = p.read(c).copy()
    for _ in range(2):
        machine.memory.load(p.views[c], p.shapes[c])[...] = 77
        machine.run(p.code())
        assert same_bits(p.read(c), want)
    (plan,) = plan_of(machine)._plans.values()
    assert plan.info[layout.HANDLED_COUNT] == 0
    return machine


@quick
@given(
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(1, 300),
    st.integers(0, 3),
    st.sampled_from([None, *NIBBLES]),
    st.fixed_dictionaries(dict.fromkeys(("pre", "half", "acc"), st.integers(0, 1))),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_panels_have_the_bits_of_the_interpreter(
    m: int, n: int, k: int, glog: int, nib: str | None, flags: dict[str, int], minima: bool, constant: bool, seed: int
) -> None:
    """Breaks when a row, a column or a group is taken for another, groups are added in another order, a rounding is
    missing, a last group reads on, or codes that begin within a byte are read from its start."""
    p, rng, groups = Program(1 << 19), np.random.default_rng(seed), -(-k // (32 << glog))
    a = p.source(rng.integers(-128, 128, (m, k)), I8)
    codes = p.source(rng.integers(-128, 128, (n, k)), I8)
    w = codes if nib is None else p.view(I4, p.views[codes].base, k + seed % 2)
    of_a, of_w, of_low = rng.choice(np.array([F32, F16, BF16]), 3)
    views = {"a": a, "w": w, "sa": scales(p, rng, of_a, m, groups), "sw": scales(p, rng, of_w, n, groups)}
    if minima:
        views["zw"] = scales(p, rng, of_low, n, groups)
    c = p.target(F32, m, n, space=Space.ACC)
    p.word("vop", f=VOP.index("mov"), d=c, a=scales(p, rng, F32, m, n), rows=m, cols=n)
    nibbles = 0 if nib is None else NIBBLES.index(nib)
    p.word("mmg", c=c, m=m, n=n, k=k, glog=glog, nib=nibbles, **flags, **views)
    const = np.frombuffer(bytes(p.const), np.uint8)
    machine = check(p, c, const if constant else const.copy())
    assert len(plan_of(machine)._panels._kept) == constant


def test_sums_at_their_largest_stay_exact() -> None:
    """Breaks when a sum of products saturates on its way: -128 by -128 and by 127 in every place."""
    p, k = Program(1 << 19), 512
    a = np.full((7, k), -128)
    w = np.stack([np.full(k, -128), np.full(k, 127), np.resize([-128, 127], k)])
    views = {"a": p.source(a, I8), "w": p.source(w, I8), "sa": p.source(np.ones((7, 2)), F32)}
    c = p.target(F32, 7, 3, space=Space.ACC)
    p.word("mmg", c=c, m=7, n=3, k=k, glog=3, sw=p.source(np.ones((3, 2)), F32), **views)
    check(p, c, np.frombuffer(bytes(p.const), np.uint8))
    assert p.read(c)[6].tolist() == f32(*(a[6] @ w.T)).tolist()


@pytest.mark.parametrize("changed", ["w", "sw", "zw"])
def test_packed_panels_follow_what_they_were_made_of(changed: str) -> None:
    """Breaks when weights that change in place, or their scales in a tensor of their own, leave old panels behind."""
    p, rng = Program(1 << 19), np.random.default_rng(0)
    names, at = ("a", "w", "sa", "sw", "zw"), {}
    views = {}
    for name, rows in zip(names, (6, 40, 6, 40, 40), strict=True):
        at[name] = len(p.const)
        codes = name in "aw"
        values = rng.integers(-128, 128, (rows, 64)) if codes else rng.standard_normal((rows, 2))
        views[name] = p.source(values, I8 if codes else F32)
    c = p.target(F32, 6, 40, space=Space.ACC)
    p.word("mmg", c=c, m=6, n=40, k=64, **views)
    const = np.frombuffer(bytes(p.const), np.uint8)
    ends = [*list(at.values())[1:], len(const)]
    pieces = {start: Piece(const[start:end].copy()) for start, end in zip(at.values(), ends, strict=True)}
    machine = check(p, c, Pieces(len(const), pieces))
    assert len(plan_of(machine)._panels._kept) == 1
    before = p.read(c).copy()
    piece = pieces[at[changed]]
    piece.change(piece.data[::-1].copy() if changed == "w" else (-piece.data.view(np.float32)).view(np.uint8))
    machine.run(p.code())
    got = p.read(c).copy()
    machine.run(p.code(), probe=lambda *_: None)  # word by word
    assert same_bits(got, p.read(c)) and not same_bits(got, before)

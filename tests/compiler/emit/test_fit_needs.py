"""What a block needs at once, worked out by hand."""

from compiler.emit.fit import lives_of, peak_bytes
from compiler.tile.ir import Buffer, Op, Ref
from isa.architecture import Dtype, Region, Space


def test_loads_that_run_ahead_take_their_place_earlier() -> None:
    """Two weights are loaded and used in turn. Breaks if the second load's place is not counted beside the first's, or
    layouts and kept ones count wrongly."""
    dram = Buffer("dram", Space.DRAM, 4096, Region.WEIGHTS)
    x, first, second, home = (Buffer(name, Space.SRAM, 256) for name in ("x", "first", "second", "home"))
    out = Buffer("out", Space.ACC, 512)

    def ref(buffer: Buffer) -> Ref:
        return Ref(buffer, 0, Dtype.I8)

    def load(buffer: Buffer) -> Op:
        return Op("ldw", (ref(buffer), ref(dram)), (("rows", 1), ("cols", 256)), "load")

    def product(weight: Buffer) -> Op:
        return Op("mm", (ref(out), ref(x), ref(weight)), (("m", 1), ("n", 1), ("k", 256)), "product")

    ops = [load(x), load(first), product(first), load(second), product(second), load(home)]
    lives = lives_of(ops, set(), {home})
    assert [(life.buffer.name, life.first, life.early, life.last) for life in lives] == [
        ("x", 0, 0, 4), ("first", 1, 0, 2), ("out", 2, 2, 4), ("second", 3, 1, 4),
    ]  # fmt: skip
    sram = [life for life in lives if life.buffer.space is Space.SRAM]
    assert (peak_bytes(sram), peak_bytes(sram, early=True)) == (512, 768)
    kept = [life for life in lives_of(ops, {first}, {home}) if life.buffer.space is Space.SRAM]
    assert peak_bytes(kept) == 768
    assert peak_bytes([]) == 0

"""Energy of single words, by hand: operations and bytes times the figures of the chip file."""

import pytest
from timing_harness import EDGE, SRAM_F32, SRAM_I32, add, exp, load, mm, run, word

from emulator.timing.energy import COMPONENTS, PICO, activity
from isa.codec import Inst
from isa.spec import ISA, VOP

E = EDGE.energy


def energy(word: Inst) -> dict[str, float]:
    """Joules of one word alone, in picojoules, without what the program around it costs."""
    timeline = run(word)
    done = activity(timeline)
    mine = done.joules[-2] / PICO
    assert done.totals()["static"] == pytest.approx(E.static_watts * timeline.cycles / EDGE.clock_hz)
    return dict(zip(COMPONENTS[:-1], mine.tolist(), strict=True))


def test_matmul() -> None:
    """a is read once per tile of n, w once, c written and read back once per fold of k. Breaks if padding is counted as
    work."""
    m, n, k = 100, 200, 300
    found = energy(mm(m, n, k))
    assert found["mxu"] == pytest.approx(m * n * k * E.i8_mac)
    assert found["sram"] == pytest.approx((m * k * 2 + k * n) * E.sram_byte)
    assert found["acc"] == pytest.approx(m * n * 4 * (3 + 2) * E.acc_byte)


def test_vector_and_activation() -> None:
    found = energy(add(10, 20))
    assert found["vec"] == pytest.approx(200 * E.f32_add)
    assert energy(exp(10, 20))["act"] == pytest.approx(200 * E.act)


def test_what_a_vector_word_computes_and_on_what_decides_its_price() -> None:
    """Breaks if a product costs what a sum costs, or integers cost what floats do: the chip file's figures for them
    would be read by nobody."""
    kinds = {"f32": SRAM_F32, "i32": SRAM_I32}
    prices = {
        ("f32", "add"): E.f32_add,
        ("f32", "mul"): E.f32_mul,
        ("i32", "add"): E.i32_add,
        ("i32", "mul"): E.i32_mul,
    }
    for (kind, f), price in prices.items():
        found = energy(word("vop", f=VOP.index(f), d=kinds[kind], a=kinds[kind], planes=1, rows=10, cols=20))
        assert found["vec"] == pytest.approx(200 * price), (kind, f)


def test_transfer() -> None:
    """Both ends of a copy: whole bursts from DRAM, the bytes into SRAM; and the word itself."""
    found = energy(load(3, 17))
    assert found["dram"] == pytest.approx(3 * 128 * E.dram_byte)
    assert found["instructions"] == E.word


def test_every_priced_operation_has_a_price() -> None:
    """Breaks if the ISA table names an operation that the chip file does not know."""
    for row in ISA.values():
        assert all(hasattr(E, name) for name in row.cost.ops), row.mnemonic

"""Breakpoints, watches, nodes and time travel, without a terminal."""

import numpy as np
import pytest
from step_harness import ADD, COLS, MUL, STO, TURNS, X, looped, session

from isa.architecture import Region, Space
from isa.errors import InputError
from isa.image.records import DebugMap
from runtime.debug.points import Range
from runtime.debug.session import Session

END = 8 + TURNS * 4 + 1


def places(s: Session, stop_reason: str) -> list[tuple[int, int]]:
    """(pc, loop index) of every stop until the end."""
    found = []
    while (stop := s.run()).reason == stop_reason:
        found.append((s.stepper.pc, s.stepper.indices[1]))
    assert stop.reason == "ended"
    return found


def test_breakpoint_on_a_pc_stops_in_every_turn() -> None:
    s = session()
    s.points.add("here", s.stepper.memory, pc=MUL)
    assert places(s, "breakpoint") == [(MUL, 0), (MUL, 1), (MUL, 2)]


def test_breakpoint_on_a_mnemonic() -> None:
    s = session()
    s.points.add("op", s.stepper.memory, mnemonic="sto")
    assert places(s, "breakpoint") == [(STO, 0), (STO, 1), (STO, 2)]


def test_breakpoint_on_a_node_stops_at_its_first_word_only() -> None:
    """Breaks when a node whose words are spread stops at every piece."""
    s = session()
    s.points.add("mul", s.stepper.memory, nodes=[s.nodes.number("mul")])
    assert places(s, "breakpoint") == [(MUL, 0)]
    s.seek(0)
    assert places(s, "breakpoint") == [(MUL, 0)]  # the same again after going back


def test_breakpoint_on_a_memory_write_is_exact() -> None:
    """Breaks when a write beside the range stops, or one inside does not."""
    s = session()
    s.points.add("second row", s.stepper.memory, writes=Range(Space.DRAM, Region.OUT, 4 * COLS, 4 * COLS + 1))
    s.points.add("beside", s.stepper.memory, writes=Range(Space.SRAM, Region.WEIGHTS, 0, 64))
    stop = s.run()
    assert stop.reason == "breakpoint"
    assert s.stepper.last is not None
    assert (s.stepper.last.pc, s.stepper.last.indices[1]) == (STO, 1)
    assert s.run().reason == "ended"


def test_watch_stops_only_when_bytes_change() -> None:
    """Row 0 of x is loaded once; the byte that stays 0 when 0 is loaded does not count, and is no change."""
    s = session()
    s.points.add("x", s.stepper.memory, watch=Range(Space.SRAM, Region.WEIGHTS, 64, 68))
    stops = []
    while s.run().reason == "watch":
        assert s.stepper.last is not None
        stops.append(s.stepper.last.pc)
    load = ADD - 16
    assert stops == [ADD, MUL, load, ADD, MUL, load, ADD, MUL]


def test_next_until_and_finish() -> None:
    s = session()
    assert s.next().text == "node add"
    assert (s.stepper.pc, s.stepper.time) == (ADD, 9)
    assert s.next().text == "node mul"
    assert s.next().reason == "ended"
    s.seek(0)
    assert s.until(node=s.nodes.number("mul")).reason == "until"
    assert s.stepper.pc == MUL
    assert s.until(pc=STO).reason == "until"
    assert s.finish(s.nodes.number("add")).reason == "finished"
    assert s.stepper.indices[1] == 2
    assert s.finish(s.nodes.number("add")).text.endswith("already")


def test_a_node_is_put_together_from_its_taps() -> None:
    """Breaks when loop steps of a tap, or values overwritten since, are lost."""
    s = session()
    number = s.nodes.number("add")
    with pytest.raises(InputError, match="nothing of node add is written yet"):
        s.collect(number)
    s.seek(9 + 4 + 1)
    value = s.collect(number).value
    assert value is not None
    assert value.written == 2 * COLS
    assert np.array_equal(value.flat[: 2 * COLS], (X + 1).reshape(-1)[: 2 * COLS])
    s.seek(END)
    value = s.collect(number).value
    assert value is not None
    assert np.array_equal(value.flat.reshape(X.shape), X + 1)
    assert s.stepper.time == END


def test_a_node_without_memory_says_why() -> None:
    s = session()
    with pytest.raises(InputError, match="seen is view: of mul"):
        s.collect(s.nodes.number("seen"))


def test_back_and_reverse_mirror_forward() -> None:
    """Breaks when going backwards misses a stop or invents one: the stops must be those of going forwards, reversed."""
    s = session()
    s.points.add("here", s.stepper.memory, pc=MUL)
    s.points.add("w", s.stepper.memory, watch=Range(Space.DRAM, Region.OUT, 0, 4 * COLS * TURNS))
    forward = []
    while s.run().reason != "ended":
        forward.append(s.stepper.time)
    backward = []
    while (stop := s.reverse()).reason != "start":
        backward.append(s.stepper.time)
        assert stop.reason in ("breakpoint", "watch")
    assert backward == forward[::-1]
    assert s.stepper.time == 0
    assert s.back().reason == "start"
    assert s.step(3).reason == "stepped"
    assert s.back(2).reason == "stepped"
    assert s.stepper.time == 1


def test_reverse_across_many_checkpoints() -> None:
    """Breaks at the border between two checkpoints."""
    s = session()
    s.stepper.history.interval = 1
    s.points.add("here", s.stepper.memory, pc=STO)
    s.run()
    first = s.stepper.time
    s.seek(END)
    times = []
    while s.reverse().reason != "start":
        times.append(s.stepper.time)
    assert times[-1] == first
    assert len(times) == TURNS


def test_a_trap_stops_and_can_be_gone_back_from() -> None:
    s = session(sizes=(0, 0, 4 * COLS * TURNS, 4 * COLS * TURNS), code=looped().code[:-16])
    stop = s.run()
    assert stop.reason == "trap"
    assert "halt is missing" in stop.text
    assert s.back().reason == "stepped"
    assert s.stepper.pc == STO


def test_source_lines_and_missing_debug_maps() -> None:
    s = session()
    assert s.nodes.of_line("toy.py", 8) == [1]
    assert s.nodes.of_line("models/toy.py", 7) == [0]
    with pytest.raises(InputError, match="lines with code: 7, 8"):
        s.nodes.of_line("toy.py", 9)
    bare = session(debug=DebugMap())
    with pytest.raises(InputError, match="no debug map"):
        bare.nodes.number("add")
    assert bare.run().reason == "ended"


def test_an_interrupt_stops_between_words() -> None:
    s = session()
    s.points.add("x", s.stepper.memory, pc=0xFFF0)
    original = s.stepper.step

    def pressed() -> object:
        s.interrupted = True
        return original()

    s.stepper.step = pressed  # type: ignore[method-assign, assignment]
    assert s.run().reason == "interrupted"
    assert s.stepper.time == 1


def test_engines_are_counted_up_to_now() -> None:
    s = session()
    s.seek(END)
    counts = {engine.value: count for engine, (count, _) in s.engine_counts().items()}
    assert counts == {"ctl": 9, "ldw": 0, "lda": 3, "sto": 3, "mxu": 0, "vec": 6, "act": 0}
    s.seek(10)
    assert sum(count for count, _ in s.engine_counts().values()) == 10

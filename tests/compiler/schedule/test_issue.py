"""The parts of the schedule's simulation that are compiled, against what they stand for, written the obvious way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compiler.plan.jit import frozen
from compiler.plan.pages import BLOCK, Pages
from compiler.schedule.engines import Instructions, run
from compiler.tile.conflicts import conflicts

Access = tuple[int, int, int, bool]  # op, buffer, first byte, writes
SIZE = 3


@st.composite
def accesses(draw: st.DrawFn) -> list[Access]:
    of = sorted(draw(st.lists(st.integers(0, 7), max_size=25)))
    return [(op, draw(st.integers(0, 2)), draw(st.integers(0, 8)), draw(st.booleans())) for op in of]


@given(accesses())
def test_conflicts_are_those_of_every_pair(found: list[Access]) -> None:
    """Breaks if a pair that touches one byte is missed, one that only reads is kept, or an op is named twice."""
    columns = [frozen([access[i] for access in found]) for i in (0, 2, 3)]
    last = [max((j for j in range(i) if found[j][1] == found[i][1]), default=-1) for i in range(len(found))]
    arguments = columns[0], columns[1], frozen([low + SIZE for _, _, low, _ in found]), columns[2], frozen(last)
    counts, flat = frozen([0] * 8), frozen([0] * 400)
    conflicts(*arguments, counts, flat)
    at = 0
    for op in range(8):
        mine = [access for access in found if access[0] == op]
        wanted = {
            other
            for other, buffer, low, writes in found
            for _, of, start, writing in mine
            if other < op and buffer == of and abs(low - start) < SIZE and (writes or writing)
        }
        assert sorted(flat[at : at + counts[op]]) == sorted(wanted)
        at += counts[op]


@given(st.data())
def test_pages_remember_the_last_of_each_queue(data: st.DataObject) -> None:
    """Breaks if a read is taken for a write, pages beyond the memory are touched, or an access to many pages takes a
    block that it touches in part for a whole one, or leaves one out."""
    queues, size = 3, data.draw(st.sampled_from((6, 3 * BLOCK, 4 * BLOCK + 7)))
    pages, plain = Pages(size, queues), np.full((2 * queues, 2 * size + 9), -1, np.int32)
    for number in range(data.draw(st.integers(0, 12))):
        first = data.draw(st.integers(0, size - 1))
        end, writes, queue = (
            first + data.draw(st.integers(1, size + 3)),
            data.draw(st.booleans()),
            data.draw(st.integers(0, 2)),
        )
        needs = frozen([-1] * queues)
        pages.last_before(first, end, writes, needs)
        wanted = plain[: 2 * queues if writes else queues, first:end].max(axis=1)
        assert list(needs) == [max(wanted[q::queues]) for q in range(queues)]
        row = queue if writes else queues + queue
        pages.mark(row, first, end, number)
        plain[row, first : min(end, size)] = number
    assert (pages.pages - 1 == plain[:, :size]).all()


def test_transfers_share_the_bus() -> None:
    """Breaks if the bus serves one queue after the other. Worked by hand: a load of 10 cycles comes at 3 and is alone for
    3 of them; from 6 on a store of 10 has every second cycle; at 20 the load ends, and the store has 3 left. A vector
    instruction of 5 cycles waits for the load, whose latency is 4."""
    zeros = frozen([0, 0, 0])
    none = [-1] * 6
    work = Instructions(
        engine=frozen([0, 2, 4]),
        load=zeros,
        busy=frozen([10, 10, 5]),
        last=zeros,
        latency=frozen([4, 0, 0]),
        blocking=zeros,
        waits=frozen([*none, *none, 0, *none[1:]]),
    )
    ends = run(work, frozen([2] * 6), frozen([1, 1, 1, 0, 0, 0]), 3)
    assert list(ends) == [24, 23, 29]


def test_dispatch_stops_at_a_full_queue() -> None:
    """Breaks if instructions behind one that finds no place are handed over. The queue holds one: the second vector
    instruction waits for the first's end at 13, and the load behind it with it."""
    zeros = frozen([0, 0, 0])
    work = Instructions(
        engine=frozen([4, 4, 0]),
        load=zeros,
        busy=frozen([10, 10, 1]),
        last=zeros,
        latency=zeros,
        blocking=zeros,
        waits=frozen([-1] * 18),
    )
    assert list(run(work, frozen([1] * 6), frozen([1, 1, 1, 0, 0, 0]), 3)) == [13, 26, 20]

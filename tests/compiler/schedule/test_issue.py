"""The parts of the schedule's simulation that are compiled, against what they stand for, written the obvious way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compiler.plan.jit import frozen
from compiler.plan.pages import last_before, mark
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
    """Breaks if a read is taken for a write, or pages beyond the memory are touched."""
    queues, size = 3, 6
    pages, plain = np.full((2 * queues, size), -1, np.int32), np.full((2 * queues, size + 9), -1, np.int32)
    for number in range(data.draw(st.integers(0, 12))):
        first = data.draw(st.integers(0, size - 1))
        end, writes, queue = (
            first + data.draw(st.integers(1, 9)),
            data.draw(st.booleans()),
            data.draw(st.integers(0, 2)),
        )
        needs = frozen([-1] * queues)
        last_before(pages, first, end, writes, needs)
        wanted = plain[: 2 * queues if writes else queues, first:end].max(axis=1)
        assert list(needs) == [max(wanted[q::queues]) for q in range(queues)]
        row = queue if writes else queues + queue
        mark(pages, row, first, end, number)
        plain[row, first : min(end, size)] = number
    assert (pages == plain[:, :size]).all()

"""Which bytes of SRAM are a copy of read-only memory at the moment. A matrix instruction that reads one is given packed
weights instead, and a copy that nothing else reads is left out: SRAM does not survive a launch, so no program can tell.

A row of `live` per copy: its step, first and last byte, source, piece, whether it is whole and was read, and the
stretches that are left of it.
"""

from typing import Final

from emulator.replay import operands as op
from emulator.replay.layout import COLS, HIGH, LOW, PLANES, ROWS_
from emulator.replay.rows import jit

COPY_STEP, COPY_LOW, COPY_HIGH, COPY_SOURCE, COPY_PIECE, COPY_WHOLE, COPY_READ, COPY_LEFT, COPY_FIRST = range(9)
STRETCHES: Final = 8
COPY_WIDTH: Final = COPY_FIRST + 2 * STRETCHES
LIVE: Final = 1024  # copies that are followed at a time


@jit
def dense(operand):
    """Whether a block has no gaps."""
    planes, rows, cols = operand[PLANES], operand[ROWS_], operand[COLS]
    return (
        (cols == 1 or operand[op.CS] == 1)
        and (rows == 1 or operand[op.RS] == cols)
        and (planes == 1 or operand[op.PS] == rows * cols)
        and operand[op.DTYPE] != op.I4
    )


@jit
def meets(copy, low, high):
    for i in range(copy[COPY_LEFT]):  # noqa: SIM110 - compiled
        if copy[COPY_FIRST + 2 * i] < high and low < copy[COPY_FIRST + 2 * i + 1]:
            return True
    return False


@jit
def find(live, count, low, high):
    """The copy that has these bytes as they were; -1 if there is none."""
    for i in range(count):
        if live[i, COPY_WHOLE] and live[i, COPY_LOW] <= low and high <= live[i, COPY_HIGH]:
            return i
    return -1


@jit
def read(live, count, low, high):
    """Bytes [low, high) of SRAM were read."""
    for i in range(count):
        if (
            not live[i, COPY_READ]
            and low < live[i, COPY_HIGH]
            and live[i, COPY_LOW] < high
            and meets(live[i], low, high)
        ):
            live[i, COPY_READ] = 1


@jit
def written(live, count, low, high, is_dense, steps, skipped):
    """Bytes of SRAM were written, all of them if the block is dense; gives how many copies are left.

    The step of a copy of which nothing is left, and that was not read, becomes `skipped`.
    """
    kept = 0
    for i in range(count):
        copy = live[i]
        if low < copy[COPY_HIGH] and copy[COPY_LOW] < high and meets(copy, low, high):
            copy[COPY_WHOLE] = 0
            if is_dense:
                _cut(copy, low, high)
        if copy[COPY_LEFT] == 0:
            leave_out(copy, steps, skipped)
            continue
        if kept < i:
            live[kept] = copy
        kept += 1
    return kept


@jit
def _cut(copy, low, high):
    """Take [low, high) from what is left. With no room for another stretch, one stays longer than it is: then the copy
    may be made in vain."""
    count, made = copy[COPY_LEFT], 0
    for i in range(count):
        begin, end = copy[COPY_FIRST + 2 * i], copy[COPY_FIRST + 2 * i + 1]
        if end <= low or high <= begin:
            pass
        elif begin < low and high < end:
            if count < STRETCHES:
                copy[COPY_FIRST + 2 * count], copy[COPY_FIRST + 2 * count + 1] = high, end
                count += 1
                end = low
        elif begin < low:
            end = low
        elif high < end:
            begin = high
        else:
            continue
        copy[COPY_FIRST + 2 * made], copy[COPY_FIRST + 2 * made + 1] = begin, end
        made += 1
    for i in range(copy[COPY_LEFT], count):  # the stretch behind a hole
        copy[COPY_FIRST + 2 * made], copy[COPY_FIRST + 2 * made + 1] = (
            copy[COPY_FIRST + 2 * i],
            copy[COPY_FIRST + 2 * i + 1],
        )
        made += 1
    copy[COPY_LEFT] = made


@jit
def leave_out(copy, steps, skipped):
    if not copy[COPY_READ]:
        steps[copy[COPY_STEP], 0] = skipped


@jit
def begin(live, count, step, target, source, piece):
    """Follow a copy to the block `target`; gives how many are followed."""
    if count == LIVE:
        return count
    copy = live[count]
    copy[COPY_STEP], copy[COPY_LOW], copy[COPY_HIGH] = step, target[LOW], target[HIGH]
    copy[COPY_SOURCE], copy[COPY_PIECE], copy[COPY_WHOLE], copy[COPY_READ] = source, piece, 1, 0
    copy[COPY_LEFT], copy[COPY_FIRST], copy[COPY_FIRST + 1] = 1, target[LOW], target[HIGH]
    return count + 1

"""Lanes: rows that leave lanes of a vector engine idle are cut, and the rest of several of them enters together.

1000 rows of 144 elements, 128 lanes      whole      2000 cycles
                                          128 + 16   1000 + 125 cycles
"""

from functools import cache

from isa.timing import VEC_LATENCY, vector_cycles

FIXED = VEC_LATENCY + 8  # cycles that an instruction more must save


@cache
def cut_columns(rows: int, columns: int, lanes: int) -> tuple[int, ...]:
    """How many columns of so many rows each instruction takes, for the fewest cycles."""
    if columns < 2:
        return (columns,)
    first = columns // lanes * lanes if columns > lanes else 1 << columns.bit_length() - 1
    if first == columns:
        return (columns,)
    parts = first, *cut_columns(rows, columns - first, lanes)
    return parts if sum(_cycles(rows, part, lanes) for part in parts) < _cycles(rows, columns, lanes) else (columns,)


def _cycles(rows: int, columns: int, lanes: int) -> int:
    return vector_cycles(1, rows, columns, lanes) + FIXED

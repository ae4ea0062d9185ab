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
    whole = lambda width: vector_cycles(1, rows, width, lanes) + FIXED  # noqa: E731
    first = columns // lanes * lanes if columns > lanes else 1 << columns.bit_length() - 1
    if not lanes or columns < 2 or first == columns:
        return (columns,)
    parts = first, *cut_columns(rows, columns - first, lanes)
    return parts if sum(map(whole, parts)) < whole(columns) else (columns,)

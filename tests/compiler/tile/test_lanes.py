"""Rows that are cut for the lanes of a vector engine."""

from hypothesis import given
from hypothesis import strategies as st

from compiler.tile.lanes import FIXED, cut_columns
from isa.timing import vector_cycles


def test_a_rest_is_packed() -> None:
    """Breaks when rows of 144 elements take two cycles each on 128 lanes, or short blocks are cut for nothing."""
    assert cut_columns(1000, 144, 128) == (128, 16)
    assert cut_columns(1000, 96, 128) == (64, 32)
    assert cut_columns(8, 144, 128) == (144,)
    assert cut_columns(1000, 768, 128) == (768,)
    assert cut_columns(1000, 32, 128) == (32,)


@given(st.integers(1, 1 << 14), st.integers(1, 5000), st.sampled_from([1, 32, 100, 128, 512]))
def test_cuts_cover_and_pay(rows: int, columns: int, lanes: int) -> None:
    """Breaks when columns are lost, or more instructions take longer than one."""
    parts = cut_columns(rows, columns, lanes)
    assert sum(parts) == columns and min(parts) > 0
    cost = sum(vector_cycles(1, rows, part, lanes) + FIXED for part in parts)
    assert cost <= vector_cycles(1, rows, columns, lanes) + FIXED

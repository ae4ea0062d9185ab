"""Layouts: pieces must address every element of the iteration space once, at the address its layout says."""

from itertools import product
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.tile.ir import Buffer
from compiler.tile.layout import WORD_LIMITS, Layout, blocks, contiguous, dense, pieces
from isa.architecture import Dtype, Space

BUFFER = Buffer("b", Space.SRAM, 1 << 30)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


@st.composite
def spaces(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Layout], bool]:
    """An iteration space, layouts of it (permuted, broadcast), and whether the last dimension must stay whole."""
    shape = draw(shapes)
    row_op = draw(st.booleans())
    layouts = []
    for _ in range(draw(st.integers(1, 3))):
        order = (
            draw(st.permutations(range(len(shape) - 1))) + [len(shape) - 1]
            if row_op
            else draw(st.permutations(range(len(shape))))
        )
        sizes = tuple(1 if draw(st.integers(0, 4)) == 0 else n for n in shape)
        layouts.append(dense(BUFFER, Dtype.F32, sizes, order).broadcast(shape))
    return shape, layouts, row_op


def addresses(layout: Layout, index: tuple[int, ...]) -> int:
    return (layout.offset + sum(i * s for i, s in zip(index, layout.strides, strict=True))) * 4


@given(spaces())
def test_pieces_walk_every_element_once_at_its_address(case: tuple[tuple[int, ...], list[Layout], bool]) -> None:
    """Breaks if coalescing joins dimensions that some layout walks differently, or drops or repeats a part."""
    shape, layouts, row_op = case
    flat = contiguous(shape)
    wanted = {sum(i * s for i, s in zip(index, flat, strict=True)): index for index in product(*map(range, shape))}
    seen = []
    for piece in pieces(shape, layouts, [(0, flat)], row_op=row_op):
        offset, ps, rs, cs = piece.logical[0]
        for p, r, c in product(range(piece.planes), range(piece.rows), range(piece.cols)):
            number = offset + p * ps + r * rs + c * cs
            seen.append(number)
            for layout, ref in zip(layouts, piece.refs, strict=True):
                assert ref is not None and ref.cs in (0, 1)
                assert ref.offset + (p * ref.ps + r * ref.rs + c * ref.cs) * 4 == addresses(layout, wanted[number])
    assert sorted(seen) == sorted(wanted)


@given(spaces())
def test_rows_stay_whole(case: tuple[tuple[int, ...], list[Layout], bool]) -> None:
    """Breaks if a row reduction would see a part of a row, or two rows as one."""
    shape, layouts, _ = case
    for piece in pieces(
        shape, [layout for layout in layouts if layout.strides[-1] in (0, 1)], [(0, contiguous(shape))], row_op=True
    ):
        assert piece.cols == shape[-1]


def test_columns_are_cut_for_lanes() -> None:
    """Breaks if the rest of rows that are cut for a vector engine lies elsewhere, or whole rows are cut."""
    layout = Layout(BUFFER, Dtype.F32, (40, 25, 144), (8000, 200, 1))
    weights = Layout(BUFFER, Dtype.F32, (40, 25, 144), (0, 0, 1), 7)
    logical = [(0, contiguous(layout.shape))]
    cut = list(pieces(layout.shape, [layout, weights], logical, lanes=128))
    assert [(p.planes, p.rows, p.cols) for p in cut] == [(40, 25, 128), (40, 25, 16)]
    assert [[ref.offset for ref in p.refs if ref] for p in cut] == [[0, 28], [128 * 4, 28 + 128 * 4]]
    assert [p.logical[0] for p in cut] == [(0, 25 * 144, 144, 1), (128, 25 * 144, 144, 1)]
    assert len(list(pieces(layout.shape, [layout], row_op=True, lanes=128))) == 1
    assert len(list(pieces(layout.shape, [dense(BUFFER, Dtype.F32, layout.shape)], lanes=128))) == 1


def test_dense_tensors_need_one_word() -> None:
    """Breaks if coalescing stops joining dimensions: every tensor would cost a word per row."""
    layout = dense(BUFFER, Dtype.F32, (4, 8, 16))
    assert [(p.planes, p.rows, p.cols) for p in pieces(layout.shape, [layout])] == [(1, 1, 512)]


def test_extents_respect_the_fields() -> None:
    """Breaks if more planes are asked for than the field can hold."""
    layout = Layout(BUFFER, Dtype.F32, (600, 3, 5), (1000, 100, 1))
    found = list(pieces(layout.shape, [layout]))
    assert max(p.planes for p in found) <= WORD_LIMITS[0] and sum(p.planes * p.rows * p.cols for p in found) == 600 * 15


def test_column_strides_become_rows_of_one_element() -> None:
    """Breaks if a stride that no view can express is put into a word."""
    layout = Layout(BUFFER, Dtype.F32, (7,), (2,))
    (piece,) = pieces(layout.shape, [layout])
    assert (piece.rows, piece.cols) == (7, 1) and piece.refs[0] is not None and piece.refs[0].rs == 2


@given(st.lists(st.integers(1, 6), max_size=4), st.integers(1, 40))
def test_blocks_partition_the_domain(domain: list[int], rows: int) -> None:
    """Breaks if a block is lost, repeated, or larger than asked."""
    points: list[tuple[int, ...]] = []
    for ranges in blocks(domain, rows):
        assert prod(high - low for low, high in ranges) <= rows
        points += product(*(range(low, high) for low, high in ranges))
    assert sorted(points) == sorted(product(*map(range, domain)))


@pytest.mark.parametrize(
    ("shape", "order", "strides"), [((2, 3, 4), (0, 1, 2), (12, 4, 1)), ((2, 3, 4), (1, 0, 2), (4, 8, 1)), ((), (), ())]
)
def test_dense_strides(shape: tuple[int, ...], order: tuple[int, ...], strides: tuple[int, ...]) -> None:
    assert dense(BUFFER, Dtype.F32, shape, order).strides == strides

"""Columns of the tables that `expand` reads and writes: a program in decoded form, the memories of a machine, and what
a launch comes to. Every entry is an int64; constants here are compiled into the kernels."""

from enum import IntEnum
from typing import Final


class Op(IntEnum):
    """What `expand` does at an instruction."""

    NOTHING = 0
    HALT = 1
    LOOP = 2
    SALU = 3
    SLD = 4
    VSET = 5
    VINC = 6
    VADD = 7
    ENGINE = 8
    REFUSED = 9  # only the interpreter knows: what is no instruction, or depends on extents in some other way


NOTHING, HALT, LOOP, SALU, SLD, VSET, VINC, VADD, ENGINE, REFUSED = (int(op) for op in Op)
OP_WIDTH: Final = 9  # the operation, then its operands in the order of the instruction table
IMMEDIATE: Final = 5  # of the operands of salu

# A recipe: how an engine instruction becomes a step. Then its views.
KIND: Final = 0  # of the step, or HANDLED
DYN_S: Final = 1  # the scalar register with the extent, or -1
LIMIT: Final = 2  # the largest value that it may have
EMPTY: Final = 3  # an extent is 0 anyway
VIEW_COUNT: Final = 4
EXTENTS_OF: Final = 5  # the view whose extents are those of the step
TAP_ROUND: Final = 6  # the micro-operation that rounds to the type of the first view, or -1
REDUCES: Final = 7  # along the row, which is not cut then
TRANSPOSED: Final = 8  # weights of a matrix instruction
CONSTANT_WEIGHTS: Final = 9  # their extents do not come from a scalar
WORK: Final = 10  # elements or multiply-adds, for the budget
WORK_MOVES: Final = 11  # times the extent from the scalar
FIRST_VIEW: Final = 12
REGISTER: Final = 0  # columns of a view
READS: Final = 1
WRITES: Final = 2
DIMS: Final = 3  # three; -1 is the extent from the scalar
TYPES: Final = 6  # a bit for each type that the instruction takes
SPACES: Final = 7
KERNEL_TYPES: Final = 8  # a bit for each type that the kernel takes
SLOT: Final = 9
VIEW_WIDTH: Final = 10
VIEW_LIMIT: Final = 8
WEIGHTS: Final = 2, 4, 5  # views of a matrix instruction: weights, their scales, and what they add
RECIPE_WIDTH: Final = FIRST_VIEW + VIEW_LIMIT * VIEW_WIDTH

# A memory: SRAM, ACC, then the regions of DRAM.
SIZE: Final = 0
ADDRESS: Final = 1  # if it lies in one array
SHADOW: Final = 2  # of what was written, or 0
FIRST_PIECE: Final = 3
PIECE_COUNT: Final = 4  # 0: it may be written
JOINED: Final = 5  # the piece that has all bytes, or -1
LOADS: Final = 6  # scalars may be loaded from it: as long as the program has not written there
STORE_WIDTH: Final = 7
PIECE_OFFSET, PIECE_SIZE, PIECE_ADDRESS, PIECE_WIDTH = 0, 1, 2, 3
DRAM_STORES: Final = 2  # memories before the first region

# A view register as it stands.
SET, SPACE, REGION, DTYPE, BASE, RS, PS, CS, STEPS = range(9)
STEP_LIMIT: Final = 8  # increments of one register
REGISTER_WIDTH: Final = STEPS + 1 + 4 * STEP_LIMIT
VALUES: Final = CS - SPACE + 1  # of a register, in a view

# An operand of the instruction at hand.
LOW, HIGH, STORE, PLANES, ROWS_, COLS, WHERE, PIECE, VIEW_SPACE = range(9)
OPERAND_WIDTH: Final = VIEW_SPACE + VALUES

# An instruction that its handler executes.
ROW: Final = 0  # steps before it
WRITTEN: Final = 1  # blocks of DRAM that were written before it
AT: Final = 2
VALUE: Final = 3  # of the extent from the scalar
INDICES: Final = 4
VIEWS_AT: Final = 8
HANDLED_WIDTH: Final = VIEWS_AT + VIEW_LIMIT * VALUES

# A block of DRAM that a step writes: memory, first and last byte, rows.
WRITE_STORE, WRITE_LOW, WRITE_HIGH, WRITE_PLANES, WRITE_ROWS, WRITE_BYTES, WRITE_PS, WRITE_RS = range(8)
WRITE_WIDTH: Final = 8

# Packed weights by what they were made of, and where.
PANEL_SOURCE, PANEL_PS, PANEL_KS, PANEL_NS, PANEL_K, PANEL_N, PANEL_PLANES = range(7)
PANEL_FLAGS: Final = 7  # of a grouped product; 0 for bytes as they are
PANEL_DTYPE: Final = 8
PANEL_SCALES: Final = 9  # twice: source, row and column stride, dtype
PANEL_KEY: Final = PANEL_SCALES + 8
PANEL_ADDRESS: Final = PANEL_KEY
PANEL_STRIDE: Final = PANEL_KEY + 1
PANEL_PIECES: Final = PANEL_KEY  # three of one that is missing: of the weights, the scales and what is added; -1: none
PANEL_WIDTH: Final = PANEL_KEY + 3


class Status(IntEnum):
    """How `expand` ended."""

    DONE = 0
    REFUSED = 1  # the interpreter's turn
    FULL = 2  # a table is too small
    JOIN = 3  # an access goes over a border between pieces


DONE, NOT_DONE, FULL, JOIN = (int(status) for status in Status)
(STATUS, EXIT, STEP_COUNT, HANDLED_COUNT, WRITE_COUNT, LOAD_COUNT, MISSING_COUNT, SPENT, LONGEST_ROW, MOST_ROWS) = (
    range(10)
)
LEFT_BYTES, PACKED_BYTES, WHERE_STORE, WHERE_LOW, WHERE_HIGH, STOPPED = range(10, 16)
INFO_WIDTH: Final = 16
HANDLED: Final = -1  # as the kind of a step

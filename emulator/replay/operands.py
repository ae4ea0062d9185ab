"""Operands of an instruction in compiled code: the view of each as it stands, checked, and where it lies."""

from typing import Final

from emulator.replay import layout as col
from emulator.replay.lanes import inline as jit
from isa.architecture import Dtype, Space

_SPACE, _REGION, _DTYPE, _BASE, _RS, _PS, _CS = (
    col.VIEW_SPACE + column - col.SPACE
    for column in (col.SPACE, col.REGION, col.DTYPE, col.BASE, col.RS, col.PS, col.CS)
)
DTYPE, BASE, RS, PS, CS = _DTYPE, _BASE, _RS, _PS, _CS
I4: Final = int(Dtype.I4)
F32: Final = int(Dtype.F32)
DRAM: Final = int(Space.DRAM)
BITS: Final = tuple(dtype.bits for dtype in Dtype)
FARTHEST: Final = float(1 << 61)  # bytes; beyond, an address could wrap


@jit
def view_of(registers, number, indices, operand):
    """The view in a register as it stands in these loop iterations; false if there is none."""
    register = registers[number]
    if not register[col.SET]:
        return False
    for i in range(col.VALUES):
        operand[col.VIEW_SPACE + i] = register[col.SPACE + i]
    base = register[col.BASE]
    for i in range(register[col.STEPS]):
        at = col.STEPS + 1 + 4 * i
        moved = indices[register[at]]
        if register[at + 2] > 1:  # divisions are slow
            moved //= register[at + 2]
        if register[at + 3]:
            moved %= register[at + 3]
        if float(register[at + 1]) * float(moved) > FARTHEST:
            return False
        base += register[at + 1] * moved
        if abs(float(base)) > FARTHEST:
            return False
    operand[_BASE] = base
    return True


@jit
def locate(operand, stores, pieces, info):
    """Range, alignment and address of a block, once its view and extents are there. Gives a status."""
    dtype = operand[_DTYPE]
    space = operand[_SPACE]
    number = space if space != DRAM else col.DRAM_STORES + operand[_REGION]
    store = stores[number]
    last = (
        (operand[col.PLANES] - 1) * operand[_PS]
        + (operand[col.ROWS_] - 1) * operand[_RS]
        + (operand[col.COLS] - 1) * operand[_CS]
    )
    low = operand[_BASE]
    high = low + (((last + 1) * BITS[dtype] + 7) >> 3)
    operand[col.LOW], operand[col.HIGH], operand[col.STORE], operand[col.PIECE] = low, high, number, -1
    if low < 0 or high > store[col.SIZE] or (dtype != I4 and low & ((BITS[dtype] >> 3) - 1)):
        return col.NOT_DONE
    if not store[col.PIECE_COUNT]:
        operand[col.WHERE] = store[col.ADDRESS] + low
        return col.DONE
    at, first, count = -1, store[col.FIRST_PIECE], store[col.PIECE_COUNT]
    while count:  # the last piece that begins at or before `low`
        half = (count + 1) >> 1
        if pieces[first + half - 1, col.PIECE_OFFSET] <= low:
            at, first, count = first + half - 1, first + half, count - half
        else:
            count = half - 1
    if at < 0 or high - pieces[at, col.PIECE_OFFSET] > pieces[at, col.PIECE_SIZE]:
        at = store[col.JOINED]
        if at < 0:
            info[col.WHERE_STORE], info[col.WHERE_LOW], info[col.WHERE_HIGH] = number, low, high
            return col.JOIN
    operand[col.PIECE] = at
    operand[col.WHERE] = pieces[at, col.PIECE_ADDRESS] + low - pieces[at, col.PIECE_OFFSET]
    return col.DONE


@jit
def resolve(recipe, value, registers, indices, operands, stores, pieces, info):
    """All operands of an engine instruction. Gives a status."""
    for number in range(recipe[col.VIEW_COUNT]):
        at, operand = col.FIRST_VIEW + number * col.VIEW_WIDTH, operands[number]
        if not view_of(registers, recipe[at + col.REGISTER], indices, operand):
            return col.NOT_DONE
        if not (recipe[at + col.TYPES] >> operand[_DTYPE]) & (recipe[at + col.SPACES] >> operand[_SPACE]) & 1:
            return col.NOT_DONE
        for i in range(3):
            extent = recipe[at + col.DIMS + i]
            operand[col.PLANES + i] = value if extent < 0 else extent
        status = locate(operand, stores, pieces, info)
        if status != col.DONE:
            return status
        if recipe[at + col.WRITES] and (stores[operand[col.STORE], col.PIECE_COUNT] or overlaps_itself(operand)):
            return col.NOT_DONE
    return col.DONE


@jit
def overlaps_itself(operand):
    """Whether two elements may share an address: each stride must exceed the reach of all smaller ones."""
    reach, done = 0, 0  # done: a bit for each dimension
    for _ in range(3):
        best, stride = -1, 0
        for i in range(3):
            here = operand[_PS] if i == 0 else (operand[_RS] if i == 1 else operand[_CS])
            if not (done >> i) & 1 and (best < 0 or here < stride):
                best, stride = i, here
        done |= 1 << best
        extent = operand[col.PLANES + best]
        if extent > 1:
            if stride <= reach:
                return True
            reach += stride * (extent - 1)
    return False


@jit
def plain(recipe, operands):
    """Whether a kernel can do it: it takes the types, destinations are contiguous along rows, none lies over another
    one or over part of a source."""
    count = recipe[col.VIEW_COUNT]
    for number in range(count):
        at, operand = col.FIRST_VIEW + number * col.VIEW_WIDTH, operands[number]
        if not (recipe[at + col.KERNEL_TYPES] >> operand[_DTYPE]) & 1:
            return False
        if not recipe[at + col.WRITES]:
            continue
        if not operand[_CS] and operand[col.COLS] > 1:
            return False
        for other in range(count):
            if other == number or not meets(operand, operands[other]):
                continue
            if recipe[col.FIRST_VIEW + other * col.VIEW_WIDTH + col.WRITES] or not same(operand, operands[other]):
                return False
    return True


@jit
def meets(a, b):
    return a[col.STORE] == b[col.STORE] and a[col.LOW] < b[col.HIGH] and b[col.LOW] < a[col.HIGH]


@jit
def same(a, b):
    """Whether two operands are one block."""
    for i in range(col.VALUES):
        if a[col.VIEW_SPACE + i] != b[col.VIEW_SPACE + i]:
            return False
    for i in range(3):  # noqa: SIM110 - compiled
        if a[col.PLANES + i] != b[col.PLANES + i]:
            return False
    return True

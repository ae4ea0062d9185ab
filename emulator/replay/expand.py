"""Follows a program from its binary for one value of the scalars, in compiled code, and writes the steps that it comes
to. Nothing is executed meanwhile, so the interpreter can still take over.

    loop 30: vadd v3, s1 · lda · vqd · mm · vaff      ->     [120 steps with addresses and extents]

Every instruction is checked as the interpreter checks it: registers that were never set, types and memories of views,
extents, range and alignment, memory that is read-only, destinations that overlap themselves. What is wrong, and what
cannot be known beforehand (a scalar from what the program itself wrote), is refused: the interpreter executes the
launch, and says what it has to say. It is not checked here that what is read was written; the interpreter finds that in
the first launch of a program, and lint proves it for all values.
"""

from typing import Any, Final

import numpy as np
from numba import carray

from emulator import budget as costs
from emulator.replay import copied, steps
from emulator.replay import layout as col
from emulator.replay import operands as op
from emulator.replay.cached import compiled
from emulator.replay.executor import COPY, GROUPED, MATMUL, SKIPPED
from emulator.replay.intrinsics import pointer
from emulator.replay.lanes import inline
from emulator.replay.rows import jit
from isa.architecture import LOOP_LEVELS, VIEWS, Dtype, Space
from isa.spec import SALU

ENDLESS: Final = 1 << 24  # instructions, where no budget is given
UNREAD: Final = SKIPPED  # what becomes of a copy that nobody reads
SRAM: Final = int(Space.SRAM)
I32: Final = int(Dtype.I32)
COST_STEP: Final = costs.STEP
MOV, ADD, SUB, MUL, MIN, MAX, CEILDIV, SHL, SHR, AND = range(len(SALU))
assert SALU == ("mov", "add", "sub", "mul", "min", "max", "ceildiv", "shl", "shr", "and")


@inline
def _wrapped(value):
    return ((value + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@inline
def _salu(f, a, b):
    """32-bit arithmetic; ceildiv by 0 is not asked."""
    if f == MOV:
        return b
    if f == ADD:
        return _wrapped(a + b)
    if f == SUB:
        return _wrapped(a - b)
    if f == MUL:
        return _wrapped(a * b)
    if f == MIN:
        return min(a, b)
    if f == MAX:
        return max(a, b)
    if f == CEILDIV:
        return _wrapped(-((-a) // b))
    if f == SHL:
        return _wrapped(a << (b & 31))
    if f == SHR:
        return a >> (b & 31)
    return a & b


@jit
def _load(row, scalars, registers, indices, operand, stores, pieces, written, loads, info):
    """sld: the view as it stands, then the element. Only from memory that the program has not written. Gives a
    status."""
    if not op.view_of(registers, row[2], indices, operand):
        return col.NOT_DONE
    if operand[op.DTYPE] != I32 or operand[col.VIEW_SPACE] != op.DRAM:
        return col.NOT_DONE
    operand[col.PLANES] = operand[col.ROWS_] = operand[col.COLS] = 1
    for moved in (0, row[3] * operand[op.CS] * 4):
        operand[op.BASE] += moved
        status = op.locate(operand, stores, pieces, info)
        if status != col.DONE:
            return status
        store = operand[col.STORE]
        if not stores[store, col.LOADS]:
            return col.NOT_DONE
        if written[store, 0] < operand[col.HIGH] and operand[col.LOW] < written[store, 1]:
            return col.NOT_DONE
        if stores[store, col.SHADOW]:
            shadow = carray(pointer(stores[store, col.SHADOW] + operand[col.LOW]), 4, np.uint8)
            if not (shadow[0] and shadow[1] and shadow[2] and shadow[3]):
                return col.NOT_DONE
    count = info[col.LOAD_COUNT]
    if count == loads.shape[0]:
        return col.FULL
    value = carray(pointer(operand[col.WHERE]), 1, np.int32)[0]
    scalars[row[1]] = value
    loads[count, 0], loads[count, 1] = operand[col.WHERE], value
    info[col.LOAD_COUNT] = count + 1
    return col.DONE


@inline
def _move(row, registers, scalars):
    """vset, vinc and vadd. Gives a status."""
    register = registers[row[1]]
    if row[0] == col.VSET:
        register[col.SET], register[col.STEPS] = 1, 0
        for i in range(col.VALUES):
            register[col.SPACE + i] = row[2 + i]
        return col.DONE
    if not register[col.SET]:
        return col.NOT_DONE
    if row[0] == col.VADD:
        moved = scalars[row[2]] * row[3]
        base = float(register[col.BASE]) + float(moved)
        if abs(float(moved)) > op.FARTHEST or abs(base) > op.FARTHEST:
            return col.NOT_DONE
        register[col.BASE] += moved
        return col.DONE
    count = register[col.STEPS]
    if row[4] == 0 or count == col.STEP_LIMIT:
        return col.NOT_DONE
    for i in range(4):
        register[col.STEPS + 1 + 4 * count + i] = row[2 + i]
    register[col.STEPS] = count + 1
    return col.DONE


@jit
def _handled(handled, at, value, indices, count, operands, info):
    """Note an instruction for its handler. Gives a status."""
    number = info[col.HANDLED_COUNT]
    if number == handled.shape[0]:
        return col.FULL
    row = handled[number]
    row[:] = 0
    row[col.ROW], row[col.WRITTEN] = info[col.STEP_COUNT], info[col.WRITE_COUNT]
    row[col.AT], row[col.VALUE] = at, value
    for i in range(LOOP_LEVELS):
        row[col.INDICES + i] = indices[i]
    for i in range(count):
        for j in range(col.VALUES):
            row[col.VIEWS_AT + i * col.VALUES + j] = operands[i, col.VIEW_SPACE + j]
    info[col.HANDLED_COUNT] = number + 1
    return col.DONE


@inline
def _writes_dram(operand, writes, info):
    """Note a block that counts as written after the launch. Gives a status."""
    count = info[col.WRITE_COUNT]
    if count == writes.shape[0]:
        return col.FULL
    row, bits = writes[count], op.BITS[operand[op.DTYPE]]
    row[col.WRITE_STORE], row[col.WRITE_LOW], row[col.WRITE_HIGH] = (
        operand[col.STORE],
        operand[col.LOW],
        operand[col.HIGH],
    )
    row[col.WRITE_PLANES], row[col.WRITE_ROWS] = operand[col.PLANES], operand[col.ROWS_]
    row[col.WRITE_BYTES] = operand[col.COLS] * bits >> 3
    row[col.WRITE_PS], row[col.WRITE_RS] = operand[op.PS] * bits >> 3, operand[op.RS] * bits >> 3
    info[col.WRITE_COUNT] = count + 1
    return col.DONE


@inline
def _follow(recipe, operands, live, count, bypassed, table, step, written, unread):
    """What the instruction reads and writes, in SRAM and in DRAM. Gives how many copies are followed then."""
    for number in range(recipe[col.VIEW_COUNT]):
        operand = operands[number]
        if (
            operand[col.STORE] == SRAM
            and recipe[col.FIRST_VIEW + number * col.VIEW_WIDTH + col.READS]
            and not (bypassed and number in col.WEIGHTS)
        ):
            copied.read(live, count, operand[col.LOW], operand[col.HIGH])
    for number in range(recipe[col.VIEW_COUNT]):
        if not recipe[col.FIRST_VIEW + number * col.VIEW_WIDTH + col.WRITES]:
            continue
        operand = operands[number]
        if operand[col.STORE] == SRAM:
            is_dense = copied.dense(operand)
            count = copied.written(live, count, operand[col.LOW], operand[col.HIGH], is_dense, table, unread)
        elif operand[col.STORE] >= col.DRAM_STORES:
            reach = written[operand[col.STORE]]
            if reach[0] == reach[1]:
                reach[0], reach[1] = operand[col.LOW], operand[col.HIGH]
            reach[0], reach[1] = min(reach[0], operand[col.LOW]), max(reach[1], operand[col.HIGH])
    if step >= 0 and operands[1][col.PIECE] >= 0 and copied.dense(operands[0]) and copied.dense(operands[1]):
        count = copied.begin(live, count, step, operands[0], operands[1][col.WHERE], operands[1][col.PIECE])
    return count


@inline
def _run(  # noqa: C901 - the dispatcher
    code,
    recipes,
    templates,
    stores,
    pieces,
    panels,
    scalars,
    start,
    most,
    unread,
    table,
    origins,
    handled,
    writes,
    loads,
    missing,
    live,
    info,
    registers,
    operands,
    written,
    indices,
    loops,
    key,
):
    """See `_expand`. `loops` are level, first and last instruction, count."""
    depth, here, spent, followed, size = 0, start, 0, 0, code.shape[0]
    info[:] = 0
    while True:
        if here < 0 or here >= size or spent >= most:
            return col.NOT_DONE
        at, row = here, code[here]
        here, operation, spent = here + 1, row[0], spent + 1
        info[col.STOPPED] = at
        if operation == col.ENGINE:
            recipe, value, status = recipes[row[1]], 0, col.DONE
            if recipe[col.DYN_S] >= 0:
                value = scalars[recipe[col.DYN_S]]
                if value < 0 or value > recipe[col.LIMIT]:
                    return col.NOT_DONE
            if not (recipe[col.EMPTY] or (recipe[col.DYN_S] >= 0 and value == 0)):
                work = recipe[col.WORK] * (value if recipe[col.WORK_MOVES] else 1)
                spent += work >> COST_STEP
                if spent > most:
                    return col.NOT_DONE
                status = op.resolve(recipe, value, registers, indices, operands, stores, pieces, info)
                if status != col.DONE:
                    return status
                number, bypassed, copy = (
                    info[col.STEP_COUNT],
                    False,
                    -1,
                )  # bypassed: weights are not read where they are
                if number == table.shape[0]:
                    return col.FULL
                step = table[number]
                filled = False
                if recipe[col.KIND] != col.HANDLED and op.plain(recipe, operands):
                    filled = steps.fill(step, templates[row[1]], recipe, operands, origins[number] == at)
                    origins[number] = at
                if filled:
                    if step[0] in (MATMUL, GROUPED):
                        bypassed = steps.use_panels(step, recipe, operands, live, followed, panels, missing, key, info)
                    elif step[0] == COPY:
                        copy = number
                    steps.needs(step, info)
                    info[col.STEP_COUNT] = number + 1
                else:
                    status = _handled(handled, at, value, indices, recipe[col.VIEW_COUNT], operands, info)
                for i in range(recipe[col.VIEW_COUNT]):
                    writes_it = recipe[col.FIRST_VIEW + i * col.VIEW_WIDTH + col.WRITES]
                    if (
                        writes_it
                        and operands[i, col.STORE] >= col.DRAM_STORES
                        and (filled or operands[i, op.DTYPE] != op.I4)
                    ):
                        status |= _writes_dram(operands[i], writes, info)
                followed = _follow(recipe, operands, live, followed, bypassed, table, copy, written, unread)
        elif operation == col.NOTHING:
            status = col.DONE
        elif operation == col.SALU:
            b = row[6] if row[5] else scalars[row[4]]
            if row[1] == CEILDIV and b == 0:
                return col.NOT_DONE
            scalars[row[2]] = _salu(row[1], scalars[row[3]], b)
            status = col.DONE
        elif operation == col.SLD:
            status = _load(row, scalars, registers, indices, operands[0], stores, pieces, written, loads, info)
        elif operation == col.LOOP:
            level, count, end = row[1], scalars[row[5]] if row[4] else row[3], here + row[2]
            for i in range(depth):
                if loops[i, 0] == level:
                    return col.NOT_DONE
            if end > (loops[depth - 1, 2] if depth else size):
                return col.NOT_DONE
            if count <= 0 or row[2] == 0:
                here = end
            else:
                loops[depth, 0], loops[depth, 1], loops[depth, 2], loops[depth, 3] = level, here, end, count
                indices[level], depth = 0, depth + 1
            status = col.DONE
        elif operation == col.HALT:
            info[col.EXIT], info[col.SPENT] = row[1], spent
            break
        elif operation == col.REFUSED:
            return col.NOT_DONE
        else:
            status = _move(row, registers, scalars)
        if status != col.DONE:
            return status
        while depth and here == loops[depth - 1, 2]:
            level = loops[depth - 1, 0]
            indices[level] += 1
            if indices[level] < loops[depth - 1, 3]:
                here = loops[depth - 1, 1]
            else:
                indices[level], depth = 0, depth - 1
    for i in range(followed):
        copied.leave_out(live[i], table, unread)
    return col.DONE


@inline
def _table(table):
    """The same memory, without a count of references that every row would change."""
    return carray(pointer(table.ctypes.data), table.shape, np.int64)


def _expand(
    code: Any,
    recipes: Any,
    templates: Any,
    stores: Any,
    pieces: Any,
    panels: Any,
    scalars: Any,
    start: int,
    most: int,
    unread: int,
    table: Any,
    origins: Any,
    handled: Any,
    writes: Any,
    loads: Any,
    missing: Any,
    live: Any,
    info: Any,
) -> int:
    """`info` has what there is beside the status. `scalars` are the launch's, and change. `unread` becomes the kind of a copy
    that nobody reads; `origins` are the instructions that the rows of `table` were made of.

    Gives a status.
    """
    registers = np.zeros((VIEWS, col.REGISTER_WIDTH), np.int64)
    operands = np.zeros((col.VIEW_LIMIT, col.OPERAND_WIDTH), np.int64)
    written = np.zeros((stores.shape[0], 2), np.int64)
    indices = np.zeros(LOOP_LEVELS, np.int64)
    loops = np.zeros((LOOP_LEVELS, 4), np.int64)
    key = np.zeros(col.PANEL_WIDTH, np.int64)
    info[:] = 0
    status = _run(
        _table(code),
        _table(recipes),
        _table(templates),
        _table(stores),
        _table(pieces),
        _table(panels),
        _table(scalars),
        start,
        most,
        unread,
        _table(table),
        _table(origins),
        _table(handled),
        _table(writes),
        _table(loads),
        _table(missing),
        _table(live),
        _table(info),
        _table(registers),
        _table(operands),
        _table(written),
        _table(indices),
        _table(loops),
        _table(key),
    )
    # kept to here: what the tables above point to
    registers[0, 0] = operands[0, 0] = written[0, 0] = indices[0] = loops[0, 0] = key[0] = 0
    return status  # type: ignore[no-any-return]


def _mark(writes: Any, stores: Any) -> None:
    """Blocks of DRAM count as written from now on."""
    for number in range(writes.shape[0]):
        row = writes[number]
        shadow = stores[row[col.WRITE_STORE], col.SHADOW]
        if shadow:
            for plane in range(row[col.WRITE_PLANES]):
                for line in range(row[col.WRITE_ROWS]):
                    at = shadow + row[col.WRITE_LOW] + plane * row[col.WRITE_PS] + line * row[col.WRITE_RS]
                    carray(pointer(at), row[col.WRITE_BYTES], np.uint8)[:] = 1


def _same(loads: Any, count: int) -> bool:
    """Whether memory still has the scalars that were loaded."""
    for number in range(count):  # noqa: SIM110 - compiled
        if carray(pointer(loads[number, 0]), 1, np.int32)[0] != loads[number, 1]:
            return False
    return True


_INTS: Final = "int64[:,::1]"
expand: Final[Any] = compiled(
    _expand,
    f"int64({', '.join([_INTS] * 6)}, int64[::1], int64, int64, int64, {_INTS}, int64[::1], {', '.join([_INTS] * 5)}, int64[::1])",
)
mark: Final[Any] = compiled(_mark, f"void({_INTS}, {_INTS})")
same: Final[Any] = compiled(_same, f"boolean({_INTS}, int64)")

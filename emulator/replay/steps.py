"""From a template and located operands to a step, in compiled code."""

from emulator.replay import copied
from emulator.replay import layout as col
from emulator.replay import operands as op
from emulator.replay.executor import COPY, CUT, GROUPED, MATMUL, PACKED, QUANTIZE, ROWS, SHARED, SOLO
from emulator.replay.gemm import BLOCK, packed_bytes
from emulator.replay.gemm import WIDTH as ROW_WIDTH
from emulator.replay.grouped import FEW, PACKING, PANELS, SS, SUB_LEAST, SW, ZW, W, group_size
from emulator.replay.grouped_panels import group_bytes
from emulator.replay.lanes import inline
from emulator.replay.operands import BITS
from emulator.replay.rows import FIRST_MICRO, FIRST_SLOT, SLOT_WIDTH, SLOTS, STRETCH, WIDTH, jit


@inline
def fill(step, template, recipe, operands, is_there):
    """Slots and extents; gives false if the copy is one that the kernel does not do.

    `is_there`: the row was made from this template before, so most of it need not be written again.
    """
    if is_there and recipe[col.TAP_ROUND] < 0:
        step[0], step[PACKED], step[PACKED + 1] = template[0], template[PACKED], template[PACKED + 1]
    else:
        for i in range(WIDTH):
            step[i] = template[i]
    for number in range(recipe[col.VIEW_COUNT]):
        operand, slot = operands[number], recipe[col.FIRST_VIEW + number * col.VIEW_WIDTH + col.SLOT]
        at, size = FIRST_SLOT + SLOT_WIDTH * slot, max(BITS[operand[op.DTYPE]] >> 3, 1)
        step[at] = operand[col.WHERE]
        step[at + 1] = operand[op.PS] * size
        step[at + 2] = operand[op.RS] * size
        step[at + 3] = operand[op.CS] * size
        step[at + 4] = operand[op.DTYPE]
    whole = operands[recipe[col.EXTENTS_OF]]
    step[1], step[2], step[3] = whole[col.PLANES], whole[col.ROWS_], whole[col.COLS]
    kind = step[0]
    if recipe[col.TAP_ROUND] >= 0:
        _tap_rounding(step, recipe[col.TAP_ROUND], operands[0][op.DTYPE])
    if kind == COPY and not _copy_extents(step, operands[0], operands[1]):
        return False
    if kind == GROUPED and not _grouped(step, operands[1], operands[2]):
        return False
    if kind in (MATMUL, GROUPED):
        step[5] = operands[1][col.COLS]
        if kind == MATMUL and not recipe[col.TRANSPOSED]:
            at = FIRST_SLOT + 2 * SLOT_WIDTH
            step[at + 2], step[at + 3] = step[at + 3], step[at + 2]
    elif kind != QUANTIZE and not recipe[col.REDUCES]:
        if kind == ROWS:
            _join(step)
        _cut(step)
    work = step[1] * step[2] * step[3] * (step[5] // 16 if kind in (MATMUL, GROUPED) else 1)
    step[SOLO] = int(work < SHARED)
    return True


@jit
def _tap_rounding(step, number, dtype):
    """The value that is reduced is the stored one: rounded, unless it is float32 anyway."""
    at = FIRST_MICRO + 2 * number
    if dtype != op.F32:
        step[at + 1] = dtype
        return
    step[at], step[at + 1] = step[at + 2], step[at + 3]
    step[4] -= 1


@inline
def _copy_extents(step, target, source):
    """Rows of bytes, as few as possible."""
    planes, rows, cols = step[1], step[2], step[3]
    if source[op.DTYPE] != target[op.DTYPE] or (not source[op.CS] and cols > 1):
        return False
    if source[op.DTYPE] == op.I4 and not _halves(step, cols):
        return False
    if rows > 1 and source[op.RS] == cols and target[op.RS] == cols:
        rows, cols = 1, rows * cols
    if planes > 1 and rows == 1 and source[op.PS] == cols and target[op.PS] == cols:
        planes, cols = 1, planes * cols
    step[1], step[2], step[3] = planes, rows, (cols * BITS[source[op.DTYPE]]) >> 3
    return True


@jit
def _halves(step, cols):
    """Strides of nibbles as strides of bytes, if every row consists of whole bytes."""
    if cols & 1:
        return False
    for slot in range(2):
        at = FIRST_SLOT + SLOT_WIDTH * slot
        if (step[at + 1] & 1 and step[1] > 1) or (step[at + 2] & 1 and step[2] > 1):
            return False
        step[at + 1], step[at + 2] = step[at + 1] >> 1, step[at + 2] >> 1
    return True


@jit
def _grouped(step, left, weights):
    """Whether both operands go along k without gaps; with sub-scales the handler, with BLAS, is quicker at more than a
    few rows (measured)."""
    step[PANELS] = 0
    return left[op.CS] == 1 and weights[op.CS] == 1 and (step[2] <= FEW or not step[SS])


@jit
def _join(step):
    """Short rows that lie one behind the other, in every operand, as fewer longer ones: each row has its price."""
    planes, rows, cols = step[1], step[2], step[3]
    count = planes * rows
    many = min(count, STRETCH // cols)
    if many < 2:
        return
    for slot in range(SLOTS):
        at = FIRST_SLOT + SLOT_WIDTH * slot
        if step[at + 2] != cols * step[at + 3] or (planes > 1 and step[at + 1] != rows * step[at + 2]):
            return
    while count % many:
        many -= 1
    for slot in range(SLOTS):
        at = FIRST_SLOT + SLOT_WIDTH * slot
        step[at + 1], step[at + 2] = 0, step[at + 2] * many
    step[1], step[2], step[3] = 1, count // many, cols * many


@jit
def _cut(step):
    """One long row, along which nothing is reduced, as several rows that threads can share."""
    cols = step[3]
    pieces = (cols + CUT - 1) // CUT
    if step[1] * step[2] > 1 or pieces < 2 or cols % pieces:
        return
    width = cols // pieces
    for slot in range(SLOTS):
        at = FIRST_SLOT + SLOT_WIDTH * slot
        step[at + 1], step[at + 2] = 0, width * (1 if step[0] == COPY else step[at + 3])
    step[1], step[2], step[3] = 1, pieces, width


@inline
def needs(step, info):
    """Temporary memory for this step."""
    if step[0] == QUANTIZE:
        info[col.LONGEST_ROW] = max(info[col.LONGEST_ROW], step[3])
    elif step[0] == MATMUL:
        rows = (step[2] + BLOCK - 1) // BLOCK * BLOCK
        info[col.MOST_ROWS] = max(info[col.MOST_ROWS], rows)
        info[col.LEFT_BYTES] = max(info[col.LEFT_BYTES], step[2] * (step[5] + 3) * ROW_WIDTH)
        if not step[PACKED]:
            info[col.PACKED_BYTES] = max(info[col.PACKED_BYTES], packed_bytes(step[5], step[3]))
    elif step[0] == GROUPED:
        size = group_size(step)
        groups = (step[5] + size - 1) // size
        sums = step[2] * ((step[5] + SUB_LEAST - 1) // SUB_LEAST)
        info[col.MOST_ROWS] = max(info[col.MOST_ROWS], sums, 2 * BLOCK)
        info[col.LONGEST_ROW] = max(info[col.LONGEST_ROW], step[2] * groups)
        info[col.LEFT_BYTES] = max(info[col.LEFT_BYTES], (step[2] * ROW_WIDTH + 1) * groups * size)
        if not step[PANELS]:
            info[col.PACKED_BYTES] = max(info[col.PACKED_BYTES], groups * group_bytes(size, step[ZW] != 0))


@jit
def place_of(panels, key):
    """Where in the hash table an entry is, or is to go."""
    mask = panels.shape[0] - 1
    place = ((key[0] >> 4) ^ (key[0] >> 20) ^ (key[5] * 31)) & mask
    while panels[place, 0]:
        equal = True
        for i in range(col.PANEL_KEY):
            equal &= panels[place, i] == key[i]
        if equal:
            break
        place = (place + 1) & mask
    return place


@jit
def _source(operand, live, count, key, at, pieces, number):
    """Note of which read-only memory an operand is a copy; false if it is of none."""
    found = copied.find(live, count, operand[col.LOW], operand[col.HIGH])
    if found < 0:
        return False
    key[at] = live[found, copied.COPY_SOURCE] + operand[col.LOW] - live[found, copied.COPY_LOW]
    pieces[number] = live[found, copied.COPY_PIECE]
    return True


@jit
def _scales_key(step, slot, operand, live, count, key, at, pieces, number):
    key[at + 1], key[at + 2], key[at + 3] = step[slot + 2], step[slot + 3], step[slot + 4]
    return _source(operand, live, count, key, at, pieces, number)


@jit
def use_panels(step, recipe, operands, live, count, panels, missing, key, info):
    """Packed weights, if these are a copy of read-only memory; whether they are used."""
    is_grouped = step[0] == GROUPED
    if not recipe[col.CONSTANT_WEIGHTS] or (is_grouped and step[SS]):
        return False
    for i in range(col.PANEL_WIDTH):
        key[i] = 0 if i < col.PANEL_KEY else -1
    pieces = key[col.PANEL_PIECES :]
    if not _source(operands[2], live, count, key, col.PANEL_SOURCE, pieces, 0):
        return False
    key[col.PANEL_PS], key[col.PANEL_KS], key[col.PANEL_NS] = step[W + 1], step[W + 3], step[W + 2]
    key[col.PANEL_K], key[col.PANEL_N], key[col.PANEL_PLANES] = step[5], step[3], step[1] if step[W + 1] else 1
    if is_grouped:
        key[col.PANEL_FLAGS], key[col.PANEL_DTYPE] = step[6] & PACKING | 1, step[W + 4]
        if not _scales_key(step, SW, operands[4], live, count, key, col.PANEL_SCALES, pieces, 1):
            return False
        if step[ZW] and not _scales_key(step, ZW, operands[5], live, count, key, col.PANEL_SCALES + 4, pieces, 2):
            return False
    entry = panels[place_of(panels, key)]
    if entry[0]:
        at = PANELS if is_grouped else PACKED
        step[at], step[at + 1] = entry[col.PANEL_ADDRESS], entry[col.PANEL_STRIDE]
        return True
    wanted = info[col.MISSING_COUNT]
    if wanted < missing.shape[0]:
        for i in range(col.PANEL_WIDTH):
            missing[wanted, i] = key[i]
        info[col.MISSING_COUNT] = wanted + 1
    return False

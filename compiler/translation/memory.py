"""Memory as the replay sees it: for every buffer the symbol of each of its elements.

Constants and inputs are looked up by their address, as the chip will do it, and are not unfolded: a block of them is a
formula, and stays one when an instruction has loaded it, until somebody looks at single elements.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from compiler.tile.ir import Buffer, Ref
from compiler.translation.symbols import BITS, NOTHING, Symbol, Symbols, Value, given, immediate
from isa.architecture import FLOATS, GIVEN_REGIONS, KEPT_REGIONS, Dtype, Region, Space
from isa.views import Extents

SMALL = 1 << 12  # elements; below this a formula is not worth its care


class Wrong(Exception):
    """An instruction does what no instruction may do."""


class Placed(Protocol):
    """A tensor of the interface, or a packed constant, at its place in DRAM."""

    @property
    def node(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def storage(self) -> Dtype: ...
    @property
    def region(self) -> Region: ...
    @property
    def offset(self) -> int: ...
    @property
    def bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Formula:
    """A block of a given value: element (p, r, c) is element `start` + p*steps[0] + r*steps[1] + c*steps[2] of it; or
    of a row that was looked up, by which all are shifted (`symbols.shift_of`)."""

    name: str
    start: int
    steps: tuple[int, int, int]
    shift: Symbol = NOTHING

    def indices(self, extents: Sequence[int]) -> Symbols:
        """The element numbers, repeated dimensions held once."""
        total = np.full((1, 1, 1), self.start % 2**BITS, Symbol)
        for axis, (count, step) in enumerate(zip(extents, self.steps, strict=True)):
            if step and count > 1:
                shape = [1, 1, 1]
                shape[axis] = count
                total = total + (np.arange(count, dtype=Symbol) * Symbol(step % 2**BITS)).reshape(shape)
        return total

    def symbols(self, extents: Extents) -> Symbols:
        return given(self.name, self.indices(extents), self.shift)


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows of a formula in a buffer: row r, place c of it lies at element `at` + r*pitch + c."""

    at: int
    pitch: int
    rows: int
    cols: int
    formula: Formula

    @property
    def end(self) -> int:
        return self.at + (self.rows - 1) * self.pitch + self.cols

    def part(self, at: int, steps: tuple[int, int, int], extents: Extents) -> Formula | None:
        """The formula of a block of the buffer, if it lies in these rows as a formula can say."""
        _, row_step, col_step = self.formula.steps
        row, col = divmod(at - self.at, self.pitch)
        scaled, rows, cols = [], row, col
        for count, step in zip(extents, steps, strict=True):
            if count == 1 or step == 0:
                scaled.append(0)
            elif self.rows > 1 and step % self.pitch == 0:
                rows += (count - 1) * (step // self.pitch)
                scaled.append(step // self.pitch * row_step)
            else:
                cols += (count - 1) * step
                scaled.append(step * col_step)
        if at < self.at or rows >= self.rows or cols >= self.cols:
            return None
        start = self.formula.start + row * row_step + col * col_step
        return replace(self.formula, start=start, steps=(scaled[0], scaled[1], scaled[2]))


@dataclass
class Cells:
    """One buffer, seen as elements of one type. `runs` are formulas that have not been unfolded; `sums` says how long
    the sums in a view of it are so far."""

    buffer: Buffer
    kind: Dtype
    array: Symbols | None = None
    runs: list[_Run] = field(default_factory=list)
    sums: dict[tuple[int, ...], int] = field(default_factory=dict)
    known: dict[tuple[object, ...], Symbols] = field(default_factory=dict)  # what was computed of its present content

    @property
    def elements(self) -> int:
        return self.buffer.bytes * 8 // self.kind.bits

    def unfolded(self) -> Symbols:
        if self.array is None:
            self.array = np.zeros(self.elements, Symbol)
        for run in self.runs:
            block = _view(self.array, run.at, (0, run.pitch, 1), (1, run.rows, run.cols))
            block[...] = run.formula.symbols((1, run.rows, run.cols))
        self.runs.clear()
        return self.array


Element = TypeVar("Element", bound=np.generic)


def _view(array: NDArray[Element], at: int, steps: Sequence[int], extents: Sequence[int]) -> NDArray[Element]:
    """A strided view, repeated dimensions held once. Raises Wrong when it leaves the array."""
    shape, reach = _shape(*steps, *extents)
    if at < 0 or at + reach >= len(array):
        raise Wrong(f"touches elements {at}..{at + reach} of {len(array)}")
    size = array.itemsize
    return np.ndarray(shape, array.dtype, array, size * at, (size * steps[0], size * steps[1], size * steps[2]))


@lru_cache(1 << 14)
def _shape(ps: int, rs: int, cs: int, planes: int, rows: int, cols: int) -> tuple[Extents, int]:
    """The shape of a view, repeated dimensions held once, and the distance of its last element from its first."""
    shape = (planes if ps else 1, rows if rs else 1, cols if cs else 1)
    return shape, (shape[0] - 1) * ps + (shape[1] - 1) * rs + (shape[2] - 1) * cs


@lru_cache(1 << 14)
def _apart(ps: int, rs: int, cs: int, planes: int, rows: int, cols: int) -> bool:
    """Whether every element of a view surely has a place of its own."""
    reach = 0
    for step, count in sorted(((ps, planes), (rs, rows), (cs, cols))):
        if count > 1:
            if step <= reach:
                return False
            reach += (count - 1) * step
    return True


def touched(ref: Ref, extents: Extents) -> NDArray[np.bool_]:
    """Which bytes of its buffer a block touches."""
    size = ref.dtype.bits // 8
    elements = np.zeros(ref.buffer.bytes // size, bool)
    _view(elements, _at(ref), (ref.ps, ref.rs, ref.cs), extents)[...] = True
    return np.repeat(elements, size)


class Memory:
    """All memories during a replay. `iteration` is the loop's, which moves what moves."""

    def __init__(self, given: Iterable[Placed], outputs: Iterable[Placed], literals: Mapping[Buffer, bytes]) -> None:
        self.iteration = 0
        self._cells: dict[Buffer, dict[Dtype, Cells]] = {}
        self._given: dict[Region, tuple[list[int], list[Placed]]] = {}
        for tensor in sorted(given, key=lambda t: t.offset):
            offsets, tensors = self._given.setdefault(tensor.region, ([], []))
            if tensors and tensors[-1].offset + tensors[-1].bytes > tensor.offset:
                raise Wrong(f"{tensor.node} overlaps {tensors[-1].node} in {tensor.region.name.lower()}")
            offsets.append(tensor.offset)
            tensors.append(tensor)
        self._state: dict[str, Symbols] = {}  # of tensors that have been written
        self._literals = {buffer.fixed: data for buffer, data in literals.items()}
        self._outputs = {tensor.offset: tensor for tensor in outputs}

    def given(self, ref: Ref, extents: Extents) -> Formula | None:
        """The block as a formula, if it is of an input or constant where that lies."""
        return self.formula(ref, extents) if _is_given(ref.buffer) else None

    def formula(self, ref: Ref, extents: Extents) -> Formula | None:
        """The block as a formula; None if it is not given, or unfolded already. Raises Wrong where no tensor is, and
        for a block that leaves its tensor or has another type."""
        steps = (ref.ps, ref.rs, ref.cs)
        if not _is_given(ref.buffer) and not _is_kept(ref.buffer):
            cells = self._cells.get(ref.buffer, {}).get(ref.dtype)
            if cells is None or cells.array is not None:
                return None
            return next((part for run in cells.runs if (part := run.part(_at(ref), steps, extents)) is not None), None)
        address = (ref.buffer.fixed or 0) + self.iteration * ref.buffer.step + ref.offset
        if ref.buffer.region is Region.CONST and address in self._literals:
            return None
        offsets, tensors = self._given.get(ref.buffer.region, ([], []))
        number = bisect_right(offsets, address) - 1
        if number < 0:
            raise Wrong(f"reads {ref}, where nothing is")
        tensor = tensors[number]
        start = _element(tensor, address, ref, extents)
        if tensor.node in self._state:
            return None
        return Formula(
            tensor.node,
            start,
            (steps[0] if extents[0] > 1 else 0, steps[1] if extents[1] > 1 else 0, steps[2] if extents[2] > 1 else 0),
        )

    def read(self, ref: Ref, extents: Extents) -> Value:
        """The symbols of a block, repeated dimensions held once. Raises Wrong for more of a
        literal than its one element."""
        if _is_kept(ref.buffer) and self.formula(ref, extents) is None:
            return Value(self._kept(ref, extents), ref.dtype)
        if not _is_given(ref.buffer) and not _is_kept(ref.buffer):
            cells = self.cells(ref)
            return Value(_view(cells.unfolded(), _at(ref), (ref.ps, ref.rs, ref.cs), extents), ref.dtype)
        formula = self.formula(ref, extents)
        if formula is not None:
            return Value(formula.symbols(extents), ref.dtype)
        if max(count if step else 1 for count, step in zip(extents, (ref.ps, ref.rs, ref.cs), strict=True)) > 1:
            raise Wrong(f"reads {ref} beyond its one element")
        data = self._literals[(ref.buffer.fixed or 0) + self.iteration * ref.buffer.step + ref.offset]
        integer = ref.dtype not in FLOATS
        return Value(immediate(integer, int.from_bytes(data, "little")).reshape(1, 1, 1), ref.dtype)

    def target(self, ref: Ref, extents: Extents) -> Symbols:
        """The block to be written. What was known of the buffer is forgotten. Raises Wrong for a buffer that is read
        only, and for elements that share a place."""
        if _is_given(ref.buffer):
            raise Wrong(f"writes {ref}, which is read only")
        if _is_kept(ref.buffer):
            if not _apart(ref.ps, ref.rs, ref.cs, *extents):
                raise Wrong(f"two elements of {ref} share a place")
            return self._kept(ref, extents)
        if ref.buffer.step:
            raise Wrong(f"writes {ref}, which moves with the loop")
        cells = self.cells(ref)
        cells.known.clear()
        self._overwrite(ref, extents)
        block: Symbols = _view(cells.unfolded(), _at(ref), (ref.ps, ref.rs, ref.cs), extents)
        if not _apart(ref.ps, ref.rs, ref.cs, *extents):
            raise Wrong(f"two elements of {ref} share a place")
        return block

    def _kept(self, ref: Ref, extents: Extents) -> Symbols:
        """A block of state as single elements, which what is written there changes."""
        self.formula(ref, extents)  # where there is a tensor of this type
        address = (ref.buffer.fixed or 0) + self.iteration * ref.buffer.step + ref.offset
        offsets, tensors = self._given[ref.buffer.region]
        tensor = tensors[bisect_right(offsets, address) - 1]
        if tensor.node not in self._state:
            count = tensor.bytes * 8 // tensor.storage.bits
            self._state[tensor.node] = given(tensor.node, np.arange(count, dtype=Symbol))
        start = _element(tensor, address, ref, extents)
        return _view(self._state[tensor.node], start, (ref.ps, ref.rs, ref.cs), extents)

    def state(self, tensor: Placed) -> Symbols | None:
        """What a tensor of state is now, flat; None if nothing was written to it."""
        return self._state.get(tensor.node)

    def load(self, ref: Ref, extents: Extents, formula: Formula) -> bool:
        """Keep a formula in a buffer as it is. False if it must be unfolded: it is small, or the buffer holds other
        things."""
        planes, rows, cols = extents
        ps, rs, cs = formula.steps
        if planes * rows * cols < SMALL or _is_given(ref.buffer) or ref.buffer.step or (cols > 1 and ref.cs != 1):
            return False
        if planes > 1:
            if rows > 1 and (ref.ps, ps) != (rows * ref.rs, rows * rs):
                return False
            planes, rows, (pitch, row_step) = 1, planes * rows, (ref.rs, rs) if rows > 1 else (ref.ps, ps)
        else:
            pitch, row_step = ref.rs, rs
        if rows > 1 and pitch == cols and row_step == cols * cs:
            rows, cols = 1, rows * cols
        if rows == 1:
            pitch, row_step = cols, 0
        cells = self.cells(ref)
        at = _at(ref)
        end = at + (rows - 1) * pitch + cols
        if pitch < cols or end > cells.elements:
            return False
        if pitch == cols:  # without gaps: what it covers is gone
            cells.runs = [run for run in cells.runs if not (at <= run.at and run.end <= end)]
            if at == 0 and end == cells.elements:
                cells.array = None
        if cells.array is not None:
            return False
        if any(run.at < end and at < run.end for run in cells.runs):
            cells.unfolded()
            return False
        cells.known.clear()
        self._overwrite(ref, extents)
        cells.runs.append(_Run(at, pitch, rows, cols, replace(formula, steps=(0, row_step, cs))))
        return True

    def cells(self, ref: Ref) -> Cells:
        """The buffer as elements of the view's type. Raises Wrong for elements of 4 bits."""
        kinds = self._cells.get(ref.buffer)
        if kinds is None:
            kinds = self._cells[ref.buffer] = {}
        found = kinds.get(ref.dtype)
        if found is None:
            if ref.dtype is Dtype.I4:
                raise Wrong("4-bit elements are not followed")
            found = kinds[ref.dtype] = Cells(ref.buffer, ref.dtype)
        return found

    def _overwrite(self, ref: Ref, extents: Extents) -> None:
        """Bytes that are written as one type are nothing as any other."""
        kinds = self._cells[ref.buffer]
        if len(kinds) == 1:  # that of the view, which its cells have
            return
        others = [cells for kind, cells in kinds.items() if kind is not ref.dtype]
        lost = touched(ref, extents)
        for cells in others:
            size = cells.kind.bits // 8
            array = cells.unfolded()
            array[lost[: len(array) * size].reshape(len(array), size).any(axis=1)] = 0
            cells.known.clear()
            cells.sums.clear()

    def forget(self, buffers: Iterable[Buffer]) -> None:
        """Give back what these buffers held."""
        for buffer in buffers:
            self._cells.pop(buffer, None)

    def output(self, tensor: Placed) -> Symbols | None:
        """What has been written to an output, flat; None if nothing was."""
        for buffer, kinds in self._cells.items():
            if (
                buffer.space is Space.DRAM
                and buffer.region is Region.OUT
                and buffer.fixed == tensor.offset
                and tensor.storage in kinds
            ):
                return kinds[tensor.storage].unfolded()
        return None


def _element(tensor: Placed, address: int, ref: Ref, extents: Extents) -> int:
    """At which element of a tensor a block begins. Raises Wrong for one that leaves it or has another type."""
    size = ref.dtype.bits // 8
    start, odd = divmod(address - tensor.offset, max(size, 1))
    steps = (ref.ps, ref.rs, ref.cs)
    last = start + sum((count - 1) * step for count, step in zip(extents, steps, strict=True))
    if odd or tensor.storage is not ref.dtype or (last + 1) * size > tensor.bytes:
        raise Wrong(
            f"reads {ref} as elements {start}..{last} of {tensor.node}: {tensor.storage.name.lower()}{list(tensor.shape)}"
        )
    return start


def _is_kept(buffer: Buffer) -> bool:
    return buffer.space is Space.DRAM and buffer.region in KEPT_REGIONS


def _is_given(buffer: Buffer) -> bool:
    return buffer.space is Space.DRAM and buffer.region in GIVEN_REGIONS


def _at(ref: Ref) -> int:
    """The element at which a view begins."""
    at, odd = divmod(ref.offset * 8, ref.dtype.bits)
    if odd:
        raise Wrong(f"{ref} begins inside an element")
    return at

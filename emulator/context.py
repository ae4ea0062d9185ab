"""What handlers see: the registry they join, the executing core, and one call of one instruction."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from emulator.formats import Block, Floats, widen
from emulator.memory import Fault, Memory, Scratch
from isa.architecture import LOOP_LEVELS, SCALARS, VIEWS, Dtype
from isa.codec import Inst
from isa.views import Extents, View

# (pc in bytes, loop index per level, instruction, operands, views in effect, memory), called after an engine
# instruction has executed.
Probe = Callable[[int, tuple[int, ...], Inst, Mapping[str, int], Mapping[str, View], Memory], None]
Tile = tuple[slice, slice]  # planes, rows
TILE_ELEMENTS = 1 << 15  # float32 temporaries of this size stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Step:
    """One `vinc`: the view moves by inc * ((i[level] // div) % mod)."""

    level: int
    inc: int
    div: int
    mod: int


@dataclass(slots=True)
class ViewRegister:
    view: View
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class Loop:
    """An active loop over the instructions [start, end)."""

    level: int
    start: int
    end: int
    count: int


class Core:
    """Everything that changes while a program runs, apart from `Machine`'s decoded instructions. `index` is
    that of the instruction to fetch next."""

    def __init__(self, memory: Memory, scratch: Scratch, size: int, index: int, scalars: list[int]) -> None:
        self.memory, self.scratch, self.size, self.index = memory, scratch, size, index
        self.scalars = scalars + [0] * (SCALARS - len(scalars))
        self.views: list[ViewRegister | None] = [None] * VIEWS
        self.indices = [0] * LOOP_LEVELS
        self.loops: list[Loop] = []
        self.exit: int | None = None
        self.proven = False  # that nothing is read before it is written

    def register(self, number: int) -> ViewRegister:
        """A view register as it stands. Raises Fault when it was never set."""
        register = self.views[number]
        if register is None:
            raise Fault(f"view register v{number} was never set")
        return register

    def view(self, number: int) -> View:
        """The view as it stands in the present loop iterations."""
        register = self.register(number)
        view = register.view
        if not register.steps:
            return view
        base = view.base
        for step in register.steps:
            moved = self.indices[step.level] // step.div
            base += step.inc * (moved % step.mod if step.mod else moved)
        return View(view.space, view.region, view.dtype, base, view.rs, view.ps, view.cs)


@dataclass(slots=True)
class Call:
    """One execution of one instruction: operands after dynamic extents, views in effect, and their blocks of memory.

    Operands that are absent are missing from `views`, `extents` and `blocks`. An instruction reads all its sources
    before it writes: sources that lie partly under a destination have been copied.
    """

    operands: dict[str, int]
    views: dict[str, View]
    extents: dict[str, Extents]
    blocks: dict[str, Block]

    def dtype(self, name: str) -> Dtype:
        return self.views[name].dtype

    def floats(self, name: str, tile: Tile | None = None, out: Floats | None = None) -> Floats:
        """A tile of a source operand as float32."""
        block = self.blocks[name]
        return widen(block if tile is None else cut(block, tile), self.views[name].dtype, out)


Handler = Callable[[Core, Call], None]
HANDLERS: dict[str, Handler] = {}


def executes(*mnemonics: str) -> Callable[[Handler], Handler]:
    """Register the one function that gives each of `mnemonics` its meaning."""

    def register(handler: Handler) -> Handler:
        for mnemonic in mnemonics:
            assert mnemonic not in HANDLERS, f"{mnemonic} already has a handler"
            HANDLERS[mnemonic] = handler
        return handler

    return register


def tiles(extents: Extents, limit: int = TILE_ELEMENTS) -> Iterator[Tile]:
    """Split a block into whole rows, about `limit` elements at a time."""
    planes, rows, cols = extents
    step = max(1, limit // cols)
    if rows <= step:
        step = max(1, step // rows)
        for plane in range(0, planes, step):
            yield slice(plane, min(plane + step, planes)), slice(0, rows)
        return
    for plane in range(planes):
        for row in range(0, rows, step):
            yield slice(plane, plane + 1), slice(row, min(row + step, rows))


def cut(block: Block, tile: Tile) -> Block:
    """The part of a block that belongs to a tile; broadcast dimensions stay as they are."""
    planes, rows, _ = block.shape
    return block[tile[0] if planes > 1 else slice(None), tile[1] if rows > 1 else slice(None)]

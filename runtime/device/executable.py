"""The device: an image on an emulated chip. Binds inputs by name, launches the binary, reads outputs. Needs no torch.

device = Executable(load_image("minilm.llmchip"))
device({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from emulator.banks import bank
from emulator.formats import STORAGE
from emulator.machine import Machine, Probe
from emulator.memory import Bank, Fault, Memory
from emulator.pieces import Bytes, Piece, Pieces
from emulator.threads import Lock
from isa.architecture import GIVEN_REGIONS, IMAGE_REGIONS, Region, Space
from isa.errors import InputError, Trap
from isa.image.image import Image
from isa.image.records import Entry, TensorSpec
from isa.views import View
from runtime.device.arrays import Array, to_storage, to_user

_PASSING = (Region.IN, Region.OUT, Region.SCRATCH)


class Executable:
    """An image with the memories of a chip; calls from several threads take turns. Weights are shared with the image.

    With `interpret` every launch goes instruction by instruction, without compiled kernels: the same bits, slower.
    `adversarial` is a seed: the engines overlap in a random order that the program's dependence counts allow; a program
    without races gives the same bits. `max_instructions` ends a launch that does more (OverBudget); None: programs that
    we made ourselves end.
    """

    def __init__(
        self,
        image: Image,
        interpret: bool = False,
        adversarial: int | None = None,
        constants: Mapping[Region, Pieces] | None = None,
        max_instructions: int | None = None,
    ) -> None:
        """`constants` take the place of the image's own data; inputs and results then lie where other programs' do,
        which take turns."""
        self.image = image
        self._interpret = interpret
        self._adversarial = adversarial
        self.max_instructions = max_instructions
        self._code = bytes(image.code)
        self._bank = bank(image.chip.sram.bytes, image.chip.acc.bytes)
        self._regions = {
            region: np.zeros(image.size(region), np.uint8) for region in Region if region not in IMAGE_REGIONS
        }
        if constants is not None:
            self._regions |= {region: self._bank.region(region, image.size(region)) for region in _PASSING}
        self._constants = constants or {region: _pieces(image, region) for region in IMAGE_REGIONS}
        self._machine: Machine | None = None  # made at the first launch: until then nothing is paid for its memories
        self._lock = Lock()

    @property
    def idle(self) -> Lock:
        """Held while nothing is launched."""
        return self._lock

    def __call__(
        self, inputs: Mapping[str, Array], entry: str | None = None, scalars: Mapping[str, int] | None = None
    ) -> dict[str, Array]:
        return self.run(inputs, entry, scalars)

    def run(
        self,
        inputs: Mapping[str, Array],
        entry: str | None = None,
        scalars: Mapping[str, int] | None = None,
        probe: Probe | None = None,
    ) -> dict[str, Array]:
        """Launch an entry point. Raises InputError for inputs that do not fit, and Trap."""
        point = self.image.entry(entry)
        stored = bind(point, inputs)
        with self._lock, self._bank.lock:
            for spec in point.inputs:
                self.tensor(spec)[...] = stored[spec.name]
            self._set_scalars(point, scalars or {})
            self._launch(point, stored, probe)
            return {spec.name: to_user(spec, self.tensor(spec)) for spec in point.outputs}

    def prepare(
        self, inputs: Mapping[str, Array], entry: str | None = None, scalars: Mapping[str, int] | None = None
    ) -> tuple[Entry, Memory]:
        """Everything before a launch, for who executes the instructions himself (the debugger): the entry point and
        fresh memories."""
        point = self.image.entry(entry)
        stored = bind(point, inputs)
        for spec in point.inputs:
            self.tensor(spec)[...] = stored[spec.name]
        self._set_scalars(point, scalars or {})
        chip = self.image.chip
        return point, Memory(Bank(chip.sram.bytes, chip.acc.bytes), self._memories(), GIVEN_REGIONS)

    def tensor(self, spec: TensorSpec) -> Array:
        """The tensor's place in the chip's memory, not copied."""
        data = self._constants[spec.region].whole() if spec.region in self._constants else self._regions[spec.region]
        return np.ndarray(spec.shape, STORAGE[spec.storage], data.data, spec.offset)

    def _memories(self) -> Mapping[Region, Bytes | Pieces]:
        return {**self._regions, **self._constants}

    def _set_scalars(self, entry: Entry, given: Mapping[str, int]) -> None:
        params = self._regions[Region.PARAMS]
        _same_names("scalar", given, [scalar.name for scalar in entry.scalars])
        for scalar in entry.scalars:
            value = int(given[scalar.name])
            if not scalar.minimum <= value <= scalar.maximum:
                raise InputError(
                    f"scalar '{scalar.name}' is {value}",
                    hint=f"it must be between {scalar.minimum} and {scalar.maximum}",
                )
            params[scalar.offset : scalar.offset + 4] = np.frombuffer(
                value.to_bytes(4, "little", signed=True), np.uint8
            )

    def put_rows(self, spec: TensorSpec, rows: Array) -> None:
        """Write the first rows (third dimension) of a tensor in STATE, as a launch would have done: from now on they
        count as written. `rows` is [B, H, n, ...] of the tensor's [B, H, C, ...]."""
        batch, heads, capacity = spec.shape[:3]
        width = math.prod(spec.shape[3:])
        view = View(Space.DRAM, spec.region, spec.storage, spec.offset, rs=width, ps=capacity * width)
        extents = (batch * heads, rows.shape[2], width)
        with self._lock, self._bank.lock:
            self._made_machine(False).memory.target(view, extents)[...] = rows.reshape(extents)

    def _made_machine(self, nested: bool) -> Machine:
        """`nested`: a probe of another launch on this thread has called us."""
        if self._machine is not None and not nested:
            return self._machine
        chip, memories = self.image.chip, self._memories()
        bank = None if nested else self._bank
        machine = Machine(chip.sram.bytes, chip.acc.bytes, memories, GIVEN_REGIONS, self._interpret, bank=bank)
        self._machine = self._machine if nested else machine
        return machine

    def _launch(self, entry: Entry, inputs: Mapping[str, Array], probe: Probe | None) -> None:
        machine = self._made_machine(nested=self._bank.lock.depth > 1)
        try:
            code = machine.run(
                self._code,
                entry.pc,
                probe=probe,
                node_of=self._node_of,
                adversarial=self._adversarial,
                budget=self.max_instructions,
            )
        except Trap as trap:
            raise _explained(trap, self.image, inputs) from trap.__cause__
        if code:
            raise Trap(f"the program stopped with exit code {code}", entry.pc)
        for spec in entry.outputs:
            _require_written(machine.memory, entry, spec)

    def _node_of(self, pc: int, indices: Sequence[int]) -> str:
        node = self.image.debug.node_at(pc, indices)
        return node.place if node else ""


def bind(entry: Entry, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """All inputs as the chip stores them, checked before anything is written."""
    _same_names("input", inputs, [spec.name for spec in entry.inputs])
    return {spec.name: to_storage(spec, inputs[spec.name]) for spec in entry.inputs}


def _same_names(what: str, given: Mapping[str, object], wanted: Sequence[str]) -> None:
    listed = f"the program takes {', '.join(wanted) or 'none'}"
    for name in wanted:
        if name not in given:
            raise InputError(f"{what} '{name}' is missing", hint=listed)
    for name in given:
        if name not in wanted:
            raise InputError(f"unknown {what} '{name}'", hint=listed)


def _pieces(image: Image, region: Region) -> Pieces:
    """A region's initial data, shared with the image; what lies behind is never written, so it is left out."""
    data = np.frombuffer(image.data(region), np.uint8)
    return Pieces(data.size, {0: Piece(data)})


def _require_written(memory: Memory, entry: Entry, spec: TensorSpec) -> None:
    """An output left out would show what an earlier launch wrote there."""
    if spec.elements:
        try:
            memory.source(View(Space.DRAM, spec.region, spec.storage, spec.offset), (1, 1, spec.elements))
        except Fault as fault:
            raise Trap(f"the program ended without writing all of output '{spec.name}': {fault}", entry.pc) from fault


def _explained(trap: Trap, image: Image, inputs: Mapping[str, Array]) -> Trap:
    """A gather that left its table, in the user's words: which input holds which value, and what would be allowed."""
    inst = image.inst(trap.pc) if 0 <= trap.pc < len(image.code) and "outside a table" in trap.what else None
    if inst is None or inst.mnemonic != "gather":
        return trap
    limit = inst.named()["limit"]
    found = []
    for name, array in inputs.items():
        wrong = np.argwhere((array < 0) | (array >= limit)) if array.dtype == np.int32 else np.empty((0, 0), int)
        found += [(name, index) for index in wrong[:1]]
    if not found:
        return trap
    words = " or ".join(
        f"input '{name}' holds {int(inputs[name][tuple(index)])} at {index.tolist()}" for name, index in found
    )
    better = Trap(
        f"{words}: the table has {limit} rows, so it must be between 0 and {limit - 1}",
        trap.pc,
        trap.instruction,
        trap.node,
    )
    better.hint = "check that the tokenizer belongs to this model"
    return better

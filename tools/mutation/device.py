"""Runs a program, and its mutants, and keeps every bit that `llmcc verify` would compare: outputs and tapped nodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator.machine import Machine
from emulator.memory import Fault, Memory
from isa.architecture import GIVEN_REGIONS, WORD_BYTES, Region
from isa.codec import Inst
from isa.errors import Trap
from isa.image.image import Image
from isa.image.records import TensorSpec
from isa.views import View, extents_of

Inputs = Mapping[str, NDArray[np.uint8]]
Bits = dict[str, bytes]


@dataclass(frozen=True)
class Outcome:
    """What a run left: the bits of outputs and tapped blocks, or the trap that ended it."""

    bits: Bits
    trap: str = ""


class Device:
    """One chip for many runs. The mutants of an image run on its device: they share weights, sizes and interface."""

    def __init__(self, image: Image) -> None:
        self.image = image
        given = {Region.WEIGHTS: image.weights, Region.CONST: image.const}
        self.regions = {
            r: np.frombuffer(given[r], np.uint8) if r in given else np.zeros(image.size(r), np.uint8) for r in Region
        }
        self.machine = Machine(image.chip.sram.bytes, image.chip.acc.bytes, self.regions, GIVEN_REGIONS)
        self.probes: dict[int, list[tuple[int, str]]] = {}
        for number, tap in enumerate(image.debug.probes):
            self.probes.setdefault(tap.pc, []).append((number, tap.operand))

    def run(
        self, code: bytes, inputs: Inputs, seed: int | None = None, moved: Mapping[int, int] | None = None
    ) -> Outcome:
        """Launch from clean memory, in program order or overlapped by `seed`. `moved`: where instructions have changed
        places."""
        entry, bits = self.image.entry(), Bits()
        for spec in (*entry.inputs, *entry.outputs):
            self.place(spec)[...] = inputs.get(spec.name, np.uint8(0))
        try:
            self.machine.run(code, entry.pc, probe=self._probe(bits, moved or {}), adversarial=seed)
        except Trap as trap:
            return Outcome(bits, trap.what)
        return Outcome(bits | {spec.name: self.place(spec).tobytes() for spec in entry.outputs})

    def place(self, spec: TensorSpec) -> NDArray[np.uint8]:
        return self.regions[spec.region][spec.offset : spec.offset + spec.nbytes]

    def _probe(self, bits: Bits, moved: Mapping[int, int]) -> Callable[..., None]:
        def probe(
            pc: int,
            indices: tuple[int, ...],
            inst: Inst,
            operands: Mapping[str, int],
            views: Mapping[str, View],
            memory: Memory,
        ) -> None:
            original = moved.get(pc // WORD_BYTES, pc // WORD_BYTES) * WORD_BYTES
            for number, name in self.probes.get(original, ()):
                if name in views:
                    try:
                        block = memory.load(views[name], extents_of(inst.row.field(name), operands))
                    except Fault as fault:
                        bits[f"tap {number} {indices}"] = str(fault).encode()
                    else:
                        bits[f"tap {number} {indices}"] = repr(block.shape).encode() + block.tobytes()

        return probe

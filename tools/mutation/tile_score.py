"""The measure of the translation check: who notices faults in tile programs, and whether they change a bit.

A mutant *differs* if a run of it, in program order on some of the inputs, traps or gives another bit in an output or a
tapped block. The translation check sees the tile program alone, before any of that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiler.codegen.image import Part, build_image, region_sizes, stored_bytes
from compiler.codegen.program import generate
from compiler.pipeline import Compiled
from compiler.schedule.addresses import place
from compiler.tile.ir import Program
from compiler.translation.check import Interface, TranslationError, check_translation
from isa.errors import Error
from isa.image.image import Image
from tools.mutation.device import Device, Inputs, Outcome
from tools.mutation.pass_faults import seeded
from tools.mutation.tile_faults import TileMutant


@dataclass(frozen=True)
class TileVerdict:
    """What became of one mutant: what the check says of it ("" for nothing), and whether its bits differ."""

    kind: str
    program: str
    what: str
    report: str
    differs: bool

    @property
    def missed(self) -> bool:
        return self.differs and not self.report


def judge_pass(fault: str, name: str, compiling: Callable[[], "TileSubject"]) -> TileVerdict | None:
    """A fault in a tile pass while a model is compiled; None if no program comes of it. Only outputs count: the
    instructions are others."""
    try:
        with seeded(fault):
            faulty = compiling()
    except Exception:  # whatever it is, nobody gets a wrong result of it
        return None
    report = faulty.report(faulty.program)
    return TileVerdict("fault in a pass", name, fault, report, faulty.wrong())


class TileSubject:
    """A compiled program, its tile program as scheduled, and what it computes."""

    def __init__(self, name: str, compiled: Compiled, program: Program, inputs: Sequence[Inputs]) -> None:
        self.name, self.compiled, self.program, self.inputs = name, compiled, program, inputs
        tiled = compiled.tiled
        self.interface = Interface(tiled.inputs, tiled.constants, tiled.outputs, tiled.literals, tiled.instances)
        self.bits = self._run(self.program)

    def report(self, program: Program) -> str:
        """What the translation check has against a program."""
        try:
            check_translation(self.compiled.lowered.main.graph, program, self.interface)
        except TranslationError as error:
            return str(error)
        return ""

    def wrong(self) -> bool:
        """Whether a run traps or gives other outputs than the reference."""
        lowered, constants = self.compiled.lowered, self.compiled.lowered.pack_weights()
        for given, bits in zip(self.inputs, self.bits, strict=True):
            tensors = [_tensor(given[spec.name], spec.shape, spec.dtype) for spec in self.compiled.tiled.inputs]
            for spec, result in zip(self.compiled.tiled.outputs, lowered.run(tensors, constants), strict=True):
                if isinstance(bits, str) or stored_bytes(result).tobytes() != bits[spec.name]:
                    return True
        return False

    def judge(self, mutant: TileMutant, thorough: bool = True) -> TileVerdict | None:
        """None if no image can be made of the mutant. Not `thorough`: what the check reports is believed to differ."""
        report = self.report(mutant.program)
        differs = bool(report)
        if thorough or not report:
            try:
                bits = self._run(mutant.program)
            except (Error, ValueError, AssertionError, OverflowError):
                return None
            differs = any(self._different(a, b) for a, b in zip(self.bits, bits, strict=True))
        return TileVerdict(mutant.kind, self.name, mutant.what, report, differs)

    def _run(self, program: Program) -> list[Mapping[object, bytes] | str]:
        image = self._image(program)
        device = Device(image)
        return [_named(image, device.run(image.code, given)) for given in self.inputs]

    def _image(self, program: Program) -> Image:
        """The program placed, in its order, and generated."""
        compiled = self.compiled
        placement = place(program, compiled.chip, None)
        tiled = replace(compiled.tiled, program=program)
        code = generate(program, placement, compiled.chip, region_sizes(tiled, placement))
        return build_image([Part("main", tiled, placement, code, compiled.lowered.pack_into)], compiled.chip, {})

    @staticmethod
    def _different(a: Mapping[object, bytes] | str, b: Mapping[object, bytes] | str) -> bool:
        if isinstance(a, str) or isinstance(b, str):
            return a != b
        return any(a[key] != b[key] for key in a.keys() & b.keys())


def _named(image: Image, outcome: Outcome) -> Mapping[object, bytes] | str:
    """The bits of outputs and probes, a tap by what it holds and not by where its instruction stands; or the trap."""
    if outcome.trap:
        return outcome.trap
    found: dict[object, bytes] = {}
    for name, bits in outcome.bits.items():
        key: object = name
        if name.startswith("tap "):
            number, indices = name[4:].split(" ", 1)
            tap = image.debug.probes[int(number)]
            shape = bits.partition(b")")[0]
            key = (tap.operand, tap.nodes, tap.offset, tap.ps, tap.rs, tap.cs, indices, shape)
        found[key] = bits
    return found


def _tensor(given: NDArray[np.uint8], shape: Sequence[int], dtype: str) -> Tensor:
    """An input as the reference takes it; 64-bit integers are stored as 32."""
    kind: torch.dtype = getattr(torch, dtype)
    narrow = torch.int32 if kind is torch.int64 else kind
    return torch.from_numpy(given.copy()).view(narrow).reshape(tuple(shape)).to(kind)

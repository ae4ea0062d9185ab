"""Where bits differ from PyTorch: the first instruction whose result is wrong, and what could have made it so.

The program is executed instruction by instruction beside the reference. At the first instruction whose result differs,
the instructions that its wrong value depends on are traced back until values that have been verified, or the host's
data: the *backward slice*. When nothing but verified values goes into the instruction, it is the culprit itself.
Instructions of the slice that the compiler would not have emitted, and packed data it would not have packed, are named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from emulator.formats import STORAGE
from isa.architecture import IMAGE_REGIONS, WORD_BYTES, Dtype, Engine, Space
from isa.asm.text import format_inst
from isa.fields import Kind
from isa.image.image import Image
from isa.image.records import DebugNode, TensorSpec
from runtime.debug.backward_slice import BackwardSlice, Executed, trace_back
from runtime.debug.points import any_element_in, element_bits
from runtime.debug.stepper import NO_CALL, Block, Effect, Stepper
from runtime.device.arrays import Array, comparable
from runtime.device.executable import Executable
from runtime.pytorch.compilation import Known
from runtime.pytorch.tensors import to_array, to_tensor
from runtime.verify.compare import _FLOATS, Comparer, converted
from runtime.verify.reference import LazyReference


@dataclass(frozen=True)
class Bisection:
    """The first wrong instruction, the block it wrote, and where the fault may come from."""

    instruction: Executed
    block: Block
    node: DebugNode
    expected: Array
    actual: Array
    slice: BackwardSlice
    changed: tuple[
        tuple[int, str], ...
    ]  # instructions of the slice that a fresh compilation has otherwise: pc, its text
    stale: tuple[str, ...]  # packed data in the slice that a fresh compilation has otherwise
    inputs: Mapping[str, Array]
    stepper: Stepper

    @property
    def differing(self) -> int:
        return int(np.count_nonzero(self.expected != self.actual))

    @property
    def index(self) -> list[int]:
        """The first wrong element of the block: plane, row, column."""
        return [int(i) for i in np.unravel_index(int(np.argmax(self.expected != self.actual)), self.expected.shape)]

    def as_dict(self) -> dict[str, Any]:
        pick = tuple(self.index)
        return {
            "pc": self.instruction.pc,
            "instruction": format_inst(self.instruction.inst),
            "time": self.instruction.time,
            "indices": list(self.instruction.indices),
            "operand": self.block.name,
            "block": str(self.block.view),
            "extents": list(self.block.extents),
            "node": self.node.name,
            "source": f"{self.node.file}:{self.node.line}: {self.node.code}" if self.node.line else "",
            "differing": self.differing,
            "index": self.index,
            "expected": values(self.expected, self.block.view.dtype)[pick].item(),
            "actual": values(self.actual, self.block.view.dtype)[pick].item(),
            "inputs_verified": len(self.slice.instructions) == 1,
            "suspects": [{"pc": w.pc, "instruction": format_inst(w.inst)} for w in self.slice.instructions],
            "changed": [{"pc": pc, "instruction": text} for pc, text in self.changed],
            "stale_data": list(self.stale),
        }


def values(bits: Array, dtype: Dtype) -> Array:
    """Comparable bits as values for people; bf16 as float32."""
    if dtype is Dtype.BF16:
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits.view(STORAGE.get(dtype, np.dtype(np.int8)))


@dataclass(frozen=True)
class _Wrong:
    instruction: Executed
    block: Block
    node: DebugNode
    expected: Array
    actual: Array


class _FirstWrong(Comparer):
    """A comparer that keeps the first block that differs."""

    wrong: tuple[str, DebugNode, Array, Array] | None = None
    operand = ""

    def _compare(self, tap: Any, *arguments: Any) -> None:
        self.operand = tap.operand
        super()._compare(tap, *arguments)

    def _mark(
        self, state: Any, pc: int, unequal: Any, offset: int, strides: Any, expected: Array, actual: Array, dtype: Dtype
    ) -> None:
        if self.wrong is None:
            self.wrong = self.operand, state.node, expected.copy(), actual.copy()
        super()._mark(state, pc, unequal, offset, strides, expected, actual, dtype)


def bisect(image: Image, compiled: Known, inputs: Mapping[str, Array | Tensor]) -> Bisection | None:
    """The first wrong instruction, or None when every bit is right (or only missing: never written). Raises Trap."""
    arrays = {name: to_array(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    tensors = [to_tensor(np.asarray(arrays[spec.name], order="C"), spec.dtype) for spec in image.entry().inputs]
    reference = LazyReference(compiled.lowered.main, (*tensors, *compiled.lowered.pack_weights()))
    stepper = Stepper(Executable(image), arrays)
    trail, wrong = _run(stepper, _FirstWrong(image, reference), reference)
    if wrong is None:
        return None
    sliced = trace_back(stepper, trail, wrong.instruction, wrong.block)
    fresh = compiled.image()
    return Bisection(
        wrong.instruction, wrong.block, wrong.node, wrong.expected, wrong.actual, sliced,
        tuple(_changed(image, fresh, sliced)), tuple(_stale(image, fresh, sliced)), arrays, stepper,
    )  # fmt: skip


def _run(stepper: Stepper, comparer: _FirstWrong, reference: LazyReference) -> tuple[list[Executed], _Wrong | None]:
    """Execute until an instruction is wrong, or to the end and then look at the outputs."""
    trail: list[Executed] = []
    makers: dict[int, tuple[int, ...]] = {}
    probes = {(tap.pc, tap.operand) for tap in stepper.image.debug.probes}
    with stepper.running():
        while stepper.exit is None:
            effect = stepper.step()
            _define(effect, makers)
            if effect.call is NO_CALL or effect.inst.row.engine is Engine.CTL:
                continue
            stepper.tell(comparer.probe, effect)
            instruction = _executed(effect, makers, probes)
            trail.append(instruction)
            if comparer.wrong is not None:
                operand, node, expected, actual = comparer.wrong
                return trail, _Wrong(
                    instruction, next(b for b in instruction.writes if b.name == operand), node, expected, actual
                )
    for spec, value in zip(stepper.entry.outputs, reference.outputs(), strict=True):
        wrong = _wrong_output(stepper, trail, spec, to_array(value))
        if wrong is not None:
            return trail, wrong
    return trail, None


def _define(effect: Effect, makers: dict[int, tuple[int, ...]]) -> None:
    """Which control instructions made each view register what it is."""
    row = effect.inst.row
    for field, value in zip(row.fields, effect.inst.operands, strict=True):
        if row.engine is Engine.CTL and field.kind is Kind.VIEW and field.access is None:
            makers[value] = (effect.pc,) if effect.inst.mnemonic == "vset" else (*makers.get(value, ()), effect.pc)


def _executed(effect: Effect, makers: Mapping[int, tuple[int, ...]], probes: set[tuple[int, str]]) -> Executed:
    named = effect.inst.named()
    used = sorted({pc for block in (*effect.reads, *effect.writes) for pc in makers.get(named[block.name], ())})
    verified = frozenset(block.name for block in effect.writes if (effect.pc, block.name) in probes)
    return Executed(
        effect.time,
        effect.pc,
        effect.indices,
        effect.inst,
        effect.call.operands,
        effect.reads,
        effect.writes,
        verified,
        tuple(used),
    )


def _wrong_output(stepper: Stepper, trail: Sequence[Executed], spec: TensorSpec, value: Array) -> _Wrong | None:
    """The last instruction that stored the first wrong element of an output."""
    dtype = spec.storage
    wanted = comparable(converted(value, _FLOATS.get(spec.dtype), dtype), dtype).reshape(-1)
    actual = comparable(stepper.device.tensor(spec), dtype).reshape(-1)
    if np.array_equal(wanted, actual):
        return None
    size = dtype.bits // 8
    address = spec.offset + int(np.argmax(wanted != actual)) * size
    for instruction in reversed(trail):
        for block in instruction.writes:
            if block.view.space is not Space.DRAM or block.view.region is not spec.region:
                continue
            if not any_element_in(block.view, block.extents, address, address + size):
                continue
            where = np.broadcast_to((element_bits(block.view, block.extents) // 8 - spec.offset) // size, block.extents)
            if where.min() < 0 or where.max() >= wanted.size:
                continue
            node = stepper.image.debug.node_at(instruction.pc, instruction.indices) or DebugNode(spec.name, "output")
            return _Wrong(instruction, block, node, wanted[where], actual[where])
    return None


def _changed(image: Image, fresh: Image, sliced: BackwardSlice) -> list[tuple[int, str]]:
    """Instructions that took part and that the compiler would have made otherwise."""
    pcs = sorted({pc for instruction in sliced.instructions for pc in (*instruction.makers, instruction.pc)})
    found = []
    for pc in pcs:
        if pc + WORD_BYTES <= len(fresh.code) and fresh.word(pc) != image.word(pc):
            found.append((pc, format_inst(fresh.inst(pc))))
    return found


def _stale(image: Image, fresh: Image, sliced: BackwardSlice) -> list[str]:
    """Packed data that took part and that the compiler would have packed otherwise."""
    found = []
    for block in sliced.host:
        region = block.view.region
        if region in IMAGE_REGIONS:
            low, high = block.view.span(block.extents)
            ours, theirs = (np.frombuffer(i.data(region), np.uint8)[low:high] for i in (image, fresh))
            if not np.array_equal(ours, theirs):
                found.append(f"{block.view} differs from what the model's weights pack to")
    return found

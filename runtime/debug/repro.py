"""A folder that shows one wrong instruction: an image of only the instructions that matter, what goes in, both values,
and a script.

    repro.llmchip   the slice of the wrong instruction, unrolled, fed from inputs instead of the instructions before it
    inputs.npz      the verified blocks and host data that go in
    expected.npy    PyTorch's block           actual.npy   the chip's block
    report.json     what the bisection found  run.py       runs the image and shows the difference
    original_inputs.npz   the inputs of the whole program

Every instruction waits for all engines, so that the cut program has no schedule of its own to be wrong.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isa.architecture import QUEUES, WORD_BYTES, Dtype, Region, Space
from isa.codec import Inst, encode
from isa.errors import InputError
from isa.files import write_atomic
from isa.image.image import Image, write_image
from isa.image.records import DebugMap, DebugNode, Entry, Probe, Span, TensorSpec
from isa.spec import VOP
from isa.views import Extents, View
from runtime.debug.backward_slice import Executed, is_host
from runtime.debug.bisect import Bisection
from runtime.debug.stepper import Block
from runtime.device.arrays import Array
from runtime.device.executable import Executable

FILES = (
    "repro.llmchip", "inputs.npz", "original_inputs.npz", "expected.npy", "actual.npy", "report.json", "run.py",
)  # fmt: skip
ALIGN = 64
ALL = (0,) * len(QUEUES)
_SOURCE, _TARGET = 31, 30  # view registers for what the cut program adds


class _Builder:
    """The cut program as it grows."""

    def __init__(self, found: Bisection) -> None:
        self.found, self.original = found, found.stepper.image
        self.instructions: list[Inst] = []
        self.inputs: list[TensorSpec] = []
        self.data: dict[str, Array] = {}
        self.end = 0  # bytes of IN in use
        self.stage = _aligned(
            self.original.chip.sram.bytes
        )  # behind the chip's own SRAM; the cut image's chip is larger
        self.staged = 0

    def instruction(self, mnemonic: str, **operands: int) -> None:
        self.instructions.append(Inst.make(mnemonic, ALL, **operands))

    def view(self, number: int, view: View) -> None:
        self.instructions.append(
            Inst.make(
                "vset",
                v=number,
                space=int(view.space),
                region=int(view.region),
                dtype=int(view.dtype),
                base=view.base,
                rs=view.rs,
                ps=view.ps,
                cs=view.cs,
            )
        )

    def copy(self, mnemonic: str, target: View, source: View, extents: Extents) -> None:
        self.view(_TARGET, target)
        self.view(_SOURCE, source)
        planes, rows, cols = extents
        extra = {"f": VOP.index("mov")} if mnemonic == "vop" else {}
        self.instruction(mnemonic, d=_TARGET, a=_SOURCE, planes=planes, rows=rows, cols=cols, **extra)

    def add_input(self, name: str, array: Array, dtype: Dtype, shape: tuple[int, ...]) -> int:
        """A new input; gives its offset in IN."""
        offset = self.end
        self.inputs.append(TensorSpec(name, shape, dtype.user, dtype, Region.IN, offset))
        self.data[name] = array
        self.end = _aligned(offset + array.nbytes)
        return offset

    def staging(self, dtype: Dtype, extents: Extents) -> View:
        planes, rows, cols = extents
        self.staged = max(self.staged, planes * rows * cols * dtype.bits // 8)
        return View(Space.SRAM, Region.WEIGHTS, dtype, self.stage, cols, rows * cols)

    def inject(self, name: str, block: Block, stored: Array) -> None:
        """Put a verified block where the program has it at this moment."""
        if block.view.dtype is Dtype.I4:
            raise InputError(
                "a 4-bit block would have to be cut out of its bytes", hint="not supported; use llmcc debug"
            )
        _, rows, cols = block.extents
        offset = self.add_input(name, stored, block.view.dtype, block.extents)
        dense = View(Space.DRAM, Region.IN, block.view.dtype, offset, cols, rows * cols)
        if block.view.space is Space.SRAM:
            self.copy("ldw", block.view, dense, block.extents)
            return
        stage = self.staging(block.view.dtype, block.extents)
        self.copy("ldw", stage, dense, block.extents)
        self.copy("vop" if block.view.space is Space.ACC else "sto", block.view, stage, block.extents)

    def execute(self, instruction: Executed, number: int) -> int:
        """The instruction itself, with its views as they were; gives its pc. The host's data becomes an input."""
        operands, changes = dict(instruction.operands), dict[str, int]()
        blocks = {block.name: block for block in (*instruction.writes, *instruction.reads)}
        for register, (name, block) in enumerate(blocks.items(), 1):
            view = block.view
            if is_host(block):
                low, high = view.span(block.extents)
                raw = self.found.stepper.memory.data(view.space, view.region)[low:high].view(np.int8).copy()
                view = replace(
                    view, region=Region.IN, base=self.add_input(f"host{number}_{name}", raw, Dtype.I8, raw.shape)
                )
            self.view(register, view)
            changes[name] = register
        if "dyn_s" in operands:
            changes |= {"dyn": 0, "dyn_s": 0}
        row = instruction.inst.row
        self.instructions.append(
            Inst(instruction.inst.mnemonic, tuple({**operands, **changes}[f.name] for f in row.fields), ALL)
        )
        return (len(self.instructions) - 1) * WORD_BYTES

    def finish(self, pc: int) -> Image:
        """Store the wrong block to OUT, and close the image."""
        block, original = self.found.block, self.original
        dtype, (planes, rows, cols) = block.view.dtype, block.extents
        offset = _aligned(original.size(Region.OUT))
        dense = View(Space.DRAM, Region.OUT, dtype, offset, cols, rows * cols)
        source = block.view
        if source.space is not Space.SRAM:
            source = self.staging(dtype, block.extents)
            self.copy("vop" if block.view.space is Space.ACC else "lda", source, block.view, block.extents)
        self.copy("sto", dense, source, block.extents)
        self.instruction("halt")
        sizes = list(original.sizes)
        output = TensorSpec("value", block.extents, dtype.user, dtype, Region.OUT, offset)
        sizes[Region.WEIGHTS] = sizes[Region.CONST] = 0
        sizes[Region.IN], sizes[Region.OUT] = self.end, offset + output.nbytes
        chip = msgspec.structs.replace(
            original.chip,
            name="repro",
            sram=msgspec.structs.replace(original.chip.sram, bytes=self.stage + self.staged + ALIGN),
        )
        return Image(
            b"".join(map(encode, self.instructions)),
            sizes=tuple(sizes),
            entries=(Entry("main", 0, tuple(self.inputs), (output,)),),
            chip=chip,
            debug=self._debug(pc, (planes, rows, cols)),
            metadata={"repro": self.found.as_dict()},
        )

    def _debug(self, pc: int, shape: Extents) -> DebugMap:
        node = self.found.node
        record = DebugNode(
            node.name, node.op, shape, node.dtype, node.file, node.line, node.code, node.origins, node.passes
        )
        tap = Probe(pc, self.found.block.name, (0,), ps=shape[1] * shape[2], rs=shape[2])
        return DebugMap((record,), (tap,), (Span(pc, pc + WORD_BYTES, (0,)),))


def cut(found: Bisection) -> tuple[Image, dict[str, Array]]:
    """The image of the slice, and its inputs. Moves the bisection's stepper."""
    builder, stepper = _Builder(found), found.stepper
    events: list[tuple[int, int, Any]] = [(live.time, 0, live) for live in found.slice.live]
    events += [(instruction.time, 1, instruction) for instruction in found.slice.instructions]
    pc = 0
    for number, (time, is_instruction, event) in enumerate(sorted(events, key=lambda e: e[:2])):
        if is_instruction:
            pc = builder.execute(event, number)
        else:
            stepper.seek(time + 1)
            builder.inject(
                f"live{number}_{event.block.name}",
                event.block,
                stepper.memory.load(event.block.view, event.block.extents),
            )
    return builder.finish(pc), builder.data


def write_repro(found: Bisection, folder: Path) -> dict[str, Any]:
    """Write the folder; gives the report, with `reproduced`: whether the cut image alone gives the wrong bits. Raises
    InputError where the folder cannot be written."""
    image, inputs = cut(found)
    dtype = found.block.view.dtype
    result = Executable(image)(inputs)["value"]
    bits = result.view(found.actual.dtype) if dtype.is_float else result
    report = {
        **found.as_dict(),
        "reproduced": bool(np.array_equal(bits, found.actual)),
        "words": image.words,
        "folder": str(folder),
    }
    try:
        folder.mkdir(exist_ok=True)
        write_image(image, folder / "repro.llmchip")
        write_atomic(folder / "inputs.npz", [_npz(inputs)])
        write_atomic(folder / "original_inputs.npz", [_npz(found.inputs)])
        for name, block in (("expected", found.expected), ("actual", found.actual)):
            write_atomic(folder / f"{name}.npy", [_npy(block)])
        write_atomic(folder / "report.json", [json.dumps(report, indent=2).encode()])
        root = str(Path(__file__).resolve().parents[2])
        write_atomic(folder / "run.py", [_SCRIPT.format(root=root, float=dtype in (Dtype.F32, Dtype.F16)).encode()])
    except OSError as error:
        raise InputError(f"cannot write the repro folder: {error.strerror or error}", str(folder)) from error
    return report


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


_SCRIPT = '''"""Runs repro.llmchip on the emulated chip and shows where its block differs from PyTorch's. Exit code 1 while it does.

Needs llmchip and numpy, not PyTorch. `llmcc debug repro.llmchip` steps through the same image.
"""

import json
import sys
from pathlib import Path

import numpy as np

try:
    import isa  # noqa: F401  (an installed llmchip)
except ImportError:
    sys.path.insert(0, {root!r})
from runtime.device.loaded import load

HERE = Path(__file__).resolve().parent
report = json.loads((HERE / "report.json").read_text())
value = load(HERE / "repro.llmchip")(**np.load(HERE / "inputs.npz"))["value"]
expected = np.load(HERE / "expected.npy")
actual = value.view(expected.dtype)
wrong = actual != expected
print(f"node {{report['node']}}, instruction at {{report['pc']:#06x}}: {{report['instruction']}}")
print(f"{{np.count_nonzero(wrong)}} of {{wrong.size}} elements differ (bits, as integers)")
for index in np.argwhere(wrong)[:8]:
    place = tuple(index)
    floats = ""
    if {float}:
        floats = f"   {{expected[place].view(value.dtype)}} / {{value[place]}}"
    print(f"  {{index.tolist()}}: expected {{expected[place]:#x}}, the chip has {{actual[place]:#x}}{{floats}}")
sys.exit(bool(wrong.any()))
'''

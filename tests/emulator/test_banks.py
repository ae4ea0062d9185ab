"""Programs that share SRAM, launches that fork, and memory in pieces."""

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from replay_harness import code, view

from emulator.machine import Machine
from emulator.memory import Bank
from emulator.pieces import Bytes, Piece, Pieces
from isa.architecture import Dtype, Region, Space
from isa.chip import load_chip
from isa.codec import Inst
from isa.errors import Trap
from isa.image.image import Image
from isa.image.records import Entry, TensorSpec
from isa.spec import VOP
from runtime.device.executable import Executable

I32: Any = {"dtype": Dtype.I32}


def shifting(base: int) -> bytes:
    """Adds a block to itself, moved by one element, which needs a copy of it: 4 numbers of IN, then OUT."""
    return code(
        view(1, Space.DRAM, region=Region.IN),
        view(2, Space.SRAM, base),
        view(3, Space.SRAM, base + 4),
        view(4, Space.DRAM, region=Region.OUT),
        Inst.make("lda", d=2, a=1, rows=1, cols=4),
        Inst.make("vop", f=VOP.index("add"), d=3, a=2, b=2, rows=1, cols=4),
        Inst.make("sto", d=4, a=3, rows=1, cols=4),
    )


def test_machines_that_share_a_bank_do_not_meet() -> None:
    """Breaks when a repeated launch asks what another machine wrote, or reads it."""
    bank, data = Bank(4096, 4096), [np.arange(4, dtype=np.float32) + seed for seed in range(2)]
    outs = [np.zeros(16, np.uint8) for _ in data]
    machines = [
        Machine(0, 0, {Region.IN: x.view(np.uint8), Region.OUT: out}, {Region.IN}, bank=bank)
        for x, out in zip(data, outs, strict=True)
    ]
    for _ in range(4):
        for base, machine, x, out in zip((0, 512), machines, data, outs, strict=True):
            out.fill(0)
            machine.run(shifting(base))
            assert out.view(np.float32).tolist() == (2 * x).tolist()


def gathering(limit: int) -> bytes:
    """Row `index` of a table in SCRATCH, of which the program writes the first two rows before, and the others
    behind."""
    scratch: Any = {"region": Region.SCRATCH, "rs": 4, **I32}
    return code(
        view(1, Space.DRAM, region=Region.IN, **I32),
        view(2, Space.DRAM, 0, **scratch),
        view(3, Space.SRAM, 1024, rs=1, **I32),
        view(4, Space.DRAM, 16, Region.IN, rs=4, **I32),
        view(5, Space.SRAM, 2048, rs=4, **I32),
        view(6, Space.DRAM, region=Region.OUT, **I32),
        view(7, Space.DRAM, 32, **scratch),
        view(8, Space.SRAM, 0, rs=4, **I32),
        Inst.make("lda", d=8, a=4, rows=2, cols=4),
        Inst.make("sto", d=2, a=8, rows=2, cols=4),
        Inst.make("lda", d=3, a=1, rows=1, cols=1),
        Inst.make("gather", d=5, a=2, idx=3, n=1, cols=4, limit=limit),
        Inst.make("sto", d=7, a=8, rows=2, cols=4),
        Inst.make("sto", d=6, a=5, rows=1, cols=4),
    )


@pytest.mark.parametrize("limit", [2, 4])
def test_a_row_that_is_written_too_late_traps_in_every_launch(limit: int) -> None:
    """Breaks when the second launch of a program with a race reads what the first one left, in silence."""
    data, out = np.arange(16, dtype=np.int32), np.zeros(16, np.uint8)
    machine = Machine(
        4096,
        4096,
        {Region.IN: data.view(np.uint8), Region.OUT: out, Region.SCRATCH: np.zeros(64, np.uint8)},
        {Region.IN},
    )
    for row in (1, 0, 1, 3, 1, 3):
        data[0] = row
        if row < 2:
            machine.run(gathering(limit))
            assert out.view(np.int32).tolist() == data[4 + 4 * row : 8 + 4 * row].tolist()
        else:
            with pytest.raises(Trap, match="never written" if limit == 4 else "outside a table"):
                machine.run(gathering(limit))


def test_a_region_in_pieces_is_one_region() -> None:
    """Breaks when an access over the border of two pieces, or behind one, reads something else, or a change is not
    seen."""
    pieces = [Piece(np.arange(start, start + 8, dtype=np.uint8)) for start in (0, 100)]
    region = Pieces(32, {0: pieces[0], 16: pieces[1]})
    whole = region.whole()
    assert whole.tolist() == [*range(8), *[0] * 8, *range(100, 108), *[0] * 8]
    for low, high in ((0, 8), (3, 5), (18, 24), (4, 20), (8, 16), (30, 32), (0, 32)):
        piece, start = region.at(low, high)
        assert piece.data[start : start + high - low].tolist() == whole[low:high].tolist()
        assert (piece in pieces) == (high <= 8 or 16 <= low <= high <= 24)

    def twice(made: Bytes) -> None:
        np.multiply(pieces[0].data, 2, out=made)

    doubled = pieces[0].derived("twice", 8, twice)
    pieces[0].change(np.full(8, 7, np.uint8))
    assert doubled.tolist() == [14] * 8 and region.at(0, 8)[0].data[0] == 7
    with pytest.raises(ValueError, match="read-only"):
        pieces[0].data[0] = 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_during_another_threads_launch_can_launch() -> None:
    """Breaks when a child waits for a lock whose holder is not there."""
    spec = {
        name: TensorSpec(name, (4,), "float32", Dtype.F32, region)
        for name, region in (("x", Region.IN), ("y", Region.OUT))
    }
    sizes = tuple(16 if region in (Region.IN, Region.OUT) else 0 for region in Region)
    image = Image(
        shifting(0), sizes=sizes, entries=(Entry("main", 0, (spec["x"],), (spec["y"],)),), chip=load_chip("edge")
    )
    device, x = Executable(image), np.arange(4, dtype=np.float32)
    inside, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        inside.set()
        go_on.wait(20)

    thread = threading.Thread(target=lambda: device.run({"x": x}, probe=hold))
    thread.start()
    assert inside.wait(20)
    child = os.fork()
    if not child:
        signal.alarm(10)
        os._exit(0 if np.array_equal(device({"x": x})["y"], 2 * x) else 1)
    status = os.waitpid(child, 0)[1]
    go_on.set()
    thread.join()
    assert status == 0
    assert np.array_equal(device({"x": x})["y"], 2 * x)

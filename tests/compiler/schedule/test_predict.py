"""The prediction for a program with addresses, beside the timing mode: two pieces of code that share the rules of
isa/timing.py alone."""

import pytest
import torch
from transformers import BertConfig, BertModel

from compiler.frontend.capture import Captured, capture
from compiler.lower import lower
from compiler.options import Options
from compiler.pipeline import finish
from compiler.schedule.predict import PAGE, PAGES, predicted_cycles
from compiler.tile.manager import TileManager
from compiler.tile.state import made
from compiler.tile.storage import ALIGN
from compiler.tiling import tile_program
from emulator.timing.simulate import simulate
from isa.chip import load_chip
from runtime.sweep.axes import axis, chip_at


@pytest.fixture(scope="module")
def captured() -> Captured:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=512
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    return capture(model, (torch.randint(0, 64, (1, 64)),))


@pytest.mark.wide
@pytest.mark.parametrize("speed", ["25GB/s", "400GB/s"])
@pytest.mark.parametrize("sram", ["256KiB", "8MiB"])
def test_a_loop_is_predicted_as_the_timing_mode_runs_it(captured: Captured, speed: str, sram: str) -> None:
    """Breaks when iterations are taken to follow each other without overlap, or when what a full queue, bytes in use or
    a count of at most six hold up is left out."""
    values = {"dram.bytes_per_second": axis("dram.bytes_per_second", speed), "sram.bytes": axis("sram.bytes", sram)}
    chip = chip_at(load_chip(), {key: value.values[0] for key, value in values.items()})
    options, lowered = Options(disable=("translation-check",)), lower(captured)
    state = tile_program(lowered, options, chip, TileManager())
    program = made(state.program)
    assert program.loop is not None
    predicted = predicted_cycles(program, made(state.placement), chip)
    assert predicted == pytest.approx(simulate(finish(lowered, options, chip).image()).cycles, rel=0.02)


def test_neighbours_on_chip_are_told_apart() -> None:
    """Breaks when the pages of a scratchpad are coarser than what buffers are aligned to: one of 8 MiB was predicted 27 %
    too slow, by conflicts that nobody had."""
    assert max(load_chip(name).sram.bytes for name in ("edge", "server")) <= PAGE * PAGES
    assert PAGE == ALIGN

"""What an iteration loads first has its place to itself, so that the next iteration's loads begin early."""

import pytest
from decoders import decoder

from compiler.frontend.decoder import capture_decoder
from compiler.options import Options
from compiler.pipeline import compile_captured
from isa.architecture import Engine, Space


@pytest.mark.wide
def test_the_first_load_of_an_iteration_shares_its_bytes_with_nothing() -> None:
    """Breaks when the planner gives the bytes to what works at the end of an iteration: DRAM then waits for it, 4 % of
    a decode step of SmolLM2."""
    captured = capture_decoder(decoder("Llama", num_hidden_layers=4), 1, 1, 16)
    compiled = compile_captured(captured, Options(disable=("translation-check",)))
    program, placement = compiled.tiled.program, compiled.placement
    assert program.loop is not None
    inside = program.ops[program.loop.first : program.loop.end]
    first = next(op for op in inside if op.row.engine is Engine.LDW)
    (own,) = (ref.buffer for name, ref, _, _ in first.accesses if name == "d")
    begin, end = placement.offsets[own], placement.offsets[own] + own.bytes
    others = {ref.buffer for op in inside for ref in op.views if ref is not None} - {own}
    for other in others:
        if other.space is Space.SRAM:
            at = placement.offsets[other]
            assert at + other.bytes <= begin or at >= end, f"{other} lies over {own}"

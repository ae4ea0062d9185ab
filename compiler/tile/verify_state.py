"""What must be true behind each tile pass. A pass is judged by what it has changed in the state, so that a new one is
judged as well.

    kernels       each operation is in one of them, behind those that it reads (compiler/tile/verify.py)
    batch tiles   they cover the kernels one after the other, and divide the batch of each into equal parts
    assignment    every kernel has tile sizes, every value between kernels a storage
    program       every op is well formed; no byte is read that nobody has written (compiler/tile/verify.py)
    placement     every buffer has an address, its given one if there is one; those that live together lie apart

**Of an order** (a schedule) the program alone is looked at, not the one before it: that each byte is written before it
is read, not by whom. That the value is the right one is for the translation check, which replays the program in its
last order on symbols.

**Of addresses** live ranges are taken from the program again, without the rest that the planner adds to them, in the
order of its ops; then compiler/plan/check.py decides. It follows that an execution of one op after the other overwrites
nothing that is still needed. Engines overlap, and what keeps them to it are the dependence counts, which come later:
lint/races.py. Buffers of DRAM with given addresses (weights, inputs, outputs, state) are not compared with each other.

**Not proved:** that a program is fast, or that heights are the least. Of what the search makes only the states that are
kept are looked at (compiler/tile/manager.py).
"""

from compiler.plan.check import check_plan
from compiler.plan.problem import Block, Plan, Problem
from compiler.tile.decisions import DRAM_LIMIT, Placement
from compiler.tile.ir import Program
from compiler.tile.kernel_graph import KernelGraph
from compiler.tile.state import TileState
from compiler.tile.verify import verify_kernels, verify_program
from isa.architecture import Region, Space
from isa.chip import Chip


def verify_state(state: TileState) -> None:
    """Raise ValueError, or CompileError of the checker of plans, unless what the last pass has changed is whole."""
    before = state.before or TileState(state.chip)
    if state.kernels is not before.kernels:
        verify_kernels(state.kernels)
    graph = state.kernel_graph
    if graph is not None and graph is not before.kernel_graph:
        verify_kernels(graph.kernels, graph.repeat.canonical if graph.repeat else None, graph.stored)
    if graph is not None and state.batch_tiles is not before.batch_tiles:
        _verify_batch_tiles(state, graph)
    if graph is not None and state.assignment is not None and state.assignment is not before.assignment:
        _verify_assignment(state, graph)
    program = state.program
    if program is not None and program is not before.program:
        verify_program(program)
    if program is not None and state.placement is not None and state.placement is not before.placement:
        verify_placement(program, state.placement, state.chip)


def _verify_batch_tiles(state: TileState, graph: KernelGraph) -> None:
    ends = [0, *(batch_tile.end for batch_tile in state.batch_tiles)]
    if [batch_tile.first for batch_tile in state.batch_tiles] != ends[:-1] or ends[-1] != len(graph.kernels):
        raise ValueError("batch tiles do not cover the kernels one after the other")
    for batch_tile in state.batch_tiles:
        if batch_tile.parts > 1 and any(
            not batch_tile.divides(index, graph.kernels[index]) for index in range(batch_tile.first, batch_tile.end)
        ):
            raise ValueError(
                f"kernels {batch_tile.first}..{batch_tile.end - 1} cannot be cut into {batch_tile.parts} equal parts"
            )


def _verify_assignment(state: TileState, graph: KernelGraph) -> None:
    assert state.assignment is not None
    if len(state.assignment.tilings) != len(graph.kernels):
        raise ValueError(f"{len(state.assignment.tilings)} tile sizes for {len(graph.kernels)} kernels")
    for node in graph.live:
        if node not in state.assignment.storage.layouts:
            raise ValueError(f"{node.name} lives between kernels and lies nowhere")


def verify_placement(program: Program, placement: Placement, chip: Chip) -> None:
    """Raises ValueError unless every buffer has an address in its memory, the given one if there is one, and none that
    live together overlap.

    Live ranges are those of the program: what the planner made of them does not matter here.
    """
    for buffer in program.buffers:
        if placement.offsets.get(buffer, -1) < 0 or (
            buffer.fixed is not None and placement.offsets[buffer] != buffer.fixed
        ):
            raise ValueError(f"{buffer} lies at {placement.offsets.get(buffer)}")
    memories = (
        ("sram", Space.SRAM, chip.sram.bytes),
        ("acc", Space.ACC, chip.acc.bytes),
        ("scratch", Space.DRAM, DRAM_LIMIT),
    )
    for name, space, capacity in memories:
        placed = [
            b for b in program.live if b.space is space and (space is not Space.DRAM or b.region is Region.SCRATCH)
        ]
        blocks = tuple(Block(b.name, program.live[b][0], program.live[b][1] + 1, b.bytes) for b in placed)
        height, bound = placement.heights[name]
        plan = Plan({b.name: placement.offsets[b] for b in placed}, height, bound, height == bound)
        check_plan(Problem(blocks, capacity), plan)

"""Tile passes as a reader meets them: printed, stopped at, dumped, timed, verified, named when they fail, left out."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from compiler.frontend.capture import Captured, capture
from compiler.graph.manager import Watch
from compiler.lower import Lowered, lower
from compiler.options import CHOICES, OPTIMISATIONS, Options
from compiler.pipeline import compile_until, finish, graph_passes
from compiler.schedule.stages import Choice
from compiler.tile.ir import Program
from compiler.tile.manager import TileManager
from compiler.tile.parse import parse
from compiler.tile.state import TileState, made
from compiler.tile.verify import verify_kernels, verify_program
from compiler.tile.verify_state import verify_placement, verify_state
from compiler.tiling import Known, tile_passes, tile_pipeline, tile_program
from isa.chip import load_chip
from isa.errors import CompileError, InternalError

EDGE = load_chip("edge")
X = torch.linspace(-2, 2, 40).view(5, 8)
NAMES = [
    "read-graph",
    "fuse",
    "find-loop",
    "fuse-epilogues",
    "split-batch",
    "assign-memory",
    "emit",
    "schedule",
    "place",
]


class Layers(torch.nn.Module):
    """Three equal layers of two products behind another product."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layers = torch.nn.Linear(8, 8), torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        for layer in self.layers:
            x = torch.tanh(layer(x)) + x
        return x


@cache
def captured() -> Captured:
    torch.manual_seed(0)
    return capture(Layers().eval(), (X,))


@cache
def lowered() -> Lowered:
    return lower(captured())


@cache
def state() -> TileState:
    return tile_program(lowered(), Options(), EDGE, TileManager())


def behind(name: str) -> TileState:
    return next(made for made in state().history() if made.last == name)


GOLDEN = {
    "fuse": """\
k0 [5] quantize_rows(quantize_rows) \
← x
k1 [5] matmul_i8(matmul_i8) → dequantize(dequantize) → activation(activation) → quantize_rows(quantize_rows_1) \
← part, first_weight_q, part_1, first_weight_s, first_bias
k2 [5] matmul_i8(matmul_i8_1) → dequantize(dequantize_1) → activation(activation_1) → add(add) → quantize_rows(quantize_rows_2) \
← part_2, layers_0_weight_q, part_3, layers_0_weight_s, layers_0_bias, activation
k3 [5] matmul_i8(matmul_i8_2) → dequantize(dequantize_2) → activation(activation_2) → add(add_1) → quantize_rows(quantize_rows_3) \
← part_4, layers_1_weight_q, part_5, layers_1_weight_s, layers_1_bias, add
k4 [5] matmul_i8(matmul_i8_3) → dequantize(dequantize_3) → activation(activation_3) → add(add_2) → quantize_rows(quantize_rows_4) \
← part_6, layers_2_weight_q, part_7, layers_2_weight_s, layers_2_bias, add_1
k5 [5] matmul_i8(matmul_i8_4) → dequantize(dequantize_4) → activation(activation_4) → add(add_3) → quantize_rows(quantize_rows_5) \
← part_8, layers_3_weight_q, part_9, layers_3_weight_s, layers_3_bias, add_2
k6 [5] matmul_i8(matmul_i8_5) → dequantize(dequantize_5) → activation(activation_5) → add(add_4) → quantize_rows(quantize_rows_6) \
← part_10, layers_4_weight_q, part_11, layers_4_weight_s, layers_4_bias, add_3
k7 [5] matmul_i8(matmul_i8_6) → dequantize(dequantize_6) → activation(activation_6) → add(add_5) \
← part_12, layers_5_weight_q, part_13, layers_5_weight_s, layers_5_bias, add_4
""",
    "find-loop": """\
k0 [5] quantize_rows(quantize_rows) \
← x
k1 [5] matmul_i8(matmul_i8) → dequantize(dequantize) → activation(activation) → quantize_rows(quantize_rows_1) \
← part, first_weight_q, part_1, first_weight_s, first_bias
loop 2 {
  k2 [5] matmul_i8(matmul_i8_1) → dequantize(dequantize_1) → activation(activation_1) → add(add) → quantize_rows(quantize_rows_2) \
← part_2, layers_0_weight_q, part_3, layers_0_weight_s, layers_0_bias, activation
  k3 [5] matmul_i8(matmul_i8_2) → dequantize(dequantize_2) → activation(activation_2) → add(add_1) → quantize_rows(quantize_rows_3) \
← part_4, layers_1_weight_q, part_5, layers_1_weight_s, layers_1_bias, add
}
k4 [5] matmul_i8(matmul_i8_5) → dequantize(dequantize_5) → activation(activation_5) → add(add_4) → quantize_rows(quantize_rows_6) \
← part_10, layers_4_weight_q, part_11, layers_4_weight_s, layers_4_bias, add_3
k5 [5] matmul_i8(matmul_i8_6) → dequantize(dequantize_6) → activation(activation_6) → add(add_5) \
← part_12, layers_5_weight_q, part_13, layers_5_weight_s, layers_5_bias, add_4
value part lives k0..k1
value part_1 lives k0..k1
value part_6 lives k1..k4
value part_7 lives k1..k4
value add_1 lives k1..k4
value part_4 lives k2..k3
value part_5 lives k2..k3
value add lives k2..k3
value part_12 lives k4..k5
value part_13 lives k4..k5
value add_4 lives k4..k5
value add_5 lives k5..k6
""",
    "split-batch": """\
k0..k1 in 1 part
k2..k3 in 1 part
k4..k5 in 1 part
""",
    "assign-memory": """\
value part in %v.part : sram.scratch 64
value part_1 in %v.part_1 : sram.scratch 64
value part_6 in %v.part_6 : sram.scratch 64
value part_7 in %v.part_7 : sram.scratch 64
value add_1 in %v.add_1 : sram.scratch 192
value part_4 in %v.part_4 : sram.scratch 64
value part_5 in %v.part_7 : sram.scratch 64
value add in %v.add_1 : sram.scratch 192
value part_12 in %v.part_12 : sram.scratch 64
value part_13 in %v.part_13 : sram.scratch 64
value add_4 in %v.add_4 : sram.scratch 192
value add_5 in %out.output : dram.out 160 @ 0x0
k0 rows=5, weights stay
k1 rows=5, n=8, weights stay
k2 rows=5, n=8, weights stay
k3 rows=5, n=8, weights stay
k4 rows=5, n=8, weights stay
k5 rows=5, n=8, weights stay
""",
}
# The sums of every product leave the array through its dequantization; what else is there stays as it was.
GOLDEN["fuse-epilogues"] = re.sub(r"matmul_i8\((\w+)\) → dequantize", r"matmul_i8(\1)+dequantize", GOLDEN["find-loop"])


@pytest.mark.parametrize("name", GOLDEN)
def test_what_passes_before_the_program_leave_behind(name: str) -> None:
    """Breaks if the text of kernels, loops, batch tiles or memories changes, or what the passes decide for three small
    layers."""
    assert str(behind(name)) == GOLDEN[name]


def test_passes_are_those_of_the_table_in_order() -> None:
    """Breaks if a pass is in the pipeline and not run, or the benchmark measures what cannot be left out."""
    assert [step.name for step in tile_passes(Options(), EDGE)] == [made.last for made in state().history()] == NAMES


def test_what_can_be_left_out_is_what_the_pipeline_asks_for() -> None:
    """Breaks if a pass can be left out and no option names it, or an option names what nobody asks for."""
    asked = set(CHOICES)

    def on(name: str) -> bool:
        asked.add(name)
        return True

    tile_pipeline(on, Known(EDGE), Choice())
    assert asked == {*OPTIMISATIONS, *CHOICES}
    assert set(OPTIMISATIONS) - set(CHOICES) <= set(NAMES)


def test_tile_passes_print_dump_and_stop(tmp_path: Path) -> None:
    """Breaks if --print-after, --stop-after or --dump-dir do not reach behind the frozen graph, or do more than they
    should."""
    first = len(graph_passes(Options()))
    stream = io.StringIO()
    seconds = compile_until(captured(), Options(), EDGE, Watch({"fuse", "schedule"}, "schedule", tmp_path, stream))
    headers = [line for line in stream.getvalue().splitlines() if line.startswith("# after")]
    assert headers == [
        f"# after {first + NAMES.index('fuse'):02} fuse",
        f"# after {first + NAMES.index('schedule'):02} schedule",
    ]
    assert [path.stem for path in sorted(tmp_path.iterdir())][first:] == [
        f"{first + i:02}-{name}" for i, name in enumerate(NAMES[:-1])
    ]
    assert list(seconds)[first:] == NAMES  # the search has placed it, because what fits decides which program is kept


def test_stopping_before_the_search_does_not_search() -> None:
    """Breaks if --stop-after fuse takes as long as to compile."""
    stream = io.StringIO()
    seconds = compile_until(captured(), Options(), EDGE, Watch({"all"}, "fuse-epilogues", None, stream))
    assert list(seconds)[-2:] == ["find-loop", "fuse-epilogues"]
    seconds = compile_until(captured(), Options(), EDGE, Watch((), "quantize", None, stream))
    assert list(seconds)[-1] == "quantize"


def test_what_is_shown_is_the_program_that_is_kept(tmp_path: Path) -> None:
    """Breaks if another candidate of the search is printed than the one that is compiled."""
    manager = TileManager(Watch(dump_dir=tmp_path))
    kept = tile_program(lowered(), Options(), EDGE, manager)
    assert kept.tiled is not None
    emitted, scheduled = (
        f"{NAMES.index(name):02}-{name}.txt" for name in (NAMES[NAMES.index("schedule") - 1], "schedule")
    )
    assert parse((tmp_path / emitted).read_text()) == kept.tiled.program
    assert parse((tmp_path / scheduled).read_text()) == kept.program


@pytest.mark.parametrize("name", [*sorted({*OPTIMISATIONS, *CHOICES}), "loop", "strips"])
def test_every_pass_that_may_be_left_out_can_be(name: str) -> None:
    """Breaks if a name that `disable` takes is forgotten on the way, old spellings among them."""
    compiled = finish(lowered(), Options(disable=(name,)), EDGE)
    loop = compiled.tiled.program.loop
    assert (loop is None) == (name in ("loop", "find-loop"))
    assert ("schedule" in compiled.timings) == (name != "schedule")
    assert ("translation-check" in compiled.timings) == (name != "translation-check")


@dataclass(frozen=True)
class Broken:
    """Fails."""

    name: ClassVar[str] = "broken"

    def run(self, state: TileState) -> TileState:
        raise KeyError("oh")


@dataclass(frozen=True)
class Forget:
    """Drops the ops at some places."""

    name: ClassVar[str] = "forget"
    places: Sequence[int]

    def run(self, state: TileState) -> TileState:
        tiled = made(state.tiled)
        ops = tuple(op for index, op in enumerate(tiled.program.ops) if index not in self.places)
        return replace(state, tiled=replace(tiled, program=Program(ops)))


def test_a_pass_that_fails_is_named() -> None:
    """Breaks if the fault of a pass is told as another's, or as the user's."""
    with pytest.raises(InternalError, match="pass 3 'broken' failed: KeyError: 'oh'"):
        TileManager(first=3).run([Broken()], TileState(EDGE))


def test_a_pass_that_leaves_something_invalid_is_named() -> None:
    """Breaks if a pass of somebody else's is not verified, or its fault is found in a later one."""
    manager = TileManager(first=11)
    emitted = replace(behind("emit"), schedule=None)
    load = next(i for i, op in enumerate(made(emitted.tiled).program.ops) if op.mnemonic == "lda")
    forgotten = manager.run([Forget([load])], emitted)
    with pytest.raises(
        InternalError, match="pass 18 'forget' left something invalid: .* is read before anything is written to it in"
    ):
        manager.keep(forgotten)


def test_passes_without_a_search_make_a_program() -> None:
    """Breaks if the pipeline, read as a list, is not what is executed when there is nothing to choose."""
    start = TileState(EDGE, made(state().frozen))
    manager = TileManager()
    found = manager.run(tile_pipeline(lambda name: True, Known(EDGE), Choice()), start)
    assert not manager.keep(found)
    assert found.placement is not None


BUFFERS = "%x : dram.in 64 @ 0x0\n%a : sram 64\n%b : sram 64\n%c : acc 64\n%y : dram.out 64 @ 0x0\n"
LOAD = "lda d=%a[0]:f32, a=%x[0]:f32, rows=1, cols=16 ; x\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOAD + "sto d=%y[0]:f32, a=%a[0]:f32, rows=1, cols=16 ; x", ""),
        ("sto d=%y[0]:f32, a=%a[0]:f32, rows=1, cols=16 ; x", "%a is read before anything is written"),
        (
            LOAD.replace("cols=16", "cols=15") + "sto d=%y[0]:f32, a=%a[0]:f32, rows=1, cols=16 ; x",
            "bytes of %a are read that nobody has written",
        ),
        # the left halves of two rows are written, then the right ones: only then is all of it there
        (
            "lda d=%a[0]:f32 rs=8, a=%x[0]:f32 rs=8, rows=2, cols=4 ; x\nsto d=%y[0]:f32 rs=8, a=%a[0]:f32 rs=8, rows=2, cols=4 ; x",
            "",
        ),
        (
            "lda d=%a[0]:f32 rs=8, a=%x[0]:f32 rs=8, rows=2, cols=4 ; x\nsto d=%y[0]:f32, a=%a[0]:f32, rows=1, cols=12 ; x",
            "bytes of %a are read",
        ),
        (LOAD + LOAD, "%a is written again before it was read"),
        (2 * LOAD.replace("cols=16", "cols=15"), "bytes of %a are written again before they were read"),
        (LOAD + LOAD.replace("; x", "; z"), ""),  # somebody else may use a place whose value is not needed any more
        (LOAD + "sto d=%y[0]:f32, a=%a[0]:f32, rows=1, cols=16 ; x\n" + LOAD, ""),
        ("loop 2 {\n" + LOAD + "sto d=%y[0]:f32, a=%a[0]:f32, rows=1, cols=16 ; x\n}", ""),
        (
            "loop 2 {\n" + "sto d=%y[0]:f32, a=%b[0]:f32, rows=1, cols=16 ; x\n" + LOAD.replace("%a", "%b") + "}",
            "%b is read before",
        ),
        ("loop 2 {\n}", "is not a run of the 0 ops"),
        (LOAD.replace("%a[0]", "%a[4]"), "touches bytes 4..68 of %a"),
        (LOAD.replace("lda d=%a", "lda d=%c"), "d may not be acc:f32"),
    ],
)
def test_programs_are_verified(text: str, message: str) -> None:
    """Breaks if an op that is ill-formed, a read of what nobody wrote or a value that is lost is taken, or a program
    that is right refused."""
    program = parse(BUFFERS + text)
    if message:
        with pytest.raises(ValueError, match=message):
            verify_program(program)
    else:
        verify_program(program)


def test_kernels_are_verified() -> None:
    """Breaks if an operation may be computed twice, or before what it reads."""
    kernels = behind("fuse").kernels
    verify_kernels(kernels)
    with pytest.raises(ValueError, match="matmul_i8 in kernel 0 reads part, which is not computed yet"):
        verify_kernels(kernels[1:])
    with pytest.raises(ValueError, match="quantize_rows is computed a second time in kernel 1"):
        verify_kernels([kernels[0], *kernels])


def test_tile_sizes_and_batch_tiles_are_verified() -> None:
    """Breaks if a kernel may be left out by the batch tiles or the tile sizes, or a value may lie nowhere."""
    split, assigned = behind("split-batch"), behind("assign-memory")
    with pytest.raises(ValueError, match="do not cover the kernels"):
        verify_state(replace(split, batch_tiles=(replace(split.batch_tiles[0], first=1), *split.batch_tiles[1:])))
    assignment = made(assigned.assignment)
    with pytest.raises(ValueError, match="tile sizes for"):
        verify_state(replace(assigned, assignment=replace(assignment, tilings=assignment.tilings[1:])))
    layouts = dict(assignment.storage.layouts)
    layouts.pop(next(iter(made(assigned.kernel_graph).live)))
    with pytest.raises(ValueError, match="lies nowhere"):
        verify_state(
            replace(assigned, assignment=replace(assignment, storage=replace(assignment.storage, layouts=layouts)))
        )


def test_addresses_are_verified() -> None:
    """Breaks if buffers that live together may overlap, one may lie nowhere, or a given address may be moved."""
    program, placement = made(state().program), made(state().placement)
    verify_placement(program, placement, EDGE)

    def at(offsets: dict[str, int]) -> None:
        moved = {b: offsets.get(b.name, offset) for b, offset in placement.offsets.items()}
        verify_placement(program, replace(placement, offsets=moved), EDGE)

    op = next(op for op in program.ops if op.mnemonic == "mm")
    a, w = (made(ref).buffer for ref in op.views[1:3])
    with pytest.raises(CompileError, match="overlaps"):
        at({a.name: placement.offsets[w]})
    with pytest.raises(ValueError, match="lies at -1"):
        at({a.name: -1})
    fixed = next(b for b in program.buffers if b.fixed is not None)
    with pytest.raises(ValueError, match="lies at 4096"):
        at({fixed.name: 4096})

"""The text of a tile program says all that the program holds."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compiler.frontend.capture import capture
from compiler.options import Options
from compiler.pipeline import compile_captured
from compiler.tile.ir import Buffer, Length, Loop, Op, Probe, Program, Ref
from compiler.tile.parse import parse
from isa.architecture import Dtype, Engine, Region, Space
from isa.fields import Instruction, Kind
from isa.spec import ISA
from tools.mutation.subjects import TILE_MODELS, tile_compiled

ROWS = [row for row in ISA.values() if row.engine is not Engine.CTL]
NUMBERS = st.integers(-(1 << 40), 1 << 40)
COUNTS = st.integers(0, 1 << 40)
NAMES = st.one_of(st.sampled_from(["x", "k0.x.in.1", "constant.f32.3f800000"]), st.text(max_size=6))

GOLDEN = """\
%k0.input_1.in.1 : sram 32
%in.input : dram.in 32 @ 0x0
%v.part : sram.scratch 64
%v.part_1 : sram.scratch 64
%k1.weight_s.in.1 : sram 12
%const.weight_s : dram.const 12 @ 0x0
%k1.bias.in.2 : sram 12
%const.bias : dram.const 12 @ 0x40
%k1.weight_q.in.5 : sram 12
%weights.weight_q : dram.weights 12 @ 0x0
%k1.matmul_i8.acc.4 : acc 24
%k1.dequantize.3 : sram 24
%out.output : dram.out 24 @ 0x0
lda d=%k0.input_1.in.1[0]:f32, a=%in.input[0]:f32, planes=1, rows=1, cols=8 ; input_1
vqd d=%v.part[0]:i8 rs=4, s=%v.part_1[0]:f32 rs=1 cs=0, a=%k0.input_1.in.1[0]:f32 rs=4, planes=1, rows=2, cols=4 \
; quantize_rows | d=part[0] rs=4 | s=part_1[0] rs=1 cs=0
ldw d=%k1.weight_s.in.1[0]:f32, a=%const.weight_s[0]:f32, planes=1, rows=1, cols=3 ; weight_s
ldw d=%k1.bias.in.2[0]:f32, a=%const.bias[0]:f32, planes=1, rows=1, cols=3 ; bias
ldw d=%k1.weight_q.in.5[0]:i8, a=%weights.weight_q[0]:i8, planes=1, rows=1, cols=12 ; weight_q
mm c=%k1.matmul_i8.acc.4[0]:i32 rs=3, a=%v.part[0]:i8 rs=4, w=%k1.weight_q.in.5[0]:i8 rs=4, m=2, n=3, k=4, b=1, wt, acc=0 ; matmul_i8
vaff d=%k1.dequantize.3[0]:f32 rs=3, a=%k1.matmul_i8.acc.4[0]:i32 rs=3, rs=%v.part_1[0]:f32 rs=1 cs=0, \
cs=%k1.weight_s.in.1[0]:f32, bi=%k1.bias.in.2[0]:f32, planes=1, rows=2, cols=3, rnd=none ; dequantize | d=dequantize[0] rs=3
sto d=%out.output[0]:f32, a=%k1.dequantize.3[0]:f32, planes=1, rows=1, cols=6 ; dequantize
"""


def test_the_text_of_a_linear() -> None:
    """Breaks if the text of a program changes: people read it, and files that were dumped are compared."""
    module = torch.nn.Linear(4, 3).eval()
    compiled = compile_captured(capture(module, (torch.zeros(2, 4),)), Options(disable=("schedule",)))
    assert str(compiled.tiled.program) == GOLDEN
    assert parse(GOLDEN) == compiled.tiled.program


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "bert-1 small" else n for n in TILE_MODELS]
)
def test_programs_of_models_are_parsed_back(name: str) -> None:
    """Breaks if the text leaves something out that the compiler makes, as emitted or as scheduled: a loop, a step, a
    tap, an attribute."""
    compiled, scheduled, _ = tile_compiled(name, inputs=1)
    for program in (compiled.tiled.program, scheduled):
        assert parse(str(program)) == program


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs that need not be well formed, except that buffers differ by their names."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    buffers = [
        draw(
            st.builds(
                Buffer,
                st.just(name),
                st.sampled_from(Space),
                NUMBERS,
                st.sampled_from(Region),
                st.none() | NUMBERS,
                NUMBERS,
            )
        )
        for name in names
    ]
    ops = [draw(ops_over(draw(st.sampled_from(ROWS)), buffers)) for _ in range(draw(st.integers(0, 4)))]
    first = draw(st.integers(0, len(ops)))
    loop = draw(st.none() | st.builds(Loop, st.just(first), st.integers(first, len(ops)), NUMBERS))
    return Program(tuple(ops), loop)


def ops_over(row: Instruction, buffers: list[Buffer]) -> st.SearchStrategy[Op]:
    lengths = st.builds(Length, st.sampled_from(buffers), COUNTS, COUNTS, NUMBERS, COUNTS, st.booleans())
    plain = st.builds(Ref, st.sampled_from(buffers), NUMBERS, st.sampled_from(Dtype), NUMBERS, NUMBERS, NUMBERS)
    refs = plain | st.builds(lambda ref, length, unit: replace(ref, moved=length, unit=unit), plain, lengths, COUNTS)
    fields = [field for field in row.fields if field.kind is not Kind.VIEW]
    attrs: st.SearchStrategy[Any] = st.lists(
        st.tuples(st.sampled_from([f.name for f in fields]), NUMBERS | st.integers(0, 8)),
        max_size=5,
        unique_by=lambda attr: attr[0],
    ).map(tuple)
    probes = st.lists(
        st.builds(Probe, st.sampled_from([f.name for f in row.views]), NAMES, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        max_size=3,
    ).map(tuple)
    views = st.tuples(*(st.none() | refs for _ in row.views))
    cuts = st.none() | st.tuples(st.sampled_from([f.name for f in fields]), lengths)
    return st.builds(Op, st.just(row.mnemonic), views, attrs, NAMES, probes, cuts)


@given(programs())
def test_any_program_is_parsed_back(program: Program) -> None:
    """Breaks if a name needs quotes that it does not get, or a number, type, memory or attribute is lost or read as
    another."""
    assert parse(str(program)) == program


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%a : sram 4\n%a : sram 4", "line 2: %a is declared twice"),
        ("%a : rom 4", "line 1: 'ROM'"),
        ("vop d=%a[0]:f32, f=add ; x", "line 1: 'a'"),
        ("%a : sram 4\nvop x=%a[0]:f32, f=add ; x", "line 2: vop has no view x"),
        ("%a : sram 4\nvop d=%a[0]:f32, f=add", "`; node` is missing"),
        ("%a : sram 4\nvop d=%a[0]:f32, f ; x", "f needs a value"),
        ("%a : sram 4\nvop d=%a[0]:f32, f=add ; x y", "not understood: ' y'"),
        ("%a : sram 4\nvop d=%a[0]:f32, colz=3 ; x", "line 2: \"vop has no operand 'colz'"),
        ("%a : sram 4\nvop d=%a[0]:f32, d=%a[0]:f32 ; x", "line 2: d is given twice"),
        ("%a : sram 4\nvop d=%a[0]:f32, rows=1, rows=2 ; x", "line 2: rows is given twice"),
        ("loop 3 {", "the loop has no end"),
        ("}", "line 1: no loop ends here"),
        ("loop 3 {\n}\nloop 3 {\n}", "line 3: a second loop"),
    ],
)
def test_other_text_is_refused(text: str, message: str) -> None:
    """Breaks if text that is no program is taken for one, or the error does not say where."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse(text)


def test_ops_with_the_same_attributes_share_what_these_say() -> None:
    """Breaks if each op of thousands has operands and extents of its own, or gets those of other attributes."""
    d, a = (Ref(Buffer(name, Space.SRAM, 64), 0, Dtype.F32, rs=4) for name in "da")
    one, other = (Op("lda", views, (("rows", 2), ("cols", 4)), "x") for views in ((d, a), (a, d)))
    assert one.operands is other.operands and one.operands["planes"] == 1
    assert [(name, ref) for name, ref, _, _ in other.accesses] == [("d", a), ("a", d)]
    assert one.accesses[0][2] is other.accesses[0][2] == (1, 2, 4)
    assert replace(one, attrs=(("rows", 2), ("cols", 3))).accesses[0][2] == (1, 2, 3)

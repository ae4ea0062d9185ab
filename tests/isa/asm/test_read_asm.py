"""The assembler as a person uses it: names, expressions, placed tensors and buffers, includes, and errors that help."""

import struct
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.architecture import Dtype, Region, Space
from isa.asm.assemble import assemble, assemble_file
from isa.asm.directives import DIRECTIVES
from isa.asm.disassemble import disassemble
from isa.asm.expression import FUNCTIONS, ExpressionError, evaluate
from isa.errors import AssemblyError
from isa.image.image import image_bytes
from lint.analyse import check
from runtime.device.executable import Executable

NAMES = {"a": 6, "b": 4, "x": 1.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7), ("(1+2)*3", 9), ("a*b // 5", 4), ("a/b", 1.5), ("a/3", 2), ("-a+1", -5), ("~0 & 0xff", 255), ("1<<b|1", 17), ("a ^ 2", 4),
        ("min(a, b, 9)", 4), ("ceildiv(a, b)", 2), ("align(a, 64)", 64), ("sqrt(a+10)/b", 1.0), ("a % b", 2), ("0b101", 5), ("1e2", 100.0),
        ("a - b - 1", 1), ("log2(64)", 6), ("bits(1.0)", 0x3F800000), ("x*2", 3.0), ("2 - -3", 5),
    ],
)  # fmt: skip
def test_expressions(text: str, value: float) -> None:
    """Breaks when precedence, associativity or the kind of a result changes."""
    found = evaluate(text, NAMES)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1+",
        "(1",
        "1)",
        "c",
        "1 2",
        "a(1)",
        "1<<200",
        "1<<-1",
        "1/0",
        "(" * 4000 + "1",
        "9" * 5000,
        "1e999*0 // 1",
        "sqrt(-1)",
        "1;2",
        "~x",
    ],
)
def test_bad_expressions_are_clean_errors(text: str) -> None:
    """Breaks when an expression crashes, or builds a number without bound."""
    with pytest.raises(ExpressionError):
        evaluate(text, NAMES)


@given(st.text(alphabet="0123456789ab+-*/%<>&|^~(), .xe", max_size=40))
def test_no_expression_crashes(text: str) -> None:
    """Breaks when some text of operators and digits ends in another exception."""
    with suppress(ExpressionError):
        evaluate(text, NAMES)


def test_names_stand_for_numbers_and_registers() -> None:
    """Breaks when a constant, an alias or an expression means something else than the number in its place."""
    named = ".equ N=4, X=v3, K=N*2, E=1/K\nvop f=mul, d=X, a=X, rows=N, cols=(K-1)*2, imm=E\nhalt code=N"
    plain = "vop f=mul, d=v3, a=v3, rows=4, cols=14, imm=0.125\nhalt code=4"
    assert assemble(named).code == assemble(plain).code


def test_literals_win_over_names() -> None:
    """Breaks when a constant called like a choice or a register changes what old texts mean."""
    assert (
        assemble(".equ v1=7\nvop f=max, d=v1, a=v1, rows=v1, cols=1").code
        == assemble("vop f=max, d=v1, a=v1, rows=7, cols=1").code
    )
    assert (
        assemble(".equ add=2\nvop f=add, d=v1, a=v1, rows=add, cols=1").code
        == assemble("vop f=add, d=v1, a=v1, rows=2, cols=1").code
    )


def test_labels_are_addresses_in_expressions() -> None:
    """Breaks when a label, also one further down, is not its byte address; or `len` is not the distance."""
    code = "halt code=end-start\nstart: loop level=0, len=end, count=2\nnop\nnop\nend: halt"
    assert assemble(code).code == assemble("halt code=48\nloop level=0, len=2, count=2\nnop\nnop\nhalt").code


def test_tensors_and_buffers_are_placed() -> None:
    """Breaks when two of them overlap, are not aligned, or their names are not their addresses."""
    text = """
    .equ N=3
    .entry name=main, pc=main
    .input name=a, shape=[N, 7], dtype=int8
    .input name=b, shape=[N], dtype=bfloat16
    .output name=c, shape=[], dtype=int64
    .scalar name=length, maximum=N
    .state name=cache, shape=[2], dtype=float16
    .buffer name=one, space=sram, bytes=65
    .buffer name=two, bytes=N, align=256
    .buffer name=sums, space=acc, bytes=4
    main: vset v=v1, space=sram, dtype=i8, base=two
    vset v=v2, space=dram, region=in, dtype=bf16, base=b + 2
    halt
    """
    image = assemble(text)
    entry = image.entry()
    assert [(t.name, t.storage, t.region, t.offset) for t in (*entry.inputs, *entry.outputs)] == [
        ("a", Dtype.I8, Region.IN, 0), ("b", Dtype.BF16, Region.IN, 64), ("c", Dtype.I32, Region.OUT, 0),
    ]  # fmt: skip
    assert (entry.scalars[0].offset, entry.scalars[0].maximum, image.states[0].offset) == (0, 3, 0)
    assert [(r.name, r.space, r.offset, r.bytes) for r in image.plan] == [
        ("one", Space.SRAM, 0, 65),
        ("two", Space.SRAM, 256, 3),
        ("sums", Space.ACC, 0, 4),
    ]
    assert [image.inst(pc).named()["base"] for pc in (0, 16)] == [256, 66]
    assert image_bytes(assemble(disassemble(image)[0])) == image_bytes(image)


def test_constants_hold_their_values() -> None:
    """Breaks when initial data are rounded, placed or named wrongly."""
    image = assemble(
        ".data const dtype=int8, values=[1, -2]\n.const name=w, shape=[2, 2], dtype=float32, values=[[1, 0.5], [-0.0, 1e-3]]\n"
        ".const name=r, shape=[2], dtype=bfloat16, values=[1.00390625, 1.01171875]\nvset v=v1, space=dram, region=const, dtype=f32, base=w\nhalt"
    )
    data = bytes(image.data(Region.CONST))
    assert (data[0], data[1], image.constants[0].offset, image.inst(0).named()["base"]) == (1, 254, 64, 64)
    assert data[64:80] == struct.pack("<4f", 1, 0.5, -0.0, np.float32(1e-3))
    assert data[128:132] == struct.pack("<2H", 0x3F80, 0x3F82)  # ties go to even


def test_includes_are_found_beside_the_text_that_names_them(tmp_path: Path) -> None:
    """Breaks when an included file's own includes, labels or errors are lost."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner.s").write_text(".equ K=2\n")
    (tmp_path / "sub" / "outer.s").write_text('.include "inner.s"\nhere: halt code=K\n')
    (tmp_path / "main.s").write_text('nop\n.include "sub/outer.s"\nmain: nop\nhalt code=here')
    image = assemble_file(tmp_path / "main.s")
    assert image.code == assemble("nop\nhalt code=2\nnop\nhalt code=16").code
    assert image.entry().pc == 32
    (tmp_path / "sub" / "inner.s").write_text("nop\n  halt cod=1\n")
    with pytest.raises(AssemblyError, match="did you mean 'code'") as caught:
        assemble_file(tmp_path / "main.s")
    assert caught.value.where == f"{tmp_path / 'sub' / 'inner.s'}:2:8"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("halt code=K", "1:6", "'K' is not defined"),
        (".equ KK=1\nhalt code=K", "2:6", "did you mean 'KK'"),
        (".equ K=1.5\nhalt code=K", "2:6", "is 1.5, not an integer"),
        (".equ K=70000\nhalt code=K", "2:6", "does not fit in 16 bits: it is 70000"),
        ("halt code=1-2", "1:6", "does not fit in 16 bits: it is -1"),
        ("halt code=1+", "1:12", "'\\+' is not expected"),
        ("halt code=(1", "1:6", "ends too early, \\) is missing"),
        (".equ K=1\n.equ K=2", "2:6", "'K' is defined twice"),
        (".equ K=1\nK: nop", "2:1", "already the name of something else"),
        (".equ K=sram", "1:8", "neither a number nor a register"),
        (".equ min=1", "1:6", "name of a function"),
        (".equ A=v40\nsld d=s1, v=A", "2:11", "not a view v0..v31"),
        (".buffer name=a, bytes=1, space=dram", "1:32", "cannot be in 'dram'"),
        (".buffer name=a", "1:1", "takes name, bytes"),
        (".entry name=main\n.input name=a, shape=[2], dtype=float33", "2:33", "'float33' is no type(.|\n)*did you mean 'float32'"),
        (".entry name=main\n.input name=a, shape=[-2], dtype=int8", "2:1", "negative"),
        (".entry name=main\n.input name=a, shape=[N], dtype=int8", "2:1", "shape"),
        (".entry name=main, pc=start", "1:1", "label 'start' is not defined"),
        (".const name=a, shape=[2], dtype=int8, values=[1]", "1:1", "has 2 bytes, its data 1"),
        (".const name=a, shape=[1], dtype=int8, values=[300]", "1:1", "is no int8"),
        (".const name=a, shape=[1], dtype=int8", "1:1", "given by one of"),
        (".data const dtype=int8, fill=0, count=1<<60", "1:1", "too many"),
        ('.include "none.s"', "1:10", "cannot read"),
        (".include none", "1:1", "takes the name of a file"),
        ("vop f=add, d=v1, a=v1, rows=1, cols=1, imm=1/0", "1:40", "by zero"),
        ("loop level=0, len=nowhere, count=1", "1:19", "label 'nowhere' is not defined"),
    ],
)  # fmt: skip
def test_mistakes_are_shown_with_place_caret_and_advice(text: str, place: str, message: str) -> None:
    """Breaks when a mistake is accepted, or reported at another place."""
    with pytest.raises(AssemblyError, match=message) as caught:
        assemble(text, "p.s")
    assert caught.value.where == f"p.s:{place}"
    assert "^" in caught.value.what


def test_a_file_that_includes_itself_is_an_error(tmp_path: Path) -> None:
    """Breaks when includes recurse without end."""
    (tmp_path / "loop.s").write_text('.include "loop.s"')
    with pytest.raises(AssemblyError, match="include each other"):
        assemble_file(tmp_path / "loop.s")


def test_a_text_for_another_chip_is_refused() -> None:
    """Breaks when --chip is silently ignored for assembly text."""
    assert assemble("halt", chip="server").chip.name == "server"
    assert assemble('.chip "edge"\nhalt', chip="edge").chip.name == "edge"
    with pytest.raises(AssemblyError, match="for chip 'edge', not for 'server'"):
        assemble('.chip "edge"\nhalt', chip="server")


@given(st.text(alphabet='.abcvset=0123,[]{}()@<>" ;:\n+-*/nop', max_size=60))
def test_garbage_is_a_clean_error(text: str) -> None:
    """Breaks when some text ends in another exception than AssemblyError."""
    with suppress(AssemblyError):
        assemble(text)


def test_pygments_finds_the_lexer() -> None:
    """Breaks when the entry point and the class part."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    module, name = project["entry-points"]["pygments.lexers"]["llmchip"].split(":")
    assert hasattr(__import__(module, fromlist=[name]), name)


def test_the_page_on_assembly_is_true() -> None:
    """Breaks when docs/assembly.md leaves out a directive or a function, or its program does not run."""
    text = Path("docs/assembly.md").read_text(encoding="utf-8")
    for name in (*DIRECTIVES, "include"):
        assert f".{name}" in text, name
    for name in FUNCTIONS:
        assert name in text, name
    program = text.split("```asm\n")[1].split("```")[0]
    image = assemble(program)
    x = np.arange(8, dtype=np.float32)
    assert check(image) == []
    assert (Executable(image)({"x": x})["y"] == 2 * x + 1).all()


def test_very_long_lines_give_short_errors() -> None:
    """Breaks when an error repeats a line of a megabyte."""
    with pytest.raises(AssemblyError) as caught:
        assemble("nop\n" + "halt code=1, " * 50_000 + "\n")
    assert len(str(caught.value)) < 2000

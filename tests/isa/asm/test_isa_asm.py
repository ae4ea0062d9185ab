"""Assembly text: whole images there and back, and errors that point at the fault."""

import time
from itertools import islice
from pathlib import Path

import pytest
from isa_strategies import SMALL_TEXT, small_image

from isa.asm.assemble import assemble, assemble_file
from isa.asm.disassemble import disassemble, disassemble_code, write_listing
from isa.asm.text import guess_instruction
from isa.chip import Chip, Mxu
from isa.codec import Inst, encode
from isa.errors import AssemblyError
from isa.image.image import Image, image_bytes
from isa.spec import ALSO_CALLED, ISA


def test_whole_images_round_trip() -> None:
    """Breaks when a record, a default or a number is lost in the text."""
    image = small_image()
    text, data = disassemble(image)
    assert not data
    assert image_bytes(assemble(text)) == image_bytes(image)


def test_data_of_4_kib_stands_in_files_beside_the_text(tmp_path: Path) -> None:
    """Breaks when the include path or the threshold is wrong."""
    image = Image(
        encode(Inst.make("halt")),
        bytes(range(256)) * 16,
        bytes(4095),
        metadata={"a": [1, None, -0.0, 1e300]},
        chip=Chip(mxu=Mxu(rows=7)),
    )
    paths = write_listing(image, tmp_path / "p.s")
    assert (
        sorted(path.name for path in paths)
        == sorted(path.name for path in tmp_path.iterdir())
        == ["p.s", "p.weights.bin"]
    )
    assert image_bytes(assemble_file(tmp_path / "p.s")) == image_bytes(image)


def test_a_program_needs_no_directives() -> None:
    """Breaks when a hand-written program must give more than its instructions."""
    image = assemble("nop\nmain: halt code=3 ; done")
    assert image.entries[0].pc == 16
    assert image.chip.name == "edge"
    assert image.words == 2


def test_labels_give_loop_lengths() -> None:
    """Breaks when the length counts the loop word or the word at the label."""
    assert (
        assemble("loop level=0, len=end, count=2\nnop\nnop\nend: halt").code
        == assemble("loop level=0, len=2, count=2\nnop\nnop\nhalt").code
    )


def test_comments_say_what_operands_are() -> None:
    """Breaks when views are not followed through the text, loops are not indented or nodes not named."""
    text = disassemble(small_image())[0]
    assert "; 0x0040 d=sram[0x0:0x40] i32 2x8 <x>, a=sram[0x0:0x40] i32 2x8 <x>" in text
    assert "; ---- add (aten.add) m.py:3: x + 1" in text
    loop = """vset v=v1, space=acc, dtype=f32, base=64
vinc v=v1, level=0, inc=4, mod=2
loop level=0, len=1, count=2
act f=exp, d=v1, a=v1, rows=1, cols=1
halt"""
    looped = list(disassemble_code(assemble(loop)))
    assert looped[-2].startswith("  act")
    assert looped[-2].endswith("d=acc[0x40:0x44] f32 1x1, a=acc[0x40:0x44] f32 1x1; v1 moves by 0x4*i0%2")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("nop\n  vmadd d=v1", "2:3", r"unknown instruction 'vmadd'\n.*vmadd d=v1\n      \^\^\^\^\^ .*did you mean 'vaff'"),
        ("vop f=addd, d=v1, a=v1, rows=1, cols=1", "1:5", "f=addd is not one of its choices(.|\n)*did you mean 'add'"),
        ("halt cod=1", "1:6", "no operand 'cod'(.|\n)*did you mean 'code'"),
        ("halt code=65536", "1:6", "does not fit in 16 bits"),
        ("halt code=1, code=2", "1:14", "given twice"),
        ("halt code=x", "1:6", "not an integer"),
        ("vop f=add, d=v1", "1:1", "operand a is missing"),
        ("sld d=s16, v=v1", "1:5", "not a scalar register s0..s15"),
        ("sld d=s1, v=v32", "1:11", "not a view v0..v31"),
        ("vop f=add d=v1", "1:11", "not expected here(.|\n)*'@' or end of line"),
        ("nop nop", "1:5", "nop has no operand 'nop'"),
        ("nop @ ldq<=0", "1:7", "unknown queue 'ldq'"),
        ("nop @ ldw<=7", "1:7", "0 to 6"),
        ("a: nop\na: nop", "2:1", "defined twice"),
        ("loop level=0, len=end, count=1", "1:19", "label 'end' is not defined"),
        ("act f=exp, d=v1, a=v1, rows=1, cols=1, scale=1e39", "1:40", "1e39 is not a float32"),
        (".chpi 1", "1:1", "unknown directive '.chpi'(.|\n)*did you mean '.chip'"),
        ('.chip "egde"', "1:1", "unknown chip"),
        ('.region weights file="none.bin"', "1:1", "cannot read .*none.bin"),
        (".region moon bytes=1", "1:1", "'moon' is no region"),
        ('.input name="x"', "1:1", "before any .entry"),
        (".meta a=[1,", "1:12", "end of line is not expected"),
        (".word 0x1ffffffffffffffffffffffffffffffff", "1:1", "128 bits"),
        (".isa 9", "1:1", "ISA version 9"),
        (".entry name=\"main\", pc=0x40\nnop", "", "outside the code"),
        ("?", "1:1", "'\\?' is not expected here"),
        (".meta a=" + "[" * 5000 + "]" * 5000, "1:1", "recursion"),
    ],
)  # fmt: skip
def test_errors_point_at_the_fault(text: str, place: str, message: str) -> None:
    """Breaks when a mistake in the text is accepted, or reported at another place."""
    with pytest.raises(AssemblyError, match=message) as caught:
        assemble(text, "p.s")
    assert caught.value.where == (f"p.s:{place}" if place else "p.s")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("vmadd", "vaff"), ("fma", "vaff"), ("gemm", "mm"), ("store", "sto"), ("barrier", "fence"), ("vmul", "vop f=mul"), ("exp", "act f=exp"),
        ("vsum", "vred f=sum"), ("HALT", "halt"), ("mm.i8", "mm"), ("vseet", "vset"),
    ],
)  # fmt: skip
def test_an_unknown_instruction_is_understood_by_its_meaning(wrong: str, meant: str) -> None:
    """Breaks when 'did you mean' goes by letters alone: vmadd looks like vadd, but means vaff."""
    assert guess_instruction(wrong) == f"did you mean '{meant}'?"


def test_other_names_lead_to_instructions_that_exist() -> None:
    """Breaks when the table of other names suggests what the table of instructions does not have."""
    for meant in ALSO_CALLED.values():
        mnemonic, _, f = meant.partition(" f=")
        assert mnemonic in ISA and (not f or f in ISA[mnemonic].field("f").choices), meant


def test_missing_text_is_a_clear_error(tmp_path: Path) -> None:
    """Breaks when a wrong path ends in a traceback."""
    with pytest.raises(AssemblyError, match="cannot read"):
        assemble_file(tmp_path / "none.s")


def test_long_programs_start_printing_at_once() -> None:
    """Breaks when the disassembler walks the whole program before its first line."""
    image = Image(small_image().code * 15_000)
    start = time.process_time()
    assert len(list(islice(disassemble_code(image), 10))) == 10
    assert time.process_time() - start < 0.5


def test_windows_line_ends_and_blank_lines_are_fine() -> None:
    """Breaks when the grammar counts line ends wrongly."""
    assert image_bytes(assemble(SMALL_TEXT.replace("\n", "\r\n\r\n"))) == image_bytes(small_image())

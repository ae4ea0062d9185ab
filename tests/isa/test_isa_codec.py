"""The table, the words and their text agree."""

from hypothesis import given
from hypothesis import strategies as st
from isa_strategies import insts, words

from isa.asm.assemble import assemble
from isa.asm.disassemble import disassemble_code
from isa.asm.text import format_float, format_inst, parse_float
from isa.codec import IllegalInstruction, Inst, decode, encode
from isa.doc.manual import PATH, describe, document
from isa.image.image import Image
from isa.spec import ISA


@given(insts)
def test_encoding_and_text_round_trip(inst: Inst) -> None:
    """Breaks when an operand overlaps another, or prints as something else than it is."""
    assert decode(encode(inst)) == inst
    assert assemble(format_inst(inst)).code == encode(inst)


@given(st.binary(min_size=16, max_size=16))
def test_decoding_loses_no_bit(word: bytes) -> None:
    """Breaks when two different words decode to one instruction."""
    try:
        inst = decode(word)
    except IllegalInstruction:
        return
    assert encode(inst) == word


@given(st.lists(words, min_size=1, max_size=30))
def test_programs_round_trip(program: list[bytes]) -> None:
    """Breaks when loops, illegal words or comments disturb the text."""
    image = Image(b"".join(program))
    assert assemble("\n".join(disassemble_code(image))).code == image.code


@given(st.integers(0, 2**32 - 1))
def test_every_float32_prints_and_parses(bits: int) -> None:
    """Breaks when a literal rounds to a neighbour; NaN payloads and -0.0 included."""
    assert parse_float(format_float(bits)) == bits


def test_floats_are_short() -> None:
    """Breaks when 0.1 prints with the digits of its float64."""
    assert [format_float(parse_float(text)) for text in ("0.1", "1", "-0.0", "inf", "3e38")] == [
        "0.1",
        "1.0",
        "-0.0",
        "inf",
        "3e+38",
    ]
    assert format_float(0x7FC00000) == "0x7fc00000"
    assert format_float(1) == "0x00000001"


def test_every_instruction_is_described() -> None:
    """Breaks when the table gets a row that the manual cannot lay out."""
    for row in ISA.values():
        assert row.summary[1:] in describe(row.mnemonic)


def test_docs_are_current() -> None:
    """Breaks when isa/spec.py changed and docs/isa.md did not: run `python -m isa.doc.manual`."""
    assert PATH.read_text(encoding="utf-8") == document()

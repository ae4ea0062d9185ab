"""The manual, the colours of editors: generated from the table, and current."""

from pathlib import Path

import pytest
from pygments.token import Comment, Error, Keyword, Name

from isa.architecture import WORD_BYTES
from isa.asm.assemble import assemble
from isa.asm.directives import DIRECTIVES
from isa.asm.lexer import PATH as GRAMMAR
from isa.asm.lexer import LlmchipLexer, textmate
from isa.codec import decode
from isa.doc.examples import line, program
from isa.doc.manual import PATH, describe, diagram, document
from isa.spec import HEADER, ISA
from runtime.device.executable import Executable


@pytest.mark.parametrize("mnemonic", ISA)
def test_every_example_runs_on_the_emulator(mnemonic: str) -> None:
    """Breaks when an instruction has no example, or its example traps."""
    image = assemble(program(mnemonic))
    assert line(mnemonic) in program(mnemonic)
    executed: list[str] = []
    Executable(image).run({}, probe=lambda pc, indices, inst, operands, views, memory: executed.append(inst.mnemonic))
    words = [decode(image.word(pc)) for pc in range(0, len(image.code), WORD_BYTES)]
    assert mnemonic in [word.mnemonic for word in words]
    assert ISA[mnemonic].engine.value == "ctl" or mnemonic in executed


def test_the_manual_is_current() -> None:
    """Breaks when the table or the generator changed and docs/isa.md did not: run `python -m isa.doc.manual`."""
    assert PATH.read_text(encoding="utf-8") == document()


def test_the_grammar_is_current() -> None:
    """Breaks when the table changed and editors/vscode/syntaxes/llmchip.tmLanguage.json did not: run `python -m isa.asm.lexer`."""
    assert GRAMMAR.read_text(encoding="utf-8") == textmate()


def test_diagrams_name_every_field() -> None:
    """Breaks when a drawing loses a field or is not four lines of 32 bits."""
    for row in ISA.values():
        drawn = diagram(row).split("\n")
        assert {len(text) for text in drawn} == {97}
        assert len(drawn) == 9
        for field in (*HEADER, *row.fields):
            assert any(
                cell.strip() and field.name.startswith(cell.strip()) for text in drawn[1::2] for cell in text.split("|")
            ), field.name


@pytest.mark.parametrize("mnemonic", ISA)
def test_the_terminal_manual_says_what_the_table_says(mnemonic: str) -> None:
    """Breaks when `llmcc isa` leaves out an operand, the meaning or the example."""
    row, text = ISA[mnemonic], describe(mnemonic)
    assert row.pseudocode.split("\n")[0] in text
    assert line(mnemonic) in text
    assert all(f" {field.name} " in text for field in row.fields)


def test_the_lexer_knows_all_words() -> None:
    """Breaks when a mnemonic or directive is not coloured, or something in the examples is an error."""
    lexer = LlmchipLexer()
    for mnemonic in ISA:
        assert (Keyword, mnemonic) in list(lexer.get_tokens(f"  {line(mnemonic)} ; note"))
    for name in (*DIRECTIVES, "include"):
        assert (Keyword.Namespace, f".{name}") in list(lexer.get_tokens(f".{name} x"))
    tokens = list(lexer.get_tokens("loop: vop f=max, d=v3, a=v3, rows=1, cols=1 @ lda<=0 ; done"))
    for expected in (
        (Name.Label, "loop:"),
        (Name.Constant, "max"),
        (Name.Variable, "v3"),
        (Name.Attribute, "lda"),
        (Comment.Single, "; done"),
    ):
        assert expected in tokens
    for path in Path("examples/asm").iterdir():
        assert not [token for token in lexer.get_tokens(path.read_text()) if token[0] is Error]

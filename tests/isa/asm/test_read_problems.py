"""All problems of a text, its tokens with their places, and what directives mean."""

import re
from pathlib import Path

import pytest
from checkout import ROOT
from hypothesis import given
from hypothesis import strategies as st

from isa.asm.assemble import assemble
from isa.asm.directive_help import DIRECTIVE_HELP, ROWS
from isa.asm.directives import DIRECTIVES
from isa.asm.problems import MOST, check_text
from isa.asm.tokens import Role, line_tokens, tokens
from isa.errors import AssemblyError

PROGRAMS = sorted((ROOT / "examples" / "asm").glob("*.s"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_right_program_has_no_problem_and_all_its_places(path: Path) -> None:
    checked = check_text(path.read_text(), str(path), path.parent)
    assert checked.errors == () and checked.image is not None
    assert checked.image.code == assemble(path.read_text(), str(path), path.parent).code
    assert len(checked.places) == checked.image.words
    for number, span in enumerate(checked.places):
        line = Path(span.file).read_text().split("\n")[span.line - 1]
        mnemonic = checked.image.inst(16 * number).mnemonic
        assert line[span.column - 1 :].startswith(mnemonic)
        assert not line[: span.column - 1 + span.width].endswith((" ", ";"))


def test_every_problem_is_told_once_with_its_place() -> None:
    """Breaks when a broken line hides those behind it, or a name that it would have defined is told again and again."""
    text = ".equ K=nowhere\nvset v=v1, space=sram, dtype=f32, base=K\nvop f=ad\nhalt ]\nloop level=0, len=end, count=K\nx: nop nop\nhalt"
    checked = check_text(text, "p.s")
    found = [(error.span.line, error.span.column, error.span.width) for error in checked.errors if error.span]
    assert sorted(found) == [(1, 8, 7), (3, 5, 4), (4, 6, 1), (5, 19, 3), (6, 8, 3)]
    assert checked.image is None


def test_problems_without_end_come_to_an_end() -> None:
    assert len(check_text("bad\n" * 500).errors) == MOST
    assert len(check_text("]\n" * 120).errors) == MOST
    assert check_text('.include "p.s"', "p.s", "/nonexistent").errors


_LINES = st.lists(st.sampled_from(["main:", "halt", "vop f=add, d=v1", ".equ K=3, A=v1", '"x', "@ lda<=0", "; c", "a b", ".",
                                   ".buffer name=t, bytes=K*4", "len=main", "[", "=", ",", "\t", "𝄞", "max(1, K)"]))  # fmt: skip


@given(st.one_of(st.text(), _LINES.map("\n".join), _LINES.map(" ".join)))
def test_problems_agree_with_the_assembler(text: str) -> None:
    """Breaks when the two disagree about what is right, or a token is not where it says."""
    checked = check_text(text, "p.s", "/nonexistent")
    try:
        assert assemble(text, "p.s", "/nonexistent") == checked.image
    except AssemblyError:
        assert checked.errors
    lines = text.split("\n")
    for token in tokens(text):
        assert lines[token.line][token.column : token.end] == token.text
    for error in checked.errors:
        if error.span is not None:
            assert 1 <= error.span.line <= len(lines) + 1 and error.span.column >= 1


def roles(line: str) -> list[tuple[str, str]]:
    return [(token.role.value, token.text) for token in line_tokens(line)]


def test_tokens_know_names_from_literals() -> None:
    assert roles("main: vop f=max, d=OUT, rows=max(1, N), imm=K @ lda<=0 ; f=x") == [
        ("label", "main"), ("mnemonic", "vop"), ("operand", "f"), ("literal", "max"), ("operand", "d"),
        ("reference", "OUT"), ("operand", "rows"), ("reference", "N"), ("operand", "imm"), ("reference", "K"),
        ("mark", "lda"),
    ]  # fmt: skip
    assert roles('.input name=x, shape=[K, 2*N], dtype=K, region=in') == [
        ("directive", ".input"), ("key", "name"), ("definition", "x"), ("key", "shape"), ("reference", "K"),
        ("reference", "N"), ("key", "dtype"), ("key", "region"),
    ]  # fmt: skip
    assert ("definition", "w") in roles('.const name="w", file="w.bin"')
    assert ("file", "a.inc") in roles('.include "a.inc"')
    assert [token.role for token in line_tokens('.include "a.i')][-1] is Role.FILE


def test_directives_are_explained_as_on_their_page() -> None:
    """Breaks when a directive is added without its row, or page and rows differ."""
    assert DIRECTIVE_HELP.keys() == {*DIRECTIVES, "include"}
    page = (ROOT / "docs" / "assembly.md").read_text()
    table = re.findall(r"^\| `(\..*?)` \| (.*) \|$", page, re.MULTILINE)
    assert table == [(row.example, row.meaning) for row in ROWS]

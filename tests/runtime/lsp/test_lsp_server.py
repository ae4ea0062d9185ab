"""`llmcc lsp` as an editor sees it: a process that is spoken to over stdin and stdout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from lsp_editor import Editor, edit
from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException

pytestmark = pytest.mark.wide  # each starts a server

SOFTMAX = ROOT / "examples" / "asm" / "softmax.s"
TEXT = """\
; 𝄞 music before the fault
.chip "edge"
.equ N=8, X=v1, BLOCK=v3
.entry name=main, pc=main
.input name=x, shape=[N], dtype=float32
.output name=y, shape=[N], dtype=float32
.buffer name=block, space=sram, bytes=N*4

main:
  vset v=X, space=dram, region=in, dtype=f32, base=x
  vset v=v2, space=dram, region=out, dtype=f32, base=y
  vset v=BLOCK, space=sram, dtype=f32, base=block
  lda d=BLOCK, a=X, rows=1, cols=N
  vop f=mul, d=BLOCK, a=BLOCK, rows=1, cols=N, imm=2.0 @ lda<=0
  loop level=0, len=done, count=1
    sto d=v2, a=BLOCK, rows=1, cols=N @ vec<=0
done:
  halt
"""


def test_problems_while_typing(tmp_path: Path) -> None:
    """Breaks when only the first error is told, a range is not exact, or an old problem stays."""

    async def scenario(mine: Editor) -> None:
        uri = mine.open(tmp_path / "p.s", TEXT)
        assert await mine.problems(uri) == []
        wrong = (
            TEXT.replace("cols=N, imm", "cols=M, imm")
            .replace("lda d=", "ldaa d=")
            .replace("float32\n.out", "float33\n.out")
        )
        mine.type(uri, wrong)
        found = await mine.problems(uri)
        assert [mine.under(uri, problem.range) for problem in found] == ["float33", "ldaa", "cols=M"]
        assert [problem.severity for problem in found] == [lsp.DiagnosticSeverity.Error] * 3
        assert "did you mean 'lda'?" in found[1].message
        assert "\n" not in "".join(problem.message for problem in found)
        mine.type(uri, TEXT.replace("; 𝄞 music before the fault\n.chip", "/* 𝄞 */ .chip"))
        (syntax,) = await mine.problems(uri)
        assert "not expected here" in syntax.message
        mine.type(uri, TEXT)
        assert await mine.problems(uri) == []

    edit(scenario)


def test_what_was_meant_is_offered(tmp_path: Path) -> None:
    """Breaks when a fix replaces more or less than the word at fault, or none is offered."""

    async def scenario(mine: Editor) -> None:
        wrong = TEXT.replace("lda d=", "ldaa d=").replace(".buffer", ".bufer").replace("f=mul", "f=mull")
        uri = mine.open(tmp_path / "p.s", wrong)
        found = await mine.problems(uri)
        assert [mine.under(uri, problem.range) for problem in found] == [".bufer", "ldaa", "f=mull"]
        document, fixes = lsp.TextDocumentIdentifier(uri), []
        for problem in found:
            params = lsp.CodeActionParams(document, problem.range, lsp.CodeActionContext([problem]))
            answer = await mine.waits(mine.client.text_document_code_action_async(params))
            for action in answer or ():
                assert (
                    isinstance(action, lsp.CodeAction) and action.edit is not None and action.edit.changes is not None
                )
                (change,) = action.edit.changes[uri]
                fixes.append((mine.under(uri, change.range), change.new_text))
        assert fixes == [(".bufer", ".buffer"), ("ldaa", "lda")]

    edit(scenario)


def test_what_the_linter_finds_is_at_the_operand(tmp_path: Path) -> None:
    """Breaks when a race, or a read of memory that was never written, is not told, or not where it is."""

    async def scenario(mine: Editor) -> None:
        uri = mine.open(tmp_path / "p.s", TEXT.replace(" @ lda<=0", ""))
        found = {problem.code: problem for problem in await mine.problems(uri)}
        assert "race" in found
        assert mine.under(uri, found["race"].range).startswith(("a=BLOCK", "d=BLOCK"))
        related = found["race"].related_information
        assert related and mine.under(uri, related[0].location.range).startswith("lda d=BLOCK")
        mine.type(uri, TEXT.replace("base=block", "base=0x7fffff00"))
        (bounds,) = [problem for problem in await mine.problems(uri) if problem.code == "bounds"][:1]
        assert mine.under(uri, bounds.range) == "d=BLOCK"

    edit(scenario)


def test_columns_are_counted_as_the_editor_counts(tmp_path: Path) -> None:
    """Breaks when a character outside the basic plane moves what stands behind it."""

    async def scenario(mine: Editor) -> None:
        uri = mine.open(tmp_path / "p.s", '.meta "𝄞𝄞"="𝄞"\n.meta "𝄞"=nowhere+1\n  halt @ dgb ; 𝄞\n')
        assert [mine.under(uri, problem.range) for problem in await mine.problems(uri)] == ["nowhere+1", "dgb"]
        mine.type(uri, TEXT.replace("lda d=", "ldaa d=").replace("\n", "\r\n"))
        assert [mine.under(uri, problem.range) for problem in await mine.problems(uri)] == ["ldaa"]
        for line, character in ((0, 9999), (9999, 0), (8, 9999), (13, 2)):
            where = lsp.HoverParams(lsp.TextDocumentIdentifier(uri), lsp.Position(line, character))
            await mine.waits(mine.client.text_document_hover_async(where))

    edit(scenario)


def test_included_texts_have_their_own_problems(tmp_path: Path) -> None:
    """Breaks when an error in an included file is told of the wrong file, or an unsaved change there is not seen."""
    (tmp_path / "part.inc").write_text("  halt\n")

    async def scenario(mine: Editor) -> None:
        uri = mine.open(tmp_path / "p.s", '.equ A=v1\n.include "part.inc"\n')
        part = (tmp_path / "part.inc").as_uri()
        assert await mine.problems(uri) == []
        assert mine.open(tmp_path / "part.inc") == part
        mine.type(part, "  vset v=A, space=sram, dtype=f32, base=B\n  halt\n")
        found: list[lsp.Diagnostic] = []
        while not found:
            found = await mine.problems(part)
        assert [mine.under(part, problem.range) for problem in found] == ["base=B"]
        mine.type(part, "  vset v=A, space=sram, dtype=f32, base=0x40\n  halt\n")
        while found:
            found = await mine.problems(part)

    edit(scenario)


def test_hover_asks_the_table(tmp_path: Path) -> None:
    async def scenario(mine: Editor) -> None:
        uri = mine.open(tmp_path / "p.s", TEXT)
        await mine.problems(uri)

        async def hover(text: str, offset: int = 0) -> str:
            where = lsp.HoverParams(lsp.TextDocumentIdentifier(uri), mine.at(uri, text, offset))
            found = await mine.waits(mine.client.text_document_hover_async(where))
            if found is None:
                return ""
            assert isinstance(found.contents, lsp.MarkupContent)
            return found.contents.value

        assert "DRAM to SRAM" in await hover("lda d=") or "lda" in await hover("lda d=")
        assert "**vop** `rows`: " in await hover("rows=1, cols=N, imm")
        assert "mul" in await hover("mul")
        assert "an entry point" in await hover(".entry")
        assert "at most n instructions of vec" in await hover("vec<=0")
        assert "`block` is 0" in await hover("base=block", 6)
        assert ".equ N=8" in await hover("cols=N", 5)
        assert "`done` is instruction" in await hover("len=done", 5)
        assert await hover("8, X") == ""
        assert await hover("music") == ""

    edit(scenario)


def test_definitions_references_and_symbols_across_files() -> None:
    async def scenario(mine: Editor) -> None:
        uri = mine.open(SOFTMAX)
        await mine.problems(uri)
        document = lsp.TextDocumentIdentifier(uri)

        async def definition(text: str, offset: int = 0) -> list[lsp.Location]:
            params = lsp.DefinitionParams(document, mine.at(uri, text, offset))
            found = await mine.waits(mine.client.text_document_definition_async(params))
            assert isinstance(found, (list, tuple))
            return [place for place in found if isinstance(place, lsp.Location)]

        (label,) = await definition("len=done", 5)
        assert mine.under(uri, label.range) == "done"
        assert label.range.start == mine.at(uri, "done:")
        (tensor,) = await definition("base=x", 5)
        assert tensor.range.start == mine.at(uri, "name=x", 5)
        (file,) = await definition('"softmax.inc"', 3)
        assert file.uri.endswith("/softmax.inc")
        assert await definition("mul") == []
        params = lsp.ReferenceParams(lsp.ReferenceContext(True), document, mine.at(uri, "SUM=v5"))
        found = await mine.waits(mine.client.text_document_references_async(params))
        assert found is not None
        assert {place.uri.rpartition("/")[2] for place in found} == {"softmax.s", "softmax.inc"}
        symbols = await mine.waits(mine.client.text_document_document_symbol_async(lsp.DocumentSymbolParams(document)))
        assert {"main", "done", "ROWS", "block"} <= {symbol.name for symbol in symbols or ()}

    edit(scenario)


def test_rename_changes_every_place_and_nothing_else(tmp_path: Path) -> None:
    """Breaks when an operand or a choice of the same name is renamed, a place is forgotten, or a name is taken."""
    (tmp_path / "part.inc").write_text("  sto d=v2, a=BLOCK, rows=1, cols=N @ vec<=0\n")
    text = TEXT.replace("    sto d=v2, a=BLOCK, rows=1, cols=N @ vec<=0\n", '.include "part.inc"\n')

    async def scenario(mine: Editor) -> None:
        uri = mine.open(tmp_path / "p.s", text)
        await mine.problems(uri)
        document = lsp.TextDocumentIdentifier(uri)

        async def rename(old: str, offset: int, new: str) -> dict[str, str]:
            params = lsp.RenameParams(document, mine.at(uri, old, offset), new)
            found = await mine.waits(mine.client.text_document_rename_async(params))
            assert found is not None and found.changes is not None
            texts = {uri: mine.texts[uri], (tmp_path / "part.inc").as_uri(): (tmp_path / "part.inc").read_text()}
            for name, edits in found.changes.items():
                lines = texts[name].split("\n")
                for change in sorted(edits, key=lambda e: (e.range.start.line, -e.range.start.character)):
                    here, row = change.range, lines[change.range.start.line]
                    lines[here.start.line] = row[: here.start.character] + change.new_text + row[here.end.character :]
                texts[name] = "\n".join(lines)
            return texts

        renamed = await rename("BLOCK=v3", 0, "TILE")
        assert [value.count("BLOCK") for value in renamed.values()] == [0, 0]
        assert [value.count("TILE") for value in renamed.values()] == [5, 1]
        renamed = await rename("name=x", 5, "a")
        assert "base=a\n" in renamed[uri] and ", a=X," in renamed[uri] and ".input name=a," in renamed[uri]
        for taken in ("N", "v9", "max", "9x", ""):
            with pytest.raises(JsonRpcException):
                await rename("BLOCK=v3", 0, taken)
        prepare = lsp.PrepareRenameParams(document, mine.at(uri, "lda"))
        assert await mine.waits(mine.client.text_document_prepare_rename_async(prepare)) is None

    edit(scenario)


def test_completion_knows_the_place(tmp_path: Path) -> None:
    async def scenario(mine: Editor) -> None:
        text = TEXT + "  \n  vop f=\n  vop f=add, \n  vop f=add, d=\n  halt @ \n.\n"
        uri = mine.open(tmp_path / "p.s", text)

        async def offers(text: str) -> set[str]:
            params = lsp.CompletionParams(lsp.TextDocumentIdentifier(uri), mine.at(uri, text, len(text)))
            found = await mine.waits(mine.client.text_document_completion_async(params))
            assert isinstance(found, lsp.CompletionList)
            return {item.label for item in found.items}

        assert {"mm", "vop"} <= await offers("halt\n  ")
        assert {"add", "mul"} <= await offers("  vop f=")
        operands = await offers("  vop f=add, ")
        assert {"d=", "rows="} <= operands and "f=" not in operands
        assert {"BLOCK", "X"} <= await offers("  vop f=add, d=")
        assert {"vec<=", "dbg"} <= await offers("halt @ ")
        assert {".equ", ".buffer"} <= await offers("@ \n.")
        assert await offers("; 𝄞 music") == set()

    edit(scenario)


def test_half_written_text_never_ends_the_server(tmp_path: Path) -> None:
    """Breaks on any exception in an answer: the text is cut at every few characters and asked everything."""
    text = SOFTMAX.read_text() + TEXT

    async def scenario(mine: Editor) -> None:
        uri = mine.open(tmp_path / "p.s", "")
        document = lsp.TextDocumentIdentifier(uri)
        for end in range(0, len(text), 97):
            mine.type(uri, text[:end])
            position = mine.at(uri, text[:end], end)
            await mine.waits(mine.client.text_document_hover_async(lsp.HoverParams(document, position)))
            await mine.waits(mine.client.text_document_completion_async(lsp.CompletionParams(document, position)))
            await mine.waits(mine.client.text_document_definition_async(lsp.DefinitionParams(document, position)))
            asked = lsp.PrepareRenameParams(document, position)
            await mine.waits(mine.client.text_document_prepare_rename_async(asked))
        mine.type(
            uri, "\x00\ud7ff \u2028 .equ\n" + '"' * 50 + '\n.include "../../etc/passwd"\n.include 3\n' + "[" * 500
        )
        assert await mine.problems(uri)
        mine.type(uri, "halt\n")
        while await mine.problems(uri):
            pass

    edit(scenario)


def test_without_pygls_there_is_one_line() -> None:
    code = (
        "import sys; sys.modules['pygls'] = None; sys.modules['lsprotocol'] = None\n"
        "from runtime.cli.main import main; sys.exit(main(['lsp']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2
    assert "error: the package lsprotocol is not installed" in done.stderr or "pygls is not installed" in done.stderr
    assert "pip install 'llmchip[lsp]'" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_the_server_needs_no_torch_and_ends_with_its_editor() -> None:
    """Breaks when the editor's end leaves a server behind."""
    code = (
        "import sys; from runtime.cli.main import main; code = main(['lsp'])\n"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, stdin=subprocess.DEVNULL, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr

"""The server: the editor's requests on one side, `problems`, `names` and `words` on the other. Speaks LSP over stdin and
stdout, by pygls.

While somebody types, the text is checked when it has been left alone for `QUIET` seconds, in a thread, so that answers
do not wait for it.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import quote

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path
from pygls.workspace import ServerTextPosition, ServerTextRange

from isa.asm.problems import Checked
from isa.asm.tokens import Role, Token
from isa.errors import InputError, TextSpan
from isa.files import read_text
from runtime.lsp import names, words
from runtime.lsp.problems import Problem, problems
from runtime.version import __version__

QUIET = 0.3
_SEVERITIES = {"error": lsp.DiagnosticSeverity.Error, "warning": lsp.DiagnosticSeverity.Warning}
_KINDS = {
    "instruction": lsp.CompletionItemKind.Keyword, "operand": lsp.CompletionItemKind.Field,
    "choice": lsp.CompletionItemKind.EnumMember, "directive": lsp.CompletionItemKind.Keyword,
    "queue": lsp.CompletionItemKind.Event, "name": lsp.CompletionItemKind.Variable,
    "function": lsp.CompletionItemKind.Function,
}  # fmt: skip
_UNNAMED = "/nowhere/{}.s"  # of a text that was never saved; it can include nothing


class Server(LanguageServer):
    """What is known of the open texts, by path."""

    def __init__(self) -> None:
        super().__init__("llmchip", __version__)
        self.checked: dict[str, Checked] = {}
        self.found: dict[str, list[Problem]] = {}  # by the text that was assembled
        self.waiting: dict[str, asyncio.Task[None]] = {}
        self.uris: dict[str, str] = {}  # of open texts, by path

    # ---- texts

    def text(self, path: str) -> str | None:
        """The text of a file: the editor's if it is open, else the one on disk."""
        if path in self.uris:
            source = self.workspace.get_text_document(self.uris[path]).source
            return source.replace("\r\n", "\n").replace("\r", "\n")
        try:
            return read_text(path)
        except (OSError, UnicodeDecodeError):
            return None

    def roots(self, path: str) -> list[str]:
        """The open texts that include a file, or the file itself."""
        including = [
            root for root, known in self.checked.items() if root != path and path in map(_absolute, known.files)
        ]
        return including or [path]

    def unit(self, path: str) -> dict[str, str]:
        """All texts that share their names with this one."""
        found: dict[str, str] = {}
        for root in self.roots(path):
            found |= names.unit(root, self.text)
        return found

    def range(self, path: str, line: int, column: int, width: int) -> lsp.Range:
        """A place in the editor's units."""
        lines = (self.text(path) or "").split("\n")
        start, end = (ServerTextPosition(line, column + more) for more in (0, width))
        return self.workspace.position_codec.range_to_client_units(lines, ServerTextRange(start, end))

    def location(self, place: names.Place) -> lsp.Location:
        token = place.token
        return lsp.Location(self.uri(place.file), self.range(place.file, token.line, token.column, len(token.text)))

    def uri(self, path: str) -> str:
        return self.uris.get(path) or from_fs_path(path) or ""

    def token(self, uri: str, position: lsp.Position) -> tuple[str, Token | None]:
        """The path of a text, and the token at a position."""
        path = path_of(uri)
        lines = (self.text(path) or "").split("\n")
        if position.line >= len(lines):
            return path, None
        at = self.workspace.position_codec.position_from_client_units(lines, position)
        return path, names.token_at(lines[at.line], at.line, at.character)

    # ---- problems

    def check_soon(self, path: str) -> None:
        """Check the texts that a change concerns, unless the next one comes first."""
        for root in self.roots(path):
            if root in self.waiting:
                self.waiting[root].cancel()
            self.waiting[root] = asyncio.create_task(self._check(root))

    async def _check(self, path: str) -> None:
        await asyncio.sleep(QUIET)
        text = self.text(path)
        if text is None or path not in self.uris:
            return
        texts = {other: self.text(other) or "" for other in self.uris if other != path}
        found, checked = await asyncio.to_thread(problems, text, path, texts)
        if path not in self.uris or text != self.text(path):
            return  # closed or changed meanwhile; the change has its own check
        before = self.checked.get(path)
        self.found[path], self.checked[path] = found, checked
        self.publish({*checked.files, *(before.files if before else ())})

    def forget(self, path: str) -> None:
        """A text was closed."""
        task = self.waiting.pop(path, None)
        if task is not None:
            task.cancel()
        self.found.pop(path, None)
        known = self.checked.pop(path, None)
        self.publish({path, *(known.files if known else ())})

    def publish(self, files: set[str]) -> None:
        """Tell the editor all problems of some files, whichever text they were found with."""
        for file in sorted({_absolute(file) for file in files}):
            here = [p for found in self.found.values() for p in found if _absolute(p.span.file) == file]
            diagnostics = [self.diagnostic(problem) for problem in dict.fromkeys(here)]
            self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(self.uri(file), diagnostics))

    def diagnostic(self, problem: Problem) -> lsp.Diagnostic:
        related = None
        if problem.related is not None:
            span, text = problem.related
            file = _absolute(span.file)
            place = lsp.Location(self.uri(file), self._span(span))
            related = [lsp.DiagnosticRelatedInformation(place, text)]
        return lsp.Diagnostic(
            self._span(problem.span), problem.message, _SEVERITIES[problem.severity], problem.kind, source="llmchip",
            related_information=related,
        )  # fmt: skip

    def _span(self, span: TextSpan) -> lsp.Range:
        return self.range(_absolute(span.file), span.line - 1, span.column - 1, span.width)


def path_of(uri: str) -> str:
    """The file of a text, or a name of its own for one that has none."""
    found = to_fs_path(uri) if uri.startswith("file:") else None
    return _absolute(found) if found else _UNNAMED.format(quote(uri, safe=""))


def _absolute(path: str) -> str:
    """One path for one file, whatever links lead to it: the assembler names its files in this way, too."""
    return os.path.realpath(path)


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer one editor until it leaves."""
    make().start_io(stdin, stdout)


def make() -> Server:
    """The server with all that it answers."""
    server = Server()
    for add in (_texts, _hover, _navigation, _rename, _completion):
        add(server)
    return server


def _texts(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    async def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        path = path_of(params.text_document.uri)
        server.uris[path] = params.text_document.uri
        server.check_soon(path)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        server.check_soon(path_of(params.text_document.uri))

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    async def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        server.check_soon(path_of(params.text_document.uri))

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    async def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        path = path_of(params.text_document.uri)
        server.uris.pop(path, None)
        server.forget(path)


def _hover(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        path, token = server.token(params.text_document.uri, params.position)
        if token is None:
            return None
        texts = server.unit(path)
        known = next((server.checked[root].names for root in server.roots(path) if root in server.checked), {})
        lines = {file: text.split("\n") for file, text in texts.items()}
        text = words.meaning(token, known, names.definitions(texts, token.text), lines)
        if not text:
            return None
        place = server.range(path, token.line, token.column, len(token.text))
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, text), place)


def _navigation(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(params: lsp.DefinitionParams) -> list[lsp.Location]:
        path, token = server.token(params.text_document.uri, params.position)
        if token is None:
            return []
        file = names.included_path(token, path, server.roots(path))
        if file:
            return [lsp.Location(server.uri(file), lsp.Range(lsp.Position(0, 0), lsp.Position(0, 0)))]
        return [server.location(place) for place in _named(token, server.unit(path), names.definitions)]

    @server.feature(lsp.TEXT_DOCUMENT_REFERENCES)
    def references(params: lsp.ReferenceParams) -> list[lsp.Location]:
        path, token = server.token(params.text_document.uri, params.position)
        with_definition = params.context.include_declaration
        found = _named(token, server.unit(path), lambda texts, name: list(names.places(texts, name)))
        return [server.location(p) for p in found if with_definition or p.token.role is Role.REFERENCE]

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def symbols(params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
        path = path_of(params.text_document.uri)
        found = []
        for place in names.all_definitions({path: server.text(path) or ""}):
            token = place.token
            kind = lsp.SymbolKind.Function if token.role is Role.LABEL else lsp.SymbolKind.Variable
            where = server.range(path, token.line, token.column, len(token.text))
            found.append(lsp.DocumentSymbol(token.text, kind, where, where, token.owner))
        return found


def _named(
    token: Token | None, texts: dict[str, str], find: Callable[[dict[str, str], str], list[names.Place]]
) -> list[names.Place]:
    """What is found for a token that is a name."""
    return find(texts, token.text) if token is not None and token.role in (*names.DEFINING, Role.REFERENCE) else []


def _rename(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_PREPARE_RENAME)
    def prepare(params: lsp.PrepareRenameParams) -> lsp.Range | None:
        path, token = server.token(params.text_document.uri, params.position)
        if token is None or not _named(token, server.unit(path), names.definitions):
            return None
        return server.range(path, token.line, token.column, len(token.text))

    @server.feature(lsp.TEXT_DOCUMENT_RENAME, lsp.RenameOptions(prepare_provider=True))
    def rename(params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
        path, token = server.token(params.text_document.uri, params.position)
        texts = server.unit(path)
        places = _named(token, texts, lambda texts, name: list(names.places(texts, name)))
        if token is None or not places:
            return None
        try:
            names.check_new_name(texts, token.text, params.new_name)
        except InputError as error:
            raise _refused(str(error)) from error
        changes: dict[str, list[lsp.TextEdit]] = {}
        for place in places:
            where = server.location(place)
            changes.setdefault(where.uri, []).append(lsp.TextEdit(where.range, params.new_name))
        return lsp.WorkspaceEdit(changes)


def _refused(what: str) -> Exception:
    from pygls.exceptions import JsonRpcInvalidParams

    return JsonRpcInvalidParams(what)


def _completion(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=[".", "=", "@", " "]))
    def complete(params: lsp.CompletionParams) -> lsp.CompletionList:
        path = path_of(params.text_document.uri)
        lines = (server.text(path) or "").split("\n")
        if params.position.line >= len(lines):
            return lsp.CompletionList(False, [])
        at = server.workspace.position_codec.position_from_client_units(lines, params.position)
        texts = server.unit(path)
        known = {
            place.token.text: texts[place.file].split("\n")[place.token.line].strip()
            for place in names.all_definitions(texts)
        }
        found = words.following(lines[at.line], at.character, known)
        return lsp.CompletionList(False, [_item(word) for word in found])


def _item(word: words.Word) -> lsp.CompletionItem:
    meaning: Any = lsp.MarkupContent(lsp.MarkupKind.Markdown, word.meaning) if word.meaning else None
    return lsp.CompletionItem(word.text, kind=_KINDS[word.kind], detail=word.kind, documentation=meaning)

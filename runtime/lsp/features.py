"""What the server answers: one function for each thing that an editor asks, and the process that serves it."""

from collections.abc import Callable
from typing import Any, BinaryIO

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcInvalidParams

from isa.asm.tokens import Role, Token
from isa.errors import InputError
from runtime.lsp import names, words
from runtime.lsp.server import Server, absolute, path_of

_KINDS = {
    "instruction": lsp.CompletionItemKind.Keyword, "operand": lsp.CompletionItemKind.Field,
    "choice": lsp.CompletionItemKind.EnumMember, "directive": lsp.CompletionItemKind.Keyword,
    "queue": lsp.CompletionItemKind.Event, "name": lsp.CompletionItemKind.Variable,
    "function": lsp.CompletionItemKind.Function,
}  # fmt: skip


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer one editor until it leaves."""
    make().start_io(stdin, stdout)


def make() -> Server:
    """The server with all that it answers."""
    server = Server()
    for add in (_texts, _fixes, _hover, _navigation, _rename, _completion):
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


def _fixes(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions([lsp.CodeActionKind.QuickFix]))
    def actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        """Of the problems on the lines that are asked about, those whose word could be another."""
        path, found = path_of(params.text_document.uri), []
        lines = range(params.range.start.line, params.range.end.line + 1)
        for problem in (p for known in server.found.values() for p in known if p.fix):
            diagnostic = server.diagnostic(problem)
            if absolute(problem.span.file) == path and diagnostic.range.start.line in lines:
                edit = lsp.WorkspaceEdit({params.text_document.uri: [lsp.TextEdit(diagnostic.range, problem.fix)]})
                found.append(
                    lsp.CodeAction(
                        f"Replace by '{problem.fix}'", lsp.CodeActionKind.QuickFix, [diagnostic], True, edit=edit
                    )
                )
        return found


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
            raise JsonRpcInvalidParams(str(error)) from error
        changes: dict[str, list[lsp.TextEdit]] = {}
        for place in places:
            where = server.location(place)
            changes.setdefault(where.uri, []).append(lsp.TextEdit(where.range, params.new_name))
        return lsp.WorkspaceEdit(changes)


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

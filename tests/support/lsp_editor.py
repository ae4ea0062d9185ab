"""An editor that talks to `llmcc lsp` over its stdin and stdout."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient

TIMEOUT = 60
T = TypeVar("T")


class Editor:
    """Open texts, and what the server has said of them."""

    def __init__(self, client: LanguageClient) -> None:
        self.client = client
        self.said: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        self.versions: dict[str, int] = {}
        self.texts: dict[str, str] = {}

    def hears(self, params: lsp.PublishDiagnosticsParams) -> None:
        self.said.put_nowait(params)

    def open(self, path: Path, text: str | None = None) -> str:
        """Open a file; gives its URI."""
        uri = path.as_uri()
        self.texts[uri] = path.read_text() if text is None else text
        item = lsp.TextDocumentItem(uri, "llmchip", 1, self.texts[uri])
        self.versions[uri] = 1
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
        return uri

    def type(self, uri: str, text: str) -> None:
        """The text is now another."""
        self.versions[uri] += 1
        self.texts[uri] = text
        document = lsp.VersionedTextDocumentIdentifier(version=self.versions[uri], uri=uri)
        change: Any = lsp.TextDocumentContentChangeWholeDocument(text)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(document, [change]))

    async def problems(self, uri: str) -> list[lsp.Diagnostic]:
        """What the server says next of a text."""
        while True:
            found = await self.waits(self.said.get())
            if found.uri == uri:
                return list(found.diagnostics)

    async def waits(self, answer: Awaitable[T]) -> T:
        return await asyncio.wait_for(answer, TIMEOUT)

    def under(self, uri: str, place: lsp.Range) -> str:
        """What stands at a range of one line, in UTF-16 units."""
        line = self.texts[uri].split("\n")[place.start.line].encode("utf-16-le")
        assert place.start.line == place.end.line
        return line[place.start.character * 2 : place.end.character * 2].decode("utf-16-le")

    def at(self, uri: str, text: str, offset: int = 0) -> lsp.Position:
        """The position of the first `text`, in UTF-16 units."""
        before = self.texts[uri][: self.texts[uri].index(text) + offset]
        column = len(before.rpartition("\n")[2].encode("utf-16-le")) // 2
        return lsp.Position(before.count("\n"), column)


@asynccontextmanager
async def editor(*arguments: str) -> AsyncIterator[Editor]:
    """A running server and its editor; the server must end when it is told to."""
    client = LanguageClient("editor", "1")
    mine = Editor(client)

    client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda params: mine.hears(params))
    await client.start_io(sys.executable, "-m", "runtime.cli", "lsp", *arguments)
    wanted = lsp.InitializeParams(capabilities=lsp.ClientCapabilities(), process_id=None)
    await mine.waits(client.initialize_async(wanted))
    client.initialized(lsp.InitializedParams())
    yield mine
    await mine.waits(client.shutdown_async(None))
    client.exit(None)
    process: Any = client._server
    assert await mine.waits(process.wait()) == 0
    stop: Any = client.stop
    await stop()


def edit(scenario: Callable[[Editor], Awaitable[None]], *arguments: str) -> None:
    """Run what an editor does."""

    async def whole() -> None:
        async with editor(*arguments) as mine:
            await scenario(mine)

    asyncio.run(whole())

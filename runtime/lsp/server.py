"""What the server knows: the open texts, what is wrong with them, and places in the editor's units. What it answers is
in `features`; pygls speaks the protocol.

While somebody types, the text is checked when it has been left alone for `QUIET` seconds, in a thread, so that answers
do not wait for it.
"""

import asyncio
import os
from urllib.parse import quote

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path
from pygls.workspace import ServerTextPosition, ServerTextRange

from isa.asm.problems import Checked
from isa.asm.tokens import Token
from isa.errors import TextSpan
from isa.files import read_text
from isa.shown import shown
from runtime.lsp import names
from runtime.lsp.problems import Problem, problems
from runtime.version import __version__

QUIET = 0.3
_SEVERITIES = {"error": lsp.DiagnosticSeverity.Error, "warning": lsp.DiagnosticSeverity.Warning}
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
            root for root, known in self.checked.items() if root != path and path in map(absolute, known.files)
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
        try:
            found, checked = await asyncio.to_thread(problems, text, path, texts)
        except Exception as error:  # no editor shall take silence for praise
            what = f"the check itself failed: {type(error).__name__}: {shown(str(error))[:200]}"
            found, checked = [Problem(TextSpan(path, 1, 1, 1), what, "internal")], Checked((), files=(path,))
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
        for file in sorted({absolute(file) for file in files}):
            here = [p for found in self.found.values() for p in found if absolute(p.span.file) == file]
            diagnostics = [self.diagnostic(problem) for problem in dict.fromkeys(here)]
            self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(self.uri(file), diagnostics))

    def diagnostic(self, problem: Problem) -> lsp.Diagnostic:
        related = None
        if problem.related is not None:
            span, text = problem.related
            file = absolute(span.file)
            place = lsp.Location(self.uri(file), self._span(span))
            related = [lsp.DiagnosticRelatedInformation(place, text)]
        return lsp.Diagnostic(
            self._span(problem.span), problem.message, _SEVERITIES[problem.severity], problem.kind, source="llmchip",
            related_information=related,
        )  # fmt: skip

    def _span(self, span: TextSpan) -> lsp.Range:
        return self.range(absolute(span.file), span.line - 1, span.column - 1, span.width)


def path_of(uri: str) -> str:
    """The file of a text, or a name of its own for one that has none."""
    found = to_fs_path(uri) if uri.startswith("file:") else None
    return absolute(found) if found else _UNNAMED.format(quote(uri, safe=""))


def absolute(path: str) -> str:
    """One path for one file, whatever links lead to it: the assembler names its files in this way, too."""
    return os.path.realpath(path)

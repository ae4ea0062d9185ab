"""What is wrong with a text, with exact places: the assembler's errors, or the linter's findings where it has none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isa.architecture import WORD_BYTES
from isa.asm.problems import Checked, check_text
from isa.errors import AssemblyError, TextSpan
from isa.shown import shown
from lint.analyse import lint
from lint.check import Finding
from runtime.device.program_file import SUFFIXES

_MEANT = re.compile(r"^did you mean '([^']+)'\?$")
_WORD = re.compile(r"\.?[A-Za-z_]\w*")
_OPERAND = re.compile(r"\b(?:operand|reads|writes) (\w+) = ")


@dataclass(frozen=True)
class Problem:
    """`kind` is the linter's, or `assembly`; `related` is another place that belongs to it; `fix` what could stand in
    place of the word at fault, "" if nobody knows."""

    span: TextSpan
    message: str
    kind: str = "assembly"
    severity: str = "error"
    related: tuple[TextSpan, str] | None = None
    fix: str = ""


def problems(text: str, path: str, texts: Mapping[str, str] | None = None) -> tuple[list[Problem], Checked]:
    """All that is wrong with a text and what it includes. A text that others include is only read, not assembled:
    its names may be theirs."""
    checked = check_text(text, path, Path(path).parent, texts)
    whole = Path(path).suffix.lower() in SUFFIXES
    lines = {path: text.split("\n")}
    found = [_of_error(error, path, lines) for error in checked.errors if whole or _is_syntax(error)]
    if checked.image is not None and whole and not found:
        found = [_of_finding(finding, checked, lines) for finding in lint(checked.image)]
    return found, checked


def _is_syntax(error: AssemblyError) -> bool:
    """Whether an error does not depend on names."""
    return re.search(r"not expected here|unknown (instruction|directive)", error.what) is not None


def _of_error(error: AssemblyError, path: str, lines: Mapping[str, list[str]]) -> Problem:
    what = error.what.split("\n")[0]
    message = f"{what} ({error.hint})" if error.hint else what
    span, meant = error.span or TextSpan(path, 1, 1, 1), _MEANT.search(error.hint)
    if meant is None or span.file not in lines or span.line > len(lines[span.file]):
        return Problem(span, shown(message))
    word = lines[span.file][span.line - 1][span.column - 1 :][: span.width]
    return Problem(span, shown(message), fix=meant[1] if _WORD.fullmatch(word) else "")


def _of_finding(finding: Finding, checked: Checked, lines: Mapping[str, list[str]]) -> Problem:
    span = _place(finding.pc, checked)
    operand = _OPERAND.search(finding.message)
    if operand is not None and span.file in lines:
        span = _narrowed(span, lines[span.file], operand[1])
    related = None
    if finding.other is not None:
        related = _place(finding.other, checked), f"conflicts: {finding.other_instruction}"
    return Problem(span, shown(finding.message), finding.kind, finding.severity, related)


def _place(pc: int, checked: Checked) -> TextSpan:
    index = pc // WORD_BYTES
    if 0 <= index < len(checked.places):
        return checked.places[index]
    return TextSpan(checked.files[0], 1, 1, 1)


def _narrowed(span: TextSpan, lines: list[str], operand: str) -> TextSpan:
    """The operand that a finding speaks of, within its instruction."""
    code = lines[span.line - 1][: span.column - 1 + span.width] if span.line <= len(lines) else ""
    match = re.compile(rf"\b{re.escape(operand)}[ \t]*=[^,@]*").search(code, span.column - 1)
    if match is None:
        return span
    return TextSpan(span.file, span.line, match.start() + 1, len(match[0].rstrip()))

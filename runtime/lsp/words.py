"""What a word means, and which words may follow: asked of the ISA's table, its manual and the directives' rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isa.architecture import MAX_COUNT, QUEUES
from isa.asm.directive_help import DIRECTIVE_HELP
from isa.asm.expression import FUNCTIONS
from isa.asm.tokens import Role, Token, code_of, line_tokens
from isa.doc.manual import for_editor, operand_text
from isa.fields import Field, Kind
from isa.spec import ISA
from runtime.lsp.names import Place


@dataclass(frozen=True)
class Word:
    """Something that may be typed. `kind` is what it is: instruction, operand, choice, directive, queue, name,
    function."""

    text: str
    kind: str
    meaning: str = ""


def meaning(token: Token, names: Mapping[str, Any], definitions: list[Place], lines: Mapping[str, list[str]]) -> str:
    """Markdown about a token, "" for nothing to say. `names` are the values of what the text defines."""
    owner = token.owner.lstrip(".")
    if token.role is Role.MNEMONIC and token.text in ISA:
        return for_editor(token.text)
    if token.role is Role.DIRECTIVE and token.text[1:] in DIRECTIVE_HELP:
        row = DIRECTIVE_HELP[token.text[1:]]
        return f"```llmchip\n{row.example}\n```\n{row.meaning}"
    field = _field(owner, token.text if token.role is Role.OPERAND else token.key)
    if token.role in (Role.OPERAND, Role.LITERAL) and field is not None:
        return f"**{owner}** {operand_text(ISA[owner], field)}"
    if token.role is Role.MARK:
        return _mark(token.text)
    if definitions:
        place = definitions[0]
        line = lines[place.file][place.token.line].strip()
        number = names.get(token.text)
        value = f"{number} ({number:#x})" if isinstance(number, int) and number > 9 else number
        if place.token.role is Role.LABEL:
            value = f"instruction {number}" if number is not None else None
        return f"```llmchip\n{line}\n```" + (f"\n`{token.text}` is {value}" if value is not None else "")
    return ""


def _mark(text: str) -> str:
    if text == "dbg":
        return "a debugger stops at this instruction"
    if text not in {queue.value for queue in QUEUES}:
        return ""
    return (
        f"`{text}<=n`: start when at most n instructions of {text}, among those dispatched before this one, are "
        f"outstanding (0 to {MAX_COUNT})"
    )


def _field(mnemonic: str, name: str) -> Field | None:
    row = ISA.get(mnemonic)
    return next((field for field in row.fields if field.name == name), None) if row else None


def following(line: str, column: int, names: Mapping[str, str]) -> list[Word]:
    """What may stand at a column. `names` are those that the text defines, with the line of each."""
    before = line[:column]
    if len(code_of(before)) < len(before):
        return []  # in a comment
    found = list(line_tokens(before))
    typed = found[-1] if found and found[-1].end == len(before) else None
    head = [token for token in found if token.role is not Role.LABEL]
    if before.rstrip().endswith(".") or (typed is not None and typed.role is Role.DIRECTIVE):
        return [Word(f".{name}", "directive", row.meaning) for name, row in DIRECTIVE_HELP.items()]
    if not head or (typed is not None and typed is head[0]):
        return [Word(row.mnemonic, "instruction", row.summary) for row in ISA.values()]
    return list(_in_statement(before, head, names))


def _in_statement(before: str, head: list[Token], names: Mapping[str, str]) -> Iterator[Word]:
    owner, code = head[0].text, code_of(before)
    if owner.startswith("."):
        yield from (Word(name, "name", text) for name, text in names.items())
        return
    if "@" in code:
        yield from (Word(f"{queue.value}<=", "queue", _mark(queue.value)) for queue in QUEUES)
        yield Word("dbg", "queue", _mark("dbg"))
        return
    piece = code.rpartition(",")[2] if "," in code else code[head[0].end :]
    if "=" not in piece:
        given = {token.text for token in head if token.role is Role.OPERAND}
        row = ISA.get(owner)
        for field in row.fields if row else ():
            if field.name not in given or field.name == piece.strip():
                text = field.name if field.kind is Kind.FLAG else f"{field.name}="
                yield Word(text, "operand", operand_text(row, field) if row else "")
        return
    chosen = _field(owner, piece.partition("=")[0].strip())
    if chosen is not None and chosen.choices:
        yield from (Word(choice, "choice", chosen.doc) for choice in chosen.choices)
        return
    yield from (Word(name, "name", text) for name, text in names.items())
    if chosen is None or chosen.kind in (Kind.INT, Kind.F32):
        yield from (Word(name, "function") for name in FUNCTIONS)

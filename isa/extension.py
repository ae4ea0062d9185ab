"""Instructions from outside the repository: one Python file of the user's, named by him and never by an image.

    EXTENSION = Extension("vector-minimum", (ROW,), {"vmin": handler})      in the file
    llmcc run image.llmchip --extension vmin.py                              or llmchip.extend("vmin.py")

Everything that asks the table knows them then: assembler, disassembler, manual, lint, timing, emulator, debugger. Their
opcodes are those that the instruction set leaves free for it. An image that uses them records the extension's name and
hash, and is refused without it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from isa.architecture import EXTENSION_OPCODES, WORD_BYTES
from isa.errors import ImageError, InputError
from isa.fields import Instruction
from isa.spec import BY_OPCODE, HEADER_BITS, ISA

KEY = "extensions"  # in an image's metadata: name -> sha256 of the file


@dataclass(frozen=True)
class Extension:
    """Rows of the table, and what gives them meaning, by mnemonic.

    `handlers` are the emulator's (emulator/context.py). `compiler` gives what the compiler needs to emit the
    instructions (compiler/extensions.py); it is called when something is compiled, so that running needs no torch.
    """

    name: str
    instructions: tuple[Instruction, ...]
    handlers: Mapping[str, Callable[..., None]]
    compiler: Callable[[], Any] | None = None
    sha256: str = ""  # of the file it came from


INSTALLED: dict[str, Extension] = {}


def add(extension: Extension) -> None:
    """Put the instructions into the table. The same one twice is fine; raises InputError for what cannot be added."""
    known = INSTALLED.get(extension.name)
    if known is not None:
        if known.sha256 != extension.sha256:
            raise InputError(f"another extension '{extension.name}' is there already", hint="start a new process")
        return
    strangers = sorted(set(extension.handlers) - {row.mnemonic for row in extension.instructions})
    if not re.fullmatch(r"[a-z][a-z0-9-]*", extension.name) or strangers:
        what = f"has handlers for {', '.join(strangers)}" if strangers else "has no name of letters, digits and dashes"
        raise InputError(f"extension '{extension.name}' {what}", hint="a handler is for an instruction of its own")
    for number, row in enumerate(extension.instructions):
        twins = [other for other in extension.instructions[:number] if other.opcode == row.opcode]
        problem = _problem(extension, row) or (f"has the opcode of '{twins[0].mnemonic}'" if twins else "")
        if problem:
            raise InputError(f"extension '{extension.name}': instruction '{row.mnemonic}' {problem}")
    for row in extension.instructions:
        ISA[row.mnemonic] = BY_OPCODE[row.opcode] = replace(row, extension=extension.name)
    INSTALLED[extension.name] = extension


def _problem(extension: Extension, row: Instruction) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", row.mnemonic):
        return "has no name of letters, digits and underscores"
    if any(field.name == "len" or len(field.choices) > 1 << field.bits for field in row.fields):
        return "has an operand 'len', which is that of loops, or more choices than its field holds"
    if row.mnemonic in ISA:
        return "is there already"
    if row.opcode not in EXTENSION_OPCODES:
        return f"has opcode {row.opcode:#x}; those of extensions are {EXTENSION_OPCODES.start:#x} to {EXTENSION_OPCODES.stop - 1:#x}"
    if row.opcode in BY_OPCODE:
        return f"has opcode {row.opcode:#x}, which is that of '{BY_OPCODE[row.opcode].mnemonic}'"
    if HEADER_BITS + sum(f.bits for f in row.fields) > 8 * WORD_BYTES:
        return f"takes {HEADER_BITS + sum(f.bits for f in row.fields)} bits of {8 * WORD_BYTES}"
    if row.mnemonic not in extension.handlers:
        return "has no handler"
    return ""


def used_by(opcodes: Iterable[int]) -> dict[str, str]:
    """The extensions whose instructions are among these, with their hashes."""
    names = sorted({BY_OPCODE[opcode].extension for opcode in set(opcodes) if opcode in BY_OPCODE} - {""})
    return {name: INSTALLED[name].sha256 for name in names}


def require(recorded: object, where: str) -> None:
    """Raise ImageError unless the extensions that an image records are installed. Nothing is looked for, let alone
    loaded."""
    if recorded is None:
        return
    if not isinstance(recorded, dict) or not all(isinstance(text, str) for pair in recorded.items() for text in pair):
        raise ImageError(
            "section metadata: its extensions are no names and hashes",
            where,
            "the program that wrote this image is at fault",
        )
    for name, sha256 in recorded.items():
        known = INSTALLED.get(name)
        if known is None:
            raise ImageError(
                f"it uses instructions of the extension '{name}'",
                where,
                "give the extension's file with --extension FILE",
            )
        if known.sha256 != sha256:
            raise ImageError(
                f"it was made with another extension '{name}' (sha256 {sha256[:12]})", where, "compile the model again"
            )


def digests() -> str:
    """Of all that are installed: part of what compiled images are found by."""
    return " ".join(f"{name}:{extension.sha256}" for name, extension in sorted(INSTALLED.items()))

"""Every error a user can meet. One class per kind; each says what, where, and what to do about it."""

from dataclasses import dataclass


class Error(Exception):
    """Base of everything that llmchip raises on purpose.

    `what` states the problem in one sentence, `where` names file, line, node or section,
    `hint` says what to do. `kind` is the stable name used in `--json` output.
    """

    kind = "error"

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.what}{advice}"


def described(error: Error) -> dict[str, str]:
    """An error as a document has it."""
    return {"kind": error.kind, "what": error.what, "where": error.where, "hint": error.hint}


class CompileError(Error):
    """The compiler cannot make a program of this model, input or option."""

    kind = "compile"


class UnsupportedError(CompileError):
    """The model uses something that the chip or the compiler does not have."""

    kind = "unsupported"


class InternalError(CompileError):
    """Something went wrong inside llmchip: a fault of ours, not of the model."""

    kind = "internal"

    def __init__(
        self,
        what: str,
        where: str = "",
        hint: str = "this is a fault of llmchip, not of the model; --traceback shows where",
    ) -> None:
        super().__init__(what, where, hint)


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Characters of a text: line and column count from 1. `name` is a name that is not defined, if that is wrong."""

    file: str
    line: int
    column: int
    width: int
    name: str = ""


class AssemblyError(Error):
    """Bad assembly text; `where` is file:line:column, and so is `span`, for programs, where a line is at fault."""

    kind = "assembly"

    def __init__(self, what: str, where: str = "", hint: str = "", span: TextSpan | None = None) -> None:
        super().__init__(what, where, hint)
        self.span = span


class ImageError(Error):
    """A file that is not a usable image, or not for this chip or version."""

    kind = "image"


class ChipError(Error):
    """A chip file that is not valid."""

    kind = "chip"


class ModelError(Error):
    """A MODEL argument that cannot be used, or that would run code which nobody asked for."""

    kind = "model"


class InputError(Error):
    """An argument or input tensor that does not fit."""

    kind = "input"


class Trap(Error):
    """The emulated chip stopped: an illegal instruction or access. Names pc, instruction and node."""

    kind = "trap"

    def __init__(self, what: str, pc: int, instruction: str = "", node: str = "") -> None:
        self.pc, self.instruction, self.node = pc, instruction, node
        place = f"pc {pc:#06x}" + (f" '{instruction}'" if instruction else "") + (f" node {node}" if node else "")
        super().__init__(what, place)


class OverBudget(Trap):
    """The launch did as much as it may (emulator/budget.py): it may be a program that never ends."""

    kind = "budget"


def interrupted(error: BaseException | None) -> bool:
    """Whether the user's Ctrl-C is at the bottom of an error: Python 3.11 itself (`__set_name__`) and torch turn it
    into exceptions of theirs."""
    seen: set[int] = set()  # chains of exceptions may be rings
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False

"""Public functions whose docstring does not name what they raise: `python -m tools.raises [FOLDER ...]` lists them.

Counted is a `raise` in a function's own body: not in a nested function, not where the function catches it itself, no
bare `raise`, no AssertionError, which is a fault of ours and nobody's to catch. The docstring of a command is its help.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FOLDERS = ("isa", "lint", "compiler", "emulator", "runtime", "llmchip")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Silent(NamedTuple):
    """A function, the line it starts at, and the exceptions that its docstring leaves out."""

    file: str
    line: int
    name: str
    exceptions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name}: {', '.join(self.exceptions)}"


def silent(folders: Sequence[str] = FOLDERS) -> Iterator[Silent]:
    """Every public function below `folders` that raises what its docstring does not name."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            for name, function in _public(ast.parse(path.read_text()).body):
                doc = ast.get_docstring(function) or ""
                unnamed = sorted(name for name in set(_raised(function.body)) if not re.search(rf"\b{name}\b", doc))
                if unnamed and not _is_help(function):
                    yield Silent(file, function.lineno, name, tuple(unnamed))


def _public(body: Sequence[ast.stmt], owner: str = "") -> Iterator[tuple[str, Function]]:
    for statement in body:
        if isinstance(statement, Function) and not statement.name.startswith("_"):
            yield owner + statement.name, statement
        elif isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
            yield from _public(statement.body, f"{owner}{statement.name}.")


def _raised(body: Sequence[ast.AST]) -> Iterator[str]:
    """Patterns: names of classes; of an exception that was kept in a variable, only that there is one."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from _named(node.exc)
        if isinstance(node, ast.Try):
            caught = {name for handler in node.handlers for name in _names(handler)}
            yield from (name for name in _raised(node.body) if not caught & {name, "Error", "Exception"})
            yield from _raised([*node.handlers, *node.orelse, *node.finalbody])
        else:
            yield from _raised(list(ast.iter_child_nodes(node)))


def _names(handler: ast.ExceptHandler) -> Iterator[str]:
    if handler.type is not None:
        yield from (node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name))


def _is_help(function: Function) -> bool:
    return any("click.command" in ast.unparse(decorator) for decorator in function.decorator_list)


def _named(raised: ast.expr) -> Iterator[str]:
    made = raised.func if isinstance(raised, ast.Call) else raised
    parts = ast.unparse(made).split(".")
    classes = [part for part in parts if part[:1].isupper()]
    name = classes[-1] if classes else "Raises?"
    if name != "AssertionError":
        yield name


if __name__ == "__main__":
    print(*silent(sys.argv[1:] or FOLDERS), sep="\n")

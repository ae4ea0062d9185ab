"""The debugger's commands: a table, which is the help text, too, and the shell that executes lines.

shell = Shell(session)
for line in shell.execute("break activation"): print(line)
"""

from collections.abc import Iterator, Mapping
from typing import Any

from isa.asm.text import guess
from isa.errors import Error, InputError
from isa.spec import ISA
from runtime.debug import changing, looking, moving, stopping
from runtime.debug.state import Answer, Command, Said, State
from runtime.debug.styled import styled


class Shell(State):
    """Executes command lines on a session. An error is one line, and the session goes on."""

    def execute(self, line: str) -> Iterator[str]:
        """The lines that a command prints."""
        return (part for part in self.answer(line) if isinstance(part, str))

    def document(self, line: str) -> dict[str, Any]:
        """The same with the numbers, for programs."""
        said = list(self.answer(line))
        lines = [str(part) for part in said if isinstance(part, str)]
        return {"command": line, "lines": lines, "data": [part for part in said if isinstance(part, Mapping)]}

    def answer(self, line: str) -> Iterator[Said]:
        """Lines and numbers, as they come."""
        words = _words(line)
        if not words:
            return
        try:
            yield from find(words[0]).run(self, words[1:])
        except Error as error:
            self.failed += 1
            yield styled(("fault", "error"), ": " + " ".join(str(error).split()))
        except MemoryError:
            self.failed += 1
            yield styled(("fault", "error"), ": not enough memory for this")


def _words(line: str) -> list[str]:
    """The words of a line; the form of `print/x` is a word of its own."""
    words = line.split("#", 1)[0].split()
    name, slash, form = words[0].partition("/") if words else ("", "", "")
    return [name, "/" + form, *words[1:]] if name and slash else words


def find(name: str) -> Command:
    """The command of a name, an abbreviation, or the start of a name that only one command has. Raises InputError when
    none or several have."""
    for command in COMMANDS:
        if name == command.name or name in command.short:
            return command
    starting = [command for command in COMMANDS if command.name.startswith(name)]
    if len(starting) == 1:
        return starting[0]
    hint = f"one of {', '.join(c.name for c in starting)}" if starting else guess(name, [c.name for c in COMMANDS])
    raise InputError(f"there is no command '{name}'", hint=hint if len(hint) < 100 else "'help' lists them")


def _help(state: State, words: list[str]) -> Answer:
    if words:
        if words[0] in ISA:
            row = ISA[words[0]]
            yield f"{row.mnemonic} ({row.engine.value}): {row.summary}"
            yield from (f"    {line}" for line in row.pseudocode.splitlines())
            return
        command = find(words[0])
        names = ", ".join((command.name, *command.short))
        yield f"{names} {command.usage}".rstrip()
        yield f"    {command.summary}"
        yield f"    for example: {command.example}"
        return
    for command in COMMANDS:
        yield styled(("mnemonic", command.name), f" {command.usage}".rstrip())
        yield f"    {command.summary}"
        yield f"    for example: {command.example}"


def _quit(state: State, words: list[str]) -> Answer:
    state.done = True
    return ()


COMMANDS = (
    Command(
        "run", "", "run on, until a breakpoint, a watch, a trap or the end", "run", moving.run, ("r", "c", "continue")
    ),
    Command("step", "[N]", "execute one instruction, or N", "step 10", moving.step, ("s",)),
    Command(
        "next", "[N]", "run to the first instruction of the next node, or of the Nth", "next", moving.next_node, ("n",)
    ),
    Command(
        "until",
        "PC|NODE",
        "run to an instruction, or to the first instruction of a node",
        "until 0x00a0",
        moving.until,
        ("u",),
    ),
    Command(
        "finish", "[NODE]", "run until every element of a node is written", "finish layer_norm", moving.finish, ("f",)
    ),
    Command("reverse-step", "[N]", "go one instruction back, or N", "reverse-step 3", moving.back, ("rs", "back")),
    Command(
        "reverse-continue", "", "go back to the last stop before this one", "reverse-continue", moving.reverse, ("rc",)
    ),
    Command("goto", "TIME", "jump to the moment after TIME instructions", "goto 1200", moving.goto),
    Command("restart", "", "go back to the start; breakpoints stay", "restart", moving.restart),
    Command(
        "break",
        f"[{stopping.PLACES}] [if EXPRESSION]",
        "stop before an instruction, at a node's or line's first instruction, behind a write",
        "break write sram[0..0x40]",
        stopping.set_break,
        ("b",),
    ),
    Command(
        "watch",
        "PLACE [SHAPE] [if EXPRESSION]",
        "stop when bytes change",
        "watch dram.out[0]:f32 2x8",
        stopping.watch,
        ("w",),
    ),
    Command(
        "condition",
        "NUMBER [EXPRESSION]",
        "stop at a breakpoint or watch only where the expression is true; without one, always",
        "condition 1 s5 > 3 and i1 == 2",
        stopping.condition,
    ),
    Command(
        "delete",
        "NUMBER",
        "forget a breakpoint, watch or display, or take back what was set",
        "delete 1",
        stopping.delete,
        ("d",),
    ),
    Command(
        "print",
        "[/x|/q] [PLACE [SHAPE]|NODE[INDEX]|EXPRESSION] [by SCALE]",
        "show memory, a node's value, a number, or what the last instruction wrote; /x: bits, /q: dequantized",
        "print sram[0x100]:f32 4x8",
        looking.print_value,
        ("p", "x"),
    ),
    Command(
        "display",
        "[/x|/q] [WHAT print TAKES]",
        "print it at each stop; without an argument, now",
        "display acc[0x0]:i32 4x8",
        looking.display,
    ),
    Command(
        "dump",
        "[/x|/q] NODE|PLACE [SHAPE] FILE.npy",
        "write a value to a file that numpy loads",
        "dump activation[0] activation.npy",
        looking.dump,
    ),
    Command(
        "set",
        "[PLACE [SHAPE]|NODE[INDEX]|sN|vN.FIELD = VALUES]",
        "change memory, an element, a register; 'elements N' and 'precision N': how much print shows",
        "set sram[0x100]:f32 = 1.5",
        changing.set_value,
    ),
    Command(
        "compare",
        "[NODE]",
        "compare a node with PyTorch's value, bit for bit",
        "compare activation",
        looking.compare,
        ("cmp",),
    ),
    Command(
        "info", "[registers|loops|breakpoints|engines]", "the machine's state", "info registers", looking.info, ("i",)
    ),
    Command(
        "backtrace",
        "",
        "the loops that are running, innermost first, with their indices",
        "backtrace",
        looking.backtrace,
        ("bt",),
    ),
    Command(
        "disassemble",
        "[PC|NODE] [N]",
        "N instructions on either side of the next instruction, of a pc or of a node",
        "disassemble activation 8",
        looking.disassemble,
        ("dis", "l"),
    ),
    Command("where", "", "the next instruction, its operands and its node", "where", looking.where_am_i),
    Command(
        "unfuse",
        "[NODE]",
        "compile the model again without fusing, and go on at the same node of the same launch, or at NODE",
        "unfuse softmax",
        changing.unfuse,
    ),
    Command(
        "nodes",
        "[TEXT]",
        "list the nodes with TEXT in their name, operator, module or calls",
        "nodes layer_norm",
        looking.nodes,
    ),
    Command(
        "help", "[COMMAND|MNEMONIC]", "this list, one command, or one instruction", "help break", _help, ("h", "?")
    ),
    Command("quit", "", "leave", "quit", _quit, ("q", "exit")),
)

"""The debugger's commands: one function each, from words to lines. The table at the end is the help text, too.

shell = Shell(session)
for line in shell.execute("break activation"): print(line)
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from isa.asm.text import guess, guess_instruction
from isa.errors import Error, InputError
from isa.spec import ISA
from runtime.debug import places, show
from runtime.debug.places import integer, memory_range, no_more, one, where
from runtime.debug.session import Session, Stop

Lines = Iterable[str]


class Shell:
    """Executes command lines on a session. An error is one line, and the session goes on."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.done = False
        self.failed = 0  # commands that ended in an error, and comparisons that found a difference

    def execute(self, line: str) -> Iterator[str]:
        """The lines that a command prints."""
        words = line.split("#", 1)[0].split()
        if not words:
            return
        try:
            command = find(words[0])
            yield from command.run(self, words[1:])
        except Error as error:
            self.failed += 1
            yield "error: " + " ".join(str(error).split())
        except MemoryError:
            self.failed += 1
            yield "error: not enough memory for this"


@dataclass(frozen=True)
class Command:
    """A row of the table: `usage` behind the name, one line of meaning, an example."""

    name: str
    usage: str
    summary: str
    example: str
    run: Callable[[Shell, list[str]], Lines]
    short: tuple[str, ...] = ()


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


def _stopped(shell: Shell, stop: Stop) -> Lines:
    if stop.text:
        yield stop.text
    if stop.reason == "trap":
        shell.failed += 1
    yield from show.location(shell.session)


def _run(shell: Shell, words: list[str]) -> Lines:
    no_more(words)
    return _stopped(shell, shell.session.run())


def _step(shell: Shell, words: list[str]) -> Lines:
    return _stopped(shell, shell.session.step(places.count(words)))


def _next(shell: Shell, words: list[str]) -> Lines:
    return _stopped(shell, shell.session.next(places.count(words)))


def _until(shell: Shell, words: list[str]) -> Lines:
    pc, nodes, _ = where(shell.session, one(words, "until PC|NODE"))
    return _stopped(shell, shell.session.until(pc, nodes[0] if nodes else None))


def _finish(shell: Shell, words: list[str]) -> Lines:
    session = shell.session
    number = session.nodes.number(words[0]) if words else session.nodes.at(session.stepper.pc, session.stepper.indices)
    if number is None:
        raise InputError("the next instruction belongs to no node", hint="finish NODE")
    return _stopped(shell, session.finish(number))


def _restart(shell: Shell, words: list[str]) -> Lines:
    no_more(words)
    shell.session.seek(0)
    return show.location(shell.session)


def _goto(shell: Shell, words: list[str]) -> Lines:
    time = integer(one(words, "goto TIME"), "time")
    if time < 0:
        raise InputError(f"time {time} is before the start")
    shell.session.seek(time)
    return show.location(shell.session)


def _back(shell: Shell, words: list[str]) -> Lines:
    return _stopped(shell, shell.session.back(places.count(words)))


def _reverse(shell: Shell, words: list[str]) -> Lines:
    no_more(words)
    return _stopped(shell, shell.session.reverse())


def _break(shell: Shell, words: list[str]) -> Lines:
    session = shell.session
    if not words:
        return show.points(session)
    if words[0] == "write":
        place = memory_range(session, words[1:], "break write PLACE")
        point = session.points.add(f"write to {place}", session.stepper.memory, writes=place)
    elif words[0] == "op":
        mnemonic = one(words[1:], "break op MNEMONIC")
        if mnemonic not in ISA:
            raise InputError(f"unknown instruction '{mnemonic}'", hint=guess_instruction(mnemonic))
        point = session.points.add(f"op {mnemonic}", session.stepper.memory, mnemonic=mnemonic)
    else:
        pc, nodes, text = where(session, one(words, "break PC|NODE|FILE:LINE|op MNEMONIC|write PLACE"))
        point = session.points.add(text, session.stepper.memory, pc=pc, nodes=nodes)
    return [f"breakpoint {point.number}: {point.text}"]


def _watch(shell: Shell, words: list[str]) -> Lines:
    place = memory_range(shell.session, words, "watch PLACE")
    point = shell.session.points.add(str(place), shell.session.stepper.memory, watch=place)
    return [f"watch {point.number}: {point.text}"]


def _delete(shell: Shell, words: list[str]) -> Lines:
    number = integer(one(words, "delete NUMBER"))
    point = shell.session.points.delete(number)
    if point is None:
        raise InputError(f"there is no breakpoint {number}", hint="'info breakpoints' lists them")
    return [f"deleted {number}: {point.text}"]


def _print(shell: Shell, words: list[str]) -> Lines:
    session = shell.session
    if not words:
        return _last_written(session)
    name = words[0]
    found = places.register(name)
    if found is not None and found[0] == "s":
        return [f"{name} = {session.stepper.core.scalars[found[1]]}"]
    if found is not None or places.is_memory(name):
        if len(words) > 2:
            raise InputError(f"'{words[2]}' is one argument too many", hint="print PLACE [SHAPE]")
        what = places.block(session, words)
        return show.memory(session, what.view, what.extents, name if found else "")
    return _print_node(session, " ".join(words))


def _print_node(session: Session, text: str) -> Lines:
    name, bracket, index = text.partition("[")
    if bracket and not index.endswith("]"):
        raise InputError(f"'{text}' has no closing bracket")
    number = session.nodes.number(name.strip())
    selected = places.slices(index[:-1]) if bracket else None
    try:
        return list(show.node(session.collect(number), selected))
    except IndexError as error:
        raise InputError(f"[{index}: {error}") from None


def _last_written(session: Session) -> Lines:
    last = session.stepper.last
    if last is None or not last.writes:
        raise InputError("the last instruction wrote nothing", hint="print v3, print sram[0]:f32 4x8, or print NODE")
    return [line for block in last.writes for line in show.memory(session, block.view, block.extents, block.name)]


def _info(shell: Shell, words: list[str]) -> Lines:
    session = shell.session
    parts: dict[str, Callable[[Session], Lines]] = {
        "registers": show.registers, "loops": show.loops, "breakpoints": show.points, "engines": show.engines,
    }  # fmt: skip
    if not words:
        return [
            line for title, part in parts.items() for line in (f"{title}:", *(f"  {text}" for text in part(session)))
        ]
    name = one(words, "info [registers|loops|breakpoints|engines]")
    chosen = [part for title, part in parts.items() if title.startswith(name)]
    if not chosen:
        raise InputError(f"there is no info about '{name}'", hint=", ".join(parts))
    return chosen[0](session)


def _disassemble(shell: Shell, words: list[str]) -> Lines:
    session = shell.session
    pc, rest = session.stepper.pc, words
    if words and (not words[0].isdecimal() or len(words) > 1):
        found, nodes, _ = where(session, words[0])
        starts = [span.first for span in session.image.debug.spans if nodes and set(nodes) & set(span.nodes)]
        pc, rest = found if found is not None else min(starts, default=pc), words[1:]
    return show.around(session, pc, places.count(rest, 5))


def _backtrace(shell: Shell, words: list[str]) -> Lines:
    no_more(words)
    return show.loops(shell.session)


def _where_am_i(shell: Shell, words: list[str]) -> Lines:
    no_more(words)
    return show.location(shell.session)


def _compare(shell: Shell, words: list[str]) -> Lines:
    session = shell.session
    number = session.nodes.number(words[0]) if words else session.nodes.at(session.stepper.pc, session.stepper.indices)
    if number is None:
        raise InputError("the next instruction belongs to no node", hint="compare NODE")
    result = session.compare(number)
    shell.failed += not result.equal
    return show.comparison(result)


def _nodes(shell: Shell, words: list[str]) -> Lines:
    wanted = words[0] if words else ""
    found = [
        (n, node) for n, node in enumerate(shell.session.nodes.debug.nodes) if wanted in node.name or wanted in node.op
    ]
    if not found:
        raise InputError(f"no node has '{wanted}' in its name" if wanted else "the image has no debug map")
    for number, node in found:
        text = f"{node.name:<32} {node.op:<28} {list(node.shape)} {node.dtype} {node.status}"
        yield f"{text}  {shell.session.nodes.place(number)}".rstrip()


def _help(shell: Shell, words: list[str]) -> Lines:
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
        yield f"{f'{command.name} {command.usage}'.rstrip():<52} {command.summary}"
        yield f"{'':<52} for example: {command.example}"


def _quit(shell: Shell, words: list[str]) -> Lines:
    shell.done = True
    return ()


COMMANDS = (
    Command("run", "", "run on, until a breakpoint, a watch, a trap or the end", "run", _run, ("r", "c", "continue")),
    Command("step", "[N]", "execute one instruction, or N", "step 10", _step, ("s",)),
    Command("next", "[N]", "run to the first instruction of the next node, or of the Nth", "next", _next, ("n",)),
    Command(
        "until",
        "PC|NODE",
        "run to an instruction, or to the first instruction of a node",
        "until 0x00a0",
        _until,
        ("u",),
    ),
    Command("finish", "[NODE]", "run until every element of a node is written", "finish layer_norm", _finish, ("f",)),
    Command("reverse-step", "[N]", "go one instruction back, or N", "reverse-step 3", _back, ("rs", "back")),
    Command("reverse-continue", "", "go back to the last stop before this one", "reverse-continue", _reverse, ("rc",)),
    Command("goto", "TIME", "jump to the moment after TIME instructions", "goto 1200", _goto),
    Command("restart", "", "go back to the start; breakpoints stay", "restart", _restart),
    Command(
        "break",
        "[PC|NODE|FILE:LINE|op MNEMONIC|write PLACE]",
        "stop before an instruction, at a node's or line's first instruction, behind a write",
        "break write sram[0..0x40]",
        _break,
        ("b",),
    ),
    Command("watch", "PLACE [SHAPE]", "stop when bytes change", "watch dram.out[0]:f32 2x8", _watch, ("w",)),
    Command("delete", "NUMBER", "forget a breakpoint or watch", "delete 1", _delete, ("d",)),
    Command(
        "print",
        "[vN|sN|PLACE [SHAPE]|NODE[INDEX]]",
        "show a view, a scalar, memory, a node's value, or what the last instruction wrote",
        "print sram[0x100]:f32 4x8",
        _print,
        ("p", "x"),
    ),
    Command(
        "compare",
        "[NODE]",
        "compare a node with PyTorch's value, bit for bit",
        "compare activation",
        _compare,
        ("cmp",),
    ),
    Command("info", "[registers|loops|breakpoints|engines]", "the machine's state", "info registers", _info, ("i",)),
    Command(
        "backtrace",
        "",
        "the loops that are running, innermost first, with their indices",
        "backtrace",
        _backtrace,
        ("bt",),
    ),
    Command(
        "disassemble",
        "[PC|NODE] [N]",
        "N instructions on either side of the next instruction, of a pc or of a node",
        "disassemble activation 8",
        _disassemble,
        ("dis", "l"),
    ),
    Command("where", "", "the next instruction, its operands and its node", "where", _where_am_i),
    Command("nodes", "[TEXT]", "list the nodes with TEXT in their name or operator", "nodes layer_norm", _nodes),
    Command(
        "help", "[COMMAND|MNEMONIC]", "this list, one command, or one instruction", "help break", _help, ("h", "?")
    ),
    Command("quit", "", "leave", "quit", _quit, ("q", "exit")),
)

"""The commands, as scripts see them: what is printed, and that an error is one line and ends nothing."""

import pytest
from checkout import ROOT
from step_harness import ADD, MUL, looped, say, session

from isa.image.records import DebugMap
from runtime.debug.commands import COMMANDS, Shell
from runtime.debug.terminal import run_lines, words_for


@pytest.fixture
def shell() -> Shell:
    return Shell(session())


def test_help_has_every_command_with_an_example(shell: Shell) -> None:
    """Breaks when a command is added without its example, or an example that is no command."""
    text = say(shell, "help")
    for command in COMMANDS:
        assert f"for example: {command.example}" in text
        assert command.example.split()[0] in (command.name, *command.short)
        assert command.example in say(shell, f"help {command.name}")
    assert "matrix product" in say(shell, "help mm")


def test_stepping_shows_the_next_word_with_its_operands(shell: Shell) -> None:
    text = say(shell, "step 8", "step")
    assert f"=> {ADD:#06x}  vop f=add, d=v2, a=v2, rows=1, cols=8, imm=0x00000001  (i1=0)" in text
    assert "d = sram[0x40]:i32 1x8" in text
    assert "node add  lib/models/toy.py:7: y = x + 1" in text or "node add" in text


def test_break_at_line_node_and_write(shell: Shell) -> None:
    text = say(shell, "break toy.py:8", "break 0x90", "break write dram.out[0..4]", "break op sto", "break")
    assert [line.partition(":")[0] for line in text.splitlines()[-4:]] == ["1", "2", "3", "4"]
    assert "breakpoint 2: pc 0x0090" in say(shell, "run")
    assert "breakpoint 1: toy.py:8" in say(shell, "run")
    assert "breakpoint 4: op sto" in say(shell, "run")
    assert "breakpoint 3: write to dram.out[0x0..0x4) by the instruction at 0x00b0" in say(shell, "run")
    assert "deleted 2" in say(shell, "delete 2")
    assert shell.failed == 0


def test_print_view_memory_scalar_and_node(shell: Shell) -> None:
    say(shell, "until add", "step 2")
    assert "v2 = sram[0x40]:i32 1x8, bytes 0x40 to 0x60\n[ 2  4  6  8 10 12 14 16]" in say(shell, "print v2")
    assert "d = sram[0x40]:i32 1x8" in say(shell, "print")
    assert "[[2 4]\n [6 8]]" in say(shell, "print sram[0x40]:i32 2x2")
    assert "[2 4]" in say(shell, "print sram[0x40..0x48]:i32")
    assert say(shell, "print s5") == "s5 = 3"
    assert "mul (aten.mul) [3, 8] int32, stored as i32, 8 of 24 elements written so far (others 0)" in say(
        shell, "print mul"
    )
    assert say(shell, "print mul[0, :3]").splitlines()[-1] == "[2 4 6]"


def test_watch_and_reverse(shell: Shell) -> None:
    text = say(shell, "watch sram[0x40]:i32 8", "run", "run", "reverse-continue", "reverse-step", "where")
    assert "watch 1: sram[0x40..0x60)" in text
    assert "bytes changed, first 0x40: 0x00 -> 0x01, by the instruction at 0x0090" in text


def test_info_backtrace_and_disassemble(shell: Shell) -> None:
    say(shell, f"until {MUL:#x}", "step 4")
    assert "#1 loop i1=1 of 3, instructions 0x0080 to 0x00c0" in say(shell, "backtrace")
    assert "v1   dram.in[0x20]:i32 ps=0 rs=8  base 0x0 + 0x20*(i1//1)" in say(shell, "info registers")
    assert "vec        3 instructions, last 0x0090; executes the next instruction" in say(shell, "info engines")
    text = say(shell, "disassemble 1")
    assert [line[:9] for line in text.splitlines() if "0x0" in line[:9]] == ["   0x0090", "=> 0x00a0", "   0x00b0"]
    assert "; add" in say(shell, "disassemble add 1")
    assert "loops:" in say(shell, "info")
    assert "lib/models/toy.py:7" in say(shell, "nodes") or "models/toy.py:7" in say(shell, "nodes")


BAD = [
    "prnt",
    "step x",
    "step 0",
    "step 1 2",
    "until nowhere",
    "until 0x3",
    "until 0x99990",
    "finish",
    "finish seen",
    "goto -1",
    "goto x",
    "break nowhere",
    "break toy.py:99",
    "break other.py:1",
    "break write",
    "break write sram[0x40..0x40]",
    "break write v9",
    "break op vmadd",
    "watch",
    "watch acc[0..0xfffffffffff]",
    "watch sram[",
    "watch sram[0]:f99",
    "watch dram[0]:f32",
    "watch dram.moon[0]",
    "watch sram[zz]",
    "delete",
    "delete 7",
    "print",
    "print v0",
    "print v99",
    "print v9",
    "print s16",
    "print nowhere",
    "print mul",
    "print sram[0]:f32 0x4",
    "print sram[0]:f32 4xx",
    "print sram[0x3]:f32 1",
    "print sram[0]:f32 9999999999",
    "print sram[0] 1 2",
    "print mul[",
    "info moon",
    "compare",
    "compare mul",
    "nodes zzz",
    "help moon",
    "where am i",
    "re",
    "print sram[0]:i32 1",
    "break",
    "goto 99999999999999999999999",
    "print sram[-4]:i32",
]


@pytest.mark.parametrize("line", BAD)
def test_an_error_is_one_line_and_the_session_goes_on(line: str) -> None:
    """Breaks on any exception that gets through, or an answer of several lines."""
    shell = Shell(session())
    answer = list(shell.execute(line))
    if line not in ("break", "goto 99999999999999999999999"):  # the first lists nothing; the second runs to the end
        assert len(answer) == 1
        assert answer[0].startswith("error: ")
        assert shell.failed == 1
    assert "vset" in say(shell, "restart")


def test_scripts_ignore_comments_and_stop_at_quit(shell: Shell) -> None:
    written: list[str] = []
    run_lines(shell, ["# nothing", "", "print s5  # a scalar", "quit", "print s6"], written.append)
    assert written == ["s5 = 0"]


def test_the_end_is_an_end(shell: Shell) -> None:
    assert "exit code 0" in say(shell, "run")
    assert "error: the program has ended" in say(shell, "step")
    assert "=> 0x00c0" in say(shell, "reverse-step")


def test_completion_knows_commands_nodes_places_and_mnemonics(shell: Shell) -> None:
    assert "reverse-step" in words_for(shell, [])
    assert {"add", "mul", "v3", "sram["} <= set(words_for(shell, ["print"]))
    assert "mm" in words_for(shell, ["break", "op"])
    assert "dram.out[" in words_for(shell, ["b", "write"])
    assert {"mm", "print"} <= set(words_for(shell, ["help"]))


def test_an_image_without_debug_map_can_be_stepped() -> None:
    shell = Shell(session(debug=DebugMap()))
    assert "ended" in say(shell, "step 3", "run")
    assert "no debug map" in say(shell, "break add")
    assert looped().words == 13


def test_the_page_about_the_debugger_has_every_command() -> None:
    """Breaks when a command changes and docs/debugger.md does not."""
    page = (ROOT / "docs" / "debugger.md").read_text()
    for command in COMMANDS:
        usage = f"{command.name} {command.usage}".strip().replace("|", "\\|")
        assert f"| `{usage}`" in page
        assert f"| {command.summary} | `{command.example}` |" in page

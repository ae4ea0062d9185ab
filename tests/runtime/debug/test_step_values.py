"""Values in their three forms, in files, at each stop, in documents; conditions; and what `set` changes."""

import json
from pathlib import Path

import numpy as np
import pytest
from step_harness import ADD, COLS, MUL, TURNS, X, looped, say, session

from isa.image.records import DebugMap, DebugNode
from runtime.debug.commands import Shell
from runtime.debug.styled import Styled, coloured
from runtime.debug.terminal import words_for


@pytest.fixture
def shell() -> Shell:
    return Shell(session())


def data(shell: Shell, line: str) -> dict[str, object]:
    """The last numbers that a command gives; they are JSON."""
    said = shell.document(line)["data"]
    assert said, shell.document(line)
    found: dict[str, object] = json.loads(json.dumps(said[-1], allow_nan=False))
    return found


# ---- forms


def test_hexadecimal_of_a_node_a_range_and_a_scalar(shell: Shell) -> None:
    say(shell, "run")
    assert say(shell, "print/x mul[0, :2]").splitlines()[-1] == "[00000002 00000004]"
    assert say(shell, "p /x s5") == "s5 = 0x3"
    lines = say(shell, "print/x sram[0x40..0x60]").splitlines()
    assert lines[1:] == [
        "0x0040  22 00 00 00 24 00 00 00 26 00 00 00 28 00 00 00",
        "0x0050  2a 00 00 00 2c 00 00 00 2e 00 00 00 30 00 00 00",
    ]


def test_dequantized_by_a_number_and_by_another_value(shell: Shell) -> None:
    say(shell, "run")
    assert say(shell, "print/q mul[0, :3] by 0.5").splitlines()[-1] == "[1. 2. 3.]"
    assert say(shell, "print/q mul[:, :2] by add[:, 0]").splitlines()[-3:] == [
        "[[  2.   4.]",
        " [162. 180.]",
        " [578. 612.]]",
    ]
    assert "the scale of mul[0] is not known" in say(shell, "print/q mul[0]")
    assert "does not fit" in say(shell, "print/q mul by add[:2, :2]")


def test_dequantized_by_its_own_scales() -> None:
    """Breaks when the two results of a quantization are not found together, or scales are laid out wrongly."""
    image = looped()
    nodes = (
        DebugNode("add", "getitem", (TURNS, COLS), "int32"),
        DebugNode("mul", "getitem", (TURNS, 2), "float32"),
        DebugNode("both", "quantize", dtype="tuple", status="view", reason="several results: add, mul"),
    )
    shell = Shell(session(debug=DebugMap(nodes, image.debug.probes[:1], image.debug.spans[:1])))
    say(shell, "run")
    assert "nothing of node mul" in say(shell, "print/q add") or "no value in memory" in say(shell, "print/q add")
    from runtime.debug.things import scale_sibling
    from runtime.debug.values import fitted

    assert scale_sibling(shell.session.nodes, nodes[0]) == "mul"
    assert scale_sibling(shell.session.nodes, nodes[1]) is None
    scales = fitted(np.array([[1, 2], [3, 4], [5, 6]]), (3, 8), "add")
    assert scales[1].tolist() == [3, 3, 3, 3, 4, 4, 4, 4]


def test_expressions_and_how_much_is_printed(shell: Shell) -> None:
    say(shell, f"until {MUL:#x}")
    assert say(shell, "print (s5 + i1) * 2 - 1") == "(s5 + i1) * 2 - 1 = 5"
    assert say(shell, "print v2 + 4 == 0x44") == "v2 + 4 == 0x44 = True"
    assert say(shell, "print sram[0x44]:i32 / 4") == "sram[0x44]:i32 / 4 = 0.5"
    say(shell, "run", "set elements 4")
    assert "..." in say(shell, "print mul[0]")
    assert "bytes more" in say(shell, "print/x sram[0x40..0x60]")
    assert "precision 3" in say(shell, "set precision 3", "set")


# ---- files, each stop, documents


def test_dump_writes_a_whole_file_or_none(shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "mul.npy"
    assert "nothing of node mul" in say(shell, f"dump mul {target}")
    assert not target.exists()
    say(shell, "run")
    assert f"wrote {target}: int32 [3, 8]" in say(shell, f"dump mul {target}")
    assert np.array_equal(np.load(target), (X + 1) * 2)
    say(shell, f"dump/x v2 1x4 {target}")
    assert np.load(target).tolist() == [34, 36, 38, 40]
    assert np.load(target).dtype == np.uint32
    assert "does not end in .npy" in say(shell, f"dump mul {tmp_path / 'model.s'}")
    assert "cannot write" in say(shell, f"dump mul {tmp_path / 'nowhere' / 'x.npy'}")
    assert [path.name for path in tmp_path.iterdir()] == ["mul.npy"]


def test_displays_are_shown_at_each_stop_and_deleted(shell: Shell) -> None:
    assert say(shell, "display i1") == "1: i1 = 0"
    say(shell, "display/x mul[0, :1]", f"break {MUL:#x}")
    text = say(shell, "run", "run")
    assert "1: i1 = 1" in text
    assert "2: mul (aten.mul)" in text
    assert "nothing of node mul is written yet" in text
    assert "1: i1 = 1" in say(shell, "display")
    assert "deleted 1: display i1" in say(shell, "delete 1")
    assert "1: i1" not in say(shell, "step")
    assert shell.failed == 0


def test_documents_hold_numbers(shell: Shell) -> None:
    """Breaks when a script must read numbers out of lines."""
    assert data(shell, f"until {MUL:#x}") == {
        "stop": "until", "text": "", "time": 10, "pc": MUL, "exit": None, "node": "mul", "loops": {"i1": 0},
    }  # fmt: skip
    assert data(shell, "print v2")["values"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert data(shell, "print s5 + 1")["value"] == 4
    assert data(shell, "info registers")["scalars"][5] == 3  # type: ignore[index]
    say(shell, "run")
    found = data(shell, "print mul[0]")
    assert (found["values"], found["node_shape"], found["written"]) == ([2, 4, 6, 8, 10, 12, 14, 16], [3, 8], 24)
    say(shell, "set sram[0x40]:f32 = nan")
    assert data(shell, "print sram[0x40]:f32")["values"] == ["nan"]


# ---- conditions


def test_a_breakpoint_stops_where_its_condition_holds(shell: Shell) -> None:
    assert say(shell, f"break {MUL:#x} if i1 == 1 or sram[0x40]:i32 > 16") == (
        f"breakpoint 1: pc {MUL:#06x} if i1 == 1 or sram[0x40]:i32 > 16"
    )
    assert "(i1=1)" in say(shell, "run")
    assert "(i1=2)" in say(shell, "run")
    assert "(i1=1)" in say(shell, "reverse-continue")
    say(shell, "condition 1")
    assert "(i1=0)" in say(shell, "restart", "run")
    assert "ended" in say(shell, "condition 1 time > 10000", "run")


def test_a_watch_with_a_condition(shell: Shell) -> None:
    """Breaks when a change that the condition passes over is reported later as one with the next."""
    say(shell, "watch sram[0x40]:i32 if sram[0x40]:i32 % 2 == 0")
    text = say(shell, "run")
    assert "0x01 -> 0x02" in text
    assert f"by the instruction at {MUL:#06x}" in text


@pytest.mark.parametrize(
    "condition",
    ["", "s5 =", "s5 = 3", "s99 > 1", "i9 == 1", "x > 3", "__import__('os')", "(1).real", "[1]", "s5 ** 2", "s5 is 3",
     "'a' == 'a'", "sram[0..4] == 1", "sram[0xfffffff]:i32 == 1", "1 if s5 else 2", "-" * 300 + "1", "f'{s5}'", "True"],
)  # fmt: skip
def test_a_bad_condition_is_one_line(shell: Shell, condition: str) -> None:
    """Breaks when anything but numbers is computed, or an error comes only when the program has run for an hour."""
    answer = list(shell.execute(f"break {MUL:#x} if {condition}"))
    assert len(answer) == 1
    assert answer[0].startswith("error: ")
    assert not shell.session.points.points


def test_what_was_never_written_stops_nothing(shell: Shell) -> None:
    say(shell, f"break {MUL:#x} if sram[0x1000]:i32 == 0")
    assert "ended" in say(shell, "run")


def test_arithmetic_without_a_result_stops_and_is_said(shell: Shell) -> None:
    """Breaks when it is taken for false: the user waits for a stop that never comes."""
    for condition in ("1 / (s5 - 3) > 0", "s5 << s5 + 9999", "s5 << 120 << 120"):
        say(shell, "restart", f"break {MUL:#x} if {condition}")
        assert "its condition cannot be told" in say(shell, "run")
        say(shell, f"delete {shell.session.points.points[0].number}")


# ---- set


def test_what_is_set_changes_the_run_and_is_met_again(shell: Shell) -> None:
    """Breaks when going back forgets what was set, or keeps what came after it."""
    say(shell, f"until {MUL:#x}", "set sram[0x40]:i32 2x2 = 100, 200, 300, 400", "run")
    assert say(shell, "print mul[0, :5]").splitlines()[-1] == "[200 400 600 800  10]"
    for command in ("restart", "goto 5", "reverse-step 3"):
        say(shell, command, "run")
        assert say(shell, "print mul[0, :2]").splitlines()[-1] == "[200 400]", command
    assert "deleted 1: sram[0x40]:i32 2x2 = 100 200 300 400, back" in say(shell, "delete 1")
    assert shell.session.stepper.pc == MUL
    assert say(shell, "print v2").splitlines()[-1] == "[1 2 3 4 5 6 7 8]"
    say(shell, "run")
    assert say(shell, "print mul[0, :2]").splitlines()[-1] == "[2 4]"


def test_registers(shell: Shell) -> None:
    """A scalar before its loop begins (so the loop is shorter); the base of a view that moves."""
    say(shell, "until 0x70", "set s5 = 2", "run")
    assert "loop" not in say(shell, "backtrace")
    assert "16 of 24 elements written" in say(shell, "print mul")
    say(shell, "restart", "delete 1", f"until {ADD:#x}", "set v3.base = 0x20", "run")
    assert "never written" in say(shell, "print dram.out[0x0]:i32 1x8")
    assert say(shell, "print dram.out[0x20]:i32 1x8").splitlines()[-1] == "[ 2  4  6  8 10 12 14 16]"
    assert "v3.base = 0x20" in say(shell, "set")


def test_the_base_of_a_view_moves_on_from_what_was_set(shell: Shell) -> None:
    say(shell, "until 0x80", "set v1.base = 0x20", "until 0x90")
    assert say(shell, "print v2").splitlines()[-1] == "[ 8  9 10 11 12 13 14 15]"
    say(shell, "until 0x80", "until 0x90")
    assert say(shell, "print v2").splitlines()[-1] == "[16 17 18 19 20 21 22 23]"


def test_an_element_of_a_view_and_of_a_node(shell: Shell) -> None:
    say(shell, f"until {MUL:#x}", "set v2[0, 7] = -1", "set add[0, 2] = 50", "step")
    assert say(shell, "print v2").splitlines()[-1] == "[  2   4 100   8  10  12  14  -2]"
    assert say(shell, "print add[0, :3]").splitlines()[-1] == "[ 1  2 50]"
    assert "where something else is now" in say(shell, "set add[0, 0] = 1")


def test_checkpoints_of_the_moment_do_not_keep_what_was_taken_back() -> None:
    """Breaks when a checkpoint that was made right after an edit brings it back."""
    shell = Shell(session())
    shell.session.stepper.history.interval = 1
    say(shell, f"until {MUL:#x}", "set s6 = 7", "step 3", "back 3")
    assert say(shell, "print s6") == "s6 = 7"
    say(shell, "step 2", "delete 1")
    assert say(shell, "print s6") == "s6 = 0"
    say(shell, "back 1", "step 3")
    assert say(shell, "print s6") == "s6 = 0"


@pytest.mark.parametrize(
    "line",
    ["set s5", "set s5 = x", "set s5 = 1 2", "set s99 = 1", "set s5 = 99999999999", "set v3.base = -1", "set v9.base = 1",
     "set v3.moon = 1", "set v3 = 1 2 3", "set dram.weights[0]:i8 = 1", "set sram[0x41]:i32 = 1", "set sram[0x40]:i8 = 300",
     "set sram[0x40]:i32 = 1.5", "set sram[0xffffff]:i8 = 1", "set mul[0, 0] = 1", "set mul = 1", "set mul[0] = 1",
     "set mul[9, 9] = 1", "set nowhere[0] = 1", "set = 3", "set elements 0", "set elements x", "set moon 3",
     "dump mul", "dump mul x.txt", "print/z s5", "print/q s5", "print s5 by 3", "print/q v2 by", "display nowhere[",
     "condition", "condition 9 s5 > 1", "unfuse", "unfuse nowhere", "unfuse mul"],
)  # fmt: skip
def test_an_error_is_one_line_and_changes_nothing(shell: Shell, line: str) -> None:
    say(shell, "goto 8")
    answer = list(shell.execute(line))
    if not line.startswith("display"):
        assert len(answer) == 1, answer
        assert answer[0].startswith("error: ")
    assert not shell.session.stepper.edits
    say(shell, "run")
    assert say(shell, "print mul[2, 7]").splitlines()[-1] == "48"


# ---- colours, completion


def test_colours_are_beside_the_text(shell: Shell) -> None:
    """Breaks when a name from an image moves the cursor, or a pipe gets colours."""
    lines = list(shell.execute("until add"))
    assert all("\x1b" not in line for line in lines)
    assert any(isinstance(line, Styled) and "\x1b[" in coloured(line) for line in lines)
    nodes = (DebugNode("a\x1b[2Jb\n", "add", (TURNS, COLS), "int32"),)
    odd = Shell(session(debug=DebugMap(nodes, (), looped().debug.spans[:1])))
    text = "".join(map(coloured, odd.execute(f"until {ADD:#x}")))
    assert "a\\x1b[2Jb\\x0a" in text


def test_completion_knows_forms_and_options(shell: Shell) -> None:
    assert "mul" in words_for(shell, ["print/x"])
    assert {"elements", "v3", "mul"} <= set(words_for(shell, ["set"]))
    assert "mul" in words_for(shell, ["unfuse"])

"""`llmcc debug` as people and scripts use it: a pseudo-terminal, a pipe, a script, and no PyTorch unless asked."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from debug_terminal import TIMEOUT, Person, environment
from step_harness import X, looped

from isa.codec import Inst, encode
from isa.image.image import write_image


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_image(looped(), folder / "toy.llmchip")
    np.save(folder / "x.npy", X)
    return folder


def test_a_person_at_a_terminal(toy: Path) -> None:
    """Prompt, line editing, completion, history, repetition, an error, Ctrl-C at the prompt and at work, and quit."""
    code = bytearray(looped().code)
    code[0x60:0x80] = encode(Inst.make("loop", level=0, len=5, count=(1 << 24) - 1)) + encode(
        Inst.make("loop", level=1, len=4, count=1)
    )
    image = looped(code=bytes(code))
    write_image(image, toy / "endless.llmchip")
    person = Person(toy, str(toy / "endless.llmchip"), "--input", f"x={toy / 'x.npy'}")
    person.sees("(llmchip)")
    person.types("break ad\t")
    person.sees("break add")  # completed
    person.types("\r")
    person.sees("breakpoint 1: node add")
    person.sees("(llmchip)")
    person.types("rum\x7fn\r")  # a typing error mended with backspace
    person.sees("=> 0x0090")
    person.sees("(llmchip)")
    person.types("step\r")
    person.sees("=> 0x00a0")
    person.sees("(llmchip)")
    person.types("\r")  # again
    person.sees("=> 0x00b0")
    person.sees("(llmchip)")
    person.types("\x1b[A\x1b[A\x1b[A\r")  # three up: the break command
    person.sees("breakpoint 2: node add")
    person.sees("(llmchip)")
    person.types("nonsense\r")
    person.sees("error: there is no command 'nonsense'")
    person.sees("(llmchip)")
    person.types("half a line\x03")  # Ctrl-C drops it
    person.sees("(llmchip)")
    person.types("run\r")  # for ever
    person.waits_for_work()
    os.killpg(person.process.pid, signal.SIGINT)
    person.sees("interrupted")
    person.sees("(llmchip)")
    person.types("reverse-step\r")
    person.sees("=> 0x00")
    person.sees("(llmchip)")
    person.types("quit\r")
    assert person.leaves() == 0
    assert "break add" in (toy / "state" / "llmchip" / "debug_history").read_text()


def test_values_and_changes_at_a_terminal(toy: Path) -> None:
    """Completion behind a form, a display at each stop, a change, a file; the same lines as in a pipe."""
    target = toy / "seen.npy"
    person = Person(toy, str(toy / "toy.llmchip"), "--input", f"x={toy / 'x.npy'}")
    person.sees("(llmchip)")
    person.types("display i1\r")
    person.sees("1: i1 = 0")
    person.sees("(llmchip)")
    person.types("break mul if i1 == 0 and sram[0x40]:i32 > 0\r")
    person.sees("breakpoint 2: node mul if i1 == 0 and sram[0x40]:i32 > 0")
    person.sees("(llmchip)")
    person.types("run\r")
    person.sees("=> 0x00a0")
    person.sees("1: i1 = 0")
    person.sees("(llmchip)")
    person.types("set v2[0, 7] = 100\r")
    person.sees("3: v2[0, 7] = 100")
    person.sees("(llmchip)")
    person.types("finish mul\r")
    person.sees("node mul is complete")
    person.sees("(llmchip)")
    person.types("print/x mu\t")
    person.sees("print/x mul")
    person.types("[0, 6:]\r")
    person.sees("[0000000e 000000c8]")
    person.sees("(llmchip)")
    person.types(f"dump mul {target}\r")
    person.sees("int32 [3, 8]")
    person.sees("(llmchip)")
    person.types("unfuse\r")
    person.sees("has no model to be compared with")
    person.sees("(llmchip)")
    person.types("quit\r")
    assert person.leaves() == 0
    assert np.load(target)[0, 7] == 200


def piped(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.cli", "debug", str(folder / "toy.llmchip"), *arguments]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, env=environment(folder), timeout=TIMEOUT, check=False
    )


def test_a_pipe_gets_answers_only(toy: Path) -> None:
    """Breaks when a prompt, an escape sequence or a remark gets between a script and its answers."""
    done = piped(toy, "run\nprint mul[1]\n", "--input", f"x={toy / 'x.npy'}")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "the program has ended with exit code 0", "ended with exit code 0 after 21 instructions",
        "mul (aten.mul) [3, 8] int32, stored as i32", "[18 20 22 24 26 28 30 32]",
    ]  # fmt: skip
    assert done.stderr == ""


def test_an_error_in_a_script_shows_in_the_exit_code(toy: Path) -> None:
    done = piped(toy, "prnt\nrun\n")
    assert done.returncode == 1
    assert done.stdout.startswith("error: there is no command 'prnt'")
    assert "ended" in done.stdout


def test_script_json_and_no_torch(toy: Path) -> None:
    """Breaks when stepping through an image imports PyTorch, or JSON is not one document."""
    (toy / "script.txt").write_text("break mul\nrun\nprint add[0]\n")
    code = (
        "import sys; from runtime.cli.main import main\n"
        f"code = main(['debug', {str(toy / 'toy.llmchip')!r}, '--script', {str(toy / 'script.txt')!r}, '--json'])\n"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(toy), timeout=TIMEOUT, check=True
    )
    import json

    document = json.loads(done.stdout)
    assert [entry["command"] for entry in document["commands"]] == ["break mul", "run", "print add[0]"]
    assert document["words"] == 10
    assert document["failed"] == 0

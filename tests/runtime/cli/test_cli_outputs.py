"""Outputs: none replaces an input or another output, and what cannot be written is refused before the work."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from cli_harness import Result, call, spawn

from runtime.cli.main import VERBS
from runtime.cli.outputs import OutputFile, OutputFolder, check_folder

ROOT = Path(__file__).parents[3]
INPUTS = {"--data", "--script", "--calibration"}  # paths that are only read
OUTPUTS = {
    "asm": {"-o"}, "compile": {"-o", "--dump-dir"}, "run": {"--output"}, "verify": {"--repro"},
    "disasm": {"-o", "--html"}, "compare": {"--html"}, "report": {"-o"}, "profile": {"--csv", "--trace", "--html", "--disasm"},
    "quantize": {"--report"}, "sweep": {"--store", "--html", "--csv", "--parquet"},
}  # fmt: skip


def options(verb: str) -> list[click.Option]:
    command: click.Command = importlib.import_module(f"runtime.cli.{verb}_verb").command
    return [param for param in command.params if isinstance(param, click.Option)]


@pytest.mark.parametrize("verb", VERBS)
def test_every_path_is_declared_as_what_it_is(verb: str) -> None:
    """Breaks when a verb gets an option that writes, of a type that checks nothing."""
    paths = [option for option in options(verb) if isinstance(option.type, click.Path)]
    written = {option.opts[-1] for option in paths if isinstance(option.type, (OutputFile, OutputFolder))}
    assert written == OUTPUTS.get(verb, set())
    assert {option.opts[-1] for option in paths} - written <= INPUTS


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that includes another text, in a folder of its own."""
    text = (ROOT / "examples/asm/gemm.s").read_text()
    (tmp_path / "more.s").write_text("; nothing\n")
    path = tmp_path / "p.s"
    path.write_text(f'{text}\n.include "more.s"\n')
    return path


def refused(result: Result, *pieces: str) -> None:
    """One line that says these things, exit code 2, no work done."""
    assert result.code == 2 and not result.out, result
    first, *hint = result.err.splitlines()
    assert first.startswith("error: ") and all(line.startswith("hint: ") for line in hint), result.err
    assert all(piece in result.err for piece in pieces), result.err
    assert ".tmp" not in result.err


# a command for each output of each verb that needs no model; p.s is read, OUT is written
COMMANDS = (
    "asm p.s -o OUT", "disasm p.s -o OUT", "disasm p.s --html OUT", "run p.s --output c=OUT", "profile p.s --csv OUT",
    "profile p.s --trace OUT", "profile p.s --html OUT", "profile p.s --html other.html --disasm OUT",
    "compare q.s p.s --html OUT", "sweep nowhere:factory --set chip=p.s --csv OUT", "report nowhere:factory --data p.s -o OUT",
    "sweep nowhere:factory --chip p.s --store OUT", "sweep nowhere:factory --chip p.s --html OUT",
    "compile nowhere:factory --input x=p.s -o OUT", "sweep nowhere:factory --chip p.s --parquet OUT",
)  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_an_output_never_replaces_an_input(line: str, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when an output is not compared with what is read: by its name, another name, or a link."""
    monkeypatch.chdir(program.parent)
    shutil.copy(program, "q.s")
    os.symlink("p.s", "link")
    before = program.read_bytes()
    for name in ("p.s", "./p.s", str(program), "link"):
        refused(call(*line.replace("OUT", name).split()), "would replace", "which is read")
    assert program.read_bytes() == before and Path("link").is_symlink()


@pytest.mark.parametrize("line", COMMANDS)
def test_what_cannot_be_written_is_refused(line: str, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when an output is only looked at when the work is done, or makes a file called -."""
    monkeypatch.chdir(program.parent)
    shutil.copy(program, "q.s")
    there = set(os.listdir())
    refused(call(*line.replace("OUT", "no/such/x").split()), "no/such/x", "the folder does not exist")
    refused(call(*line.replace("OUT", ".").split()), "directory")
    refused(call(*line.replace("OUT", "new/").split()), "name of a folder")
    refused(call(*(word.replace("OUT", "") for word in line.split())), "is empty")
    if sys.platform == "linux":
        refused(call(*line.replace("OUT", "/proc/x").split()), "/proc/x", "cannot be written")
    if "--csv" not in line:
        refused(call(*line.replace("OUT", "-").split()), "not written to stdout")
    assert set(os.listdir()) == there


def test_two_outputs_are_two_files(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the second output replaces the first."""
    monkeypatch.chdir(program.parent)
    os.symlink("x", "y")
    refused(call("profile", "p.s", "--html", "x", "--csv", "./x"), "--csv and --html name one file")
    refused(call("profile", "p.s", "--trace", "x", "--html", "y"), "name one file")
    refused(call("sweep", "nowhere:f", "--store", "x", "--csv", "x"), "name one file")
    refused(call("run", "p.s", "--output", "c=x", "--output", "d=x"), "name one file")
    assert not Path("x").exists()
    assert call("profile", "p.s", "--csv", os.devnull, "--trace", os.devnull).code == 0


def test_included_and_written_beside(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when only the file of the command line is kept: a text has others, and disasm writes others."""
    monkeypatch.chdir(program.parent)
    refused(call("asm", "p.s", "-o", "more.s"), "would replace", "more.s")
    assert call("asm", "p.s", "-o", "p.llmchip").code == 0
    big = Path("big.s")
    big.write_text(f"{program.read_text()}\n.const name=big, shape=[8192], dtype=int8, fill=1\n")
    written = call("disasm", big, "-o", "c.s").out.split()
    assert len(written) > 1, written
    os.rename("c.s", "weights.s")
    refused(call("disasm", "weights.s", "-o", "c.s"), "would replace", written[1])


def test_models_are_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a folder's weights, or the module of a factory, are no input."""
    monkeypatch.chdir(tmp_path)
    Path("bert").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        Path("bert", name).write_text("{}")
        refused(call("report", "bert", "-o", f"bert/{name}"), "would replace", name)
        refused(call("sweep", "bert", "--csv", f"bert/{name}"), "would replace", name)
    Path("own.py").write_text("def make(): raise SystemExit\n")
    refused(call("profile", "own:make", "--html", "own.py"), "would replace", "own.py")
    refused(call("run", "x.s", "--extension", "own.py", "--output", "own.py"))


def test_dump_keeps_the_inputs(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a debugger's dump replaces the array that its launch was given."""
    monkeypatch.chdir(program.parent)
    for name, shape in (("a", (64, 128)), ("b", (128, 256))):
        np.save(f"{name}.npy", np.zeros(shape, np.int8))
    Path("script").write_text("finish\ndump dram.in[0]:i8 4 a.npy\ndump dram.in[0]:i8 4 c.npy\n")
    said = call("debug", "p.s", "--input", "a=a.npy", "--input", "b=b.npy", "--script", "script")
    assert "would replace --input, which is read" in said.out and "wrote c.npy" in said.out
    assert np.load("a.npy").shape == (64, 128)


def test_the_folder_of_a_repro(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a repro replaces the program that it is of, makes folders, or is asked for in vain."""
    monkeypatch.chdir(program.parent)
    Path("repro").mkdir()
    call("asm", "p.s", "-o", "repro/repro.llmchip")
    refused(call("verify", "repro/repro.llmchip", "--bisect"), "would replace", "which is read")
    refused(call("verify", "p.s", "--bisect", "--repro", "no/such"), "no/such", "the folder does not exist")
    refused(call("verify", "p.s", "--bisect", "--repro", "p.s"), "this is a file")
    refused(call("verify", "p.s", "--repro", "x"), "--bisect")


def test_a_name_that_no_file_has(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a NUL in a text is an error of Python's own, because the text is asked what it reads."""
    monkeypatch.chdir(program.parent)
    for name in ("a\0b", "a\\u0000b"):
        for line in (f'.include "{name}"', f'.const name=x, shape=[4], dtype=int8, file="{name}"', f'.chip "{name}"'):
            Path("nul.s").write_text(f"{program.read_text()}\n{line}\n")
            result = call("asm", "nul.s", "-o", "x.llmchip")
            assert result.code == 2 and result.err.startswith("error: nul.s:"), result.err


def test_a_folder_of_outputs_may_have_anything_in_it(tmp_path: Path) -> None:
    """Breaks when whether a folder can be written is tried with a name that may be taken there, or leaves a file."""
    for name in ("file", "x"):
        (tmp_path / name).mkdir()
    check_folder(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["file", "x"]


def test_stdout_for_tables_only(program: Path) -> None:
    """Breaks when - is a file, or when something else than the table goes to stdout."""
    rows = call("profile", program, "--csv", "-").out.splitlines()
    assert rows[0].startswith("name,") and len(rows) > 2
    both = call("sweep", "nowhere:f", "--csv", "-", "--json")
    assert both.code == 2 and "--csv - and --json" in both.error["what"]


@pytest.mark.parametrize(
    ("line", "package"),
    [("sweep x:y --html OUT", "plotly"), ("report x:y -o OUT", "plotly"), ("sweep x:y --parquet OUT", "pyarrow"), ("profile p.s --html OUT", "jinja2")],
)  # fmt: skip
def test_a_missing_package_is_said_before_the_work(
    line: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when a sweep of hours ends in a page that cannot be made."""
    monkeypatch.setitem(sys.modules, package, None)
    refused(call(*line.replace("OUT", str(tmp_path / "x")).split()), "pip install")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_names_the_users_file(program: Path) -> None:
    """Breaks when the error of an output is said to be one of standard output, or names the temporary file."""
    for line in ("profile p.s --html /dev/full", "asm p.s -o /dev/full", "disasm p.s --html /dev/full"):
        words = [str(program) if word == "p.s" else word for word in line.split()]
        refused(call(*words), "error: /dev/full: ", "No space left on device")


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout")
def test_dev_stdout_is_written_as_it_is(program: Path) -> None:
    """Breaks when a pipe that has a name, as stdout is here, is taken for a file in a folder."""
    result = spawn("profile", program, "--csv", "/dev/stdout")
    assert result.code == 0 and result.out.startswith("name,"), result


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="no /dev/fd")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("mode", ["ab", "wb"])
def test_an_open_file_is_written_on(name: str, mode: str, tmp_path: Path) -> None:
    """Breaks when a rename takes the place of the file that stdout leads to, with all that was in it."""
    if not os.path.exists(name) and name != "link":
        pytest.skip(f"no {name}")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = f"from isa.files import *; print(1); check_writable({name!r}); write_atomic({name!r}, [b'2\\n']); print(3)"
    log = tmp_path / "log"
    log.write_text("0\n")
    with open(log, mode) as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code], stdout=out, cwd=tmp_path, env=environment, check=True)
    assert log.read_text() == ("0\n1\n2\n3\n" if mode == "ab" else "1\n2\n3\n")
    assert sorted(os.listdir(tmp_path)) == ["link", "log"]


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="no /dev/fd")
def test_an_open_file_that_cannot_be_written(program: Path) -> None:
    """Breaks when a descriptor that is closed, or only read, is found out after the work."""
    with open(program, "rb") as file:
        for number in (file.fileno(), 999_999, 1 << 99):
            refused(call("asm", program, "-o", f"/dev/fd/{number}"), f"/dev/fd/{number}", "cannot be written")

"""The verbs' own tables on terminals of two widths, and in a pipe: lines fit, numbers are whole, nothing is padded."""

import os
import pty
import re
import struct
import sys
import threading
from pathlib import Path

import pytest
from checkout import ROOT
from cli_harness import call

from runtime.cli import common
from runtime.pytorch import cache

fcntl = pytest.importorskip("fcntl")  # pseudo-terminals are Unix
termios = pytest.importorskip("termios")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
CUT = re.compile(
    r"(?<!\S)(?:…[\d,.%]+|[\d,.%]+…)(?!\S)"
)  # a number, and nothing but a number, with an ellipsis at one end
VERBS = {  # what is typed -> its exit code
    "info {image}": 0,
    "profile {image}": 0,
    "profile {image} --layer 1 --causes": 0,
    "profile {image} --table nodes --sort order --top 50 --causes": 0,
    "compare {racy} {gemm} --top 9": 1,
    "compare {image} {gemm}": 1,
    "lint {image}": 0,
    "lint {racy}": 1,
    "models": 0,
    "chips": 0,
    "compile widths_model:make -o {folder}/new.llmchip --time-passes": 0,
    "compile --list-passes": 0,
    "cache": 0,
    "run {image} --text a --text b": 0,
}
OF_MODELS = {
    "profile {bert} --seq 8": 0,
    "compile {bert} --seq 8 -o {folder}/new.llmchip --time-passes": 0,
}  # tables by layer
SENTENCES = (  # what the terminal may wrap: no tables
    r"(error|warning): ", r"limit [\d,]+ cycles", r"[\d,]+ instructions executed of ", r"[\d.]+ mJ, ", r"busy: ", r"energy: ",
    r"A MODEL may also be ", r"A \S+ on chip ", r"\w[\w ]*: \S+ → ", r"[\d,]+ cycles of ", r"\d+ (more )?(layer|node)", r"/\S+: (holds|\d+|nothing)",
)  # fmt: skip


def on_terminal(columns: int, *arguments: str) -> tuple[int, str]:
    """`llmcc` in this process, whose three streams are a terminal of so many columns while it runs."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    said = bytearray()

    def read() -> None:
        while True:
            try:
                said.extend(os.read(main, 1 << 16) or b"")
            except OSError:  # nobody has the other side open any more
                return

    reader = threading.Thread(target=read)
    reader.start()
    kept, streams = [os.dup(number) for number in range(3)], (sys.stdin, sys.stdout, sys.stderr)
    try:
        for number in range(3):
            os.dup2(side, number)
        os.close(side)
        opened = [open(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate("rww")]  # noqa: SIM115
        sys.stdin, sys.stdout, sys.stderr = opened
        from runtime.cli.main import main as llmcc

        code = llmcc(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, before in enumerate(kept):
            os.dup2(before, number)
            os.close(before)
        reader.join(10)
        os.close(main)
    return code, said.decode()


@pytest.fixture
def words(bert: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """What the commands above name."""
    monkeypatch.setenv("LLMCHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0.0)
    monkeypatch.setattr(common, "PATIENCE", 600.0)  # no progress between the lines
    (tmp_path / "widths_model.py").write_text(
        "import torch\n\ndef make():\n    return torch.nn.Linear(4, 4).eval(), {'input': torch.ones(2, 4)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    gemm = ROOT / "examples/asm/gemm.s"
    (tmp_path / "racy.s").write_text(re.sub(r" @ [^;\n]*", "", gemm.read_text()))
    return {"bert": bert, "image": image, "racy": tmp_path / "racy.s", "gemm": gemm, "folder": tmp_path}


def faults(text: str, columns: int | None) -> list[str]:
    """The lines that are too long for a terminal of so many columns, cut a number, or (in a pipe) end in blanks."""
    found = []
    for line in STYLE.sub("", text).replace("\r\n", "\n").split("\n"):
        wrong = [
            *(
                [f"{len(line)} characters"]
                if columns and len(line) > columns and not any(re.match(text, line) for text in SENTENCES)
                else []
            ),
            *(["a cut number"] if CUT.search(line) else []),
            *(["padding"] if columns is None and line != line.rstrip() else []),
        ]
        found += [f"{' and '.join(wrong)}: {line!r}"] if wrong else []
    return found


def wrong(verbs: dict[str, int], columns: int | None, words: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> str:
    """What is wrong with the lines that these commands print."""
    found = []
    for typed, wanted in verbs.items():
        arguments = [word.format(**words) for word in typed.split()]
        if columns is None:
            result = call(*arguments)
            code, text = result.code, result.out
        else:
            with capfd.disabled():
                code, text = on_terminal(columns, *arguments)
        assert code == wanted and text, f"{typed}: {text}"
        found += [f"{typed}: {fault}" for fault in faults(text, columns)]
    return "\n".join(found)


WIDTHS = pytest.mark.parametrize(
    "columns", [80, 120, None], ids=lambda columns: f"{columns} columns" if columns else "pipe"
)


@WIDTHS
def test_tables_fit_and_numbers_are_whole(
    columns: int | None, words: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks when a verb prints a row that is longer than the terminal, cuts a number, or pads lines in a pipe."""
    assert not (text := wrong(VERBS, columns, words, capfd)), text


@pytest.mark.slow
@WIDTHS
def test_tables_of_models_fit_and_numbers_are_whole(
    columns: int | None, words: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """As above, for what is known of a model only: its layers."""
    assert not (text := wrong(OF_MODELS, columns, words, capfd)), text


def test_faults_are_seen() -> None:
    """Breaks when the test above would pass whatever is printed."""
    assert faults("x" * 81, 80) and not faults("x" * 80 + "\r\n", 80)
    assert faults("name  1,23…  x", 80) and faults("…234", None) and not faults("…layer_0_12  hidden = f(1…", 80)
    assert faults("name  ", None) and not faults("name  ", 80)

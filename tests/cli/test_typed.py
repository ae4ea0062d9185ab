"""What README, docs and help texts say to type is typed, in a shell, in a folder with the files that they name."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_harness import call, make_bert

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tutorial.md", "docs/cli.md", "docs/debugger.md", "docs/assembly.md", "docs/timing.md", "docs/security.md")
FAILS = (  # commands that are there to show a failure, with their exit code
    (r"verify broken\.llmchip", 1), (r"lint racy\.s", 1), (r"diff slow\.llmchip", 1), (r"repro/run\.py", 1),
)  # fmt: skip
FACTORY = "import torch\n\ndef factory():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 4).eval(), {'input': torch.ones(2, 4)}\n"
PROGRAM = """
.entry name=main, pc=main
.input name=x, shape=[96, 200], dtype=float32
.output name=y, shape=[96, 200], dtype=float32
.buffer name=t, space=sram, bytes=76800
main:
  vset v=v1, space=dram, region=in, dtype=f32, base=x
  vset v=v2, space=dram, region=out, dtype=f32, base=y
  vset v=v3, space=sram, dtype=f32, base=t
  lda d=v3, a=v1, rows=1, cols=19200
  sto d=v2, a=v3, rows=1, cols=19200 @ lda<=0
  halt
"""


def commands(page: str) -> Iterator[str]:
    """The command lines of a page's code blocks; what stands behind two blanks or a # is said about them."""
    fenced = False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            command = re.split(r"\s{2,}|\s+#\s", line.strip())[0]
            if re.match(r"(llmcc|printf|sed|python) ", command):
                yield command.replace("| less", "| cat")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that some page names."""
    folder = tmp_path_factory.mktemp("typed")
    for name in ("my-bert", "bert", "retrained"):
        make_bert(folder / name, max_position_embeddings=128)
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    make_bert(folder / "my-classifier", "BertForSequenceClassification", **labels)
    (folder / "package").mkdir()
    (folder / "package/__init__.py").touch()
    (folder / "package/module.py").write_text(FACTORY)
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name, source in {"gemm.s": "gemm.s", "faster.s": "gemm.s"}.items():
        shutil.copy(ROOT / "examples/asm" / source, folder / name)
    (folder / "program.s").write_text(PROGRAM)
    (folder / "commands.txt").write_text("run\n")
    np.save(folder / "x.npy", np.ones((96, 200), np.float32))
    (folder / "bin").mkdir()
    for name, words in {"llmcc": f"{sys.executable} -m llmchip", "python": sys.executable}.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    images = {"minilm": ["minilm", "--seq", 16], "bert": [folder / "my-bert", "--seq", 16, "--task", "embed"], "other": [folder / "retrained", "--seq", 16]}
    for name, words in images.items():
        assert call("compile", *words, "-o", folder / f"{name}.llmchip").code == 0
    shutil.copy(folder / "bert.llmchip", folder / "before.llmchip")
    shutil.copy(folder / "bert.llmchip", folder / "after.llmchip")
    text = folder / "broken.s"
    assert call("disasm", folder / "bert.llmchip", "-o", text).code == 0
    text.write_text(text.read_text().replace("f=gelu_erf", "f=tanh"))
    assert call("asm", text, "-o", folder / "broken.llmchip").code == 0
    assert call("verify", folder / "broken.llmchip", "--bisect", "--repro", folder / "repro").code == 1
    for name in ("ids", "mask"):
        np.save(folder / f"{name}.npy", np.ones((1, 128), np.int64))
    return folder


def typed(command: str, place: Path, columns: int) -> str:
    """What is wrong with what a command did; "" if nothing is."""
    environment = {
        **os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "LLMCHIP_CACHE": str(place / "cache"), "COLUMNS": str(columns),
    }  # fmt: skip
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=place, env=environment, stdin=subprocess.DEVNULL, timeout=300)
    wanted = next((code for pattern, code in FAILS if re.search(pattern, command)), 0)
    if done.returncode != wanted or "Traceback" in done.stderr:
        return f"{command}\n    exit {done.returncode}, not {wanted}: {done.stderr.strip()[-300:]} {done.stdout.strip()[-200:]}"
    padded = [line for line in done.stdout.splitlines() if line != line.rstrip()]
    return f"{command}\n    pads {len(padded)} lines: {padded[0]!r}" if padded else ""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_works(page: str, place: Path) -> None:
    """Breaks when a command of the documentation fails, or answers a pipe with padding. Help texts are part of docs/cli.md."""
    found = list(commands(page))
    assert found or page in ("docs/security.md",)
    wrong = [text for number, command in enumerate(found) if (text := typed(command, place, (80, 120)[number % 2]))]
    assert not wrong, "\n".join(wrong)

"""What README, docs and help texts say to type is typed: in a shell, in Python, at the debugger's prompt, in a folder
with the files that they name."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import ROOT
from cli_harness import call, make_bert
from tutorial import FILES

PAGES = (
    "README.md",
    "docs/fallback.md",
    "docs/llm.md",
    "docs/tutorial.md",
    "docs/cli.md",
    "docs/debugger.md",
    "docs/assembly.md",
    "docs/timing.md",
    "docs/security.md",
)
FAILS = (  # commands that are there to show a failure, with their exit code
    (r"lint kernel\.s", 1), (r"compare (mine|slow|old)", 1),
    (r"verify broken\.llmchip", 1), (r"lint racy\.s", 1), (r"repro/run\.py", 1),
)  # fmt: skip
PROMPT = "(llmchip) "
BEFORE = {  # what a page's Python takes for granted, or leaves to its reader
    "README.md": "import os, torch, transformers, llmchip\nos.environ['LLMCHIP_CACHE'] = 'off'\n"
    "model = transformers.BertModel.from_pretrained('my-bert').eval()\nids = torch.ones(1, 8, dtype=torch.long)\n"
    "causal_lm = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=64, n_head=2)).eval()\n",
    "docs/llm.md": "import os\nos.environ['LLMCHIP_CACHE'] = 'off'\n",
    "docs/assembly.md": "import torch\n",
    "docs/fallback.md": "import os, torch, llmchip\nos.environ.pop('LLMCHIP_STRICT', None)\n"
    "torch.compile(lambda x: torch.cummax(x, 0)[0] * 2, backend='llmchip')(torch.ones(3))\nassert llmchip.fallbacks()\n",
}
AFTER = {  # what it is there for
    "README.md": "model(input_ids=ids)\n",
    "docs/assembly.md": "model, given = make()\nassert model(**given)['y'].shape == (96, 200)\n",
}
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


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def session() -> tuple[list[str], list[str], list[str]]:
    """What docs/debugger.md types at the prompt, what it shows as answers (but for words, whose addresses and registers
    change), its table's examples."""
    text = (ROOT / "docs/debugger.md").read_text(encoding="utf-8")
    lines = text.split("## A session")[1].split("##")[0].splitlines()
    typed = [re.split(r"\s{2,}", line.strip().removeprefix(PROMPT))[0] for line in lines if PROMPT in line]
    answers = [line.strip() for line in lines if line.startswith("    ") and PROMPT not in line and "=>" not in line]
    rows = text.split("## Commands")[1].split("##")[0].splitlines()
    return typed, answers, [found[1] for row in rows if (found := re.search(r"\| `([^`]*)` \|$", row))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that some page names."""
    folder = tmp_path_factory.mktemp("typed")
    for name in ("my-bert", "bert", "retrained"):
        make_bert(folder / name, max_position_embeddings=128)
    labels: dict[str, Any] = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    make_bert(folder / "my-classifier", "BertForSequenceClassification", **labels)
    (folder / "package").mkdir()
    (folder / "package/__init__.py").touch()
    (folder / "package/module.py").write_text(FACTORY)
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name, source in {"gemm.s": "gemm.s", "faster.s": "gemm.s"}.items():
        shutil.copy(ROOT / "examples/asm" / source, folder / name)
    for name, source in FILES.items():
        (folder / name).write_text(source)
    (folder / "program.s").write_text(PROGRAM)
    (folder / "commands.txt").write_text("run\n")
    for name in ("texts.txt", "sentences.txt", "reviews.txt"):
        (folder / name).write_text("a cat sits\na dog runs\ngood film\n")
    np.save(folder / "x.npy", np.ones((96, 200), np.float32))
    (folder / "bin").mkdir()
    for name, words in {"llmcc": f"{sys.executable} -m llmchip", "python": sys.executable}.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    images: dict[str, list[str | int | Path]] = {
        "minilm": ["minilm", "--seq", 16],
        "bert": [folder / "my-bert", "--seq", 16, "--task", "embed"],
        "other": [folder / "retrained", "--seq", 16],
    }
    for name, arguments in images.items():
        assert call("compile", *arguments, "-o", folder / f"{name}.llmchip").code == 0
    shutil.copy(folder / "bert.llmchip", folder / "old.llmchip")
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


def run(words: list[str], place: Path, columns: int = 100, given: str = "") -> "subprocess.CompletedProcess[str]":
    """A command in the folder of the files, with `llmcc` and `python` on its path."""
    environment = {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LLMCHIP_CACHE": str(place / "cache"),
        "COLUMNS": str(columns),
    }
    return subprocess.run(words, capture_output=True, text=True, cwd=place, env=environment, input=given, timeout=300)


def typed(command: str, place: Path, columns: int) -> str:
    """What is wrong with what a command did; "" if nothing is."""
    done = run(["bash", "-o", "pipefail", "-c", command], place, columns)
    wanted = next((code for pattern, code in FAILS if re.search(pattern, command)), 0)
    if done.returncode != wanted or "Traceback" in done.stderr:
        return f"{command}\n    exit {done.returncode}, not {wanted}: {done.stderr.strip()[-300:]} {done.stdout.strip()[-200:]}"
    padded = [line for line in done.stdout.splitlines() if line != line.rstrip()]
    return f"{command}\n    pads {len(padded)} lines: {padded[0]!r}" if padded else ""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_works(page: str, place: Path) -> None:
    """Breaks when a command of the documentation fails, or answers a pipe with padding. Help texts are part of
    docs/cli.md."""
    found = list(commands(page))
    assert found or page in (
        "docs/security.md",
        "docs/fallback.md",
        "docs/llm.md",
    )  # these have sentences and Python alone
    wrong = [text for number, command in enumerate(found) if (text := typed(command, place, (80, 120)[number % 2]))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(page: str, place: Path) -> None:
    """Breaks when a Python block of a page raises, or an expression whose line ends in `# True` is not true. One
    process for all blocks of a page."""
    source = "\n".join(blocks(page, "python"))
    source = (
        BEFORE.get(page, "") + re.sub(r"^(\S.*?)\s+# True$", r"assert \1", source, flags=re.M) + AFTER.get(page, "")
    )
    (place / "typed.py").write_text(source)
    done = run(["python", "typed.py"], place)
    assert done.returncode == 0, f"{source}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_what_the_debuggers_page_types_at_its_prompt_works(place: Path) -> None:
    """Breaks when a command of the session or of the table is unknown or fails, or the session shows another answer
    than the debugger gives."""
    commands, answers, examples = session()
    assert len(commands) > 5 and len(examples) > 15 and answers
    for typed_there in (commands, [word for example in examples for word in ("restart", "finish activation", example)]):
        done = run(["llmcc", "debug", "my-bert", "--seq", "64"], place, given="\n".join(typed_there) + "\n")
        wrong = [line for line in done.stdout.splitlines() if re.search(r"\b(unknown|error)\b", line)]
        assert not done.returncode and not wrong and not done.stderr, "\n".join([*wrong, done.stderr, done.stdout])
        if typed_there is commands:
            said = " ".join(done.stdout.split())
            missing = [line for line in answers if " ".join(line.removesuffix("...").split()) not in said]
            assert not missing, "\n".join([*missing, done.stdout])

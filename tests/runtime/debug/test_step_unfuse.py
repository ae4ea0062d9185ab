"""A fused node says where its value would be; the model is compiled without fusing and the launch goes on there. And
the colours of a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from debug_terminal import TIMEOUT, Person, environment

FACTORY = """
import torch
from torch import nn

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(12, 20), nn.Linear(20, 12), nn.LayerNorm(12)

    def forward(self, x):
        return self.norm(self.down(torch.relu(self.up(x))) + x)

def make():
    torch.manual_seed(0)
    return Toy().eval(), {"x": torch.zeros(2, 3, 12)}
"""
SCRIPT = """
until dequantize
break layer_norm if time > 0
break 0x40
print matmul_i8
print dequantize_1
unfuse
where
unfuse dequantize_1
print matmul_i8[0, 0, :2]
finish dequantize_1
print dequantize_1[0, 0, :2]
compare matmul_i8
compare dequantize_1
print/q part_2[0, 0, :2]
print part_2[0, 0, :2]
run
run
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("unfuse")
    (made / "toy_factory.py").write_text(FACTORY)
    (made / "script.txt").write_text(SCRIPT)
    return made


def llmcc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "runtime.cli", *arguments], cwd=folder, env=paths(folder), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def paths(folder: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[3])
    return {**environment(folder), "PYTHONPATH": os.pathsep.join((root, str(folder)))}


@pytest.mark.slow
def test_the_launch_goes_on_in_the_unfused_program(folder: Path) -> None:
    """Breaks when the place, the inputs, the breakpoints or a bit get lost on the way; the model is named, or an image's."""
    assert llmcc(folder, "compile", "toy_factory:make", "-o", "toy.llmchip").returncode == 0
    for arguments in (["toy_factory:make"], ["toy.llmchip", "--model", "toy_factory:make"]):
        done = llmcc(folder, "debug", *arguments, "--script", "script.txt", "--json")
        assert done.returncode == 1, done.stderr  # two prints of fused nodes are errors
        document = json.loads(done.stdout)
        said = {entry["command"]: entry for entry in document["commands"]}
        fused = said["print matmul_i8"]["lines"]
        assert fused[0].startswith(
            "error: matmul_i8 is fused into dequantize, so its value is never whole in memory: the last instruction for it, 0x"
        )
        assert " mm, writes c=acc[" in fused[0] and "'unfuse matmul_i8'" in fused[0]
        assert "is inside add" in said["print dequantize_1"]["lines"][0]
        assert said["unfuse"]["lines"][0].startswith("compiled without fusing: ")
        assert any("forgotten" in line and "pc 0x0040" in line for line in said["unfuse"]["lines"])
        assert said["where"]["data"][-1]["node"] == "dequantize"
        assert said["unfuse dequantize_1"]["data"][-1]["node"] == "dequantize_1"
        for name in ("matmul_i8", "dequantize_1"):
            assert said[f"compare {name}"]["data"][-1]["equal"]
            assert said[f"compare {name}"]["data"][-1]["compared"] > 0
        ints, floats = (said[f"print{form} part_2[0, 0, :2]"]["data"][-1]["values"] for form in ("", "/q"))
        assert np.ptp(np.array(floats)[np.nonzero(ints)] / np.array(ints)[np.nonzero(ints)]) < 1e-6
        assert said["run"]["data"][-1]["stop"] == "ended"
        assert document["failed"] == 2


def test_without_a_model_there_is_nothing_to_compile(folder: Path) -> None:
    (folder / "p.s").write_text("halt\n")
    (folder / "u.txt").write_text("unfuse\n")
    done = llmcc(folder, "debug", "p.s", "--script", "u.txt")
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert done.stdout.startswith("error: there is no model to compile again")


def test_colours_only_where_they_are_wanted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a pipe gets escape sequences, a terminal none, or NO_COLOR is not heard."""
    (folder / "p.s").write_text("nop\nhalt\n")
    (folder / "w.txt").write_text("where\n")
    arguments = ["debug", "p.s", "--script", "w.txt"]
    assert "\x1b" not in llmcc(folder, *arguments).stdout
    assert "\x1b[1mnop\x1b[0m" in llmcc(folder, *arguments, "--color", "always").stdout
    for variables, wanted in (({}, True), ({"NO_COLOR": "1"}, False)):
        for name, value in {**paths(folder), **variables}.items():
            monkeypatch.setenv(name, value)
        person = Person(folder, str(folder / "p.s"))
        person.sees("(llmchip)")
        person.screen = b""
        person.types("where\r")
        raw = b""
        while b"\n" not in raw.partition(b"=>")[2]:
            raw += os.read(person.main, 65536)
        assert (b"\x1b[1mnop\x1b[0m" in raw) == wanted, raw
        person.types("quit\r")
        assert person.process.wait(TIMEOUT) == 0
        os.close(person.main)

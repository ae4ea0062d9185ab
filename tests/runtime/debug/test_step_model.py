"""With a compiled model: compare any node, and find and reproduce the first wrong instruction."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from step_harness import say
from torch import Tensor, nn

import llmchip
from isa.architecture import WORD_BYTES, Space
from isa.codec import Inst, encode
from isa.image.image import Image, load_image, write_image
from runtime.debug.bisect import Bisection, bisect
from runtime.debug.commands import Shell
from runtime.debug.reference import of_lowered
from runtime.debug.repro import write_repro
from runtime.debug.session import Session
from runtime.device.executable import Executable
from runtime.program import Program
from runtime.pytorch.tensors import to_array

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
    return Toy().eval(), {"x": torch.zeros(2, 3, 12)}
"""


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(12, 20), nn.Linear(20, 12), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.down(torch.relu(self.up(x))) + x)


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return llmchip.compile(Toy().eval(), (torch.zeros(2, 3, 12),))


X = {"x": to_array(torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(2)))}


def with_word(image: Image, pc: int, inst: Inst) -> Image:
    code = bytearray(image.code)
    code[pc : pc + WORD_BYTES] = encode(inst)
    return replace(image, code=bytes(code))


def changed(inst: Inst, **values: int) -> Inst:
    operands = {**inst.named(), **values}
    return Inst(inst.mnemonic, tuple(operands[f.name] for f in inst.row.fields), inst.deps, inst.dbg)


def words(image: Image, mnemonic: str) -> list[tuple[int, Inst]]:
    return [(pc, image.inst(pc)) for pc in range(0, len(image.code), WORD_BYTES) if image.inst(pc).mnemonic == mnemonic]


def test_every_materialized_node_equals_pytorch(program: Program) -> None:
    """Breaks when probes, types or replay put a node together wrongly; nodes are asked for out of order."""
    session = Session(program.image, X, of_lowered(program.compiled.lowered))
    shell = Shell(session)
    say(shell, "run")
    nodes = [node.name for node in program.image.debug.nodes if node.status == "materialized"]
    assert len(nodes) > 5
    for name in reversed(nodes):
        assert "all elements equal PyTorch's, bit for bit" in say(shell, f"compare {name}")
    assert shell.failed == 0


def test_a_wrong_node_is_shown_on_the_spot(program: Program) -> None:
    """Breaks when the comparison does not see a wrong bit, or only sees it at the end."""
    pc, inst = words(program.image, "act")[0]
    shell = Shell(Session(with_word(program.image, pc, changed(inst, f=9)), X, of_lowered(program.compiled.lowered)))
    say(shell, f"until {pc:#x}")
    node = shell.session.nodes.name_at(pc, shell.session.stepper.indices)
    say(shell, "step")
    text = say(shell, f"compare {node}")
    assert "elements differ" in text
    assert "expected" in text
    assert shell.failed == 1


def found_in(program: Program, image: Image, folder: Path) -> tuple[Bisection, dict[str, Any]]:
    found = bisect(image, program.compiled, X)
    assert found is not None
    report = write_repro(found, folder)
    assert report["reproduced"], "the cut image gives other bits than the whole one"
    return found, report


def run_alone(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "run.py")], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def test_nothing_is_found_in_a_right_program(program: Program) -> None:
    assert bisect(program.image, program.compiled, X) is None


def test_swapped_operands_are_found_and_reproduced(program: Program, tmp_path: Path) -> None:
    pc, inst = next(
        (pc, inst) for pc, inst in words(program.image, "vaff") if inst.named()["cs"] and inst.named()["bi"]
    )
    named = inst.named()
    found, report = found_in(
        program, with_word(program.image, pc, changed(inst, cs=named["bi"], bi=named["cs"])), tmp_path / "case"
    )
    assert found.instruction.pc == pc
    assert [p for p, _ in found.changed] == [pc]
    done = run_alone(tmp_path / "case")
    assert done.returncode == 1, done.stderr
    assert f"instruction at {pc:#06x}" in done.stdout
    assert f"{report['differing']} of {found.actual.size} elements differ" in done.stdout


def test_a_wrong_address_is_found_in_its_control_word(program: Program, tmp_path: Path) -> None:
    """The value is wrong in a compute word, but the fault is a `vset` far before it: the cone leads there."""
    pc, inst = next(
        (pc, i)
        for pc, i in words(program.image, "vset")
        if i.named()["space"] == Space.DRAM and i.named()["region"] == 0
    )
    found, _ = found_in(
        program, with_word(program.image, pc, changed(inst, base=inst.named()["base"] + 16)), tmp_path / "case"
    )
    assert found.instruction.pc != pc
    assert [p for p, _ in found.changed] == [pc]
    assert not found.as_dict()["inputs_verified"]


def test_a_flipped_weight_is_found_as_data(program: Program, tmp_path: Path) -> None:
    weights = bytearray(program.image.weights)
    weights[0] ^= 0x40
    found, _ = found_in(program, replace(program.image, weights=bytes(weights)), tmp_path / "case")
    assert found.changed == ()
    assert any("weights" in text for text in found.stale)


def test_the_repro_image_can_be_debugged(program: Program, tmp_path: Path) -> None:
    """Breaks when the cut image loses its debug map, or does not stand on its own."""
    pc, inst = words(program.image, "act")[0]
    found, _ = found_in(program, with_word(program.image, pc, changed(inst, f=9)), tmp_path / "case")
    image = load_image(tmp_path / "case" / "repro.llmchip")
    inputs = dict(np.load(tmp_path / "case" / "inputs.npz"))
    assert np.array_equal(Executable(image)(inputs)["value"].view(found.actual.dtype), found.actual)
    shell = Shell(Session(image, inputs))
    assert found.node.name in say(shell, "next")
    say(shell, "step")
    assert "stored as" in say(shell, f"print {found.node.name}")


def test_verify_bisect_and_debug_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: compile to a file, damage it, verify --bisect, run the folder; and compare in the debugger."""
    from runtime.cli.main import main

    (tmp_path / "toy_factory.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "toy_factory:make", "-o", "toy.llmchip"]) == 0
    image = load_image("toy.llmchip")
    pc, inst = words(image, "act")[0]
    write_image(with_word(image, pc, changed(inst, f=9)), "bad.llmchip")
    capsys.readouterr()
    assert main(["verify", "bad.llmchip", "--model", "toy_factory:make", "--bisect", "--repro", "case", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["bisection"]["changed"][0]["pc"] == pc
    assert document["bisection"]["reproduced"]
    assert run_alone(tmp_path / "case").returncode == 1
    assert main(["verify", "bad.llmchip", "--model", "toy_factory:make", "--bisect", "--repro", "case"]) == 1
    text = capsys.readouterr().out
    assert "first wrong instruction at" in text
    assert "run.py reproduces it alone" in text
    node = document["bisection"]["node"]
    (tmp_path / "script.txt").write_text(f"run\ncompare {node}\n")
    assert main(["debug", "bad.llmchip", "--model", "toy_factory:make", "--script", "script.txt"]) == 1
    assert "elements differ" in capsys.readouterr().out
    assert main(["debug", "toy.llmchip", "--model", "toy_factory:make", "--script", "script.txt"]) == 0
    assert f"{node}: all elements equal" in capsys.readouterr().out

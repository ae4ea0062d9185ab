"""The budget of a launch: programs that do not end are ended, and told as that."""

from pathlib import Path

import pytest

from emulator.budget import Budget, Spent, cost
from isa.asm.assemble import assemble
from isa.errors import OverBudget, Trap
from runtime.cli.main import main
from runtime.debug.session import Session
from runtime.device.executable import Executable

LOOP = """
.entry name=main, pc=main
.output name=y, shape=[4], dtype=float32
.buffer name=b, space=sram, bytes=64
.const name=c, shape=[4], dtype=float32, fill=1.5
main:
  vset v=v1, space=dram, region=const, dtype=f32, base=c
  vset v=v2, space=dram, region=out, dtype=f32, base=y
  vset v=v3, space=sram, dtype=f32, base=b
  loop level=0, len=e0, count={count}
  lda d=v3, a=v1, rows=1, cols=4
e0:
  sto d=v2, a=v3, rows=1, cols=4 @ lda<=0
  halt
"""


def test_work_counts_as_instructions() -> None:
    """Breaks when a word of 10**16 products, which would take for ever, counts as one."""
    assert cost({}) == 1
    assert cost({"rows": 1 << 10, "cols": 1 << 10}) == 2
    assert cost({"b": 255, "m": 16383, "n": 65535, "k": 65535}) > 10**9
    purse = Budget.of(2)
    purse.spend({})
    purse.spend({})
    with pytest.raises(Spent, match="2 instructions"):
        purse.spend({})


@pytest.mark.parametrize(("interpret", "adversarial"), [(False, None), (True, None), (False, 3)])
def test_a_launch_ends_when_its_budget_is_spent(interpret: bool, adversarial: int | None) -> None:
    """Breaks when a way of executing does not count, or what fits its budget to the last instruction is refused."""
    image = assemble(LOOP.format(count=100))
    words = 6 + 100  # the loop's body is one word
    assert Executable(image, interpret, adversarial, max_instructions=words).run({})["y"].tolist() == [1.5] * 4
    for _ in range(2):  # the second launch by a plan would not count
        with pytest.raises(OverBudget, match="budget of 105 instructions") as caught:
            Executable(image, interpret, adversarial, max_instructions=words - 1).run({})
        assert "--max-instructions" in caught.value.hint


def test_the_debugger_ends_there_too_and_can_go_back() -> None:
    """Breaks when stepping backwards and forwards is paid for twice, or `run` never comes back."""
    session = Session(assemble(LOOP.format(count=100)), {}, max_instructions=50)
    session.stepper.seek(50)
    for moment in (10, 50, 0, 50):
        session.stepper.seek(moment)
    with pytest.raises(OverBudget):
        session.stepper.step()


def test_one_trap_has_one_text() -> None:
    """Breaks when the machine and the debugger say different things of the same word."""
    image = assemble(LOOP.format(count=2).replace("lda d=v3, a=v1", "lda d=v3, a=v9"))
    said = []
    for launch in (lambda: Executable(image).run({}), lambda: Session(image, {}).stepper.seek(9)):
        with pytest.raises(Trap) as caught:
            launch()
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_llmcc_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when a verb that executes has no bound: this program would run for days."""
    path, script = tmp_path / "loop.s", tmp_path / "script"
    path.write_text(LOOP.format(count=65535).replace("  lda d=v3", "  loop level=1, len=e0, count=65535\n  lda d=v3"))
    script.write_text("run\n")
    for words in (["run"], ["debug", "--script", str(script)]):
        assert main([*words, str(path), "--max-instructions", "2000"]) == 1
        captured = capsys.readouterr()
        assert "budget of 2,000 instructions" in captured.out + captured.err

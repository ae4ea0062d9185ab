"""Hand-written programs have a debug map, too: the lines of their own text, in everything that shows a program."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from read_harness import dom, said

from isa.asm.assemble import assemble, assemble_file
from isa.asm.disassemble import disassemble, write_listing
from isa.errors import AssemblyError, InputError
from isa.image.image import DebugMap, image_bytes
from isa.image.records import BY_LINE
from lint.analyse import lint
from runtime.cli.main import main
from runtime.compare.sides import compare
from runtime.debug.commands import Shell
from runtime.debug.session import Session
from runtime.html.page import page, report_data
from runtime.listing.disassembly import Filter, Listing

TEXT = """.entry name=main, pc=main
.input name=x, shape=[16], dtype=float32
.output name=y, shape=[16], dtype=float32
main:
  vset v=v1, space=dram, region=in, dtype=f32, base=x
  vset v=v2, space=sram, dtype=f32, base=0
  vset v=v3, space=dram, region=out, dtype=f32, base=y
work:
  lda d=v2, a=v1, rows=1, cols=16       ; the  input
.include "twice.inc"
  sto d=v3, a=v2, rows=1, cols=16 @ vec<=0
  halt
"""
INCLUDED = "  vop f=mul, d=v2, a=v2, rows=1, cols=16, imm=2.0 @ lda<=0\n"
LOAD, STORE = 0x30, 0x50


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "twice.inc").write_text(INCLUDED)
    (tmp_path / "p.s").write_text(TEXT)
    return tmp_path / "p.s"


def test_every_word_knows_its_line(program: Path) -> None:
    """Breaks when a word has no line, that of another, or an included file is forgotten."""
    debug = assemble_file(program).debug
    found = [debug.node_at(pc) for pc in range(0, 0x70, 16)]
    assert [node and (node.name, node.line) for node in found] == [(f"p.s:{n}", n) for n in (5, 6, 7, 9)] + [
        ("twice.inc:1", 1),
        ("p.s:11", 11),
        ("p.s:12", 12),
    ]
    load = debug.node_at(LOAD)
    assert load is not None and load.code == "lda d=v2, a=v1, rows=1, cols=16       ; the  input"
    assert (load.file, load.op, load.status, load.origins) == (str(program), "lda", BY_LINE, ("work",))


def test_the_image_of_a_written_program_round_trips(program: Path, tmp_path: Path) -> None:
    """Breaks when lines are recorded of the disassembler's text instead of those that the image has."""
    image = assemble_file(program)
    assert image_bytes(assemble(disassemble(image)[0])) == image_bytes(image)
    assert image_bytes(assemble_file(write_listing(image, tmp_path / "again.s")[0])) == image_bytes(image)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f".lines off\n{text}",
        lambda text: f'{text}.node name="n", op="o"\n.span first=0, end=16, nodes=[0]\n',
    ],
)
def test_lines_may_be_left_out(program: Path, change: Callable[[str], str]) -> None:
    """Breaks when a text with a debug map of its own gets another, or '.lines off' and an image without one do not
    round trip."""
    image = assemble(change(TEXT), "p.s", program.parent)
    assert [node.status for node in image.debug.nodes if node.status == BY_LINE] == []
    assert (image.debug == DebugMap()) == ("lines" in change(""))
    assert image_bytes(assemble(disassemble(image)[0])) == image_bytes(image)


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Breaks when two lines have one name."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "p.s").write_text("nop\n")
    (tmp_path / "p.s").write_text('.include "a/p.s"\nhalt\n')
    names = [node.name for node in assemble_file(tmp_path / "p.s").debug.nodes]
    assert names == [f"{tmp_path}/a/p.s:1", f"{tmp_path}/p.s:2"]


def test_disasm_interleaves_the_text(program: Path) -> None:
    """Breaks when --source shows nothing of a hand-written program, or labels are lost without it."""
    image = assemble_file(program)
    with_source = "\n".join(Listing(image).text("p.s", source=True))
    assert f"; {program}:9: lda d=v2, a=v1, rows=1, cols=16 ; the input\n0x0030" in with_source
    assert "; ---- work\n0x0030" in "\n".join(Listing(image).text("p.s"))
    under = [word["pc"] for word in Listing(image, Filter(nodes=("work",))).document("p.s")["code"]]
    assert under == [0x30, 0x40, 0x50, 0x60]


def test_lint_names_the_line(program: Path) -> None:
    """Breaks when a finding in a hand-written program does not say where."""
    image = assemble(TEXT.replace("@ vec<=0", ""), "p.s", program.parent)
    assert {(finding.kind, finding.pc, finding.node) for finding in lint(image)} == {("race", STORE, "p.s:11")}


def test_profile_counts_by_line(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when profile cannot say which line takes the time."""
    assert main(["profile", str(program), "--json"]) == 0
    lines = {row["line"]: row for row in json.loads(capsys.readouterr().out)["lines"]}
    assert lines[9]["file"] == str(program) and lines[9]["dram_bytes"] >= 64


def test_the_debugger_breaks_on_lines_and_labels(program: Path) -> None:
    """Breaks when 'break p.s:11' or 'break work' is not understood."""
    session = Session(assemble_file(program), {"x": np.ones(16, np.float32)})
    shell = Shell(session)
    for command, pc in (("break p.s:11", STORE), ("break work", LOAD)):
        assert not any(line.startswith("error") for line in shell.execute(command)), command
        list(shell.execute("restart"))
        list(shell.execute("run"))
        assert session.stepper.pc == pc
        list(shell.execute("next"))
        assert session.stepper.pc == pc + 16
    assert any("lines with code" in line for line in shell.execute("break p.s:8"))


def test_a_line_in_a_loop_stops_in_every_turn() -> None:
    """Breaks when a breakpoint on a line, or 'next', passes over all turns but the first; and backwards."""
    session = Session(assemble("loop level=0, len=2, count=3\nnop\nnop\nhalt", "p.s"), {})
    shell = Shell(session)
    list(shell.execute("break p.s:3"))
    times = []
    for command in ("run", "next", "next", "run", "reverse-continue"):
        list(shell.execute(command))
        times.append((session.stepper.pc, session.stepper.time))
    assert times == [(0x20, 2), (0x10, 3), (0x20, 4), (0x20, 6), (0x20, 4)]


def test_compare_knows_lines_although_they_move(program: Path) -> None:
    """Breaks when a line that is inserted makes everything behind it different."""
    moved = TEXT.replace("work:", "  nop\n\nwork:")
    found = compare(assemble_file(program), assemble(moved, "p.s", program.parent), 0)
    assert [(nodes.name, nodes.a, nodes.instructions) for nodes in found.nodes if not nodes.a or not nodes.b] == [
        ("nop", (), (0, 1))
    ]
    assert not any(set(nodes.instructions) == {0, 1} for nodes in found.nodes if nodes.name != "nop")


@pytest.mark.wide
def test_the_page_shows_the_text_and_no_graph(program: Path, tmp_path: Path) -> None:
    """Breaks when the page of a hand-written program has no source pane, or a graph of lines that says nothing."""
    image = assemble_file(program)
    shown = [text for _, text in report_data(image, "p")["files"][0]["lines"]]
    assert (
        TEXT.split("\n")[8].strip() in shown and "work:" not in shown
    )  # the lines of words, which the image holds; no file is read
    path = tmp_path / "p.html"
    path.write_text(page(image, "p.s"))
    script = (
        "const pane = id => getComputedStyle(document.getElementById(id)).display;"
        "document.querySelectorAll('#source .row.link')[3].click();"
        "document.body.dataset.said = [pane('source'), pane('graph'), document.querySelectorAll('#code .row.pin').length,"
        "document.querySelector('#code .row.pin').textContent.slice(0, 6), document.querySelector('#details').textContent.includes('work')].join()"
    )
    source, graph, pinned, pc, label = said(dom(path, script=script), "said").split(",")
    assert (source != "none", graph, pinned, pc, label) == (True, "none", "1", "0x0030", "true")


@pytest.mark.parametrize("verb", ["info", "disasm", "lint", "profile", "debug", "compare", "run"])
def test_every_verb_takes_assembly(
    program: Path, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when a verb that reads images refuses the text of one. Upper case and .asm are assembly, too."""
    np.save(tmp_path / "x.npy", np.ones(16, np.float32))
    (tmp_path / "c.txt").write_text("run\n")
    more = {
        "debug": ["--script", str(tmp_path / "c.txt")],
        "compare": [str(program)],
        "run": ["--input", f"x={tmp_path / 'x.npy'}"],
    }
    for name in ("p.s", "p.S", "p.asm"):
        path = program.with_name(name)
        path.write_text(TEXT)
        assert main([verb, str(path), *more.get(verb, [])]) == 0, capsys.readouterr()


def test_info_of_assembly_is_that_of_its_image(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when info tells something else of the text than of the file that it makes."""
    image = tmp_path / "p.llmchip"
    assert main(["asm", str(program), "-o", str(image), "--json"]) == 0
    capsys.readouterr()
    documents = []
    for path in (program, image):
        assert main(["info", str(path), "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out) | {"file": ""})
    assert documents[0] == documents[1]


def test_verify_of_a_written_program_says_what_to_do(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when verify of a program without a model ends in anything but one line and a remedy."""
    assert main(["verify", str(program)]) == 2
    said_there = capsys.readouterr().err.splitlines()
    assert said_there[0] == f"error: {program}: a hand-written program has no model to be compared with"
    assert "llmcc lint" in said_there[1] and "--model" in said_there[1] and len(said_there) == 2


def test_a_span_outside_the_code_is_refused() -> None:
    """Breaks when a damaged debug map makes a reader of it count backwards (found by the fuzzer)."""
    for span in ("first=0, end=-16", "first=-16, end=16", "first=0, end=0x1000000000"):
        with pytest.raises(AssemblyError, match="leaves the code"):
            assemble(f'halt\n.node name="n", op="o"\n.span {span}, nodes=[0]\n')


def test_compile_sends_assembly_to_the_assembler(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when who compiles assembly text is told about magic bytes."""
    assert main(["compile", str(program), "-o", str(tmp_path / "p.llmchip")]) == 2
    assert "llmcc asm" in capsys.readouterr().err


def test_hints_stay_short() -> None:
    """Breaks when a mistyped node of a program with hundreds is answered by all their names, or a pattern's star hides
    the likeness."""
    image = assemble("\n".join(["nop"] * 100), "p.s")
    with pytest.raises(InputError, match="did you mean 'p.s:77'"):
        Filter(nodes=("ps:77*",)).check(image)
    with pytest.raises(InputError, match="and 76 more"):
        Filter(nodes=("qqqqqqqqqqqqqqqqqqqq",)).check(image)


MODEL = """import torch

class Twice(torch.nn.Module):
    def forward(self, x):
        return {"y": x * FACTOR}

def make():
    return Twice().eval(), {"x": torch.randn(16)}
"""


@pytest.mark.parametrize(("factor", "code"), [("2.0", 0), ("3.0", 1)])
def test_a_written_program_is_verified_against_a_model(
    program: Path,
    tmp_path: Path,
    factor: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Breaks when verify cannot say whether a program written by hand gives PyTorch's bits, and which of its lines does
    not."""
    (tmp_path / f"twice_{code}.py").write_text(MODEL.replace("FACTOR", factor))
    monkeypatch.syspath_prepend(str(tmp_path))
    repro = tmp_path / "repro"
    assert (
        main(["verify", str(program), "--model", f"twice_{code}:make", "--bisect", "--repro", str(repro), "--json"])
        == code
    )
    document = json.loads(capsys.readouterr().out)
    assert document["bit_exact"] == (code == 0) and document["outputs"] == 1
    if code:
        assert document["first_divergence"]["node"] == "p.s:11" and (repro / "run.py").is_file()

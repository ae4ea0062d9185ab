"""`llmcc disasm`: what it shows, filters and says in JSON, and how soon."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from read_harness import bert_image, mlp_image

from isa.architecture import WORD_BYTES
from isa.asm.assemble import assemble
from isa.image.image import write_image
from runtime.cli.main import main

LOOPED = """
.entry name=main, pc=main
.input name=x, shape=[4, 64], dtype=float32
.buffer name=block, space=sram, bytes=2*256
main: vset v=v1, space=dram, region=in, dtype=f32, base=x, rs=64
vinc v=v1, level=0, inc=256
vset v=v2, space=sram, dtype=f32, base=block+64
vinc v=v2, level=0, inc=256, mod=2
loop level=0, len=done, count=4
lda d=v2, a=v1, rows=1, cols=48 @ vec<=1
loop level=1, len=1, count=2
act f=exp, d=v2, a=v2, rows=1, cols=48 @ lda<=0
done: .word 0xff
halt
"""


def call(*args: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(arg) for arg in args])
    return code, out.getvalue(), err.getvalue()


def shown(*args: object) -> str:
    code, out, err = call("disasm", *args)
    assert code == 0, err
    return out


def document(*args: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown(*args, "--json"))
    return found


@pytest.fixture
def looped(tmp_path: Path) -> Path:
    path = tmp_path / "looped.s"
    path.write_text(LOOPED)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("read") / "bert.llmchip"
    write_image(bert_image(), path)
    return path


def test_lines_show_address_raw_word_instruction_and_operands(looped: Path) -> None:
    """Breaks when a column is missing, loops are not indented, or an operand's memory is wrong."""
    text = shown(looped).split("\n")
    assert text[0] == "looped.s: llmchip image, ISA version 1, chip edge, 10 instructions"
    assert text[2] == "0x0000 <main>:"
    lda = next(line for line in text if "lda" in line)
    assert re.match(
        r"0x0050  [0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{6}21    lda d=v2, a=v1, rows=1, cols=48 @ vec<=1 +; ",
        lda,
    )
    assert (
        "d=sram[0x40:0x100] f32 1x48 <block+0x40>, a=dram.in[0x0:0xc0] f32 1x48 <x>; v1 moves by 0x100*i0; v2 moves by 0x100*i0%2"
        in lda
    )
    assert "      act f=exp" in next(line for line in text if "act" in line)  # two loops deep
    illegal = next(line for line in text if ".word" in line)
    assert ".word 0x000000000000000000000000000000ff" in illegal
    assert "unknown opcode 0xff" in illegal


def test_raw_words_are_the_words(looped: Path) -> None:
    """Breaks when the hexadecimal column is not what `.word` would take."""
    lines = [line for line in shown(looped).split("\n") if re.match(r"0x\w{4}  ", line)]
    words = [int(line[8:43].replace(" ", ""), 16) for line in lines]
    assert b"".join(word.to_bytes(WORD_BYTES, "little") for word in words) == assemble(LOOPED).code


def test_filters_by_pc_engine_and_node(bert: Path) -> None:
    """Breaks when a filter lets another word through, or hides one that it should not."""
    everything = document(bert)["code"]
    assert [word["pc"] for word in everything] == [WORD_BYTES * i for i in range(len(everything))]
    assert [word["pc"] for word in document(bert, "--pc", "0x40:0x70")["code"]] == [0x40, 0x50, 0x60]
    assert [word["pc"] for word in document(bert, "--pc", "64")["code"]] == [64]
    some = document(bert, "--engine", "mxu", "--engine", "act")["code"]
    assert some == [word for word in everything if word["engine"] in ("mxu", "act")]
    nodes = document(bert, "--node", "layer_norm*")
    assert nodes["code"] == [
        word for word in everything if any(name.startswith("layer_norm") for name in word["nodes"])
    ]
    assert all(
        name.startswith("layer_norm") or "layer_norm" in str(node["origins"]) for name, node in nodes["nodes"].items()
    )


def test_a_filter_that_cannot_match_is_an_error(bert: Path, looped: Path) -> None:
    """Breaks when a mistyped node prints nothing, without a word."""
    code, _, err = call("disasm", bert, "--node", "layer_nrom")
    assert (code, "did you mean 'layer_norm" in err) == (2, True)
    assert call("disasm", looped, "--pc", "x:y")[0] == 2
    assert call("disasm", looped, "--source", "-o", looped.with_suffix(".t"))[0] == 2


def test_source_is_interleaved_with_provenance(bert: Path) -> None:
    """Breaks when the model's line, the node or what was fused into it is not said before its words."""
    text = shown(bert, "--source")
    assert re.search(r"\n; transformers/models/bert/modeling_bert\.py:\d+: .*self\.query\(", text)
    assert re.search(r"; ---- dequantize\w* = llmchip\.dequantize\S* float32\[2,8,24\], \w+", text)
    assert re.search(r"fused from matmul_i8\w*, dequantize", text)
    assert "captured as linear" in text
    assert len(text.split("\n")) > len(shown(bert).split("\n"))


def test_json_is_one_document_with_resolved_views(looped: Path) -> None:
    """Breaks when a program that reads the JSON finds another shape than documented here."""
    found = document(looped)
    assert (found["isa"], found["chip"], found["words"], found["entries"]) == (
        1,
        "edge",
        10,
        [{"name": "main", "pc": 0}],
    )
    lda = next(word for word in found["code"] if word.get("mnemonic") == "lda")
    assert (lda["engine"], lda["waits"], lda["depth"], lda["operands"]["cols"]) == ("lda", {"vec": 1}, 1, 48)
    assert lda["views"][0] == {
        "operand": "d",
        "memory": "sram",
        "first": 0x40,
        "end": 0x100,
        "dtype": "f32",
        "shape": "1x48",
        "strides": [0, 0, 1],
        "symbol": "block+0x40",
    }
    assert "unknown opcode" in next(word for word in found["code"] if "fault" in word)["fault"]


def _in_terminal(*args: str, **environment: str) -> str:
    """What the command prints on a terminal."""
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | environment
    process = subprocess.Popen([sys.executable, "-m", "runtime.cli", *args], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    chunks = []
    try:
        while chunk := os.read(ours, 65536):
            chunks.append(chunk)
    except OSError:  # Linux: the other side was closed
        pass
    process.wait(60)
    os.close(ours)
    return b"".join(chunks).decode()


def test_colour_only_on_terminals(looped: Path) -> None:
    """Breaks when escape sequences reach a pipe, or NO_COLOR and --color are not honoured."""
    assert "\x1b[" not in shown(looped)
    assert "\x1b[1mlda\x1b[0m" in shown(looped, "--color", "always")
    assert "\x1b[" in _in_terminal("disasm", str(looped))
    assert "\x1b[" not in _in_terminal("disasm", str(looped), NO_COLOR="1")
    assert "\x1b[" not in _in_terminal("disasm", str(looped), "--color", "never")


@pytest.mark.slow
def test_a_long_program_starts_at_once_and_without_torch(tmp_path: Path) -> None:
    """Breaks when 100,000 words are walked, or torch is imported, before the first line."""
    image = mlp_image()
    body = image.code[: len(image.code) - WORD_BYTES]
    long = replace(image, code=body * (100_000 * WORD_BYTES // len(body) + 1), debug=replace_spans(image))
    write_image(long, path := tmp_path / "long.llmchip")
    assert long.words >= 100_000
    spy = "import sys; from runtime.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", spy, "disasm", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    first = time.monotonic() - start
    rest = process.stdout.read().count(b"\n")
    assert process.wait(120) == 0
    whole = time.monotonic() - start
    assert rest > 100_000
    assert first < max(whole / 4, 1.5)


def replace_spans(image: Any) -> Any:
    """The debug map without probes, whose addresses would be outside."""
    from isa.image.image import DebugMap

    return DebugMap(image.debug.nodes, (), image.debug.spans)


def test_pipes_may_close_early(looped: Path) -> None:
    """Breaks when `llmcc disasm | head` ends in a traceback."""
    done = subprocess.run(
        f"{sys.executable} -m runtime.cli disasm {looped} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("looped.s: ")
    assert done.stderr == ""


def test_cycles_and_stalls_of_each_instruction(looped: Path) -> None:
    """Breaks when counts belong to another instruction, or do not add up to when the engines are done."""
    from isa.architecture import QUEUES
    from runtime.device.program_file import open_program
    from runtime.profile.instructions import by_instruction
    from runtime.profile.profile import profile

    file = looped.with_name("gemm.s")
    file.write_text(Path("examples/asm/gemm.s").read_text())
    run = profile(open_program(file))
    cycles, t = by_instruction(run), run.timeline
    for engine in QUEUES:
        mine = t.of(engine)
        here = [cycles[pc] for pc in {int(pc) for pc in t.pc[mine]}]
        assert sum(one.work + one.stall for one in here) == (int(t.work_end[mine].max()) if len(mine) else 0)
        assert sum(one.executed for one in here) == len(mine)
    assert sum(one.charged for one in cycles.values()) == run.cycles
    assert all(one.stall == sum(one.causes.values()) and one.work > 0 for one in cycles.values())
    code = {word["pc"]: word for word in document(file, "--cycles")["code"]}
    assert {pc: (w["executed"], w["work"], w["stall"]) for pc, w in code.items()} == {
        pc: (one.executed, one.work, one.stall) for pc, one in cycles.items()
    }
    mm = next(line for line in shown(file, "--cycles", "--engine", "mxu").splitlines() if " mm " in line)
    assert mm.split()[1:4] == ["8", f"{code[0xF0]['work']:,}", f"{code[0xF0]['stall']:,}"]
    assert call("disasm", file, "--cycles", "-o", file.with_suffix(".out"))[0] == 2
    assert call("disasm", file, "--entry", "main")[0] == 2

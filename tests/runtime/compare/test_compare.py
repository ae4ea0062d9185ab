"""What has changed between two programs: matched by the model's names, split by cause, in few lines."""

import json
import re
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from checkout import ROOT
from cli_harness import CONFIG, call, make_bert, spawn
from read_harness import day_and_night, dom, said

import llmchip
from isa.errors import InputError
from isa.image.image import Image, write_image
from runtime.compare.comparison import Comparison
from runtime.compare.document import Change, difference
from runtime.compare.match import pairs
from runtime.compare.sides import compare
from runtime.compare.words import SHOWN, joined
from runtime.profile.document import Row
from runtime.profile.profile import profile

GEMM = (ROOT / "examples" / "asm" / "gemm.s").read_text()
EAGER = GEMM.replace(
    "cols=TN @ mxu<=1 ", "cols=TN @ mxu<=0 "
)  # a load waits for the product that reads the other buffer
GOLDEN = """\
A slow.s on chip edge, B fast.s on chip edge
code: 52a44aae9fab → 7c1b73d3682f
                      A      B     B-A       %  mostly
cycles            5,878  3,282  -2,596  -44.2%
  waits for dram  1,648    370  -1,278  -21.7%
  fill and drain  2,288  1,194  -1,094  -18.6%
  waits for mxu     512    256    -256   -4.4%
DRAM, KiB           136    136       0   +0.0%
instructions         47     47       0   +0.0%
node                    cycles       %       DRAM  instr.  mostly
ldw slow.s:49 only in A  -1,676  -28.5%  -64.0 KiB      -8  waits for dram
mm slow.s:50             -1,350  -23.0%          0       0  fill and drain
ldw fast.s:49 only in B    +416   +7.1%  +64.0 KiB      +8  dram works
1 more node, 1 node differs by less than 0.5%
"""


def bert(disable: str) -> Image:
    torch.manual_seed(0)
    sizes = {**CONFIG, "hidden_size": 96, "intermediate_size": 192, "max_position_embeddings": 40}
    model = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
    return llmchip.compile(model, {"input_ids": torch.arange(32).reshape(1, 32) % 12}, disable=disable).image


@pytest.fixture(scope="module")
def fast() -> Image:
    return bert("")


@pytest.fixture(scope="module")
def slow() -> Image:
    return bert("fuse")


@pytest.fixture(scope="module")
def found(slow: Image, fast: Image) -> Comparison:
    return compare(slow, fast)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    (tmp_path / "slow.s").write_text(EAGER)
    (tmp_path / "fast.s").write_text(GEMM)
    return tmp_path


def row(name: str, op: str, code: str, layer: str = "") -> Row:
    return Row(
        name=name, op=op, code=code, layer=layer, cycles=1, waterfall={}, busy={}, macs=0, dram_bytes=0, instructions=1,
        energy_joules=0.0,
    )  # fmt: skip


def test_a_node_more_does_not_rename_the_others() -> None:
    """Breaks when nodes are matched by the numbers that passes give them: then all of the second layer would differ."""
    a = [row("mul", "mul", "x * y", "layer_0"), row("mul_1", "mul", "x * y", "layer_1"), row("w_q", "placeholder", "")]
    b = [row("w_q", "placeholder", "changed"), row("mul", "mul", "x * y", "layer_0")]
    b += [row("mul_1", "mul", "x + y", "layer_0"), row("mul_2", "mul", "x * y", "layer_1")]
    names = [(one and one.name, other and other.name) for one, other in pairs(a, b)]
    assert names == [("mul", "mul"), ("mul_1", "mul_2"), ("w_q", "w_q"), (None, "mul_1")]


def test_a_program_is_the_same_as_itself(fast: Image) -> None:
    """Breaks when anything in a comparison depends on more than the two programs."""
    same = compare(fast, fast, 0)
    assert same.same and not same.layers and not same.nodes and not same.facts


def test_two_compiles_that_differ_in_one_option(found: Comparison) -> None:
    """Breaks when the option, the layers or the cause is not named."""
    assert found.facts["disable"] == ("fuse", "nothing")
    assert {"encoder_layer_0", "encoder_layer_1"} <= {layer.name for layer in found.layers}
    assert joined(found.layers)[0][0] == "encoder_layer_0-1"
    assert all(layer.cause and difference(layer.cycles) < 0 for layer in joined(found.layers)[0][1])
    assert found.nodes[0].name == "dequantize" and found.nodes[0].place.startswith("modeling_bert.py:")
    assert len(found.nodes[0].a) == 4 and not found.nodes[0].b  # of B they are part of their neighbours
    assert int(found.facts["nodes fused"][0]) < int(found.facts["nodes fused"][1])


def test_it_is_said_in_twenty_lines(slow: Image, fast: Image, tmp_path: Path) -> None:
    """Breaks when the text of a comparison fills a screen, or the line of layers gets lost in it."""
    paths = [tmp_path / f"{name}.llmchip" for name in ("slow", "fast")]
    for path, image in zip(paths, (slow, fast), strict=True):
        write_image(image, path)
    result = call("compare", *paths)
    assert result.code == 1 and len(result.out.splitlines()) <= 20
    assert re.search(r"^encoder_layer_0-1 +-[\d,]+ ", result.out, re.M)
    assert call("compare", paths[0], paths[0]).code == 0


def test_everything_adds_up(slow: Image, fast: Image) -> None:
    """Breaks when a cycle, byte or instruction of the difference is in no part, layer or node."""
    everything = compare(slow, fast, 0)
    for figure in everything.figures:
        for side in (0, 1):
            assert sum(pair[side] for pair in figure.parts.values()) == pytest.approx(figure.total[side])
        if figure.name != "energy_joules":  # static power belongs to no node
            for rows in (everything.layers, everything.nodes):
                assert sum(difference(getattr(change, figure.name)) for change in rows) == difference(figure.total)
    for change in everything.nodes:
        assert sum(map(difference, change.waterfall.values())) == difference(change.cycles)


def test_a_stored_profile_says_the_same(slow: Image, fast: Image, tmp_path: Path) -> None:
    """Breaks when a profile loses something on its way to a file, or is not seen from the resource of the other."""
    path = tmp_path / "slow.json"
    path.write_bytes(msgspec.json.encode(profile(slow).document("slow")))
    stored, live = compare(path, fast), compare(slow, fast)
    assert msgspec.structs.replace(stored, a="A") == live
    other = profile(slow).seen_from("act" if profile(slow).resource != "act" else "vec")
    path.write_bytes(msgspec.json.encode(other.document("slow")))
    turned = compare(path, fast)
    assert turned.waterfall_resource == other.resource and turned.figures[0].total == live.figures[0].total
    assert compare(fast, path).waterfall_resource == other.resource
    folded = compare(path, profile(fast).document())
    assert folded.notes and "compute" not in folded.figures[0].parts
    assert sum(difference(pair) for pair in folded.figures[0].parts.values()) == difference(live.figures[0].total)


def test_golden_text_of_small_programs(programs: Path) -> None:
    """Breaks when a figure, a name or a column changes; as a user runs it. Update GOLDEN when that is meant."""
    result = spawn("compare", "slow.s", "fast.s", cwd=programs)
    assert result.code == 1, result.err
    lines = [_without_energy(line) for line in result.out.splitlines() if not line.startswith("energy")]
    assert lines == [re.sub(r" {2,}", "  ", line) for line in GOLDEN.splitlines()]


def _without_energy(line: str) -> str:
    """A line of a table without the column of energy, which follows the chip's constants."""
    cells = re.split(r" {2,}", line)
    return "  ".join(cells[:3] + cells[4:] if len(cells) == 7 else cells)


def test_two_chips(tmp_path: Path) -> None:
    """Breaks when the second chip is not the second side, or what differs between the chips is not told."""
    document = call("compare", make_bert(tmp_path), "--seq", 4, "--chip", "edge", "--chip", "server", "--json").document
    assert document["chips"] == ["edge", "server"]
    assert "dram.bytes_per_second" in document["facts"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["slow.s"], "nothing to compare it with"),
        (["slow.s", "fast.s", "--chip", "edge", "--chip", "server"], "two chips and two programs"),
        (["slow.s", "--chip", "edge", "--chip", "edge", "--chip", "edge"], "3 times"),
        (["slow.s", "bad.json"], "this is no profile"),
        (["slow.s", "endless.s"], "cannot be timed"),
        (["slow.s", "fast.s", "--html", "no/page.html"], "folder does not exist"),
        (["bad.json", "bad.json", "--chip", "server"], "--chip does not go with profiles"),
        (["bad.json", "bad.json", "--seq", "8"], "--seq does not go with profiles"),
    ],
)
def test_what_cannot_be_compared(
    programs: Path, arguments: list[str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when a wrong argument ends in a traceback or a figure."""
    (programs / "bad.json").write_text('{"cycles": 3}')
    (programs / "endless.s").write_text(".word 0xffffffffffffffffffffffffffffffff\nhalt\n")
    monkeypatch.chdir(programs)
    result = call("compare", *arguments, "--json")
    assert result.code == 2 and what in result.error["what"]
    assert result.error["kind"] in ("input", "image")
    with pytest.raises(InputError, match="no program: int"):
        compare(3, 4)


@pytest.mark.wide
def test_a_browser_draws_the_page(found: Comparison, tmp_path: Path) -> None:
    """Breaks when the script fails, the page's policy forbids what it needs, or a row is missing; names are data."""
    pytest.importorskip("plotly")
    from runtime.html.compare_page import page

    evil = msgspec.structs.replace(found, a="</script><b>")
    text = page(evil)
    own = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert "default-src 'none'" in text and not re.search(r"https?://|\bsrc=|<link|@import|url\(", own)
    path = tmp_path / "compare.html"
    path.write_text(text)
    script = """
      const drawn = [...document.querySelectorAll("[id] > .plot-container")].map(e => e.parentElement.id);
      document.body.dataset.drawn = drawn.join(" ");
      document.body.dataset.rows = document.querySelectorAll("table")[2].rows.length;
    """
    document = dom(path, script=script)
    assert said(document, "ready") == "yes"
    assert set(said(document, "drawn").split()) == set(SHOWN)
    assert int(said(document, "rows")) == len(found.nodes) + 1


@pytest.mark.wide
@pytest.mark.parametrize("width", [800, 1440])
def test_day_and_night(found: Comparison, width: int, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    from runtime.html.compare_page import page

    (tmp_path / "compare.html").write_text(page(found))
    day_and_night(tmp_path / "compare.html", width)


def test_the_cause_is_what_moved_with_the_whole() -> None:
    """Breaks when the largest part is named although it moved against the whole."""
    none = (0.0, 0.0)
    change = Change(
        name="x", share=1.0, cycles=(10, 20), energy_joules=none, dram_bytes=none, instructions=none,
        waterfall={"waiting_vec": (50, 10), "dispatch": (0, 12), "fill_drain": (0, 38)},
    )  # fmt: skip
    assert change.cause == "fill_drain"
    assert json.loads(msgspec.json.encode(change))["cycles"] == [10, 20]

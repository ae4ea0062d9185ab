"""The report page: complete in itself, and working in a browser that has no network."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from read_harness import bert_image, dom, mlp_image, said

from isa.architecture import Space
from isa.asm.assemble import assemble
from isa.image.image import DebugMap, DebugNode, Image, Span
from runtime.cli.main import main
from runtime.html.page import SCRIPTS, page, report_data


@pytest.fixture(scope="module")
def bert_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "bert.html"
    path.write_text(page(bert_image(), "bert.llmchip"))
    return path


def test_the_page_needs_nothing_else() -> None:
    """Breaks when the page refers to another file or address, or forgets to forbid it."""
    text = page(mlp_image(), "mlp")
    assert "default-src 'none'" in text
    outside = text.replace(re.search(r'<script id="data".*?</script>', text, re.S)[0], "")  # type: ignore[index]
    assert not re.search(r"https?://|\bsrc=|<link|@import|url\(|import\s*\(|fetch\(|XMLHttpRequest", outside)
    assert "{{" not in outside


def test_data_cannot_end_the_script() -> None:
    """Breaks when a model's source line becomes part of the page itself."""
    node = DebugNode("</script><script>alert(1)//{{DATA}}", "op", file="f.py", line=1, code="x = '</script>' <!--")
    image = Image(assemble("halt").code, debug=DebugMap((node,), (), (Span(0, 16, (0,)),)))
    text = page(image, "<b>{{DATA}}</b>")
    assert text.count("</script>") == 1 + len(SCRIPTS)
    assert "<title>&lt;b&gt;{{DATA}}&lt;/b&gt;</title>" in text
    data = re.search(r'application/json">(.*?)</script>', text, re.S)
    assert data is not None
    assert json.loads(data[1])["nodes"][0]["name"] == node.name


def test_every_buffer_on_chip_is_a_rectangle_with_a_node() -> None:
    """Breaks when the memory map loses buffers or their nodes."""
    image = bert_image()
    plan = report_data(image, "x")["plan"]
    assert len(plan) == sum(record.space is not Space.DRAM for record in image.plan)
    assert all(owner >= 0 for *_, owner in plan)
    for name, *_, owner in plan:
        node = image.debug.nodes[owner].name
        assert node in name or any(span.nodes[0] == owner for span in image.debug.spans)


def test_every_computed_node_leads_to_its_words() -> None:
    """Breaks when a fused node, a view or one of several results highlights no instruction."""
    image = bert_image()
    data = report_data(image, "x")
    owners = {number for span in image.debug.spans for number in span.nodes}
    for number, node in enumerate(data["nodes"]):
        steps = [number]
        while steps[-1] not in owners and data["nodes"][steps[-1]]["in"] >= 0 and len(steps) < 20:
            steps.append(data["nodes"][steps[-1]]["in"])
        if node["status"] in ("materialized", "fused"):
            assert steps[-1] in owners, node["name"]


def test_source_lines_are_those_of_the_image() -> None:
    """Breaks when a file is read for the page (an image could name any), or lines are numbered wrongly."""
    data = report_data(bert_image(), "x")
    lines = dict(next(file for file in data["files"] if file["name"].endswith("modeling_bert.py"))["lines"])
    for node in data["nodes"]:
        if node["place"].startswith("transformers/models/bert/modeling_bert.py") and node["code"]:
            assert node["code"].split("\n")[0][:30].split()[0] in lines[node["line"]]
    node = DebugNode("n", "add", file="/etc/passwd", line=1, code="x + y")
    stranger = replace(bert_image(), debug=DebugMap((node,)))
    assert report_data(stranger, "x")["files"] == [{"name": "/etc/passwd", "lines": [[1, "x + y"]]}]


@pytest.mark.wide
def test_the_page_works_in_a_browser(bert_page: Path) -> None:
    """Breaks when the script fails, or a node named in the address is not highlighted in all three panes."""
    image = bert_image()
    node = next(n for n in image.debug.nodes if n.op.startswith("llmchip.layer_norm"))
    document = dom(bert_page, f"#node={node.name}")
    assert said(document, "ready") == "1"
    for pane in ("source", "graph", "code"):
        section = document.split(f'<section id="{pane}"')[1].split("</section>")[0]
        assert re.search(r'class="row [^"]*\bpin\b', section), pane
    details = document.split('<section id="details"')[1]
    assert node.name in details
    assert f"modeling_bert.py:{node.line}" in details


SCRIPT = """
const out = {}, pane = id => document.querySelector(`#${id} .pane`);
const fire = (element, type, init = {}) => element.dispatchEvent(new MouseEvent(type, {bubbles: true, ...init}));
const hot = (id, mark) => [...pane(id).querySelectorAll(".row." + mark)].length;
const line = [...pane("source").querySelectorAll(".row.link")].find(e => e.textContent.includes("self.LayerNorm("));
fire(line, "mouseover"); out.hover = [hot("source", "hot"), hot("graph", "hot")];
fire(line, "click"); out.pinned = [hot("source", "pin"), hot("graph", "pin"), hot("code", "pin")];
const word = [...pane("code").querySelectorAll(".row.word")].find(e => e.textContent.includes("vred"));
fire(word, "click"); out.here = hot("code", "here"); out.details = document.querySelector("#details .pane").textContent;
const before = Number(pane("code").scrollHeight);
document.querySelector("#engines button").click(); out.shorter = pane("code").scrollHeight < before; document.querySelector("#engines button").click();
const search = document.getElementById("search"); search.value = "gelu"; search.dispatchEvent(new Event("input"));
out.found = document.getElementById("found").textContent;
search.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"})); out.next = document.getElementById("found").textContent;
dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"})); out.released = hot("code", "pin");
Map_.spaces.forEach(s => Map_.one(s));
const sram = Map_.spaces[0], b = sram.buffers.reduce((x, y) => x[3] > y[3] ? x : y), box = sram.canvas.getBoundingClientRect();
const at = {clientX: box.left + (sram.x(b[4]) + sram.x(b[5] + 1)) / 2, clientY: box.top + (sram.y(b[2]) + sram.y(b[2] + b[3])) / 2};
fire(sram.canvas, "mousemove", at); out.tip = document.getElementById("tip").textContent;
fire(sram.canvas, "mousedown", at); fire(sram.canvas, "mouseup", at); out.fromMap = hot("code", "pin");
const pixels = sram.canvas.getContext("2d").getImageData(0, 0, sram.canvas.width, sram.canvas.height).data;
const colors = new Set(); for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3]) colors.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
out.colors = colors.size; out.external = performance.getEntriesByType("resource").length;
document.body.dataset.result = JSON.stringify(out);
"""


@pytest.mark.wide
def test_pointing_clicking_searching_and_the_memory_map(bert_page: Path) -> None:
    """Breaks when hovering, holding, hiding, searching or the map's tip does nothing."""
    found = json.loads(said(dom(bert_page, script=SCRIPT), "result"))
    assert min(found["hover"]) >= 1
    assert min(found["pinned"]) >= 1
    assert found["here"] == 1
    assert "vred" in found["details"]
    assert found["shorter"]
    assert re.fullmatch(r"\d+ in graph, \d+ in assembly", found["found"])
    assert found["next"].startswith("1 of ")
    assert found["released"] == 0
    assert "SRAM 0x" in found["tip"] and "node " in found["tip"]
    assert found["fromMap"] >= 1
    assert found["colors"] > 5
    assert found["external"] == 0


@pytest.mark.wide
def test_a_hand_written_program_has_a_page(tmp_path: Path) -> None:
    """Breaks when a program without a debug map gives an empty page."""
    target = tmp_path / "gemm.html"
    assert main(["disasm", "examples/asm/gemm.s", "--html", str(target)]) == 0
    document = dom(target, "#pc=0xd0")
    assert 'class="row word link' in document and "here" in document
    assert "weights" in document.split('<section id="details"')[1]


@pytest.mark.wide
@pytest.mark.slow
def test_a_long_program_opens_quickly(tmp_path: Path) -> None:
    """Breaks when all rows are made at once: 50,000 words must be there within seconds, with few elements."""
    image = mlp_image()
    body = image.code[:-16]
    path = tmp_path / "long.html"
    long = Image(body * (50_000 * 16 // len(body)), chip=image.chip, sizes=image.sizes)
    path.write_text(page(long, "long"))
    start = time.monotonic()
    count = "document.body.dataset.rows = document.querySelectorAll('.row').length; document.body.dataset.ms = Math.round(performance.now())"
    document = dom(path, script=count)
    assert time.monotonic() - start < 30
    assert said(document, "ready") == "1"
    assert int(said(document, "rows")) < 3000
    assert int(said(document, "ms")) < 8000

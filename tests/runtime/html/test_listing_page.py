"""The disassembly page in a browser: cycles, keys, borders, colours, search."""

import json
import re
from pathlib import Path

import pytest
from read_harness import bert_image, dom, said

from runtime.cli.main import main
from runtime.html.page import page
from runtime.profile.instructions import by_instruction
from runtime.profile.profile import Profile, profile


@pytest.fixture(scope="module")
def bert_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "bert.html"
    path.write_text(page(bert_image(), "bert.llmchip"))
    return path


def timed_page(folder: Path) -> tuple[Path, Profile]:
    run = profile(bert_image())
    path = folder / "timed.html"
    path.write_text(page(bert_image(), "timed", run))
    return path, run


@pytest.mark.wide
def test_cycles_stand_beside_the_instructions(tmp_path: Path) -> None:
    """Breaks when an instruction has another's cycles, a stall has no reason, or the way to the next one is broken."""
    path, run = timed_page(tmp_path)
    script = """
    const row = word => panes.code.at(wordRow[word]), cells = word => [...row(word).querySelectorAll(".count")].map(e => e.textContent), out = {};
    document.getElementById("stalls").click();
    out.word = pinned.word; out.cells = cells(pinned.word); out.details = document.querySelector("#details .pane").textContent;
    out.heads = document.querySelector(".heads").textContent;
    document.querySelector("#details a[data-word]").click(); out.followed = pinned.word;
    const bar = row(out.word)?.querySelector(".stalled") ?? row(pinned.word).querySelector(".stalled"); out.bar = getComputedStyle(bar).backgroundImage;
    out.facts = document.getElementById("facts").textContent;
    document.body.dataset.result = JSON.stringify(out);
    """
    found = json.loads(said(dom(path, script=script), "result"))
    cycles = by_instruction(run)
    longest = max(here.stall for here in cycles.values())
    here = cycles[16 * found["word"]]
    assert here.stall == longest
    assert found["cells"] == [f"{here.work:,}", f"{here.stall:,}"]
    assert found["followed"] == here.waits_for // 16
    assert f"{here.charged:,} of {run.cycles:,} cycles" in found["details"]
    assert "waiting for what its counts ask for" in found["details"] or "dispatched" in found["details"]
    assert "cycles" in found["heads"] and "linear-gradient" in found["bar"]
    assert f"{run.cycles:,} cycles" in found["facts"]


KEYS = """
Object.keys(Columns.edges).forEach(name => Columns.reset(name));  // another width may have been remembered
const out = {}, key = (element, name) => element.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
const code = panes.code.element, width = id => document.getElementById(id).getBoundingClientRect().width;
code.focus(); key(code, "Home"); key(code, "ArrowDown"); key(code, "ArrowDown");
out.cursor = [...panes.code.marks.cursor]; out.active = code.getAttribute("aria-activedescendant"); out.element = !!document.getElementById(out.active);
key(code, "End"); out.last = [...panes.code.marks.cursor][0] === panes.code.shown.at(-1);
out.seen = document.getElementById(code.getAttribute("aria-activedescendant")).getBoundingClientRect().bottom <= code.getBoundingClientRect().bottom + 1;
key(code, "PageUp"); out.page = [...panes.code.marks.cursor][0] < panes.code.shown.at(-1) - 5;
const source = panes.source.element; key(source, "Home"); for (let i = 0; i < 30 && !pinned; i++) key(source, "ArrowDown");
for (let i = 0; i < 40; i++) key(source, "ArrowDown"); out.held = pinned.nodes.length > 0; out.inCode = panes.code.marks.pin.size > 0;
const grip = document.querySelector(".grip[data-size=source]"), before = width("source");
key(grip, "ArrowRight"); out.wider = width("source") > before; out.value = grip.getAttribute("aria-valuenow");
key(grip, "Home"); out.back = width("source") === before;
const box = grip.getBoundingClientRect(), fire = (type, x) =>
  grip.dispatchEvent(new PointerEvent(type, {clientX: x, clientY: box.top + 5, bubbles: true, pointerId: 1}));
grip.setPointerCapture = () => {}; fire("pointerdown", box.left); fire("pointermove", box.left + 120);
fire("pointerup", box.left + 120); fire("pointermove", box.left + 300);
out.dragged = Math.round(width("source") - before); out.stored = Columns.stored().source;
const low = document.querySelector(".grip[data-size=footer]"), tall = () => document.querySelector("footer").clientHeight, was = tall();
key(low, "ArrowUp"); out.taller = tall() > was;
const search = document.getElementById("search"), seek = text => {
  search.value = text; search.dispatchEvent(new Event("input")); return document.getElementById("found").textContent;
};
out.searches = {line: seek("self.LayerNorm("), node: seek("layer_norm_1"), view: seek("permute_1"),
  pc: seek("0x0040 "), file: seek("modeling_bert.py"), none: seek("no such thing")};
seek("permute_1"); search.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
out.shown = [...panes.graph.marks.pin].some(row => panes.graph.at(row) && panes.graph.rows[row].text.startsWith("permute_1"));
out.classes = ["mn", "opd", "reg", "lit", "marks", "com"].filter(cls => document.querySelector(`#code .${cls}`));
out.python = ["kw", "str"].filter(cls => document.querySelector(`#source .${cls}`));
document.body.dataset.result = JSON.stringify(out);
"""


@pytest.mark.wide
@pytest.mark.parametrize("width", [1440, 800])
def test_keys_columns_colours_and_search(bert_page: Path, width: int) -> None:
    """Breaks when a row cannot be reached without a mouse, a border does not move, or a line or node is not found."""
    found = json.loads(said(dom(bert_page, script=KEYS, width=width), "result"))
    assert found["element"] and found["cursor"] == [2] and found["active"] == "code-2"
    assert all(
        found[name] for name in ("last", "seen", "page", "held", "inCode", "wider", "back", "taller", "shown")
    ), found
    assert abs(found["dragged"] - 120) <= 5
    again = dom(bert_page, script="document.body.dataset.share = Columns.share('source')", width=width)
    assert float(said(again, "share")) == pytest.approx(found["stored"], abs=0.001)  # remembered
    searches = found["searches"]
    assert re.fullmatch(r"\d+ in source", searches["line"])
    assert "in graph" in searches["node"] and "in assembly" in searches["node"]
    assert "in graph" in searches["view"]
    assert searches["pc"] == "1 in assembly"
    assert searches["file"].startswith("1 in source")
    assert searches["none"] == "nothing found"
    assert found["classes"] == ["mn", "opd", "reg", "lit", "marks", "com"]
    assert "kw" in found["python"]


@pytest.mark.wide
def test_assembly_as_source_is_coloured_and_never_becomes_html(tmp_path: Path) -> None:
    """Breaks when colouring loses a character, or lets one through that is markup."""
    text = 'a: b: vop f=<b>add</b>, d=v1 @ lda<=0 ; "x" <i>'
    lines = [text, '.meta "a;<b>"="c" ; "', "halt", "", "  ;", '"', "\t.equ K=0x1f+1e-3"]
    path = tmp_path / "gemm.html"
    assert main(["disasm", "examples/asm/gemm.s", "--html", str(path)]) == 0
    script = f"""
    const box = document.createElement("div");
    const texts = {json.dumps(lines)}.concat(D.files.flatMap(f => f.lines.map(l => l[1])));
    const odd = (how, text) => {{ box.innerHTML = how(text); return box.textContent !== text || box.querySelector("b, i"); }};
    const lost = texts.filter(text => text && [assembly, python, instruction].some(how => odd(how, text)));
    document.body.dataset.result = JSON.stringify(lost);
    """
    assert json.loads(said(dom(path, script=script), "result")) == []

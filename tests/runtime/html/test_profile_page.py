"""The page of `llmcc profile --html`: complete in itself, and working in a browser that has no network."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from read_harness import bert_image, dom, said

from emulator.timing.timeline import ENGINES
from isa.asm.assemble import assemble
from isa.image.image import DebugMap, DebugNode, Image, Span
from runtime.profile.profile import Profile, profile

pytest.importorskip("plotly")
from runtime.html import profile_data
from runtime.html.profile_data import PageData, Pieces, encoded, page_data
from runtime.html.profile_page import page
from runtime.profile.figures import energy_tree


@pytest.fixture(scope="module")
def report() -> Profile:
    return profile(bert_image())


@pytest.fixture(scope="module")
def data(report: Profile) -> PageData:
    return page_data(report, report.document(), {})


@pytest.fixture(scope="module")
def text(report: Profile) -> str:
    return page(report, report.document("bert.llmchip"), "code page.html")


@pytest.fixture(scope="module")
def path(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "profile.html"
    found.write_text(text)
    return found


def plots(text: str) -> dict[str, dict[str, Any]]:
    found = re.search(r'application/json">(.*?)</script>', text, re.S)
    assert found is not None
    return dict(json.loads(found[1])["plots"])


def test_the_page_needs_nothing_else(text: str) -> None:
    """Breaks when the page refers to another file or address, or forgets to forbid it."""
    assert "default-src 'none'" in text
    own = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?://|\bsrc=|<link|@import|url\(|sourceMappingURL", own)
    assert re.findall(r'href="([^"]*)"', own) == ["code page.html"]
    assert "{{" not in own and "{%" not in own


def test_modules_of_strangers_do_not_fill_the_memory() -> None:
    """Breaks when a path of a hundred thousand names becomes as many paths, each as long as all before it."""
    modules, levels = profile_data._modules(["a." * 100_000 + "b", "a.3.b", ""])
    assert len(modules) < 40 and len(levels) <= profile_data.MOST_LEVELS
    assert {"a", "a.3/b"} - set(modules) == set() and modules["a.3/b"].name == "b"


def test_buffers_of_a_loop_belong_to_the_layer_at_work() -> None:
    """Breaks when the buffers of all layers, which a loop has once, are said to be those of the first."""
    report = profile(bert_image(num_hidden_layers=6))
    data = page_data(report, report.document(), {})
    sram = next(memory for memory in data.memories if memory.name == "SRAM")
    layers = {data.nodes[node].row.layer for *_, node in sram.buffers if node >= 0}
    assert {f"encoder_layer_{number}" for number in range(6)} <= layers
    for name, *_, low, high, node in sram.buffers:
        if "softmax" in sram.names[name] and node >= 0:
            row = data.nodes[node]
            assert row.low < high and low < row.high


def widths(band: Pieces) -> dict[int, int]:
    found: Counter[int] = Counter()
    for length, owner in zip(band.lengths, band.owners, strict=True):
        found[owner] += length
    return dict(found)


def test_modules_are_those_of_the_model(data: PageData) -> None:
    """Breaks when a module is told wrongly, of copied layers too, or is not in its parent."""
    names = [module.name for module in data.modules]
    query = [n for n, name in enumerate(names) if name == "query"]
    assert len(query) == 2 and {"encoder", "layer.0", "layer.1", "attention", "self", "pooler"} <= set(names)
    for number in query:
        path = []
        while number >= 0:
            path.append(names[number])
            number = data.modules[number].parent
        assert path[:3] == ["query", "self", "attention"] and path[3][:6] == "layer." and path[4] == "encoder"
    for row in data.nodes:
        if row.row.layer.startswith("encoder_layer_") and row.row.op == "llmchip.softmax.default":
            assert row.row.module == f"encoder.layer.{row.row.layer[-1]}.attention.self"


def test_bands_and_causes_cover_the_run(data: PageData, report: Profile) -> None:
    """Breaks when a cycle is in no band or in two: a row's width in the band is its cycles in the table."""
    *modules, layers, lines, nodes = data.bands
    for band, rows in ((layers, data.layers), (lines, data.lines), (nodes, data.nodes)):
        assert {n: row.row.cycles for n, row in enumerate(rows) if row.row.cycles} == widths(band)
    inclusive: Counter[int] = Counter()
    for row in data.nodes:
        number = row.module
        while number >= 0:
            inclusive[number] += row.row.cycles
            number = data.modules[number].parent
    for band in modules:
        found = widths(band)
        assert sum(found.values()) == report.cycles and len(found) > 1
        assert all(found[number] == inclusive[number] for number in found if number >= 0)
    mine = next(pieces for pieces in data.strips if pieces.name == report.resource)
    causes = Counter[str]()
    for length, number in zip(mine.lengths, mine.owners, strict=True):
        causes[data.causes[number]] += length
    assert {name: count for name, count in report.waterfall.items() if count} == dict(causes)
    assert all(sum(pieces.lengths) == report.cycles for pieces in data.strips)


def test_tracks_show_all_work(data: PageData, report: Profile) -> None:
    """Breaks when an instruction is missing from the timeline, or two on one track overlap."""
    for track in data.tracks:
        assert min(track.gaps, default=0) >= 0, track.name
    for number, engine in enumerate(ENGINES[:-1]):
        track = next(track for track in data.tracks if track.name == engine.value)
        mine = report.timeline.engine == number
        work = (report.timeline.work_end - report.timeline.work_start)[mine]
        assert (sum(track.works), sum(track.counts)) == (work.sum(), (work > 0).sum())


def test_the_longest_stalls_lead_back_without_a_gap(data: PageData, report: Profile) -> None:
    """Breaks when the chain of a stall does not add up to it, or another one is shown than the document has."""
    mine = next(of for of in data.stalls if of.resource == report.resource)
    assert [(idle.low, idle.high) for idle in mine.idle][:5] == [(s.begin, s.end) for s in report.stalls(5)]
    for idle in mine.idle:
        assert sum(idle.causes) == idle.high - idle.low
        if not idle.more:
            assert sum(link.high - link.low for link in idle.chain) == idle.high - idle.low
    assert sum(idle.high - idle.low for idle in mine.idle) + mine.rest == report.cycles - report.waterfall["compute"]


def test_a_long_run_is_no_larger_page(report: Profile, data: PageData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when what is drawn grows with the run: with less room there is less, and the sums stay."""
    for name, most in (("WORK", 200), ("PIECES", 60), ("BUFFERS", 20), ("STALLS", 5), ("LINKS", 2)):
        monkeypatch.setattr(profile_data, f"MOST_{name}", most)
    small = page_data(report, report.document(), {})
    assert sum(len(track.gaps) for track in small.tracks) <= 200
    assert all(len(pieces.lengths) <= 60 for pieces in (*small.bands, *small.strips))
    assert all(len(memory.buffers) <= 20 for memory in small.memories)
    assert all(len(of.idle) <= 5 for of in small.stalls)
    assert all(len(idle.chain) <= 2 for of in small.stalls for idle in of.idle)
    for before, after in zip(data.tracks, small.tracks, strict=True):
        assert (sum(before.works), sum(before.counts)) == (sum(after.works), sum(after.counts))
    for pieces in (*small.bands, *small.strips):
        assert sum(pieces.lengths) == report.cycles


def test_bytes_have_a_bound() -> None:
    """Breaks when a limit is raised without a thought for what a browser has to read: at most 16 MB beside the tables,
    for a run of ten thousand million cycles in which nothing is like its neighbour, and names of 40 letters."""
    number, name = 11, 40
    work = profile_data.MOST_WORK * (3 * number + 4 * 6)  # a gap, two lengths; count, node, address, mnemonic
    pieces = 7 * profile_data.MOST_PIECES * (number + 5)
    buffers = 2 * profile_data.MOST_BUFFERS * (5 * number + 8 + name)
    stalls = 4 * profile_data.MOST_STALLS * (profile_data.MOST_LINKS * (2 * number + 40) + 8 * number + 60)
    assert work + pieces + buffers + stalls < 16_000_000


def test_the_waterfall_ends_at_the_total(text: str, report: Profile) -> None:
    """Breaks when a part is left out of the plot."""
    bars = plots(text)["waterfall"]["data"][0]
    parts = dict(zip(bars["y"], bars["x"], strict=True))
    assert parts.pop("total") == report.cycles == sum(parts.values())


def test_nothing_is_above_the_roof(report: Profile, text: str) -> None:
    """Breaks when work that others hide is divided by too short a time."""
    *points, roof = plots(text)["roofline"]["data"]
    peak = max(roof["y"])
    slope = roof["y"][0] / roof["x"][0]
    for group in points:
        assert all(y <= min(peak, slope * x) * (1 + 1e-9) for x, y in zip(group["x"], group["y"], strict=True))


def test_the_energy_tree_adds_up(report: Profile) -> None:
    """Breaks when a node's energy is in no branch: plotly draws nothing where a branch is less than its leaves."""
    tree = energy_tree(report).data[0]
    parents, values = dict(zip(tree.ids, tree.parents, strict=True)), dict(zip(tree.ids, tree.values, strict=True))
    below = Counter[str]()
    for key, parent in parents.items():
        below[parent] += values[key]
    assert all(below[key] == pytest.approx(values[key]) for key in set(parents.values()) - {""})
    assert values["run"] == pytest.approx(sum(report.activity.totals().values()) * 1e6)


def test_data_cannot_end_the_script() -> None:
    """Breaks when a node's name becomes part of the page itself."""
    node = DebugNode(
        "</script><script>document.body.dataset.error=1//", "op", file="f.py", line=1, code="</td><script>"
    )
    other = DebugNode("plain", "op")
    views = "vset v=v1, space=dram, region=in, dtype=f32, base=0\nvset v=v2, space=sram, dtype=f32, base=0\n"
    source = f".region in bytes=64\n{views}lda d=v2, a=v1, rows=1, cols=16\nhalt\n"
    image = Image(
        assemble(source).code,
        sizes=(0, 0, 64),
        debug=DebugMap((node, other), (), (Span(0, 48, (1,)), Span(48, 80, (0,)))),
    )
    report = profile(image)
    text = page(report, report.document("<b>"))
    assert "<script>document" not in text
    assert "<title>&lt;b&gt; on chip" in text


HARNESS = """
const out = {}, wait = async ready => { for (let i = 0; i < 200 && !ready(); i++) await new Promise(r => setTimeout(r, 20)); };
const key = name => document.body.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const rows = () => [...document.querySelectorAll(`#pane-${document.body.dataset.tab} .tabulator-row`)];
const cell = (row, n) => row.querySelectorAll(".tabulator-cell")[n].textContent;
const panel_ = () => document.getElementById("details").textContent;
const box = canvas.getBoundingClientRect();
const fire = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {bubbles: true, clientX: box.left + x, clientY: box.top + y, pointerId: 1}));
const press = (x, y, to = x) => { fire("pointerdown", x, y); fire("pointermove", to, y); fire("pointerup", to, y); };
const rowY = title => { const row = tracks.find(r => r.title === title); return row.y + row.height / 2; };
await wait(() => rows().length);
"""
SCRIPT = """
out.errors = document.querySelectorAll("script[src], link").length;
out.layers = rows().length; out.first = cell(rows()[0], 1);
[...document.querySelectorAll("#tabs button")].find(b => b.dataset.name === "nodes").click();
await wait(() => rows().length);
out.nodes = document.body.dataset.found; out.sorted = rows().slice(0, 4).map(r => Number(cell(r, 1).replaceAll(",", "")));
rows()[1].click(); await wait(() => document.querySelector("#pane-nodes .picked"));
out.selected = document.body.dataset.selected; out.panel = panel_(); out.name = cell(rows()[1], 0);
out.assembly = document.querySelector("#details a")?.getAttribute("href");
await wait(() => document.body.dataset.view !== `0 ${data.cycles}`); out.zoomed = document.body.dataset.view;
const source_ = [...document.querySelectorAll("#details .link")].find(e => e.textContent.includes("modeling_bert.py"));
source_.click(); out.tab = document.body.dataset.tab; out.line = document.querySelector("#pane-source .picked")?.textContent;
key("0"); await wait(() => document.body.dataset.view === `0 ${data.cycles}`); out.whole = document.body.dataset.view === `0 ${data.cycles}`;
key("3"); const find = document.getElementById("find"); find.value = "softmax"; find.dispatchEvent(new Event("input"));
await wait(() => document.body.dataset.found !== out.nodes); out.found = document.body.dataset.found;
out.shown = rows().every(r => r.textContent.includes("softmax"));
key("j"); await wait(() => document.body.dataset.selected !== out.selected); out.next = panel_().includes("softmax");
key("2"); await wait(() => document.querySelector("#pane-modules .tabulator-data-tree-control")); out.tree = rows().map(r => cell(r, 0).trim());
rows().find(r => cell(r, 0).trim() === "layer.1").click(); out.module = panel_(); open("nodes");
key("Escape"); out.released = document.body.dataset.selected;
key("]"); await wait(() => document.body.dataset.tab === "stalls"); out.stall = panel_();
key("?"); out.help = document.getElementById("keys").open; document.getElementById("keys").close();
key("c"); out.causes = document.getElementById("causes").getAttribute("aria-pressed");
const day = getComputedStyle(document.body).backgroundColor; key("t"); out.night = getComputedStyle(document.body).backgroundColor !== day;
key("0"); await new Promise(r => setTimeout(r, 100));
const mxu = tracks.find(r => r.title === "mxu"), middle = (mxu.low[0] + mxu.high[0]) / 2;
fire("pointermove", xOf(middle), mxu.y + 8); out.tip = document.getElementById("tip").textContent;
press(xOf(middle), mxu.y + 8); out.work = document.body.dataset.selected + " " + panel_();
press(200, mxu.y, 400); await new Promise(r => setTimeout(r, 100)); out.dragged = document.body.dataset.view;
key("0"); await new Promise(r => setTimeout(r, 100));
const sram = tracks.find(r => r.title === "SRAM"), b = sram.buffers.reduce((x, y) => x[2] * (x[4] - x[3]) > y[2] * (y[4] - y[3]) ? x : y);
const place = [xOf((b[3] + b[4]) / 2), sram.y + sram.height * (1 - (b[1] + b[2] / 2) / sram.top)];
fire("pointermove", ...place); out.memory = document.getElementById("tip").textContent; press(...place); out.buffer = panel_();
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, colors = new Set();
for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3]) colors.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
out.colors = colors.size; out.external = performance.getEntriesByType("resource").length;
document.body.dataset.result = JSON.stringify(out);
"""


@pytest.mark.wide
def test_tables_time_source_stalls_and_keys(path: Path, report: Profile) -> None:
    """Breaks when a click, a key, a search or a link leads nowhere, or something is missing from what is shown."""
    found = json.loads(said(dom(path, script=HARNESS + SCRIPT), "result"))
    document = report.document()
    assert (found["errors"], found["external"]) == (0, 0)
    assert found["layers"] == len(document.layers) and found["nodes"] == str(len(document.nodes))
    assert found["sorted"] == sorted((row.cycles for row in document.nodes), reverse=True)[:4]
    assert found["selected"].startswith("node ") and found["name"] in found["panel"] and "µJ" in found["panel"]
    assert found["assembly"] == f"code page.html#node={found['name']}"
    assert found["zoomed"] != f"0 {report.cycles}" and found["whole"]
    assert found["tab"] == "source" and found["line"]
    assert found["found"] == str(sum("softmax" in row.name for row in document.nodes)) and found["shown"]
    assert found["next"] and found["released"] == ""
    assert {"encoder", "layer.0", "layer.1", "pooler"} <= set(found["tree"]) and "encoder.layer.1" in found["module"]
    longest = report.stalls(1)[0]
    assert f"stands idle for {longest.cycles:,} cycles" in found["stall"] and longest.before.node in found["stall"]
    assert found["help"] and found["causes"] == "true" and found["night"]
    assert " mm at 0x" in found["tip"] and "cycles" in found["tip"]
    assert found["work"].startswith("node ") and "mm at 0x" in found["work"]
    low, high = map(int, found["dragged"].split())
    assert 0 < low < high < report.cycles
    assert "SRAM 0x" in found["memory"] and "alive from cycle" in found["buffer"]
    assert found["colors"] > 20


@pytest.mark.wide
@pytest.mark.parametrize("width", [800, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_window_and_every_plot_is_drawn(path: Path, width: int, dark: bool) -> None:
    """Breaks when the page is wider than the window, text has the colour of its paper, or a plot is not drawn."""
    script = f"""
      theme.set("{"dark" if dark else "light"}");
      for (const e of document.querySelectorAll("#plots > section, section.plot")) {{ e.scrollIntoView(); await new Promise(r => setTimeout(r, 60)); }}
      for (let i = 0; i < 100 && (document.body.dataset.drawn || "").split(" ").length < 5; i++) await new Promise(r => setTimeout(r, 50));
      const style = getComputedStyle(document.body);
      document.body.dataset.paper = style.backgroundColor + " " + style.color;
      document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth;
    """
    document = dom(path, script=script, width=width)
    assert said(document, "ready") == "yes"
    assert said(document, "drawn").split() == ["energy", "energy_tree", "roofline", "utilisation", "waterfall"]
    assert int(said(document, "wide")) <= 0
    paper, ink = (sum(map(int, re.findall(r"\d+", part))) for part in said(document, "paper").split(") "))
    assert (paper < 150 < 450 < ink) if dark else (ink < 150 < 450 < paper)


@pytest.mark.wide
def test_a_decoder_shows_its_context(report: Profile, tmp_path: Path) -> None:
    """Breaks when a thousand steps are no table that opens at once."""
    points = [
        {"tokens": n, "cycles": 9 * n, "tokens_per_second": 1e9 / n, "joules_per_token": n * 1e-6, "dram_bytes": n}
        | {"limit_cycles": 8 * n, "of_limit": 8 / 9}
        for n in range(1, 1001)
    ]
    path = tmp_path / "decode.html"
    path.write_text(page(report, report.document("d"), context=points))
    script = (
        HARNESS
        + "key('6'); await wait(() => document.body.dataset.found === '1000'); out.tab = document.body.dataset.tab;"
    )
    script += "out.rows = rows().length; out.ms = Number(document.body.dataset.ms); document.body.dataset.result = JSON.stringify(out);"
    found = json.loads(said(dom(path, script=script), "result"))
    assert found["tab"] == "context" and 10 < found["rows"] < 200


def test_data_reads_back(data: PageData) -> None:
    """Breaks when a type of the page cannot be told from its JSON."""
    found = msgspec.json.decode(encoded(data))
    assert set(found) == set(PageData.__struct_fields__)


@pytest.mark.wide
@pytest.mark.slow
def test_a_large_run_opens_at_once(tmp_path: Path) -> None:
    """Breaks when a page grows with the run: BERT-base with 8 x 512 tokens, 260,000 instructions, stands in two
    seconds and is no more than 12 MB."""
    from benchmarks.bench_chip import Case, image_of, lowered
    from compiler.options import Options
    from compiler.pipeline import finish
    from isa.chip import load_chip

    graph = lowered(Case("bert-base", 512, 8, "edge"))
    report = profile(image_of(finish(graph, Options(), load_chip("edge"))), graph)
    assert len(report.timeline.instructions) > 200_000
    path = tmp_path / "large.html"
    path.write_text(page(report, report.document("bert-base")))
    assert path.stat().st_size < 12_000_000
    assert min(int(said(dom(path), "ms")) for _ in range(3)) < 2000


def test_engines_have_one_colour_on_all_pages() -> None:
    """Breaks when an engine is red here and blue on the page of the assembly."""
    from importlib import resources

    from runtime.profile.colours import COLOURS

    style = (resources.files("runtime.html.listing") / "page.css").read_text()
    for engine in ENGINES[:-1]:
        assert tuple(re.findall(rf"--{engine.value}: (#\w+)", style)) == COLOURS[engine.value]

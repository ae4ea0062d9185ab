"""The page of `llmcc profile --html`: complete in itself, and drawn by a browser that has no network."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from read_harness import bert_image, dom, said

from isa.asm.assemble import assemble
from isa.image.image import DebugMap, DebugNode, Image, Span
from runtime.profile.profile import Profile, profile

pytest.importorskip("plotly")
from runtime.html.profile_page import page
from runtime.profile.figures import MAX_SPANS, _merged, _tracks


@pytest.fixture(scope="module")
def report() -> Profile:
    return profile(bert_image())


@pytest.fixture(scope="module")
def text(report: Profile) -> str:
    return page(report, report.as_dict("bert.llmchip"))


def plots(text: str) -> dict[str, dict[str, list[Any]]]:
    found = re.search(r'application/json">(.*?)</script>', text, re.S)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_needs_nothing_else(text: str) -> None:
    """Breaks when the page refers to another file or address, or forgets to forbid it."""
    assert "default-src 'none'" in text
    own = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?://|\bsrc=|<link|@import|url\(", own)
    assert "{{" not in own


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


def test_tracks_show_all_work(report: Profile) -> None:
    """Breaks when a word is missing from the timeline, or two on one track overlap."""
    tracks = _tracks(report)
    for track in tracks.values():
        assert all(a[1] <= b[0] for a, b in pairwise(track))
    for name in ("mxu", "vec", "act"):
        assert sum(high - low for low, high, _ in tracks[name]) == round(report.utilisation[name] * report.cycles)


def test_many_spans_are_merged() -> None:
    """Breaks when a program of a hundred thousand words makes a page that no browser opens."""
    track = [(10 * i, 10 * i + 8, "x") for i in range(100_000)]
    merged = list(_merged(track, 1_000_000 * 8 // MAX_SPANS + 1))
    assert len(merged) < MAX_SPANS
    assert (merged[0][0], merged[-1][1]) == (0, track[-1][1])


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
    text = page(report, report.as_dict("<b>"))
    assert "<script>document" not in text
    assert "<title>&lt;b&gt; on chip" in text


def test_a_browser_draws_every_plot(text: str, report: Profile, tmp_path: Path) -> None:
    """Breaks when the script fails, or the page's own policy forbids what it needs."""
    path = tmp_path / "profile.html"
    path.write_text(text)
    script = """
      const drawn = [...document.querySelectorAll("[id] > .plot-container")].map(e => e.parentElement.id);
      document.body.dataset.drawn = drawn.join(" ");
      const paths = [...document.querySelectorAll("#timeline .subplot.xy .js-line")].map(e => e.getAttribute("d"));
      document.body.dataset.spans = paths.join("").split("M").length - 1;
    """
    document = dom(path, script=script)
    assert said(document, "ready") == "yes"
    assert set(said(document, "drawn").split()) == {
        "timeline",
        "waterfall",
        "roofline",
        "utilisation",
        "energy",
        "sram",
        "acc",
    }
    assert int(said(document, "spans")) == sum(map(len, _tracks(report).values())), "plotly has dropped the short ones"

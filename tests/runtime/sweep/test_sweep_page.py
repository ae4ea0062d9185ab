"""The page of `llmcc sweep --html`, drawn by a browser that has no network."""

import json
import re
import shlex
from pathlib import Path

import pytest
from read_harness import day_and_night, dom, said

pytest.importorskip("plotly")
from runtime.sweep.axes import axis, grid
from runtime.sweep.measures import FIGURES
from runtime.sweep.page import command, page
from runtime.sweep.result import Sweep
from runtime.sweep.sweep import Row

AXES = (axis("mxu.rows+mxu.cols", "32..128"), axis("sram.bytes", "1MiB,2MiB"), axis("chip", "edge"))
ERROR = {"kind": "compile", "what": "</script><b>too small", "where": "k0", "hint": ""}


def row(number: int, place: dict[str, str], model: str) -> Row:
    if number == 5:
        return Row(model, 16, None, place, "c", {"error": ERROR}, 0.1)
    figures = {name: float(number % 3 + 1) if name != "joules" else 9.0 - number for name in FIGURES}
    parts = {name: {"mxu": 1.0, "dram": 3.0} for name in ("waterfall", "energy_joules", "area_mm2", "utilisation")}
    return Row(model, 16, None, place, "c", {**figures, **parts, "limited_by": ("mxu", "sram")[number % 2]}, 0.1)


@pytest.fixture(scope="module")
def found() -> Sweep:
    return Sweep(AXES, tuple(row(n, dict(p), m) for m in ("a b", "other") for n, p in enumerate(grid(AXES))))


def test_the_page_needs_nothing_else(found: Sweep) -> None:
    """Breaks when the page refers to another file or address, or an error's text becomes part of it."""
    text = page(found)
    assert "default-src 'none'" in text and "<b>too small" not in text
    own = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?://|\bsrc=|<link|@import|url\(", own) and "{{" not in own


@pytest.mark.wide
def test_a_browser_draws_it_and_shows_a_point(found: Sweep, tmp_path: Path) -> None:
    """Breaks when the script fails, a plot or row is missing, or a click, a key or a choice does nothing."""
    path = tmp_path / "sweep.html"
    path.write_text(page(found))
    script = """
        const out = {}, rows = () => [...document.querySelectorAll('#points tbody tr')];
        out.rows = rows().length; out.grid = document.querySelectorAll('#grid > div svg.main-svg').length > 0;
        out.plots = document.querySelectorAll('#grid > div').length;
        out.marks = document.querySelectorAll('#front .points path.point').length;
        rows().find(r => r.classList.contains('failed')).click();
        out.reason = document.getElementById('shown').textContent.includes('too small');
        rows()[2].dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}));
        out.picked = document.body.dataset.picked; out.bars = document.querySelectorAll('#shown .bar').length;
        out.command = document.querySelector('#shown code').textContent;
        const head = [...document.querySelectorAll('#points th button')].find(b => b.textContent.startsWith('energy'));
        head.click(); out.first = rows()[0].dataset.number; head.click(); out.last = rows().at(-1).dataset.number;
        const choice = document.getElementById('workload'); choice.value = choice.options[1].value;
        choice.dispatchEvent(new Event('change')); out.other = rows()[0].dataset.number;
        document.body.dataset.seen = JSON.stringify(out);
    """
    document = dom(path, script=script)
    assert said(document, "ready") == "yes"
    seen = json.loads(said(document, "seen"))
    assert (seen["rows"], seen["plots"], seen["marks"], seen["grid"]) == (6, 3 * 4, 5, True)
    assert (seen["reason"], seen["picked"], seen["bars"]) == (True, "2", 8)
    assert (seen["first"], seen["last"], seen["other"]) == ("4", "4", "6")
    wanted = "llmcc profile 'a b' --seq 16 --chip edge --set mxu.rows=64 --set mxu.cols=64 --set sram.bytes=1MiB"
    assert seen["command"] == f"{wanted} --html profile.html"


@pytest.mark.wide
@pytest.mark.parametrize("width", [800, 1440])
def test_day_and_night(found: Sweep, width: int, tmp_path: Path) -> None:
    (tmp_path / "sweep.html").write_text(page(found))
    day_and_night(tmp_path / "sweep.html", width)


def test_the_command_is_one_that_a_shell_reads(found: Sweep) -> None:
    """Breaks when a model's name becomes several words, or a parameter of a joined axis is left out."""
    words = shlex.split(command(found.rows[0], ["--trust"]))
    assert words[:4] == ["llmcc", "profile", "a b", "--trust"] and words.count("--set") == 3

"""What `llmcc profile` prints: the run in a few lines, the waterfall, tables by layer, node and source line, stalls; and
the same rows as CSV."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from isa.architecture import Engine
from isa.technology import ASSUMED
from runtime.cli.common import size, stdout, styled
from runtime.cli.tables import Column, show
from runtime.profile.document import ProfileDocument, Row, Stall
from runtime.profile.select import ordered
from runtime.profile.words import cause

if TYPE_CHECKING:
    from rich.console import Console

# Of a narrow terminal the busy times of single engines go first, then the line of code.
_WORK = (
    Column("mxu", right=True, spare=5),
    Column("vec", right=True, spare=6),
    Column("act", right=True, spare=7),
    Column("MACs", right=True, spare=3),
    Column("DRAM", right=True, spare=2),
    Column("µJ", right=True, spare=1),
    Column("", spare=4, prose=True),
)
_STALLS = (
    Column("stall", right=True),
    Column("cycles", right=True),
    Column("share", right=True, spare=1),
    Column("until", prose=True),
    Column("because", prose=True),
)
_TITLES = {"layers": "layer", "nodes": "node", "lines": "source line"}
_ENGINES = tuple(engine.value for engine in Engine)
_LINKS = 3  # causes of a stall that are named


def print_profile(d: ProfileDocument, tables: Sequence[str], sort: str, top: int, causes: bool, stalls: int) -> None:
    """The whole run, and `top` rows of each of these tables; `causes`: what their cycles are, not their work."""
    console = stdout()
    _head(console, d)
    _resources(console, d)
    _bars(_parts(d), d.cycles)
    for key in tables if top else ():
        rows: Sequence[Row] = getattr(d, key)
        if len(rows) > 1 or len(tables) == 1:  # of one row nothing is known that would tell its instructions apart
            console.print()
            _table(_TITLES[key], ordered(rows, sort), d, top, causes)
    if stalls and d.stalls:
        console.print()
        _stalls(d, stalls)


def print_selection(d: ProfileDocument, sort: str, top: int, causes: bool, stalls: int) -> None:
    """Some nodes of a run: what they take together and why, `top` of them, and for what they waited the longest."""
    cycles = sum(row.cycles for row in d.nodes)
    stdout().print(
        styled((f"{cycles:,} cycles", "bold"), f" of {d.cycles:,} ({cycles / d.cycles:.1%}), {len(d.nodes)} nodes"),
        soft_wrap=True,
    )
    parts = _sums(d.nodes)
    _bars({cause(name, d.waterfall_resource): count for name, count in parts.items()}, cycles)
    if top:
        stdout().print()
        _table("node", ordered(d.nodes, sort), d, top, causes)
    if stalls and d.stalls:
        stdout().print()
        _stalls(d, stalls)


def csv_of(d: ProfileDocument, table: str, sort: str) -> str:
    """Every row of a table with all its figures, one column each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    causes = list(d.waterfall)
    writer.writerow(
        ["name", "layer", "op", "file", "line", "cycles", "share", *(f"busy_{name}" for name in _ENGINES), "macs"]
        + ["dram_bytes", "energy_joules", "instructions", *causes]
    )
    for row in ordered(getattr(d, table), sort):
        busy, parts = ([found.get(name, 0) for name in names] for found, names in _counts(row, causes))
        writer.writerow(
            [row.name, row.layer, row.op, row.file, row.line or "", row.cycles, f"{row.cycles / d.cycles:.6f}", *busy]
            + [row.macs, row.dram_bytes, f"{row.energy_joules:.6g}", row.instructions, *parts]
        )
    return text.getvalue()


def _counts(row: Row, causes: Sequence[str]) -> tuple[tuple[Mapping[str, int], Sequence[str]], ...]:
    return (row.busy, _ENGINES), (row.waterfall, causes)


def _head(console: "Console", d: ProfileDocument) -> None:
    speed = f", {d.seconds * 1e6:,.1f} µs a launch, {d.launches_per_second:,.1f} launches/s on chip {d.chip}"
    console.print(styled((f"{d.cycles:,} cycles", "bold"), speed))
    whose = (
        "of the model's operations"
        if d.limit_source == "graph"
        else "of the program's own instructions (--model MODEL takes the model's)"
    )
    limit = f"limit {d.limit_cycles:,} cycles ({d.limit_resource}), {whose}: reached "
    console.print(styled(limit, (f"{d.of_limit:.3f}", "bold")), soft_wrap=True)
    console.print(
        f"{d.instructions:,} instructions executed of {d.program_words:,}, {d.macs:,} MACs, {size(d.dram_bytes)} of DRAM at "
        f"{d.bandwidth_bytes_per_second / 1e9:.1f} GB/s, {d.arithmetic_intensity:.1f} MACs per byte",
        soft_wrap=True,
    )
    parts = ", ".join(
        f"{name} {value / d.total_joules:.0%}" for name, value in d.energy_joules.items() if d.total_joules
    )
    console.print(f"{d.total_joules * 1e3:.3f} mJ, {d.watts:.2f} W: {parts}", soft_wrap=True)
    console.print(f"energy: {ASSUMED}", soft_wrap=True)


def _resources(console: "Console", d: ProfileDocument) -> None:
    parts = [
        f"{name} {share:.1%}" + (f" (limit {d.limits[name]:,})" if name in d.limits else "")
        for name, share in d.utilisation.items()
    ]
    console.print("busy: " + ", ".join(parts), soft_wrap=True)


def _bars(parts: Mapping[str, int], total: int) -> None:
    """A waterfall, and its sum."""
    rows = [
        (name, f"{count:,}", _share(count, total), "█" * (round(40 * count / total) if total else 0))
        for name, count in parts.items()
    ]
    columns = [Column("waterfall"), Column("cycles", right=True), Column("share", right=True), Column("", spare=1)]
    show(columns, [*rows, ("total", f"{total:,}", "100.0%", "")], [*[""] * len(rows), "bold"])


def _parts(d: ProfileDocument) -> dict[str, int]:
    """The waterfall, what the limit asks for apart from the rest of the limiting resource's work."""
    parts = {cause(name, d.waterfall_resource): count for name, count in d.waterfall.items()}
    if d.excess_cycles < 0:  # the limit counts what this program never does on that resource
        return parts
    work = parts.pop(cause("compute", d.waterfall_resource))
    return {"limit": work - d.excess_cycles, "beyond the limit": d.excess_cycles, **parts}


def _table(title: str, rows: Sequence[Row], d: ProfileDocument, top: int, causes: bool) -> None:
    """The first `top` rows, and what the others come to."""
    names = [name for name, count in sorted(_sums(rows).items(), key=lambda part: -part[1]) if count]
    titles = [cause(name, d.waterfall_resource).removeprefix("waits ") for name in names]
    spare = [Column(text, right=True, spare=number) for number, text in enumerate(titles)]
    columns = [Column("cycles", right=True), Column("share", right=True), *(spare if causes else _WORK)]

    def cells(row: Row) -> tuple[str, ...]:
        beside = [_count(row.waterfall.get(name, 0)) for name in names] if causes else _work(row)
        return _short(row.name), f"{row.cycles:,}", _share(row.cycles, d.cycles), *beside

    shown, styles = [cells(row) for row in rows[:top]], [""] * min(top, len(rows))
    if len(rows) > top:
        rest = sum(row.cycles for row in rows[top:])
        shown.append((f"({len(rows) - top} more)", f"{rest:,}", _share(rest, d.cycles)))
        styles.append("dim")
    show([Column(title, prose=True, by_end=True), *columns], shown, styles)


def _sums(rows: Sequence[Row]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        for name, count in row.waterfall.items():
            found[name] = found.get(name, 0) + count
    return found


def _work(row: Row) -> list[str]:
    busy = [f"{row.busy.get(name, 0):,}" for name in ("mxu", "vec", "act")]
    return [*busy, f"{row.macs:,}", size(row.dram_bytes), f"{row.energy_joules * 1e6:,.1f}", _about(row)]


def _count(count: int) -> str:
    return f"{count:,}" if count else ""


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""


def _short(name: str) -> str:
    """A file without its folders; the page and the document have them."""
    return name.rpartition("/")[2] or "(none)"


def _about(row: Row) -> str:
    text = " ".join((row.op or row.code).split())
    return f"{text[:56]}…" if len(text) > 57 else text


def _stalls(d: ProfileDocument, count: int) -> None:
    rows = [
        (
            f"at {stall.begin:,}", f"{stall.cycles:,}", _share(stall.cycles, d.cycles),
            f"{stall.before.node} {stall.before.word}", ", ".join(_because(stall, d.waterfall_resource)),
        )
        for stall in d.stalls[:count]
    ]  # fmt: skip
    show(_STALLS, rows)


def _because(stall: Stall, resource: str) -> Iterator[str]:
    """The links that take longest: cause, cycles, and for whom."""
    found: dict[tuple[str, str], int] = {}
    for link in stall.chain:
        key = cause(link.cause, resource), f"{link.node} {link.word}"
        found[key] = found.get(key, 0) + link.cycles
    for (why, who), cycles in sorted(found.items(), key=lambda item: -item[1])[:_LINKS]:
        yield f"{why} {cycles:,} ({who})"

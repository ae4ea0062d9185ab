"""What the page of a profile shows, as plain values. However long a run is, the stretches of time in it are at most so
many as the constants here say; only the tables grow, by a row for each node of the program.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct, structs

from emulator.timing.timeline import CTL, ENGINES, Timeline
from emulator.timing.waterfall import CAUSES, RESOURCES, Gap, Link, charged, gaps
from isa.architecture import WORD_BYTES, Engine, Space
from isa.image.records import DebugNode, pick
from runtime.html.page import named_owner, source_lines
from runtime.profile import spans
from runtime.profile.bandwidth import bandwidth
from runtime.profile.buffer_lifetimes import Life, lives
from runtime.profile.document import ProfileDocument, Row
from runtime.profile.run import NO_NODE, Run, place_of
from runtime.profile.spans import Numbers, Spans
from runtime.profile.words import cause

MOST_WORK = 80_000  # stretches of work, of all tracks together
MOST_PIECES = 12_000  # of each band of layers, lines and nodes, and of causes
MOST_BUFFERS = 30_000  # of each memory
MOST_STALLS = 300  # of each resource
MOST_LINKS = 24  # of a stall's chain
MOST_LEVELS = 5  # of modules in modules, as bands
_DEEPEST = 16  # modules in modules: an image may name any
_WAITS, _WEIGHTS = "dispatch waits", "mxu weights"


class Track(Struct, frozen=True):
    """Work of a resource that does one thing at a time. Each stretch begins `gaps` after the end of the one before; in
    `works` of its cycles there is work, of `counts` instructions; the others are those of the longest."""

    name: str
    gaps: list[int]
    lengths: list[int]
    works: list[int]
    counts: list[int]
    nodes: list[int]
    pcs: list[int]
    words: list[int]


class Pieces(Struct, frozen=True):
    """The whole run cut into pieces, each of which belongs to a row of a table, or to a cause."""

    name: str
    lengths: list[int]
    owners: list[int]


class Memory(Struct, frozen=True):
    """Buffers of a memory; `left_out` are those that hold least for shortest."""

    name: str
    capacity: int
    names: list[str]
    buffers: list[tuple[int, int, int, int, int, int]]  # name, offset, bytes, from, to, node
    left_out: int


class ChainLink(Struct, frozen=True, array_like=True):
    """A piece of a stall's chain: from, to, cause, and the instruction that the chain passes through; of several alike,
    one after the other, the first and how many they are."""

    low: int
    high: int
    cause: int
    node: int
    word: str
    pc: int
    track: str
    times: int


class Idle(Struct, frozen=True, array_like=True):
    """The resource stands idle until the instruction `word` of `node`; the chain of waits in the order of time."""

    low: int
    high: int
    node: int
    word: str
    pc: int
    causes: list[int]  # cycles of each
    chain: list[ChainLink]
    more: int  # links that are left out, the shortest


class Stalls(Struct, frozen=True):
    """The longest of a resource; the `more` others take `rest` cycles."""

    resource: str
    idle: list[Idle]
    more: int
    rest: int


class TableRow(Struct, frozen=True):
    """A row of the document, when it is at work, and where it leads."""

    row: Row
    place: str
    low: int
    high: int
    pc: int  # of its first instruction
    number: int  # of a node among all of the program: its colour
    layer: int
    line: int
    module: int  # of a node: the innermost


class Module(Struct, frozen=True):
    """A module of the model: `name` in its parent, -1 for none. A number goes with the name before it: `layer.3`."""

    name: str
    parent: int


class Source(Struct, frozen=True):
    """Lines of a file as the image has them; number 0 is a gap."""

    name: str
    lines: list[list[Any]]
    rows: list[int]  # of the table of lines, -1 for none


class PageData(Struct, frozen=True):
    """Everything that the scripts draw."""

    cycles: int
    clock: int
    resource: str
    causes: list[str]  # names, as in the style sheet
    cause_words: list[str]
    words: list[str]
    tracks: list[Track]
    bands: list[Pieces]
    strips: list[Pieces]
    rates: tuple[list[int], list[float]]
    memories: list[Memory]
    stalls: list[Stalls]
    layers: list[TableRow]
    nodes: list[TableRow]
    lines: list[TableRow]
    modules: list[Module]
    sources: list[Source]
    context: list[Mapping[str, int | float]]
    plots: Mapping[str, Raw]
    listing: str  # address of the page of `llmcc disasm --html`, "" if there is none


class _Rows:
    """Rows of a table by instruction."""

    def __init__(self, run: Run, rows: Sequence[Row], name: Callable[[DebugNode], str]) -> None:
        numbers = {row.name: number for number, row in enumerate(rows)}
        self.of_node = np.array([numbers.get(name(node), -1) for node in (*run.image.debug.nodes, NO_NODE)], np.int64)
        self.of_instruction = self.of_node[run.node]
        self.rows = rows


def page_data(
    run: Run, d: ProfileDocument, plots: Mapping[str, str], listing: str = "", context: Sequence[Mapping[str, Any]] = ()
) -> PageData:
    """The data of a run and its document, with the JSON of the plots."""
    t = run.timeline
    by_node = _Rows(run, d.nodes, lambda node: node.name)
    by_layer = _Rows(run, d.layers, lambda node: node.layer)
    by_line = _Rows(run, d.lines, place_of)
    words = sorted({instruction.inst.mnemonic for instruction in t.instructions})
    idle = {resource: gaps(t, resource) for resource in RESOURCES}
    pieces = {resource: charged(t, resource, idle[resource]) for resource in RESOURCES}
    mine = pieces[run.resource]
    low, high, which = (np.array([piece[i] for piece in mine], np.int64) for i in (2, 3, 0))
    modules, places = _modules([row.module for row in d.nodes])
    tables = [_table(run, rows, by_layer, by_line, modules) for rows in (by_layer, by_node, by_line)]
    bands = [_band("module", spans.of(low, high, place[by_node.of_instruction[which]], which)) for place in places] + [
        _band(name, spans.of(low, high, rows.of_instruction[which], which))
        for name, rows in (("layer", by_layer), ("line", by_line), ("node", by_node))
    ]
    return PageData(
        cycles=t.cycles,
        clock=t.chip.clock_hz,
        resource=run.resource,
        causes=list(CAUSES),
        cause_words=[cause(name, run.resource) for name in CAUSES],
        words=words,
        tracks=_tracks(t, by_node.of_instruction, words),
        bands=bands,
        strips=[_causes(resource, found) for resource, found in pieces.items()],
        rates=bandwidth(t),
        memories=[_memory(run, space, by_node.of_node) for space in (Space.SRAM, Space.ACC)],
        stalls=[_stalls(t, resource, idle[resource], by_node.of_instruction) for resource in RESOURCES],
        layers=tables[0],
        nodes=tables[1],
        lines=tables[2],
        modules=list(modules.values()),
        sources=list(_sources(run, by_line)),
        context=list(context),
        plots={name: Raw(plot.encode()) for name, plot in plots.items()},
        listing=listing,
    )


def _tracks(t: Timeline, nodes: Numbers, words: Sequence[str]) -> list[Track]:
    numbers = {word: number for number, word in enumerate(words)}
    rows = dict(_work(t, nodes))
    bucket = spans.bucket_for(list(rows.values()), MOST_WORK)
    found = []
    for name, row in rows.items():
        some = spans.shown(row, bucket)
        here = [t.instructions[i] for i in some.instruction.tolist()]
        before = np.concatenate([[0], some.high[:-1]]) if len(some) else some.high
        found.append(
            Track(
                name, (some.low - before).tolist(), (some.high - some.low).tolist(), some.work.tolist(),
                some.count.tolist(), some.owner.tolist(), [i.pc for i in here], [numbers[i.inst.mnemonic] for i in here],
            )
        )  # fmt: skip
    return found


def _work(t: Timeline, nodes: Numbers) -> Iterator[tuple[str, Spans]]:
    """When each resource works; dispatch is shown where it waits."""

    def some(chosen: Numbers, low: Numbers, high: Numbers) -> Spans:
        index = chosen[(high > low)[chosen]]
        return spans.of(low[index], high[index], nodes[index], index)

    yield _WAITS, some(np.flatnonzero(t.engine == CTL), t.ready, t.work_start)
    for engine in ENGINES[:CTL]:
        if engine is Engine.MXU:
            yield _WEIGHTS, some(t.of(engine), t.start, t.work_start)
        yield engine.value, some(t.of(engine), t.work_start, t.work_end)


def _band(name: str, found: Spans) -> Pieces:
    """Of very many pieces, neighbours go to the one that is longest."""
    whole = spans.joined(found)
    some = spans.shown(whole, spans.bucket_for([whole], MOST_PIECES))
    return Pieces(name, (some.high - some.low).tolist(), some.owner.tolist())


def _causes(resource: str, found: Sequence[Link]) -> Pieces:
    numbers = {name: number for number, name in enumerate(CAUSES)}
    low, high = (np.array([piece[i] for piece in found], np.int64) for i in (2, 3))
    owner = np.array([numbers[piece.cause] for piece in found], np.int64)
    lengths, owners = spans.packed(spans.of(low, high, owner, owner), MOST_PIECES)
    return Pieces(resource, lengths.tolist(), owners.tolist())


def _modules(paths: Sequence[str]) -> tuple[dict[str, Module], list[Numbers]]:
    """All modules by path; and, for each level that has more than one, the module there of each path, -1 for none."""
    chains = [_chain_of(path) for path in paths]
    names = dict.fromkeys(place for chain in chains for place in chain)
    numbers = {place: number for number, place in enumerate(sorted(names, key=lambda place: place.count("/")))}
    found = {place: Module(place.rpartition("/")[2], numbers.get(place.rpartition("/")[0], -1)) for place in numbers}
    levels = []
    for level in range(max(map(len, chains), default=0)):
        here = [numbers[chain[level]] if level < len(chain) else -1 for chain in chains]
        if len({number for number in here if number >= 0}) > 1:
            levels.append(np.array([*here, -1], np.int64))  # -1, no node, is the last
    return found, levels[:MOST_LEVELS]


def _chain_of(path: str) -> tuple[str, ...]:
    """`encoder`, `encoder/layer.3`, `encoder/layer.3/output`."""
    pieces: list[str] = []
    for piece in filter(None, path.split(".")):
        if piece.isdigit() and pieces:
            pieces[-1] += f".{piece}"
        else:
            pieces.append(piece)
    return tuple(accumulate(pieces[:_DEEPEST], "{}/{}".format))


def _table(run: Run, rows: _Rows, layers: _Rows, lines: _Rows, modules: Mapping[str, Module]) -> list[TableRow]:
    """Each row from the beginning to the end of its work, transfers left out where there is other work: weights are
    fetched long before."""
    t, debug = run.timeline, run.image.debug.nodes
    mine, count = rows.of_instruction, len(rows.rows)
    begin, end = _extents(mine, t.work_start, t.work_end, count)
    some = np.flatnonzero(np.isin(t.engine, [ENGINES.index(engine) for engine in (Engine.MXU, Engine.VEC, Engine.ACT)]))
    low, high = _extents(mine[some], t.work_start[some], t.work_end[some], count)
    begin, end = np.where(high < 0, begin, low), np.where(high < 0, end, high)
    first = np.full(count, len(mine), np.int64)
    np.minimum.at(first, mine, np.arange(len(mine)))
    numbers = {place: number for number, place in enumerate(modules)}
    found = []
    for number, (row, index) in enumerate(zip(rows.rows, first.tolist(), strict=True)):
        chain = _chain_of(row.module)
        node = int(run.node[index])
        about = debug[node] if node >= 0 else NO_NODE
        found.append(
            TableRow(
                row, _short(place_of(about)) if about.line else "", int(begin[number]), int(end[number]),
                t.instructions[index].pc, node, int(layers.of_node[node]), int(lines.of_node[node]),
                numbers[chain[-1]] if chain else -1,
            )
        )  # fmt: skip
    return found


def _extents(rows: Numbers, low: Numbers, high: Numbers, count: int) -> tuple[Numbers, Numbers]:
    begin, end = np.full(count, np.iinfo(np.int64).max), np.full(count, -1, np.int64)
    np.minimum.at(begin, rows, low)
    np.maximum.at(end, rows, high)
    return begin, end


def _memory(run: Run, space: Space, row_of_node: Numbers) -> Memory:
    found = sorted(lives(run.image, run.timeline, space), key=lambda life: life.record.bytes * (life.low - life.high))
    some = found[:MOST_BUFFERS]
    names = {name: number for number, name in enumerate(dict.fromkeys(life.record.name for life in some))}
    nodes = {node.name: number for number, node in enumerate(run.image.debug.nodes)}
    users, twins = _first_users(run), {n: span for span in run.image.debug.spans if span.level >= 0 for n in span.nodes}
    owners = {name: named_owner(name, nodes) for name in names}

    def row(life: Life) -> int:
        owner = owners[life.record.name]
        owner = owner if owner >= 0 else users.get(life.record.first, -1)
        if owner in twins:  # one buffer serves the nodes of all iterations of a loop
            span = twins[owner]
            owner = pick(span.nodes, span.level, run.timeline.instructions[life.first].indices)
        return int(row_of_node[owner])

    buffers = [
        (names[life.record.name], life.record.offset, life.record.bytes, life.low, life.high, row(life))
        for life in some
    ]
    chip = run.timeline.chip
    capacity = chip.sram.bytes if space is Space.SRAM else chip.acc.bytes
    return Memory(space.name, capacity, list(names), buffers, len(found) - len(some))


def _first_users(run: Run) -> dict[int, int]:
    """The node that each instruction of the program works for, the first time round a loop."""
    index = (run.timeline.pc // WORD_BYTES)[::-1]
    return dict(zip(index.tolist(), run.node[::-1].tolist(), strict=True))


def _stalls(t: Timeline, resource: str, idle: Sequence[Gap], nodes: Numbers) -> Stalls:
    longest = sorted(idle, key=lambda gap: (gap.low - gap.high, gap.low))
    rest = longest[MOST_STALLS:]
    return Stalls(
        resource, [_idle(t, gap, nodes) for gap in longest[:MOST_STALLS]], len(rest), sum(g.high - g.low for g in rest)
    )


def _idle(t: Timeline, gap: Gap, nodes: Numbers) -> Idle:
    cycles = dict.fromkeys(CAUSES, 0)
    for link in gap.links:
        cycles[link.cause] += link.high - link.low
    whole = _chain(t, gap.links, nodes)
    longest = sorted(whole, key=lambda link: link.low - link.high)[:MOST_LINKS]
    chain = sorted(longest, key=lambda link: link.low)
    here = t.instructions[gap.instruction]
    return Idle(
        gap.low, gap.high, int(nodes[gap.instruction]), here.inst.mnemonic, here.pc, list(cycles.values()), chain,
        len(whole) - len(chain),
    )  # fmt: skip


def _chain(t: Timeline, links: Sequence[Link], nodes: Numbers) -> list[ChainLink]:
    """In the order of time; neighbours with one cause, node and mnemonic are one."""
    found: list[ChainLink] = []
    for link in sorted(links, key=lambda link: link.low):
        here, engine = t.instructions[link.instruction], ENGINES[t.engine[link.instruction]]
        track = _WAITS if engine is Engine.CTL else engine.value
        cause, node, word = CAUSES.index(link.cause), int(nodes[link.instruction]), here.inst.mnemonic
        last = found[-1] if found else None
        if last is not None and (last.cause, last.node, last.word) == (cause, node, word):
            found[-1] = structs.replace(last, high=link.high, times=last.times + 1)
        else:
            found.append(ChainLink(link.low, link.high, cause, node, word, here.pc, track, 1))
    return found


def _sources(run: Run, lines: _Rows) -> Iterator[Source]:
    """The files of the model's lines, as far as the image has them."""
    nodes = run.image.debug.nodes
    numbers = {row.name: number for number, row in enumerate(lines.rows)}
    for file in dict.fromkeys(node.file for node in nodes if node.line):
        text = source_lines(file, nodes)
        yield Source(_short(file), text, [numbers.get(f"{file}:{number}", -1) for number, _ in text])


def _short(file: str) -> str:
    return file.rpartition("site-packages/")[2]


def encoded(data: PageData) -> bytes:
    """As JSON."""
    return msgspec.json.encode(data)

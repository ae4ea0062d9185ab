"""Where the instructions of a hand-written program stand in its text, as a debug map: one node per source line.

So everything that knows the graph of a compiled program (`disasm --source`, the HTML page, lint, profile, the debugger)
knows the lines of a written one. A node is called `gemm.s:61`; its `origins` hold the label that it stands under, which
may be named in its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from isa.architecture import WORD_BYTES
from isa.image.records import BY_LINE, DebugMap, DebugNode, Span

_NO_VALUE = "it has instructions, but no value"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file. `text` is what stands there."""

    file: str
    line: int
    text: str


def source_map(places: Sequence[Place], mnemonics: Sequence[str], labels: Mapping[str, int]) -> DebugMap:
    """The debug map of instructions that come from `places`, one for each instruction. `labels` gives the index of the
    instruction behind each label."""
    short = _short({place.file for place in places})
    under, nodes, spans = _labels(labels, len(places)), list[DebugNode](), list[Span]()
    numbers: dict[Place, int] = {}
    for index, place in enumerate(places):
        if place not in numbers:
            numbers[place] = len(nodes)
            origins = (under[index],) if under[index] else ()
            name = f"{short[place.file]}:{place.line}"
            node = DebugNode(
                name,
                mnemonics[index],
                file=place.file,
                line=place.line,
                code=place.text,
                origins=origins,
                status=BY_LINE,
                reason=_NO_VALUE,
            )
            nodes.append(node)
        number = numbers[place]
        if spans and spans[-1].nodes == (number,):
            spans[-1] = Span(spans[-1].first, (index + 1) * WORD_BYTES, (number,))
        else:
            spans.append(Span(index * WORD_BYTES, (index + 1) * WORD_BYTES, (number,)))
    return DebugMap(tuple(nodes), (), tuple(spans))


def _short(files: set[str]) -> dict[str, str]:
    """Files without their folders, unless two are then called the same."""
    names = [PurePath(file).name for file in files]
    return {file: PurePath(file).name if names.count(PurePath(file).name) == 1 else file for file in files}


def _labels(labels: Mapping[str, int], instructions: int) -> list[str]:
    """For each instruction the last label before it."""
    at = {index: name for name, index in labels.items()}  # in the order of the text
    found, last = list[str](), ""
    for index in range(instructions):
        last = at.get(index, last)
        found.append(last)
    return found

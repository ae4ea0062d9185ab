"""Nodes whose value never exists in memory: why, and where it would be."""

from isa.architecture import WORD_BYTES, Engine
from isa.asm.listing import Line, lines
from isa.fields import Access
from isa.image.image import Image
from isa.image.records import Span
from runtime.debug.nodes import Nodes


def missing(image: Image, nodes: Nodes, number: int) -> tuple[str, str]:
    """Why a node has no value in memory and where it would be, and what to do."""
    node = nodes.debug.nodes[number]
    if node.status != "fused":
        other = node.base or (node.results[0] if node.results else "")
        return f"{nodes.explain(number)}; it has no value in memory", f"print {other}" if other else ""
    what = f"{node.name} is fused {node.reason}, so its value is never whole in memory"
    spans, owner = _spans(nodes, number)
    if not spans:
        return what, f"'unfuse {node.name}' compiles without fusing and goes on there"
    place = f"instructions {spans[0].first:#06x} to {spans[-1].end - WORD_BYTES:#06x}"
    where = _part(image, spans) if owner == number else f"it is inside {nodes.debug.nodes[owner].name}, {place}"
    return f"{what}: {where or place}", f"'unfuse {node.name}' compiles without fusing and goes on there"


def _spans(nodes: Nodes, number: int) -> tuple[list[Span], int]:
    """The spans of the node, or of the node that it is fused into."""
    seen: set[int] = set()
    while number not in seen:
        seen.add(number)
        spans = sorted((span for span in nodes.debug.spans if number in span.nodes), key=lambda span: span.first)
        if spans:
            return spans, number
        number = next((nodes.numbers[name] for name in nodes.debug.nodes[number].into if name in nodes.numbers), number)
    return [], number


def _part(image: Image, spans: list[Span]) -> str:
    """The last instruction of the spans that writes memory, and what it writes."""
    found: Line | None = None
    for line in lines(image):
        if line.engine not in (None, Engine.CTL) and any(span.first <= line.pc < span.end for span in spans):
            found = line if _written(line) else found
    return (
        f"the last instruction for it, {found.pc:#06x} {found.text.partition(' ')[0]}, writes {_written(found)}"
        if found
        else ""
    )


def _written(line: Line) -> str:
    assert line.inst is not None
    row = line.inst.row
    return next((str(operand) for operand in line.operands if row.field(operand.name).access is not Access.R), "")

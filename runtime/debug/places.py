"""What the user may name: `v3`, `sram[0x100]:f32 4x8`, `dram.out[0x0..0x40]`, `0x00a0`, `activation`, `model.py:12`."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from isa.architecture import SCALARS, VIEWS, WORD_BYTES, Dtype, Region, Space
from isa.errors import InputError
from isa.views import Extents, View
from runtime.debug.launch import NotYet
from runtime.debug.points import Range
from runtime.debug.session import Session

_BLOCK = re.compile(
    r"(?P<place>[a-z]+(?:\.[a-z]+)?)\[(?P<low>\w+)(?:\.\.(?P<high>\w+))?\]?\)?(?::(?P<dtype>\w+))?$", re.IGNORECASE
)
_SHAPE = re.compile(r"\d+(x\d+)*$")
_REGISTER = re.compile(r"([vs])(\d+)$")


@dataclass(frozen=True)
class Block:
    """A view with extents: something that can be printed."""

    view: View
    extents: Extents


def form(words: list[str], forms: Collection[str]) -> tuple[str, list[str]]:
    """The form behind a command, `/x` for one, and the words after it. Raises InputError for an unknown form."""
    if not words or not words[0].startswith("/"):
        return "", words
    if words[0][1:] not in forms:
        raise InputError(f"there is no form '{words[0]}'", hint=" or ".join(f"/{name}" for name in forms if name))
    return words[0][1:], words[1:]


def element(session: Session, text: str) -> View:
    """One element of memory, `sram[0x40]:i32`. Raises InputError when it is not inside the memory."""
    where, dtype = _place(text)
    if where.high > where.low:
        raise InputError(f"'{text}' is a range, not an element", hint="for example sram[0x40]:i32")
    _check_inside(session, Range(where.space, where.region, where.low, where.low + max(dtype.bits // 8, 1)))
    return View(where.space, where.region, dtype, where.low)


def is_memory(text: str) -> bool:
    return "[" in text and text.partition("[")[0].partition(".")[0].lower() in {s.name.lower() for s in Space}


def register(text: str) -> tuple[str, int] | None:
    """`v3` or `s3`, or None for other text. Raises InputError for a number that does not exist."""
    match = _REGISTER.fullmatch(text)
    if not match:
        return None
    kind, number = match[1], int(match[2])
    limit = VIEWS if kind == "v" else SCALARS
    if number >= limit or (kind == "v" and not number):
        raise InputError(f"there is no register {text}", hint=f"{kind}{1 if kind == 'v' else 0} to {kind}{limit - 1}")
    return kind, number


def integer(text: str, what: str = "number") -> int:
    """Decimal or hexadecimal. Raises InputError, which calls it `what`."""
    try:
        return int(text, 0)
    except ValueError:
        raise InputError(f"'{text}' is no {what}", hint="decimal, or hexadecimal with 0x") from None


def count(words: list[str], default: int = 1) -> int:
    """The optional count behind a command. Raises InputError for more than one argument, and less than 1."""
    if len(words) > 1:
        raise InputError(f"'{words[1]}' is one argument too many")
    number = integer(words[0], "count") if words else default
    if number < 1:
        raise InputError(f"the count is {number}", hint="at least 1")
    return number


def shape(text: str) -> Extents:
    """Extents such as 4x8. Raises InputError for other texts, more than three, and 0."""
    if not _SHAPE.match(text):
        raise InputError(f"'{text}' is no shape", hint="for example 8, 4x8 or 2x4x8")
    extents = [int(n) for n in text.split("x")]
    if len(extents) > 3 or 0 in extents:
        raise InputError(f"'{text}' is no shape of a block", hint="one to three extents, none of them 0")
    planes, rows, cols = [1] * (3 - len(extents)) + extents
    return planes, rows, cols


def block(session: Session, words: list[str]) -> Block:
    """A view register or an address, with an optional shape behind it. Raises InputError for an address outside the
    memory, NotYet when neither it nor the program says the extents."""
    name, extents = words[0], shape(words[1]) if len(words) > 1 else None
    found = register(name)
    if found is not None:
        known = session.extents_of(found[1])
        view = known[0] if known else session.view(found[1])
        if known is None and extents is None:
            raise NotYet(
                f"neither the next instruction nor the last uses {name}, so its extents are not known",
                hint=f"say them: print {name} 4x8",
            )
        return Block(view, extents or (known[1] if known else (1, 1, 1)))
    where, dtype = _place(name)
    if where.high > where.low:
        size = dtype.bits
        return Block(
            View(where.space, where.region, dtype, where.low), extents or (1, 1, (where.high - where.low) * 8 // size)
        )
    planes, rows, cols = extents or (1, 1, 1)
    view = View(where.space, where.region, dtype, where.low, cols if rows > 1 else 0, rows * cols if planes > 1 else 0)
    low, high = view.span((planes, rows, cols))
    _check_inside(session, Range(where.space, where.region, low, high))
    return Block(view, (planes, rows, cols))


def span(session: Session, words: list[str]) -> Range:
    """The bytes that a view, a block or a range covers. Raises InputError when they are not inside the memory."""
    if is_memory(words[0]) and ".." in words[0]:
        found = _place(words[0])[0]
    else:
        what = block(session, words)
        low, high = what.view.span(what.extents)
        found = Range(what.view.space, what.view.region, low, high)
    _check_inside(session, found)
    return replace(found)


def _check_inside(session: Session, found: Range) -> None:
    size = session.stepper.memory.store_of(View(found.space, found.region, Dtype.I8, 0)).size
    if not 0 <= found.low < found.high <= size:
        raise InputError(f"{found} is not inside the memory of {size:#x} bytes")


def _place(text: str) -> tuple[Range, Dtype]:
    match = _BLOCK.match(text)
    if not match:
        raise InputError(f"'{text}' is no place in memory", hint="for example v3, sram[0x100]:f32 or dram.out[0..0x40]")
    space, region = _space(match["place"].lower())
    name = (match["dtype"] or "i8").upper()
    if name not in Dtype.__members__:
        raise InputError(f"'{match['dtype']}' is no element type", hint=", ".join(d.name.lower() for d in Dtype))
    low = integer(match["low"], "address")
    return Range(space, region, low, integer(match["high"], "address") if match["high"] else low), Dtype[name]


def _space(text: str) -> tuple[Space, Region]:
    space, _, region = text.partition(".")
    if space.upper() not in Space.__members__ or (space == "dram") != bool(region):
        raise InputError(f"'{text}' is no memory", hint="sram, acc, or dram.REGION")
    if region and region.upper() not in Region.__members__:
        raise InputError(f"'{region}' is no region", hint=", ".join(r.name.lower() for r in Region))
    return Space[space.upper()], Region[region.upper()] if region else Region.WEIGHTS


def slices(text: str) -> tuple[slice | int, ...]:
    """`0, :4, -1` as an index. Raises InputError for other texts."""
    parts: list[slice | int] = []
    for piece in text.split(","):
        ends = piece.strip().split(":")
        try:
            numbers = [int(e) if e.strip() else None for e in ends]
        except ValueError:
            raise InputError(f"'{text}' is no index", hint="for example add_3[0, :4]") from None
        if len(ends) > 3 or (len(ends) == 1 and numbers[0] is None):
            raise InputError(f"'{text}' is no index", hint="for example add_3[0, :4]")
        parts.append(slice(*numbers) if len(ends) > 1 else numbers[0] or 0)
    return tuple(parts)


def indices(text: str) -> tuple[int, ...]:
    """`0, 3]` as the index of one element. Raises InputError for other texts."""
    try:
        if not text.endswith("]"):
            raise ValueError
        return tuple(int(piece) for piece in text[:-1].split(","))
    except ValueError:
        raise InputError(f"'[{text}' is no index of an element", hint="for example add_3[0, 4]") from None


def one(words: list[str], usage: str) -> str:
    """The only argument of a command. Raises InputError for none or several."""
    if len(words) != 1:
        raise InputError(
            "one argument is wanted" if not words else f"'{words[1]}' is one argument too many", hint=usage
        )
    return words[0]


def no_more(words: list[str]) -> None:
    """Raises InputError when a word is left."""
    if words:
        raise InputError(f"'{words[0]}' is one argument too many")


def memory_range(session: Session, words: list[str], usage: str) -> Range:
    """A place in memory. Raises InputError for none, and for words that are none."""
    if not 1 <= len(words) <= 2:
        raise InputError("a place in memory is wanted", hint=usage + ": v3, sram[0..0x40] or sram[0x100]:f32 4x8")
    return span(session, words)


def where(session: Session, text: str) -> tuple[int | None, list[int], str]:
    """A pc, or nodes (of a hand-written program also a label), and how to call the place. Raises InputError for other
    texts, and a node that no instruction works for."""
    if text[:1].isdigit():
        pc = integer(text, "pc")
        if pc % WORD_BYTES or not 0 <= pc < len(session.stepper.code):
            raise InputError(
                f"{text} is not the address of an instruction",
                hint=f"a multiple of 16 below {len(session.stepper.code):#x}",
            )
        return pc, [], f"pc {pc:#06x}"
    file, colon, line = text.rpartition(":")
    if colon:
        return None, session.nodes.of_line(file, integer(line, "line")), text
    number = session.nodes.labelled(text)
    if number is not None:
        return None, [number], f"label {text}"
    if text not in session.nodes.numbers:
        return _meant(session, text)
    number = session.nodes.number(text)
    if not any(number in span.nodes for span in session.image.debug.spans):
        raise InputError(f"no instruction works for node {session.nodes.explain(number)}")
    return None, [number], f"node {text}"


def _meant(session: Session, text: str) -> tuple[None, list[int], str]:
    """The first nodes of what the model calls so."""
    found = session.nodes.meanings(text)
    first = [number for meaning in found if (number := session.nodes.first(meaning)) is not None]
    if not first:
        why = session.nodes.explain(found[0].numbers[-1])
        raise InputError(f"no instruction works for {text}: {why}")
    names = ", ".join(session.nodes.debug.nodes[number].name for number in first[:4])
    return None, first, f"{text} (node{'s' if len(first) > 1 else ''} {names}{' …' if len(first) > 4 else ''})"

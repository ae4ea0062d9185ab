"""The faults: every way in which one word of a compiled program is changed, dropped or moved."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Final

from isa.codec import IllegalWord, Inst, encode
from isa.image.image import Image
from isa.spec import MAX_COUNT, NO_WAIT, QUEUES, WORD_BYTES, Engine

Change = tuple[str, dict[int, Inst]]  # what it does, and the words it puts in place, by index
STRIDES: Final = ("rs", "ps")
SHIFTS: Final = (-4096, -256, -64, -16, -4, -2, -1, 1, 2, 4, 16, 64, 256, 4096, 1 << 20)
NOP: Final = Inst.make("nop")


@dataclass(frozen=True)
class Mutant:
    """A program with one fault. `moved` says which word stands at an index now, where words changed places."""

    kind: str
    what: str
    image: Image
    moved: Mapping[int, int]


def mutants(image: Image, kind: str, random: Random, count: int) -> Iterator[Mutant]:
    """Up to `count` different faults of one kind, drawn without replacement."""
    words = [image.inst(pc) for pc in range(0, len(image.code), WORD_BYTES)]
    changes = list(FAULTS[kind](words))
    for what, changed in random.sample(changes, min(count, len(changes))):
        code = bytearray(image.code)
        for index, inst in changed.items():
            code[index * WORD_BYTES : (index + 1) * WORD_BYTES] = encode(inst)
        moved: dict[int, int] = {}
        if kind == "reorder words":
            first, second = sorted(changed)
            moved = {first: second, second: first}
        pc = min(changed) * WORD_BYTES
        yield Mutant(
            kind, f"pc {pc:#06x} {words[min(changed)].mnemonic}: {what}", replace(image, code=bytes(code)), moved
        )


def _edited(inst: Inst, **operands: int) -> Inst | None:
    """The word with other operands; None if they do not fit their fields."""
    try:
        return Inst(inst.mnemonic, tuple({**inst.named(), **operands}.values()), inst.deps, inst.dbg)
    except IllegalWord:
        return None


def _waits(words: list[Inst], change: Callable[[int], int | None]) -> Iterator[Change]:
    for index, inst in enumerate(words):
        for queue, count in enumerate(inst.deps):
            new = change(count) if count != NO_WAIT else None
            if new is not None:
                deps = tuple(new if i == queue else n for i, n in enumerate(inst.deps))
                yield f"{QUEUES[queue].value}<={count} becomes {new}", {index: replace(inst, deps=deps)}


def _dropped_waits(words: list[Inst]) -> Iterator[Change]:
    return _waits(words, lambda count: NO_WAIT)


def _weakened_waits(words: list[Inst]) -> Iterator[Change]:
    return _waits(words, lambda count: count + 1 if count < MAX_COUNT else None)


def _changed_views(
    words: list[Inst], variants: Callable[[Mapping[str, int]], Iterator[dict[str, int]]]
) -> Iterator[Change]:
    for index, inst in enumerate(words):
        if inst.mnemonic == "vset":
            for change in variants(inst.named()):
                new = _edited(inst, **change)
                if new is not None and new != inst:
                    yield " ".join(f"{name}={value}" for name, value in change.items()), {index: new}


def _shifted(words: list[Inst]) -> Iterator[Change]:
    return _changed_views(
        words, lambda view: ({"base": view["base"] + shift} for shift in SHIFTS if view["base"] + shift >= 0)
    )


def _restrided(words: list[Inst]) -> Iterator[Change]:
    def variants(view: Mapping[str, int]) -> Iterator[dict[str, int]]:
        for name in STRIDES:
            yield from ({name: value} for value in (view[name] + 1, view[name] - 1, 2 * view[name], 0) if value >= 0)
        yield {"cs": 1 - view["cs"]}

    return _changed_views(words, variants)


def _stepped(words: list[Inst]) -> Iterator[Change]:
    for index, inst in enumerate(words):
        if inst.mnemonic == "vinc":
            named = inst.named()
            changes = [{"inc": named["inc"] + shift} for shift in (-64, -4, 4, 64)] + [
                {"inc": 2 * named["inc"]},
                {"inc": 0},
                {"div": 2},
            ]
            changes += [{"mod": mod} for mod in (0, 1, named["mod"] + 1)]
            for change in changes:
                new = _edited(inst, **change)
                if new is not None and new != inst:
                    yield " ".join(f"{name}={value}" for name, value in change.items()), {index: new}


def _extents(words: list[Inst], variants: Callable[[int], tuple[int, ...]]) -> Iterator[Change]:
    for index, inst in enumerate(words):
        named = inst.named()
        names = {dim for field in inst.row.views for dim in field.dims if dim in named}
        for name in sorted(names):
            for value in variants(named[name]):
                new = _edited(inst, **{name: value})
                if new is not None and new != inst:
                    yield f"{name} {named[name]} becomes {value}", {index: new}


def _shrunk(words: list[Inst]) -> Iterator[Change]:
    return _extents(words, lambda n: (n - 1, n // 2))


def _grown(words: list[Inst]) -> Iterator[Change]:
    return _extents(words, lambda n: (n + 1, 2 * n))


def _swapped(words: list[Inst]) -> Iterator[Change]:
    for index, inst in enumerate(words):
        named = inst.named()
        names = [field.name for field in inst.row.views]
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if named[first] != named[second]:
                    new = _edited(inst, **{first: named[second], second: named[first]})
                    if new is not None:
                        yield f"{first} and {second} change places", {index: new}


def _reordered(words: list[Inst]) -> Iterator[Change]:
    """A word changes places with its neighbour, or an engine word with the next engine word."""
    engine = [i for i, inst in enumerate(words) if inst.row.engine is not Engine.CTL]
    pairs = {(i, i + 1) for i in range(len(words) - 2)} | set(pairwise(engine))
    for first, second in sorted(pairs):
        if words[first] != words[second]:
            yield f"changes places with word {second}", {first: words[second], second: words[first]}


def _dropped(words: list[Inst]) -> Iterator[Change]:
    for index, inst in enumerate(words):
        if inst.mnemonic != "nop":
            yield "dropped", {index: NOP}


FAULTS: Final[Mapping[str, Callable[[list[Inst]], Iterator[Change]]]] = {
    "drop wait": _dropped_waits,
    "weaken wait": _weakened_waits,
    "shift address": _shifted,
    "change stride": _restrided,
    "change step": _stepped,
    "shrink extent": _shrunk,
    "grow extent": _grown,
    "swap operands": _swapped,
    "reorder words": _reordered,
    "drop word": _dropped,
}
__all__ = ["FAULTS", "Mutant", "mutants"]

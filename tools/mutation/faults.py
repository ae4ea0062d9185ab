"""The faults: every way in which one instruction of a compiled program is changed, dropped or moved."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Final

from isa.architecture import MAX_COUNT, NO_WAIT, QUEUES, WORD_BYTES, Engine
from isa.codec import IllegalInstruction, Inst, encode
from isa.image.image import Image

Change = tuple[str, dict[int, Inst]]  # what it does, and the instructions it puts in place, by index
STRIDES: Final = ("rs", "ps")
SHIFTS: Final = (-4096, -256, -64, -16, -4, -2, -1, 1, 2, 4, 16, 64, 256, 4096, 1 << 20)
NOP: Final = Inst.make("nop")


@dataclass(frozen=True)
class Mutant:
    """A program with one fault. `moved` says which instruction stands at an index now, where instructions changed
    places."""

    kind: str
    what: str
    image: Image
    moved: Mapping[int, int]


def mutants(image: Image, kind: str, random: Random, count: int) -> Iterator[Mutant]:
    """Up to `count` different faults of one kind, drawn without replacement."""
    instructions = [image.inst(pc) for pc in range(0, len(image.code), WORD_BYTES)]
    changes = list(FAULTS[kind](instructions))
    for what, changed in random.sample(changes, min(count, len(changes))):
        code = bytearray(image.code)
        for index, inst in changed.items():
            code[index * WORD_BYTES : (index + 1) * WORD_BYTES] = encode(inst)
        moved: dict[int, int] = {}
        if kind == "reorder instructions":
            first, second = sorted(changed)
            moved = {first: second, second: first}
        pc = min(changed) * WORD_BYTES
        yield Mutant(
            kind, f"pc {pc:#06x} {instructions[min(changed)].mnemonic}: {what}", replace(image, code=bytes(code)), moved
        )


def _edited(inst: Inst, **operands: int) -> Inst | None:
    """The instruction with other operands; None if they do not fit their fields."""
    try:
        return Inst(inst.mnemonic, tuple({**inst.named(), **operands}.values()), inst.deps, inst.dbg)
    except IllegalInstruction:
        return None


def _waits(instructions: list[Inst], change: Callable[[int], int | None]) -> Iterator[Change]:
    for index, inst in enumerate(instructions):
        for queue, count in enumerate(inst.deps):
            new = change(count) if count != NO_WAIT else None
            if new is not None:
                deps = tuple(new if i == queue else n for i, n in enumerate(inst.deps))
                yield f"{QUEUES[queue].value}<={count} becomes {new}", {index: replace(inst, deps=deps)}


def _dropped_waits(instructions: list[Inst]) -> Iterator[Change]:
    return _waits(instructions, lambda count: NO_WAIT)


def _weakened_waits(instructions: list[Inst]) -> Iterator[Change]:
    return _waits(instructions, lambda count: count + 1 if count < MAX_COUNT else None)


def _changed_views(
    instructions: list[Inst], variants: Callable[[Mapping[str, int]], Iterator[dict[str, int]]]
) -> Iterator[Change]:
    for index, inst in enumerate(instructions):
        if inst.mnemonic == "vset":
            for change in variants(inst.named()):
                new = _edited(inst, **change)
                if new is not None and new != inst:
                    yield " ".join(f"{name}={value}" for name, value in change.items()), {index: new}


def _shifted(instructions: list[Inst]) -> Iterator[Change]:
    return _changed_views(
        instructions, lambda view: ({"base": view["base"] + shift} for shift in SHIFTS if view["base"] + shift >= 0)
    )


def _restrided(instructions: list[Inst]) -> Iterator[Change]:
    def variants(view: Mapping[str, int]) -> Iterator[dict[str, int]]:
        for name in STRIDES:
            yield from ({name: value} for value in (view[name] + 1, view[name] - 1, 2 * view[name], 0) if value >= 0)
        yield {"cs": 1 - view["cs"]}

    return _changed_views(instructions, variants)


def _stepped(instructions: list[Inst]) -> Iterator[Change]:
    for index, inst in enumerate(instructions):
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


def _extents(instructions: list[Inst], variants: Callable[[int], tuple[int, ...]]) -> Iterator[Change]:
    for index, inst in enumerate(instructions):
        named = inst.named()
        names = {dim for field in inst.row.views for dim in field.dims if dim in named}
        for name in sorted(names):
            for value in variants(named[name]):
                new = _edited(inst, **{name: value})
                if new is not None and new != inst:
                    yield f"{name} {named[name]} becomes {value}", {index: new}


def _shrunk(instructions: list[Inst]) -> Iterator[Change]:
    return _extents(instructions, lambda n: (n - 1, n // 2))


def _grown(instructions: list[Inst]) -> Iterator[Change]:
    return _extents(instructions, lambda n: (n + 1, 2 * n))


def _swapped(instructions: list[Inst]) -> Iterator[Change]:
    for index, inst in enumerate(instructions):
        named = inst.named()
        names = [field.name for field in inst.row.views]
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if named[first] != named[second]:
                    new = _edited(inst, **{first: named[second], second: named[first]})
                    if new is not None:
                        yield f"{first} and {second} change places", {index: new}


def _reordered(instructions: list[Inst]) -> Iterator[Change]:
    """An instruction changes places with its neighbour, or an engine instruction with the next engine instruction."""
    engine = [i for i, inst in enumerate(instructions) if inst.row.engine is not Engine.CTL]
    pairs = {(i, i + 1) for i in range(len(instructions) - 2)} | set(pairwise(engine))
    for first, second in sorted(pairs):
        if instructions[first] != instructions[second]:
            yield (
                f"changes places with instruction {second}",
                {first: instructions[second], second: instructions[first]},
            )


def _dropped(instructions: list[Inst]) -> Iterator[Change]:
    for index, inst in enumerate(instructions):
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
    "reorder instructions": _reordered,
    "drop instruction": _dropped,
}
__all__ = ["FAULTS", "Mutant", "mutants"]

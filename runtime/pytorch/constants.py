"""Packed constants, shared: each is there once for the weights that it is made of and the way it is packed.

    shape 1 ─┐
    shape 2 ─┼─ block (recipe, weights) ── piece of the chip's memory, and what kernels made of it
    model 2 ─┘

A block belongs to tensors by identity. They have one content at a time, so when it has changed the block is packed
again in place, for all programs that have it; so it is for other tensors that have come to be where those were (marks
tell them apart). Blocks are held by programs (runtime/pytorch/weights.py) and go with the last of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from compiler.packing import Bytes, Recipe
from emulator.pieces import Piece
from emulator.threads import Lock

Marks = tuple[tuple[Any, ...], ...]  # of some tensors, column by column
_Key = tuple[str, tuple[tuple[int, tuple[int, ...], Any], ...]]


class PackedConstant:
    """One packed constant. `marks` are those of its weights when it was packed; None: it must be packed again."""

    __slots__ = ("__weakref__", "_key", "marks", "piece")

    def __init__(self, piece: Piece, marks: Marks) -> None:
        self.piece = piece
        self.marks: Marks | None = marks
        self._key: _Key = "", ()

    def belong(self, recipe: Recipe, weights: Sequence[Tensor]) -> None:
        if _blocks.get(self._key) is self:
            del _blocks[self._key]
        self._key = _key(recipe, weights)
        _blocks[self._key] = self

    def belongs_to(self, key: _Key) -> bool:
        return self._key == key and _blocks.get(key) is self

    def change(self, data: Bytes, marks: Marks) -> None:
        self.marks = None  # should it fail halfway
        self.piece.change(data)
        self.marks = marks


_blocks: "WeakValueDictionary[_Key, PackedConstant]" = WeakValueDictionary()
lock = Lock()  # of all blocks


def _key(recipe: Recipe, weights: Sequence[Tensor], owners: Sequence[int] | None = None) -> _Key:
    """Which weights, and of which shapes and types; `owners` are others' ids in place of those of `weights`."""
    ids = owners if owners is not None else [id(weight) for weight in weights]
    return recipe.text, tuple((ids[at], tuple(weights[at].shape), weights[at].dtype) for at in recipe.weights)


def find(recipe: Recipe, weights: Sequence[Tensor]) -> PackedConstant | None:
    """The block of these very tensors (`weights` are all of the program's), packed of what they hold now or held
    before."""
    return _blocks.get(_key(recipe, weights))


def keep(recipe: Recipe, weights: Sequence[Tensor], data: Bytes, marks: Marks) -> PackedConstant:
    """The block of these tensors, with these bytes; `data` becomes its memory if there was none."""
    block = find(recipe, weights)
    if block is None:
        block = PackedConstant(Piece(data), marks)
        block.belong(recipe, weights)
    elif block.marks != marks:
        block.change(data, marks)
    return block


def hand_over(block: PackedConstant, recipe: Recipe, owners: Sequence[int], weights: Sequence[Tensor]) -> bool:
    """Let a block of `owners` that are gone belong to others, with its old bytes. False if these have one of their own,
    or somebody else has been given it before."""
    there = find(recipe, weights)
    if there is None and block.belongs_to(_key(recipe, weights, owners)):
        block.belong(recipe, weights)
        block.marks = None
        return True
    return there is block


def spoil() -> None:
    """Have every block packed again when it is next used."""
    with lock:
        for block in list(_blocks.values()):
            block.marks = None


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """What packed weights take up in this process, under torch.compile: shared by all programs that read them."""

    constants: int
    bytes: int  # with what kernels made of them

    def __str__(self) -> str:
        return f"{self.constants} packed constants, {self.bytes / 2**20:.1f} MiB"


def packed_weights() -> PackedWeights:
    """How many packed constants there are now, and how many bytes they take up."""
    blocks = {id(block): block for block in list(_blocks.values())}
    return PackedWeights(len(blocks), sum(block.piece.nbytes for block in blocks.values()))

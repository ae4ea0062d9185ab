"""What a random graph is made with: the values so far, sizes that meet, and budgets that keep a case short.

Shapes and types come from PyTorch's meta tensors: a step that PyTorch refuses is not taken, so the table of operators
need not know every rule.
"""

import math
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fuzz.graphs.case import Case, Effect, Leaf, Step, evaluate, needed

FLOATS = ("float32", "float16", "bfloat16")
INTS = ("int32", "int64", "int8")
BOOL = ("bool",)
NUMBERS = (*FLOATS, "int32", "int8")
ANY = (*FLOATS, *INTS, *BOOL)

MAX_RANK = 6
MAX_ELEMENTS = {
    1 << 10: 45,
    1 << 12: 42,
    1 << 14: 10,
    1 << 17: 3,
}  # of a value, and how often: a program of few instructions shows most faults as well
TOTAL_ELEMENTS = 1 << 20  # of all values
TOTAL_MACS = 1 << 27
_SMALL = (1, 2, 3, 4, 5, 7, 8, 12, 16)
_MIDDLE = (17, 24, 31, 32, 33, 48, 64, 65, 96, 100, 128)
_LARGE = (129, 160, 197, 256, 384, 512, 513, 768, 1000, 1024, 2048, 3000)


class Maker:
    """Collects leaves and steps. Methods return the name of a value, or None for what cannot be made."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.leaves: list[Leaf] = []
        self.steps: list[Step] = []
        self.meta: dict[str, Tensor] = {}
        self.values: list[str] = []  # that operators may read, oldest first
        self.rows: dict[str, int] = {}  # integer values that are all in a table of so many rows
        self.elements = self.macs = 0
        self.main = rng.choices(FLOATS, (8, 1, 1))[0]
        self.sizes = [
            rng.choice(pool) for pool in (_SMALL, _SMALL, _SMALL, _MIDDLE, rng.choices((_MIDDLE, _LARGE), (3, 2))[0])
        ]
        (self.most,) = rng.choices(list(MAX_ELEMENTS), list(MAX_ELEMENTS.values()))
        self._number = 0

    # ---- adding

    def emit(self, text: str, effect: Effect) -> str | None:
        """A step, if PyTorch takes it and it is small enough."""
        try:
            value = evaluate(text, self.meta)
        except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError):
            return None
        if not isinstance(value, Tensor) or not self.fits(value):
            return None
        if effect is Effect.FUNCTION and not value.dtype.is_floating_point:
            effect = Effect.EXACT  # a sum of integers
        step = Step(self._name("v"), text, effect)
        self.steps.append(step)
        self.meta[step.name] = value
        self.values.append(step.name)
        self.elements += value.numel()
        return step.name

    def fits(self, value: Tensor) -> bool:
        room = self.elements + value.numel() <= TOTAL_ELEMENTS
        return room and value.dim() <= MAX_RANK and 1 <= value.numel() <= self.most and type_of(value) in ANY

    def input(self, dtype: str, shape: Collection[int], fill: str = "") -> str:
        if not fill:
            fill = self.rng.choices(("normal", "special"), (12, 1))[0] if dtype != "int64" else "small"
        return self._leaf("x", dtype, tuple(shape), fill)

    def weight(self, shape: Collection[int], dtype: str = "", fill: str = "weight") -> str:
        return self._leaf("w", dtype or self.main, tuple(shape), fill)

    def _leaf(self, letter: str, dtype: str, shape: tuple[int, ...], fill: str) -> str:
        leaf = Leaf(self._name(letter), dtype, shape, fill)
        self.leaves.append(leaf)
        self.meta[leaf.name] = torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        if (
            fill != "mask"
        ):  # added to scores and nothing else: who computes with the least number there is gets infinities
            self.values.append(leaf.name)
        if fill.startswith("index:"):
            self.rows[leaf.name] = int(fill.partition(":")[2])
        return leaf.name

    def _name(self, letter: str) -> str:
        self._number += 1
        return f"{letter}{self._number}"

    # ---- choosing

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.meta[name].shape)

    def type(self, name: str) -> str:
        return type_of(self.meta[name])

    def new_shape(self, ranks: Collection[int] = (0, 1, 2, 2, 2, 3, 3, 3, 4, 5, 6)) -> tuple[int, ...]:
        while True:
            shape = [self.rng.choice(self.sizes) for _ in range(self.rng.choice(list(ranks)))]
            if math.prod(shape) <= max(
                self.most // 2, 1 << 10
            ):  # torch.Size counts in 64 bits, and six large ones are more
                return tuple(shape)

    def pick(self, types: Collection[str], rank: int = 0) -> str:
        """A value, rather a late one; a new input where there is none."""
        found = [
            name
            for name in self.values
            if not name.startswith("w") and self.type(name) in types and self.meta[name].dim() >= rank
        ]
        if not found or (len(found) < 3 and self.rng.random() < 0.3):
            dtype = self.main if self.main in types else self.rng.choice(list(types))
            return self.input(dtype, self.new_shape(ranks=[r for r in (0, 1, 2, 2, 3, 3, 4, 5, 6) if r >= rank]))
        return self.rng.choice(found[-4:] if self.rng.random() < 0.7 else found)

    def dim(self, name: str) -> int:
        """A dimension: mostly the last, counted from the end or the front."""
        rank = self.meta[name].dim()
        dim: int = self.rng.choice([-1, -1, *range(-rank, 0)])
        return dim if self.rng.random() < 0.6 else dim + rank

    def part(self, name: str, dim: int) -> tuple[int, int]:
        """A range that is not empty, of a dimension."""
        size = self.shape(name)[dim]
        start = self.rng.choice((0, 0, size // 2, self.rng.randrange(size)))
        return start, self.rng.choice((start + 1, size, self.rng.randint(start + 1, size)))

    def broadcastable(self, name: str, types: Collection[str]) -> list[str]:
        """Other values that broadcast with this one."""
        return [
            other
            for other in self.values
            if other != name and self.type(other) in types and _meets(self.shape(name), self.shape(other))
        ]

    def broadcast_shape(self, name: str) -> tuple[int, ...]:
        """Trailing dimensions of a value, some of them 1."""
        shape = self.shape(name)
        kept = shape[self.rng.randint(0, len(shape)) :]
        return tuple(size if self.rng.random() < 0.6 else 1 for size in kept)

    def spend(self, macs: int) -> bool:
        """Whether a product of this size may still be made."""
        if self.macs + macs > TOTAL_MACS:
            return False
        self.macs += macs
        return True

    # ---- the case

    def case(self, chip: str, checks: tuple[str, ...], outputs: Collection[str]) -> Case:
        return needed(
            Case(chip, self.rng.randrange(1 << 16), checks, tuple(self.leaves), tuple(self.steps), tuple(outputs))
        )

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Steps that are only wanted together: `raise NotMade` takes them back."""
        before = (len(self.leaves), len(self.steps), self.elements, self.macs)
        try:
            yield
        except NotMade:
            for name in [
                *(leaf.name for leaf in self.leaves[before[0] :]),
                *(step.name for step in self.steps[before[1] :]),
            ]:
                del self.meta[name]
                self.values = [value for value in self.values if value != name]
                self.rows.pop(name, None)
            del self.leaves[before[0] :], self.steps[before[1] :]
            self.elements, self.macs = before[2:]

    def must(self, text: str, effect: Effect) -> str:
        """`emit` inside an attempt."""
        name = self.emit(text, effect)
        if name is None:
            raise NotMade
        return name


class NotMade(Exception):
    """A group of steps does not fit together."""


def type_of(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _meets(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))

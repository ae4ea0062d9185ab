"""Which weights does a packed program belong to? Under torch.compile weights are inputs, and may change between calls.

Dynamo's guards do not watch them: a second instance of a class, an in-place update and a replaced Parameter all reach
the same compiled code. So every executable is kept with the identity of all its tensors, and used again only for the
same ones; what has changed of them since is packed again, constant by constant, in place
(runtime/pytorch/constants.py).

What has changed is told by marks: the memory (a weak reference to it, since addresses are used again), the place in it,
and the version that PyTorch counts. Tensors themselves are not referred to: `torch.utils.swap_tensors` refuses those
that are. Fused optimizers count no version; a hook does it for them. A write through `.data` or a numpy view leaves no
trace at all: `refresh` is for that.
"""

import hashlib
import operator
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from torch import Tensor, UntypedStorage
from torch.optim.optimizer import register_optimizer_step_post_hook

from compiler.codegen.image import stored_bytes
from compiler.packing import Bytes, Recipe, Store
from emulator.pieces import Piece, Pieces
from emulator.threads import Lock
from isa.architecture import IMAGE_REGIONS, Region
from isa.image.image import Image
from isa.image.records import TensorSpec
from runtime.device.executable import Executable
from runtime.pytorch import constants
from runtime.pytorch.constants import Marks, PackedConstant
from runtime.pytorch.tensors import tensor_bytes

MOST: Final = 1024  # sets of weights in use with one program
ALIKE: Final = 4  # of those that have most of their bytes in common

Stamps = tuple[tuple[Any, ...], ...]
_caches: "weakref.WeakSet[PackedCache]" = weakref.WeakSet()
_others: "weakref.WeakSet[Spoils]" = weakref.WeakSet()
Memory = weakref.ref[UntypedStorage]


class Spoils(Protocol):
    """Has packed weights, and can be told that they may be others."""

    def spoil(self) -> None:
        """Pack them again at the next call."""


def watch(cache: Spoils) -> None:
    """Tell it of every `refresh`."""
    _others.add(cache)


class Packer(Protocol):
    """Makes what a program needs of weights."""

    def image(
        self, tensors: Sequence[Tensor], packed: "Callable[[Sequence[Recipe]], Mapping[int, Bytes]]"
    ) -> tuple[Image, Sequence[Recipe]]:
        """The program with these weights, some of which may be packed already; and how each constant is made."""

    def constants(self, tensors: Sequence[Tensor], only: Collection[int], store: Store) -> None:
        """The constants with these numbers."""


@dataclass(slots=True)
class _Packed:
    """An executable, and whose weights it has."""

    memories: list[Memory]
    sizes: list[int]
    marks: Stamps | None
    recipes: Sequence[Recipe]
    blocks: Mapping[int, PackedConstant]
    regions: Mapping[Region, Pieces]
    executable: Executable

    def common(self, tensors: Sequence[Tensor]) -> bool:
        """Whether most bytes are those of these tensors."""
        same = sum(
            size
            for ref, size, tensor in zip(self.memories, self.sizes, tensors, strict=True)
            if ref() is tensor.untyped_storage()
        )
        return 2 * same >= sum(self.sizes)

    def living(self) -> bool:
        """Whether the tensors that most bytes come from are still there."""
        return 2 * sum(size for ref, size in zip(self.memories, self.sizes, strict=True) if ref() is not None) > sum(
            self.sizes
        )


class PackedCache:
    """The executables of one program, most recently used last."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._program: _Program | None = None
        self._entries: OrderedDict[tuple[int, ...], _Packed] = OrderedDict()
        self._orphans: set[tuple[int, ...]] = set()  # entries of which a few tensors are gone
        self._gone: deque[tuple[int, ...]] = deque()  # entries to look at, because a tensor is gone
        self._lock = Lock()
        _caches.add(self)

    def get(self, tensors: Sequence[Tensor]) -> Executable:
        """The executable with exactly these weights; packed now is what has changed."""
        key, now = tuple(map(id, tensors)), _marks(tensors)  # shapes and types are those of this program
        with self._lock:
            if self._gone:
                self._sweep()
            entry = self._entries.get(key)
            if entry is None or entry.marks != now:
                with constants.lock:
                    entry = self._renewed(key, tensors, now)
            self._entries.move_to_end(key)
            return entry.executable

    def spoil(self) -> None:
        """Nothing is known of what the tensors hold."""
        with self._lock:
            for entry in self._entries.values():
                entry.marks = None

    def _renewed(self, key: tuple[int, ...], tensors: Sequence[Tensor], now: Stamps) -> _Packed:
        entry = self._entries.get(key)
        entry = entry or self._adopted(key, tensors)
        if entry is not None:
            self._pack_again(key, entry, tensors, now)
            if not any(pieces.joined for pieces in entry.regions.values()):
                return entry
            self._drop(key)  # it reads a copy of what has changed
        self._entries[key] = entry = self._made(key, tensors, now)
        return entry

    def _drop(self, key: tuple[int, ...]) -> None:
        self._entries.pop(key, None)
        self._orphans.discard(key)

    def _pack_again(self, key: tuple[int, ...], entry: _Packed, tensors: Sequence[Tensor], now: Stamps) -> None:
        """In place, the constants whose weights have changed."""
        marks = {number: _part(now, entry.recipes[number].weights) for number in entry.blocks}
        stale = [number for number, block in entry.blocks.items() if block.marks != marks[number]]
        entry.marks = None  # should packing fail
        if stale:
            with entry.executable.idle:
                self._packer.constants(
                    tensors, stale, lambda number, value: entry.blocks[number].change(_flat(value), marks[number])
                )
        entry.memories, entry.marks = self._watched(key, tensors), now
        self._orphans.discard(key)

    def _adopted(self, key: tuple[int, ...], tensors: Sequence[Tensor]) -> _Packed | None:
        """An executable that needs but a few constants packed to be the one for these tensors: those it had instead are
        gone."""
        for old in list(self._orphans):
            entry = self._entries[old]
            left = [ref() for ref in entry.memories]
            if any(
                have is not None and have is not tensor.untyped_storage()
                for have, tensor in zip(left, tensors, strict=True)
            ):
                continue
            taken = [number for number in entry.blocks if any(left[at] is None for at in entry.recipes[number].weights)]
            if all(constants.hand_over(entry.blocks[n], entry.recipes[n], old, tensors) for n in taken):
                self._drop(old)
                self._entries[key] = entry
                entry.memories, entry.marks = self._watched(key, tensors), None
                return entry
        return None

    def _made(self, key: tuple[int, ...], tensors: Sequence[Tensor], now: Stamps) -> _Packed:
        """A new executable. What is packed already, for another program or another shape, is not packed again."""
        alike = [other for other, entry in self._entries.items() if entry.common(tensors)]
        for other in (*alike[: len(alike) - ALIKE + 1], *list(self._entries)[: len(self._entries) - MOST + 1]):
            self._drop(other)
        if self._program is None:
            image, recipes = self._packer.image(
                tensors, lambda recipes: {n: b.piece.data for n, b in _known(recipes, tensors, now).items()}
            )
            self._program = _Program.of(image, recipes)
            blocks = self._program.taken_from(image, tensors, now)
        else:
            blocks = self._packed(self._program, tensors, now)
        program, regions = self._program, self._program.regions(blocks)
        executable = Executable(program.image, constants=regions)
        sizes = [tensor.nbytes for tensor in tensors]
        return _Packed(self._watched(key, tensors), sizes, now, program.recipes, blocks, regions, executable)

    def _packed(self, program: "_Program", tensors: Sequence[Tensor], now: Stamps) -> dict[int, PackedConstant]:
        known = _known(program.recipes, tensors, now)
        found = {number: known[number] for number in program.numbers if number in known}

        def store(number: int, value: Tensor | Bytes) -> None:
            recipe = program.recipes[number]
            found[number] = constants.keep(recipe, tensors, np.array(_flat(value)), _part(now, recipe.weights))

        missing = [number for number in program.numbers if number not in found]
        if missing:
            self._packer.constants(tensors, missing, store)
        return found

    def _watched(self, key: tuple[int, ...], tensors: Sequence[Tensor]) -> list[Memory]:
        """References that tell us when a tensor's memory is gone."""
        this = weakref.ref(self)

        def gone(_: object) -> None:
            cache = this()
            if cache is not None:
                cache._gone.append(key)
                if cache._lock.acquire(blocking=False):
                    if cache._lock.depth == 1:  # else we are in the middle of something, and do it at the next call
                        cache._sweep()
                    cache._lock.release()

        return [weakref.ref(tensor.untyped_storage(), gone) for tensor in tensors]

    def _sweep(self) -> None:
        """Release what belongs to tensors that are gone."""
        while self._gone:
            key = self._gone.popleft()
            entry = self._entries.get(key)
            if entry is not None and not entry.living():
                self._drop(key)
            elif entry is not None and any(ref() is None for ref in entry.memories):
                self._orphans.add(key)


@dataclass(frozen=True, slots=True)
class _Program:
    """An image without its constants, and where they belong."""

    image: Image
    recipes: Sequence[Recipe]
    literals: Mapping[Region, tuple[int, Piece]]

    @staticmethod
    def of(image: Image, recipes: Sequence[Recipe]) -> "_Program":
        literals = {}
        for region in IMAGE_REGIONS:
            end = max((spec.offset + spec.nbytes for spec in image.constants if spec.region is region), default=0)
            literals[region] = end, Piece(np.array(_bytes(image, region)[end:]))
        return _Program(replace(image, weights=b"", const=b""), recipes, literals)

    @property
    def numbers(self) -> list[int]:
        return [number for number, spec in enumerate(self.image.constants) if spec.nbytes]

    def taken_from(self, image: Image, tensors: Sequence[Tensor], now: Stamps) -> dict[int, PackedConstant]:
        """The blocks of an image's constants. Those that are new are parts of the image where that wastes little
        memory, else copies."""
        specs, known = image.constants, _known(self.recipes, tensors, now)
        new = sum(specs[number].nbytes for number in self.numbers if number not in known)
        whole = 2 * new >= sum(image.sizes[region] for region in IMAGE_REGIONS)
        found = {}
        for number in self.numbers:
            spec, recipe = specs[number], self.recipes[number]
            data = _bytes(image, spec.region)[spec.offset : spec.offset + spec.nbytes]
            usable = data if whole and data.flags.writeable else np.array(data)
            found[number] = known.get(number) or constants.keep(recipe, tensors, usable, _part(now, recipe.weights))
        return found

    def regions(self, blocks: Mapping[int, PackedConstant]) -> dict[Region, Pieces]:
        places: dict[Region, dict[int, Piece]] = {
            region: dict([place] if place[1].data.size else []) for region, place in self.literals.items()
        }
        for number, block in blocks.items():
            spec: TensorSpec = self.image.constants[number]
            places[spec.region][spec.offset] = block.piece
        return {region: Pieces(self.image.size(region), places[region]) for region in IMAGE_REGIONS}


def _known(recipes: Sequence[Recipe], tensors: Sequence[Tensor], now: Stamps) -> dict[int, PackedConstant]:
    """Blocks, by number, that are there and packed of what the tensors hold now."""
    found = {}
    for number, recipe in enumerate(recipes):
        block = constants.find(recipe, tensors)
        if block is not None and block.marks == _part(now, recipe.weights):
            found[number] = block
    return found


def _bytes(image: Image, region: Region) -> Bytes:
    return np.frombuffer(image.data(region), np.uint8)


def _flat(value: Tensor | Bytes) -> Bytes:
    return stored_bytes(value) if isinstance(value, Tensor) else value


def _part(marks: Stamps, numbers: Sequence[int]) -> Marks:
    return tuple(tuple(column[number] for number in numbers) for column in marks)


def refresh() -> None:
    """Pack all weights again at the next call of every model compiled by torch.compile.

    Needed only after changes that PyTorch does not count: through `.data`, a numpy view or memory shared with another
    process.
    """
    constants.spoil()
    for cache in [*_caches, *_others]:
        cache.spoil()


_VERSION, _DTYPE = operator.attrgetter("_version"), operator.attrgetter("dtype")


def stamps(tensors: Iterable[Tensor]) -> Stamps:
    """Equal to what it was before unless one of the tensors was changed.

    Column by column, without a line of Python per tensor: every call of a torch.compile'd model waits for this.
    """
    tensors = tuple(tensors)
    return *_marks(tensors), tuple(map(Tensor.size, tensors)), tuple(map(_DTYPE, tensors))


def _marks(tensors: Sequence[Tensor]) -> Stamps:
    """What changes when elements do, or where they lie. Inference tensors count no versions, so their bytes are
    hashed."""
    versions = map(version, tensors) if any(map(Tensor.is_inference, tensors)) else map(_VERSION, tensors)
    memories = tuple(map(Tensor.untyped_storage, tensors))
    counted = tuple(zip(versions, map(_written, memories), strict=True)) if _fused else tuple(versions)
    return (
        tuple(map(weakref.ref, memories)),
        tuple(map(Tensor.data_ptr, tensors)),
        counted,
        tuple(map(Tensor.stride, tensors)),
    )


def version(tensor: Tensor) -> Any:
    """Changes with the elements: PyTorch's count, or a hash of an inference tensor, which has none."""
    return hashlib.blake2b(tensor_bytes(tensor)).digest() if tensor.is_inference() else tensor._version


_fused: set[str] = set()  # optimizers that have made a step without counting it
_WRITES = "_llmchip_writes"


def _count(optimizer: Any, *_: object) -> None:
    """Fused kernels change parameters and count no version, so it is counted where the bytes are."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            _fused.add(type(optimizer).__name__)
            for parameter in group["params"]:
                memory = parameter.untyped_storage()
                setattr(memory, _WRITES, _written(memory) + 1)


def _written(memory: UntypedStorage) -> int:
    return getattr(memory, _WRITES, 0)


register_optimizer_step_post_hook(_count)

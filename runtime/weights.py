"""Which weights does a packed image belong to? Under torch.compile weights are inputs, and may change between calls.

Dynamo's guards do not watch them: a second instance of a class, an in-place update and a replaced Parameter all reach
the same compiled code. So every packed image is kept with the identity of all its tensors, and used again only for the
very same ones, unchanged since. A change through `.data` or a numpy view leaves no trace in a tensor: `refresh` is for that.
"""

import hashlib
import operator
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runtime.executable import Executable
from runtime.tensors import tensor_bytes

KEPT = 4  # packed images per program: the instances of a model that are in use by turns

_caches: "weakref.WeakSet[PackedCache]" = weakref.WeakSet()


Stamps = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class _Packed:
    tensors: tuple["weakref.ref[Tensor]", ...]
    stamps: Stamps
    executable: Executable

    def belongs_to(self, tensors: Sequence[Tensor], stamps: Stamps) -> bool:
        # A plain weak reference is enough: it is only compared with tensors that are alive.
        return stamps == self.stamps and all(map(operator.is_, map(_alive, self.tensors), tensors))


_alive = weakref.ref.__call__


class PackedCache:
    """Packed images of one program, most recently used last. `pack` makes one from the weights."""

    def __init__(self, pack: Callable[[Sequence[Tensor]], Executable]) -> None:
        self._pack = pack
        self._entries: OrderedDict[tuple[int, ...], _Packed] = OrderedDict()
        self._lock = threading.RLock()
        _caches.add(self)

    def get(self, tensors: Sequence[Tensor]) -> Executable:
        """The executable with exactly these weights, packed now unless nothing has changed."""
        key, now = tuple(map(id, tensors)), _marks(tensors)  # shapes and types are those of this program
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or not entry.belongs_to(tensors, now):
                self._entries.pop(key, None)  # first, so that old and new weights are not held at once
                entry = _Packed(tuple(map(weakref.ref, tensors)), now, self._pack(tensors))
                self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > KEPT:
                self._entries.popitem(last=False)
            return entry.executable

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


def refresh() -> None:
    """Pack all weights again at the next call of every model compiled by torch.compile.

    Needed only after changes that PyTorch does not count: through `.data`, a numpy view or memory shared with another process.
    """
    for cache in list(_caches):
        cache.clear()


_VERSION, _DTYPE = operator.attrgetter("_version"), operator.attrgetter("dtype")


def stamps(tensors: Iterable[Tensor]) -> Stamps:
    """Equal to what it was before unless one of the tensors was changed.

    Column by column, without a line of Python per tensor: every call of a torch.compile'd model waits for this.
    """
    tensors = tuple(tensors)
    return *_marks(tensors), tuple(map(Tensor.size, tensors)), tuple(map(_DTYPE, tensors))


def _marks(tensors: Sequence[Tensor]) -> Stamps:
    """What changes when elements do, or where they lie. Inference tensors count no versions, so their bytes are hashed."""
    versions = map(_version, tensors) if any(map(Tensor.is_inference, tensors)) else map(_VERSION, tensors)
    return tuple(map(Tensor.data_ptr, tensors)), tuple(versions), tuple(map(Tensor.stride, tensors))


def _version(tensor: Tensor) -> Any:
    return hashlib.blake2b(tensor_bytes(tensor)).digest() if tensor.is_inference() else tensor._version

"""What every compiled program can tell of itself, with or without PyTorch: its assembly, its graph, its memory map."""

from typing import Protocol

from msgspec import Struct

from isa.asm.disassemble import disassemble
from isa.image.image import Image
from isa.image.records import DebugNode
from runtime.tables import Table


class Buffer(Struct, frozen=True):
    """A buffer of the memory plan: its place, and the instructions between which it is alive."""

    name: str
    memory: str
    offset: int
    bytes: int
    first: int
    last: int


class HasImage(Protocol):
    @property
    def image(self) -> Image: ...


class Inspected:
    """What a program with an `image` has."""

    def disassemble(self: HasImage) -> str:
        """Assembly, with the user's source lines as comments. Data sections of 4 KiB or more are left out."""
        return disassemble(self.image)[0]

    def graph(self: HasImage) -> Table[DebugNode]:
        """The nodes of the frozen graph: operator, shape, layer, module, source line, and whether the program keeps
        their values or has fused them."""
        return Table("graph", self.image.debug.nodes)

    def memory_map(self: HasImage) -> Table[Buffer]:
        """The buffers that the compiler has planned."""
        plan = self.image.plan
        return Table(
            "memory map", tuple(Buffer(b.name, b.space.name, b.offset, b.bytes, b.first, b.last) for b in plan)
        )

"""What `llmcc explain` finds: plain records, whose fields are its JSON."""

from collections.abc import Mapping

from msgspec import Struct


class OnChip(Struct, frozen=True):
    """Operations of one kind of the lowered graph.

    `macs` are multiply-adds. `dram_bytes` must come in or go out once: weights, inputs and results, each counted where
    it is used first. `cycles` are the least that these operations take by themselves, on the engine that limits them
    (`by`), and `share` their part of the sum over all kinds.
    """

    operator: str
    count: int
    macs: int
    dram_bytes: int
    cycles: int
    by: str
    share: float


class Folded(Struct, frozen=True):
    """Operations of the model that depend on weights alone: PyTorch computes them once, while weights are packed.
    `bytes` are those of their results."""

    operator: str
    count: int
    bytes: int


class InPytorch(Struct, frozen=True):
    """Operations that fall back under torch.compile, by line, operator and reason. `macs` are those
    that PyTorch's own counter knows; `bytes` are those of their results. `fault`: the reason is a fault of llmchip."""

    line: str
    operator: str
    reason: str
    count: int
    macs: int
    bytes: int
    fault: bool = False


class ExplainDocument(Struct, frozen=True, kw_only=True):
    """All of it. `operations` of the captured graph are, in this order, `chip`, `moves` (they only say where elements
    are), `folded` and `pytorch`; what depends on shapes alone is gone before, when PyTorch captures.

    `pieces` is how many programs there would be; `ahead_of_time` whether `llmcc compile` takes the model as a whole.
    `limit` are the least cycles of each engine for all that is on the chip, by the roofline (docs/timing.md), and
    `clock_hz` how many there are a second. Programs may still be refused for the sizes of their tiles.
    """

    chip: str
    ahead_of_time: bool
    refusal: str
    pieces: int
    operations: Mapping[str, int]
    inputs_bytes: int
    weights_bytes: int
    constants_bytes: int
    limit: Mapping[str, int]
    clock_hz: int
    on_chip: tuple[OnChip, ...]
    folded: tuple[Folded, ...]
    in_pytorch: tuple[InPytorch, ...]

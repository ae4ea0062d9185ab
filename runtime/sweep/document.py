"""What a sweep says, as plain values: `llmcc sweep --json`; docs/schemas/sweep.json is made from the types."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Value = str | bool | int | float | None


class SweepDocument(Struct, frozen=True, kw_only=True):
    """All points. Every row has the same keys: `model`, `seq`, `batch`, `chip`, the axes, the figures in seconds, joules,
    watts, mm² and bytes, their parts as `waterfall.compute`, and `limited_by`, `on_front`, `error`. What is not known is
    null."""

    document: Literal["llmchip sweep"] = "llmchip sweep"
    axes: Mapping[str, tuple[str, ...]]
    minimized: tuple[str, ...]
    failed: int
    rows: tuple[Mapping[str, Value], ...]

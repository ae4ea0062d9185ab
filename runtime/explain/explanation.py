"""What `llmchip.explain` gives: the document, short in a terminal, tables in a notebook."""

from html import escape
from typing import TYPE_CHECKING

import msgspec

from runtime.explain.document import ExplainDocument, Folded, InPytorch, OnChip
from runtime.tables import Table, html_table

if TYPE_CHECKING:
    import pandas


class Explanation:
    """What of a model would run where.

    `on_chip`, `folded` and `in_pytorch` are tables; `document` has everything.
    """

    def __init__(self, document: ExplainDocument) -> None:
        self.document = document

    @property
    def on_chip(self) -> Table[OnChip]:
        """The kinds of operations that the chip computes, the one that takes longest first."""
        return Table("on the chip", self.document.on_chip)

    @property
    def folded(self) -> Table[Folded]:
        """What PyTorch computes once, while weights are packed."""
        return Table("folded", self.document.folded)

    @property
    def in_pytorch(self) -> Table[InPytorch]:
        """What falls back under torch.compile, and why."""
        return Table("in PyTorch", self.document.in_pytorch)

    @property
    def cycles(self) -> int:
        """The least that all that is on the chip can take."""
        return max(self.document.limit.values(), default=0)

    def __bool__(self) -> bool:
        """Whether all of it runs on the chip."""
        return self.document.ahead_of_time

    def __repr__(self) -> str:
        counts = self.document.operations
        where = (
            "all on the chip"
            if self
            else f"{counts['pytorch']} operations in PyTorch, {self.document.pieces} pieces on the chip"
        )
        return f"Explanation({sum(counts.values())} operations: {where}, at least {self.cycles:,} cycles)"

    def _repr_html_(self) -> str:
        shown = [table for table in (self.on_chip, self.in_pytorch, self.folded) if len(table)]
        counts = html_table(("operations", ""), self.document.operations.items())
        return f"<p>{escape(repr(self))}</p>{counts}" + "".join(table._repr_html_() for table in shown)

    def to_json(self) -> str:
        """The document; docs/schemas/explain.json describes it."""
        return msgspec.json.encode(self.document).decode()

    def to_pandas(self, table: str = "on_chip") -> "pandas.DataFrame":
        """A table: on_chip, folded or in_pytorch. Raises InputError without pandas."""
        found: Table[OnChip] | Table[Folded] | Table[InPytorch] = getattr(self, table)
        return found.to_pandas()

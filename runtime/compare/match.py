"""Which node of A is which node of B.

Passes number the nodes that they make, so that one operation more renames all behind it. What stays is the model's: the
names of its weights, its layers, the text of its lines (not their numbers, which a line above moves). So nodes are the
same if they are of one operator, come from one line and belong to one layer; of several such the first is the first.
"""

from collections.abc import Iterator, Sequence

from runtime.profile.document import Row

Key = tuple[str, ...]
OWN = ("placeholder", "constant")  # nodes whose names no pass has made up


def pairs(a: Sequence[Row], b: Sequence[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """Nodes of A with those of B, each once; None where there is no partner."""
    left, right = _groups(a), _groups(b)
    for key in dict.fromkeys([*left, *right]):
        mine, other = left.get(key, []), right.get(key, [])
        for i in range(max(len(mine), len(other))):
            yield mine[i] if i < len(mine) else None, other[i] if i < len(other) else None


def _groups(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(_key(row), []).append(row)
    return found


def _key(row: Row) -> Key:
    return (row.name,) if row.op in OWN else (row.layer, row.op, row.code or row.name)


def kind_of(row: Row) -> Key:
    """The same for nodes that do the same in different layers."""
    return (row.op, label_of(row)) if row.op in OWN else (row.op, row.code or row.name)


def label_of(row: Row) -> str:
    """What a node is called whatever its number and its layer: its operator, or its own name."""
    if row.op in OWN:
        return row.name.removeprefix(f"{row.layer}_") if row.layer else row.name
    return row.op.removesuffix(".default").rpartition(".")[2] or row.op if row.code else row.name


def place_of(row: Row) -> str:
    """File, without its folders, and line."""
    return f"{row.file.rpartition('/')[2]}:{row.line}" if row.line else ""

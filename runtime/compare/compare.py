"""What has changed, where, and why: two runs side by side.

    found = compare(Side("slow", slow), Side("fast", fast))     found.layers[0].name     found.layers[0].cause

Totals are split by cause: cycles by the waterfall, energy by component, bytes and instructions by engine; then by layer
and by node of the model. A waterfall looks at the run from one resource, so both must be seen from the same: where
one of the two is still a run, and no file, it is looked at again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from emulator.timing.waterfall import COMPUTE
from runtime.compare.comparison import Comparison
from runtime.compare.document import Change, Figure, Pair, Texts, difference
from runtime.compare.match import kind_of, label_of, pairs, place_of
from runtime.compare.words import UNNAMED
from runtime.profile.document import Counts, ProfileDocument, Row
from runtime.profile.profile import Profile

THRESHOLD = 0.005  # of A's figure
FIGURES = ("cycles", "energy_joules", "dram_bytes", "instructions")
_FOLDED = "the two waterfalls are of different resources: work of these and waiting for it are counted together"
Both = tuple[Row | None, Row | None]


@dataclass(frozen=True)
class Side:
    """A or B: a run, or what a file says of one."""

    name: str
    run: Profile | ProfileDocument

    @property
    def resource(self) -> str:
        return self.run.resource if isinstance(self.run, Profile) else self.run.waterfall_resource

    def document(self, resource: str) -> ProfileDocument:
        """What is known of it, seen from `resource` if that is possible."""
        return self.run.seen_from(resource).document(self.name) if isinstance(self.run, Profile) else self.run


def compare(a: Side, b: Side, threshold: float = THRESHOLD) -> Comparison:
    """A layer or node is named if a figure of it differs by `threshold` or more of the whole run's in A."""
    resource = b.resource if isinstance(a.run, Profile) and not isinstance(b.run, Profile) else a.resource
    left, right = a.document(resource), b.document(resource)
    one_view = left.waterfall_resource == right.waterfall_resource
    if not one_view:
        left, right = _folded(left), _folded(right)
    figures = tuple(_figures(left, right))
    totals = {figure.name: figure.total[0] for figure in figures}
    layers = _sorted(_change((both,), totals) for both in pairs(left.layers, right.layers))
    nodes = _sorted(_change(group, totals) for group in _groups(left.nodes, right.nodes))
    return Comparison(
        a=a.name,
        b=b.name,
        chips=(left.chip, right.chip),
        threshold=threshold,
        facts=_facts(left, right),
        waterfall_resource=left.waterfall_resource if one_view else "",
        figures=figures,
        layers=tuple(change for change in layers if change.share >= threshold),
        nodes=tuple(change for change in nodes if change.share >= threshold),
        left_out={"layers": _below(layers, threshold), "nodes": _below(nodes, threshold)},
        notes=() if one_view else (_FOLDED,),
    )


def _figures(a: ProfileDocument, b: ProfileDocument) -> Iterator[Figure]:
    parts: list[tuple[Mapping[str, float], Mapping[str, float]]] = [
        (a.waterfall, b.waterfall),
        (a.energy_joules, b.energy_joules),
        (a.dram_bytes_by_engine, b.dram_bytes_by_engine),
        (a.instructions_by_engine, b.instructions_by_engine),
    ]
    totals = [
        (a.cycles, b.cycles),
        (a.total_joules, b.total_joules),
        (a.dram_bytes, b.dram_bytes),
        (a.instructions, b.instructions),
    ]
    for name, total, (left, right) in zip(FIGURES, totals, parts, strict=True):
        yield Figure(name=name, total=total, parts=_paired(left, right))


def _paired(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, Pair]:
    return {name: (a.get(name, 0), b.get(name, 0)) for name in dict.fromkeys([*a, *b])}


def _groups(a: Sequence[Row], b: Sequence[Row]) -> Iterable[Sequence[Both]]:
    """Pairs of nodes that do the same in different layers, apart where one has become slower and the other faster."""
    found: dict[Any, list[Both]] = {}
    for one, other in pairs(a, b):
        row = one or other
        assert row is not None
        cycles = _value(other, "cycles") - _value(one, "cycles")
        found.setdefault((kind_of(row), (cycles > 0) - (cycles < 0)), []).append((one, other))
    return found.values()


def _change(group: Sequence[Both], totals: Mapping[str, float]) -> Change:
    rows = [one or other for one, other in group]
    first = rows[0]
    assert first is not None
    sums = {name: _pair(group, name) for name in FIGURES}
    causes = dict.fromkeys(cause for both in group for row in both if row for cause in row.waterfall)
    return Change(
        name=label_of(first) or UNNAMED,
        place=place_of(first),
        layers=tuple(dict.fromkeys(row.layer for row in rows if row and row.layer)),
        a=tuple(one.name for one, _ in group if one),
        b=tuple(other.name for _, other in group if other),
        share=max(abs(difference(sums[name])) / totals[name] if totals[name] else 0.0 for name in FIGURES),
        waterfall={cause: _waterfall(group, cause) for cause in causes},
        **sums,
    )


def _pair(group: Sequence[Both], name: str) -> Pair:
    return sum(_value(a, name) for a, _ in group), sum(_value(b, name) for _, b in group)


def _waterfall(group: Sequence[Both], cause: str) -> Pair:
    a, b = ([row.waterfall.get(cause, 0) for both in group if (row := both[side])] for side in (0, 1))
    return sum(a), sum(b)


def _value(row: Row | None, name: str) -> float:
    found: float = getattr(row, name) if row is not None else 0
    return found


def _sorted(changes: Iterable[Change]) -> list[Change]:
    """Those that differ at all, by cycles."""
    found = [change for change in changes if change.share]
    return sorted(found, key=lambda change: (-abs(difference(change.cycles)), -change.share))


def _below(changes: Iterable[Change], threshold: float) -> int:
    return sum(max(len(change.a), len(change.b)) for change in changes if change.share < threshold)


def _folded(d: ProfileDocument) -> ProfileDocument:
    """What the waterfalls of different resources share: for each resource the time that it takes, working or waited
    for."""
    return msgspec.structs.replace(
        d,
        waterfall=_fold(d.waterfall, d.waterfall_resource),
        **{
            name: tuple(_fold_row(row, d.waterfall_resource) for row in getattr(d, name))
            for name in ("layers", "nodes")
        },
    )


def _fold_row(row: Row, resource: str) -> Row:
    return msgspec.structs.replace(row, waterfall=_fold(row.waterfall, resource))


def _fold(parts: Counts, resource: str) -> Counts:
    found = dict(parts)
    work = found.pop(COMPUTE, 0)
    return found | {f"waiting_{resource}": found.get(f"waiting_{resource}", 0) + work}


def _facts(a: ProfileDocument, b: ProfileDocument) -> dict[str, Texts]:
    """Settings of compiler, model and chip that differ, and nodes by what has become of them."""
    left, right = (
        {
            "model": d.model, "entry": d.entry, **d.settings, **dict(_flat(d.parameters)),
            **{f"nodes {status}": count for status, count in d.nodes_by_status.items()},
            "code": d.code_sha256[:12],
        }
        for d in (a, b)
    )  # fmt: skip
    both = {name: (_text(left.get(name)), _text(right.get(name))) for name in dict.fromkeys([*left, *right])}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name not in ("name", "description"):
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return "nothing" if value in (None, "") else str(value)

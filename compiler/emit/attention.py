"""Attention over a cache, one sequence after the other: what a launch finds in the cache decides how long rows are.

    scores | old keys: p of them, in tiles      | new keys |       p: in a scalar register, read from the input
           0                                    p        p+T
    lda keys; mm; vaff scores[0:p]   mm; vaff scores[p:p+T] (+ mask)   softmax over p+T columns; vqd   mm; lda values; mm

Without new keys and values (those of an encoder, which are all there) the scalar names the last key.

The new keys and values are read where they were made and stored behind the old ones meanwhile, so that nothing waits
for DRAM. Tiles of old keys beyond p have nothing to do. Bits do not depend on tiles nor on the capacity: sums of int8
products are exact, and elements that are not there count for nothing in a maximum or a sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from compiler.emit.emitter import Emitter, Tile, emits
from compiler.emit.matmul import ROUND
from compiler.emit.rows import ONE, bits
from compiler.emit.token_tiles import RESULT
from compiler.tile.access import follow
from compiler.tile.batch_tile import Part
from compiler.tile.ir import Length, Ref
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout, Range
from isa.architecture import Dtype, Space
from isa.spec import ACT, ISA, VOP, VRED

TYPICAL = 512  # tokens in a cache; at most half of what it holds
MOST_HEADS = ISA["vop"].field("planes").largest
MOST_KEYS = ISA["mm"].field("k").largest
MOST_ROWS = ISA["act"].field("rows").largest


@emits("cached_attention")
def cached_attention(e: Emitter, node: KernelOp) -> None:
    block = e.ranges  # batch and heads: operands have no other dimensions in common with the result
    part = e.part if e.part is not None and e.part.axis == RESULT else Part(RESULT, 0, node.shape[RESULT])
    tokens = (part.low, part.high)
    e.ranges = (*block, (0, node.shape[2]), tokens)
    out, e.ranges = e.result(node), block
    for number in range(out.layout.shape[0]):
        for low in range(0, out.layout.shape[1], MOST_HEADS):
            heads = (low, min(low + MOST_HEADS, out.layout.shape[1]))
            _Sequence.of(e, node, out, number, heads, tokens).emit()
    e.ranges = (*block, (0, node.shape[2]), tokens)
    e.finish(node)
    e.ranges = block


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of queries that one instruction can take: `count` from row `first` of the scores of a head. They are of
    the query heads from `group` on that share keys."""

    group: int
    first: int
    count: int
    q: Ref
    scale: Ref


@dataclass(frozen=True)
class _Sequence:
    """The heads `heads` of one sequence of the block. Layouts are of these alone: [heads, …]."""

    e: Emitter
    node: KernelOp
    out: Tile
    q: Layout  # [heads, group, tokens of the part, size]
    q_scales: Layout  # [heads, group, tokens of the part]
    new: Mapping[str, Sequence[Layout]]  # keys and values, in the parts that there are: [heads, tokens, size]; or none
    new_scales: Mapping[str, Sequence[Layout]]
    cache: Mapping[str, Layout]  # in DRAM: [heads, capacity, size]
    cache_scales: Mapping[str, Layout]
    mask: Layout | None
    old_mask: Layout | None
    bias: Layout | None  # in DRAM: [heads, group, elements]
    by_distance: bool
    window: int
    softcap: float
    block: int  # new tokens of which none sees the new keys behind them all
    position: Length
    part: Range  # the tokens that are asked for; `out` has no others

    @staticmethod
    def of(e: Emitter, node: KernelOp, out: Tile, number: int, heads: Range, part: Range) -> "_Sequence":
        ranges = ((number, number + 1), heads)

        def own(layout: Layout) -> Layout:
            part = layout.narrow(ranges)
            return part.seen(part.offset, part.shape[1:], part.strides[1:])

        def here(name: str, *inner: Range) -> Layout:
            """An operand on chip, of which no tokens are wanted but these."""
            operand, block = node.tensor(name), e.ranges
            e.ranges = (*block, *inner)
            layout, e.ranges = e.operand(operand, len(operand.shape)), block
            return own(layout)

        def stored(name: str) -> Layout:
            return own(e.operand(node.tensor(name), len(node.tensor(name).shape), staged=False))

        def parts(name: str) -> list[Layout]:
            """An operand on chip, as the parts up to this one have made it."""
            operand = node.tensor(name)
            made = e.storage.parts.get(operand.base, ())
            size = part[1] // max(len(made), 1)
            places = [follow(layout, operand) for layout in made] or [e.storage.resolve(operand)]
            cut = [(number * size, (number + 1) * size) for number in range(len(places))]
            narrow = (layout.narrow((*e.ranges, tokens)) for layout, tokens in zip(places, cut, strict=True))
            return [own(e.stage(operand, layout)) for layout in narrow]

        new = {} if node.optional("k") is None else {"keys": "k", "values": "v"}

        def table(name: str) -> Layout | None:
            operand = node.optional(name)
            return None if operand is None else e.operand(operand, len(node.shape))

        given = node.optional("bias")
        bias = None if given is None else e.operand(given, len(node.shape) - 1, staged=False).narrow((heads,))
        positions = e.storage.resolve(node.tensor("positions"))
        sequence = e.ranges[0][0] + number
        return _Sequence(
            e,
            node,
            out.narrow(ranges),
            here("q", (0, node.shape[2]), part),
            here("sq", (0, node.shape[2]), part),
            {name: parts(operand) for name, operand in new.items()},
            {name: [_as_float(e, node, scale) for scale in parts(f"s{operand}")] for name, operand in new.items()},
            {"keys": stored("keys"), "values": stored("values")},
            {"keys": stored("key_scales"), "values": stored("value_scales")},
            table("mask"),
            table("old_mask"),
            bias,
            node.flag("by_distance"),
            node.integer("window"),
            node.number("softcap"),
            node.integer("block") or node.shape[RESULT],
            _length_before(node, positions, sequence),
            part,
        )

    @property
    def heads(self) -> int:
        return self.q.shape[0]

    @property
    def group(self) -> int:
        return self.q.shape[1]

    @property
    def tokens(self) -> int:
        return self.node.shape[RESULT]

    @property
    def fresh(self) -> int:
        """How many new keys there are, up to the last that a token of the part may see."""
        return self.part[1] if self.new else 0

    @property
    def there(self) -> Length:
        """How many old keys there are."""
        return self.position if self.new else replace(self.position, plus=1, width=self.position.largest + 1)

    @property
    def most_old(self) -> int:
        """The most old keys that a new token sees."""
        return min(self.there.most, self.window - 1) if self.window else self.there.most

    def old(self, low: int, width: int) -> Length:
        """How many of the old keys low … low + width there are, counted from the first that is seen."""
        return replace(self.there, plus=self.there.plus - low, width=width)

    def all(self, scores: Layout) -> Length:
        """All keys of which there are `scores`, the new ones too."""
        columns = scores.shape[-1]
        return replace(self.there, plus=self.there.plus + columns - self.most_old, width=columns)

    def behind(self) -> Length:
        """The column of the first new key: how many old ones are seen."""
        return self.old(0, self.most_old)

    def first(self) -> Length | None:
        """The first old key that is seen; None where it is always the first of all."""
        return replace(self.position, plus=1 - self.window) if self.window else None

    def tiles(self) -> Iterator[Range]:
        """Old keys that are seen, in tiles; with nothing but new ones, none."""
        width = min(self.e.tiling.n, MOST_KEYS)
        for low in range(0, self.most_old, width):
            yield low, min(low + width, self.most_old)

    def made(self, seen: int) -> Iterator[Range]:
        """The new keys up to `seen`, by the parts in which they lie."""
        low = 0
        for keys in self.new.get("keys", ()):
            if low < seen:
                yield low, min(low + keys.shape[1], seen)
            low += keys.shape[1]

    def emit(self) -> None:
        factors = self._value_scales()
        step = max(min(self.e.tiling.k, self.block, MOST_ROWS // (self.heads * self.group)), 1)
        for start in range(*self.part, self.block):
            end = min(start + self.block, self.part[1])
            seen = min(end, self.fresh)  # new keys
            for first in range(start, end, step):
                tokens = (first, min(first + step, end))
                scores = self._scores(tokens, seen)
                codes, scale = self._weights(scores, factors)
                self._result(tokens, seen, codes, scale)
        for name in self.new if self.part[1] == self.tokens else ():  # behind all loads of old ones
            self._store(name)

    # ---- the three parts

    def _scores(self, tokens: Range, seen: int) -> Layout:
        """[heads, group * tokens, old keys and `seen` new ones], of which those of this launch are made."""
        e, rows = self.e, self.group * (tokens[1] - tokens[0])
        scores = e.temp((self.heads, rows, self.most_old + seen), Dtype.F32, self.node.name + ".scores")
        alike = self.bias is None or self.group == 1  # the query heads that share keys
        for low, high in self.tiles():
            length = self.old(low, high - low)
            keys = self._load("keys", low, high, length)
            scales = self._load_scales("keys", low, high, length)
            for part in self._rows(tokens, whole=alike):
                sums = self._product(part, Dtype.I32, keys, high - low, length)
                d = _ref(scores, (0, part.first, low))
                bias = self._biases(part, tokens, (low, high), length)
                self._dequantize(d, sums, part, scales, high - low, length, bias)
        if not self.new:
            return scores
        for number, (low, high) in enumerate(self.made(seen)):
            mask = None if self.softcap or self.mask is None else _ref(self.mask, (tokens[0], low))
            for part in self._rows(tokens, whole=alike and mask is None):  # a mask has rows for each query head
                sums = self._product(part, Dtype.I32, self.new["keys"][number], high - low, None)
                d = _ref(scores, (0, part.first, low), moved=self.behind())
                bias = self._biases(part, tokens, (low, high), None)
                self._dequantize(d, sums, part, self.new_scales["keys"][number], high - low, None, bias, mask)
        if self.softcap:
            self._cap(scores)
            if self.mask is not None:
                self._add_mask(scores, tokens, seen)
        if self.old_mask is not None and self.most_old:
            self._add_old_mask(scores, tokens)
        return scores

    def _weights(self, scores: Layout, factors: Layout) -> tuple[Layout, Layout]:
        """softmax, quantized with the values' scales folded in: codes like the scores, and a scale for each row."""
        e, node, (heads, rows, columns) = self.e, self.node, scores.shape
        top, total, share = (
            e.temp((heads, rows), Dtype.F32, f"{node.name}.{name}") for name in ("max", "sum", "recip")
        )
        count = heads * rows
        row = _ref(scores, (0, 0, 0))
        flat = Ref(row.buffer, row.offset, row.dtype, rs=row.rs)
        extents = {"rows": count, "cols": columns}
        cut = "cols", self.all(scores)
        e.emit_one("vred", node, {"d": _vector(top), "a": flat}, {"f": VRED.index("max"), **extents}, cut=cut)
        views = {"d": flat, "a": flat, "bi": _repeated(top), "sum": _vector(total)}
        e.emit_one("act", node, views, {"f": ACT.index("exp"), **extents, "scale": ONE, "neg": 1}, cut=cut)
        line = {"f": ACT.index("recip"), "rows": 1, "cols": count, "scale": ONE}
        e.emit_one("act", node, {"d": _line(share), "a": _line(total)}, line)
        codes = e.temp(scores.shape, Dtype.I8, node.name + ".weights")
        scale = e.temp((heads, rows), Dtype.F32, node.name + ".scale")
        views = {
            "d": _ref(codes, (0, 0, 0)),
            "s": Ref(scale.buffer, 0, Dtype.F32, rs=1, ps=rows),
            "a": row,
            "rs": Ref(share.buffer, 0, Dtype.F32, rs=1, ps=rows, cs=0),
            "cs": Ref(factors.buffer, 0, Dtype.F32, ps=factors.strides[0]),
        }
        e.emit_one("vqd", node, views, {"planes": heads, "rows": rows, "cols": columns}, cut=cut)
        return codes, scale

    def _result(self, tokens: Range, seen: int, codes: Layout, scale: Layout) -> None:
        """The weighted values: the new ones first, so that there is a sum to add to."""
        e, node, size = self.e, self.node, self.cache["values"].shape[-1]
        count = tokens[1] - tokens[0]
        sums = e.temp((self.heads, self.group * count, size), Dtype.I32, node.name + ".acc", Space.ACC)
        attrs = {"m": self.group * count, "n": size, "b": self.heads}
        views = {"c": _ref(sums, (0, 0, 0))}
        for number, (low, high) in enumerate(self.made(seen)):
            codes_at, values = _ref(codes, (0, 0, low), moved=self.behind()), self.new["values"][number]
            acc = {"acc": 1} if low else {}
            views |= {"a": codes_at, "w": _ref(values, (0, 0, 0))}
            e.emit_one("mm", node, views, {**attrs, "k": high - low, **acc})
        for low, high in self.tiles():
            length = self.old(low, high - low)
            values = self._load("values", low, high, length)
            views |= {"a": _ref(codes, (0, 0, low)), "w": _ref(values, (0, 0, 0))}
            acc = {"acc": 1} if low or self.new else {}
            e.emit_one("mm", node, views, {**attrs, "k": high - low, **acc}, cut=("k", length))
        shape = (1, self.heads, self.group, count, size)
        own = (tokens[0] - self.part[0], tokens[1] - self.part[0])
        out = self.out.narrow(((0, 1), (0, self.heads), (0, self.group), own))
        a = Layout(sums.buffer, Dtype.I32, shape, (0, self.group * count * size, count * size, size, 1))
        row = Layout(scale.buffer, Dtype.F32, (*shape[:-1], 1), (0, self.group * count, count, 1, 0))
        e.emit("vaff", node, shape, {"d": out}, {"a": a, "rs": row}, {"rnd": ROUND[node.dtype]})

    # ---- instructions

    def _rows(self, tokens: Range, whole: bool = True) -> Iterator[_Rows]:
        """The queries of these tokens: all rows of a head at once, if it may be `whole`, where a stride leads from each
        to the next."""
        count, first = tokens[1] - tokens[0], tokens[0] - self.part[0]
        whole = (
            whole
            and count == self.q.shape[2]
            and all(x.strides[1] == count * x.strides[2] or count == 1 for x in (self.q, self.q_scales))
        )
        step = 2 if count > 1 or self.group == 1 else 1  # the dimension of which rows are a step
        for g in range(1 if whole or self.group == 1 else self.group):
            at, scale_at = (0, g, first, 0), (0, g, first)
            q = _ref(self.q, at)
            scale = _ref(self.q_scales, scale_at)
            yield _Rows(
                g,
                g * count,
                (self.group if whole else 1) * count,
                Ref(q.buffer, q.offset, q.dtype, rs=self.q.strides[step], ps=self.q.strides[0]),
                Ref(
                    scale.buffer, scale.offset, scale.dtype, rs=self.q_scales.strides[step],
                    ps=self.q_scales.strides[0], cs=0,
                ),
            )  # fmt: skip

    def _load(self, name: str, low: int, high: int, length: Length) -> Layout:
        """A tile of the cache, on chip: as many rows as there are."""
        source, width = self.cache[name], high - low
        tile = self.e.temp((self.heads, width, source.shape[-1]), Dtype.I8, f"{self.node.name}.{name}")
        attrs = {"planes": self.heads, "rows": width, "cols": source.shape[-1]}
        views = {"d": _ref(tile, (0, 0, 0)), "a": _ref(source, (0, low, 0), moved=self.first(), axis=1)}
        self.e.emit_one("lda", self.node, views, attrs, cut=("rows", length))
        return tile

    def _load_scales(self, name: str, low: int, high: int, length: Length, width: int = 0) -> Layout:
        source = self.cache_scales[name]
        tile = self.e.temp((self.heads, width or high - low), Dtype.F32, f"{self.node.name}.{name}_scales")
        views = {"d": _ref(tile, (0, 0)), "a": _ref(source, (0, low), moved=self.first())}
        attrs = {"rows": self.heads, "cols": high - low}
        self.e.emit_one("lda", self.node, views, attrs, cut=("cols", length))
        return tile

    def _value_scales(self) -> Layout:
        """[heads, keys]: those of the old values, and behind them those of the new ones."""
        columns = self.most_old + self.fresh
        if self.most_old:
            scales = self._load_scales("values", 0, self.most_old, self.behind(), columns)
        else:
            scales = self.e.temp((self.heads, columns), Dtype.F32, f"{self.node.name}.values_scales")
        if not self.new:
            return scales
        for number, (low, high) in enumerate(self.made(self.fresh)):
            given = self.new_scales["values"][number]
            views = {"d": _ref(scales, (0, low), moved=self.behind()), "a": _ref(given, (0, 0))}
            attrs = {"f": VOP.index("mov"), "rows": self.heads, "cols": high - low}
            self.e.emit_one("vop", self.node, views, attrs)
        return scales

    def _product(self, part: _Rows, kind: Dtype, keys: Layout, width: int, length: Length | None) -> Layout:
        """Queries times keys [heads, width, size]."""
        sums = self.e.temp((self.heads, part.count, width), kind, self.node.name + ".acc", Space.ACC)
        attrs = {"m": part.count, "n": width, "k": self.q.shape[-1], "b": self.heads, "wt": 1}
        views = {"c": _ref(sums, (0, 0, 0)), "a": part.q, "w": _ref(keys, (0, 0, 0))}
        self.e.emit_one("mm", self.node, views, attrs, cut=None if length is None else ("n", length))
        return sums

    def _dequantize(
        self, d: Ref, sums: Layout, part: _Rows, scales: Layout, width: int, length: Length | None,
        bias: Sequence[Ref], mask: Ref | None = None,
    ) -> None:  # fmt: skip
        """With a bias for all rows, or one for each."""
        columns = _ref(scales, (0, 0))
        cs = Ref(columns.buffer, columns.offset, Dtype.F32, ps=scales.strides[0])
        rows = part.count // max(len(bias), 1)
        attrs = {"planes": self.heads, "rows": rows, "cols": width}
        for number in range(0, part.count, rows):
            views = {
                "d": _below(d, number), "a": _below(_ref(sums, (0, 0, 0)), number), "rs": _below(part.scale, number),
                "cs": cs,
            }  # fmt: skip
            added = [] if mask is None else [_below(Ref(mask.buffer, mask.offset, mask.dtype, rs=mask.rs), number)]
            added = [*bias[number : number + 1], *added] if len(bias) > 1 else [*bias, *added]
            views |= dict(zip(("bi", "res"), added, strict=False))
            self.e.emit_one("vaff", self.node, views, attrs, cut=None if length is None else ("cols", length))

    def _biases(self, part: _Rows, tokens: Range, keys: Range, length: Length | None) -> list[Ref]:
        """What is added to the scores of these rows: nothing, a row for all, or one for each token. Of a tile of old
        keys, of which `length` are there, or of new ones."""
        if self.bias is None:
            return []
        _, step, cs = self.bias.strides
        shape, strides = (self.heads, self.bias.shape[-1]), (self.bias.strides[0], cs)
        table = self.bias.seen(self.bias.offset + part.group * step, shape, strides)
        last, (low, high), found = self.cache["keys"].shape[1] - 1, keys, []
        for token in range(*tokens) if self.by_distance else (0,):
            at, moved = low, self.position if length is None else self.first()
            if self.by_distance:  # keys `low` … of those that the launch finds; the new ones are at fixed distances
                at, moved = last - token + low, None
                if length is not None:
                    at, moved = 0, replace(self.position, plus=at + low, width=at + low, falling=True)
            tile = self.e.temp((self.heads, high - low), Dtype.F32, f"{self.node.name}.bias")
            views = {"d": _ref(tile, (0, 0)), "a": _ref(table, (0, at), moved=moved)}
            attrs = {"rows": self.heads, "cols": high - low}
            self.e.emit_one("lda", self.node, views, attrs, cut=None if length is None else ("cols", length))
            found.append(Ref(tile.buffer, 0, Dtype.F32, ps=tile.strides[0]))
        return found

    def _cap(self, scores: Layout) -> None:
        """tanh(scores / cap) * cap"""
        row = _ref(scores, (0, 0, 0))
        flat = Ref(row.buffer, row.offset, row.dtype, rs=row.rs)
        extents = {"rows": scores.shape[0] * scores.shape[1], "cols": scores.shape[2]}
        cut = "cols", self.all(scores)
        attrs = {"f": ACT.index("tanh"), **extents, "scale": bits(1.0 / self.softcap)}
        self.e.emit_one("act", self.node, {"d": flat, "a": flat}, attrs, cut=cut)
        attrs = {"f": VOP.index("mul"), **extents, "imm": bits(self.softcap)}
        self.e.emit_one("vop", self.node, {"d": flat, "a": flat}, attrs, cut=cut)

    def _add_mask(self, scores: Layout, tokens: Range, seen: int) -> None:
        """To the scores of the `seen` new keys, of every query head."""
        assert self.mask is not None
        count = tokens[1] - tokens[0]
        mask = _ref(self.mask, (tokens[0], 0))
        for g in range(self.group):
            d = _ref(scores, (0, g * count, 0), moved=self.behind())
            views = {"d": d, "a": d, "b": Ref(mask.buffer, mask.offset, mask.dtype, rs=mask.rs)}
            attrs = {"f": VOP.index("add"), "planes": self.heads, "rows": count, "cols": seen}
            self.e.emit_one("vop", self.node, views, attrs)

    def _add_old_mask(self, scores: Layout, tokens: Range) -> None:
        """To the scores of the oldest keys, which the later ones of the new tokens do not see any more.

        Token t does not see the first t of them once the window is full, fewer before: of the table, whose row r says
        that the first r - (T - 1) are not seen, the rows begin so much further up."""
        assert self.old_mask is not None
        count, width = tokens[1] - tokens[0], min(self.tokens - 1, self.most_old)
        row = replace(self.position, plus=self.tokens - self.window, width=self.tokens - 1)
        for g in range(self.group):
            d = _ref(scores, (0, g * count, 0))
            table = _ref(self.old_mask, (tokens[0], 0), moved=row, axis=0)
            views = {"d": d, "a": d, "b": replace(table, ps=0)}
            attrs = {"f": VOP.index("add"), "planes": self.heads, "rows": count, "cols": width}
            self.e.emit_one("vop", self.node, views, attrs, cut=("cols", self.old(0, width)))

    def _store(self, name: str) -> None:
        """The new keys or values, and their scales, behind the old ones."""
        for number, (low, high) in enumerate(self.made(self.tokens)):
            rows, scales = self.new[name][number], self.new_scales[name][number]
            views = {"d": _ref(self.cache[name], (0, low, 0), moved=self.position, axis=1), "a": _ref(rows, (0, 0, 0))}
            attrs = {"planes": self.heads, "rows": high - low, "cols": rows.shape[-1]}
            self.e.emit_one("sto", self.node, views, attrs)
            views = {"d": _ref(self.cache_scales[name], (0, low), moved=self.position), "a": _ref(scales, (0, 0))}
            self.e.emit_one("sto", self.node, views, {"rows": self.heads, "cols": high - low})


def _length_before(node: KernelOp, positions: Layout, sequence: int) -> Length:
    """How many tokens there are before those of a step. A step of one token is expected to find some of them, one of
    many to read a prompt from its beginning."""
    limits = node.tensor("positions").limits
    assert limits is not None, f"how many tokens there are before {node.name} has no limits"
    usual = min(TYPICAL, limits[1] // 2) if node.optional("k") is None or node.shape[RESULT] == 1 else 0
    place = positions.offset + sequence * positions.strides[0]
    return Length(positions.buffer, place, limits[1], 0, limits[1], usual=usual)


def _as_float(e: Emitter, node: KernelOp, scale: Layout) -> Layout:
    """Scales [heads, tokens] as the cache has them: float32, side by side."""
    if scale.dtype is Dtype.F32 and scale.strides[-1] == 1 and scale.buffer.space is Space.SRAM:
        return scale
    local = e.temp(scale.shape, Dtype.F32, node.name + ".scales")
    e.emit("vop", node, scale.shape, {"d": local}, {"a": scale}, {"f": VOP.index("mov")})
    return local


def _ref(layout: Layout, at: Sequence[int], moved: Length | None = None, axis: int = -1) -> Ref:
    """The view of a layout of two or three dimensions, from an element on; `moved` along a dimension."""
    size = layout.dtype.bits // 8
    offset = layout.offset + sum(i * step for i, step in zip(at, layout.strides, strict=True))
    *outer, rs, cs = layout.strides
    if layout.shape[-1] == 1:
        cs = 1
    assert cs == 1, f"columns of {layout} cannot be addressed"
    unit = 0 if moved is None else layout.strides[axis] * size
    return Ref(layout.buffer, offset * size, layout.dtype, rs, outer[-1] if outer else 0, 1, moved, unit)


def _below(ref: Ref, rows: int) -> Ref:
    """The view from another row on."""
    return replace(ref, offset=ref.offset + rows * ref.rs * ref.dtype.bits // 8)


def _vector(layout: Layout) -> Ref:
    """One value for each row."""
    return Ref(layout.buffer, 0, layout.dtype, rs=1)


def _repeated(layout: Layout) -> Ref:
    """One value for all columns of each row."""
    return Ref(layout.buffer, 0, layout.dtype, rs=1, cs=0)


def _line(layout: Layout) -> Ref:
    return Ref(layout.buffer, 0, layout.dtype)

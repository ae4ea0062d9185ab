"""The replay: every instruction of a tile program over memories of symbols, compared with the graph wherever an
instruction says what it completes.

state      per buffer one symbol per element, 0 where nobody has written
compared   the block of each tapped operand with the elements of the node that it claims to hold; every output, in full
proved     in this order of the instructions, at these sizes, every output element is the expression that the graph says, of
the same elements
not        that instructions overlap safely (lint), that buffers lie apart (the planner's own check), that an instruction does what
docs/isa.md says
           (the emulator's tests), and nothing of how the graph came about: it is the reference
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from torch import fx

from compiler.tile.ir import Buffer, Op, Probe, Program, Ref, launches
from compiler.translation import symbols as s
from compiler.translation.blocks import aligned, block_shape, boxes, part, repeated
from compiler.translation.evaluate import Graph
from compiler.translation.instructions import RULES, Executed
from compiler.translation.iterations import Iterations
from compiler.translation.memory import Memory, Placed, Wrong, touched
from compiler.translation.symbols import NOTHING, Symbols, Value
from isa.architecture import FLOATS, Dtype, Space
from isa.errors import InternalError
from isa.fields import Access
from isa.spec import MM_FORMAT, NIBBLES
from isa.views import Extents, part_length

COPIES = ("ldw", "lda", "sto")
OURS = "this is a fault of llmchip, not of the model; please report it"


class TranslationError(InternalError):
    """The tile program does not compute the graph: a fault of the compiler."""


@dataclass(frozen=True)
class Interface:
    """Where things are in DRAM, and which nodes the iterations of the loop compute."""

    inputs: Sequence[Placed]
    constants: Sequence[Placed]
    outputs: Sequence[Placed]
    literals: Mapping[Buffer, bytes]
    instances: Mapping[str, tuple[str, ...]]


def check_translation(graph: fx.Graph, program: Program, interface: Interface) -> None:
    """Raise TranslationError unless `program` computes what `graph` says: in every launch, of which a few stand for
    all where lengths differ (`tile.ir.launches`)."""
    with np.errstate(over="ignore"):
        for steered, launch in launches(program):
            _Replay(graph, launch, interface, steered).run()


def _require_apart(blocks: Sequence[tuple[Ref, Extents]]) -> None:
    """A instruction has no order among the things that it writes."""
    for (a, first), (b, second) in combinations(blocks, 2):
        if a.buffer == b.buffer:
            one, other = touched(a, first), touched(b, second)
            shared = min(len(one), len(other))
            if (one[:shared] & other[:shared]).any():
                raise Wrong(f"writes both {a} and {b} there")


def _grouped_rule(op: Op, refs: Mapping[str, Ref]) -> s.Grouped:
    """The arithmetic of an `mmg`. Raises Wrong for operands that do not go together."""
    operands, scaled = op.operands, {"ss", "sm", "zw"} & refs.keys()
    odd = any(operands[flag] for flag in ("pre", "half", "acc")) or scaled == {"ss", "zw"}
    if ("sm" in scaled and len(scaled) < 3) or ("ss" in scaled and odd):
        raise Wrong("takes these operands in no way")
    for name, ref in refs.items():
        if ref.dtype not in op.row.field(name).dtypes:
            raise Wrong(f"operand {name} cannot be {ref.dtype.name.lower()}")
    packed = refs["w"].dtype is Dtype.I4
    if operands["nib"] and not packed:
        raise Wrong("takes bytes for codes of four bits")
    group, sub = part_length("g", operands), part_length("j", operands) if "ss" in refs else 0
    codes = NIBBLES[operands["nib"]] if packed else "i8"
    return s.Grouped(group, sub, codes, bool(operands["pre"]), bool(operands["half"]))


class _Replay:
    def __init__(self, graph: fx.Graph, program: Program, interface: Interface, steered: int) -> None:
        self.program, self.interface = program, interface
        self.count = program.loop.count if program.loop else 0
        try:
            self.iterations = Iterations(graph, self.count, interface.instances, interface.constants)
            self.memory = Memory((*interface.inputs, *interface.constants), interface.outputs, interface.literals)
        except (Wrong, KeyError, IndexError) as error:
            raise TranslationError(
                f"the tile program is not the graph's: {error}", "translation check", OURS
            ) from error
        readers = [
            self.iterations.name(probe.node, iteration) if inside else probe.node
            for op, iteration, inside in self._order()
            for probe in op.probes
        ]
        self.graph = Graph(graph, self.iterations, [*readers, *(output.node for output in interface.outputs)], steered)

    def _order(self) -> Iterator[tuple[Op, int, bool]]:
        """The instructions as replayed, with the iteration and whether they stand in the loop."""
        loop, ops = self.program.loop, self.program.ops
        if loop is None:
            yield from ((op, 0, False) for op in ops)
            return
        yield from ((op, 0, False) for op in ops[: loop.first])
        for iteration in (0, loop.count - 1) if loop.count > 1 else (0,):
            yield from ((op, iteration, True) for op in ops[loop.first : loop.end])
        yield from ((op, 0, False) for op in ops[loop.end :])

    def run(self) -> None:
        leaving = self._leaving()
        for number, (op, iteration, inside) in enumerate(self._order()):
            self.memory.iteration = iteration if inside else 0
            try:
                if op.operands.get("dyn"):
                    raise Wrong("takes an extent from a register")
                self._execute(op, iteration if inside else None)
            except Wrong as error:
                where = f" in iteration {iteration}" if inside else ""
                raise TranslationError(
                    f"the tile program does not compute the graph: {error}", f"'{op}'{where}", OURS
                ) from error
            self.memory.forget(leaving.get(number, ()))
        for output in self.interface.outputs:
            self._compare_output(output)
        for tensor in self.interface.constants:
            self._compare_state(tensor)

    def _leaving(self) -> dict[int, list[Buffer]]:
        """By number in the replay the buffers that no later instruction touches, outputs apart: their symbols are many
        and nobody looks at them again."""
        last = {
            ref.buffer: number for number, (op, _, _) in enumerate(self._order()) for ref in op.views if ref is not None
        }
        found: dict[int, list[Buffer]] = {}
        for buffer, number in last.items():
            if buffer.space is not Space.DRAM:
                found.setdefault(number, []).append(buffer)
        return found

    # ---- instructions

    def _execute(self, op: Op, iteration: int | None) -> None:
        match op.mnemonic:
            case "ldw" | "lda" | "sto":
                self._copy(op, iteration)
            case "gather":
                self._gather(op, iteration)
            case "mm":
                self._product(op)
            case "mmg":
                self._grouped(op)
            case mnemonic if mnemonic in RULES:
                self._compute(op, iteration)
            case mnemonic:
                raise Wrong(f"nothing is known of {mnemonic}")

    def _copy(self, op: Op, iteration: int | None) -> None:
        (_, d, extents, _), (_, a, _, _) = op.accesses
        if d.dtype is not a.dtype:
            raise Wrong(f"a copy cannot turn {a.dtype.name.lower()} into {d.dtype.name.lower()}")
        formula = self.memory.formula(a, extents)
        if formula is not None and not op.probes and self.memory.load(d, extents, formula):
            return
        source = self.memory.read(a, extents).symbols
        self._store(op, iteration, "d", d, extents, source)

    def _gather(self, op: Op, iteration: int | None) -> None:
        named = {name: (ref, extents) for name, ref, extents, _ in op.accesses}
        (d, extents), (a, table), (idx, rows) = named["d"], named["a"], named["idx"]
        if d.dtype is not a.dtype:
            raise Wrong(f"a copy cannot turn {a.dtype.name.lower()} into {d.dtype.name.lower()}")
        formula, wanted, limit = self.memory.given(a, table), self.memory.read(idx, rows).symbols, op.operands["limit"]
        if formula is None:
            found = s.looked_up_in(wanted, repeated(self.memory.read(a, table).symbols, table)[0], limit)
        else:
            row = replace(formula, steps=(0, 0, formula.steps[2]))
            if wanted.size == 1 and not op.probes:
                (shift,) = s.shift_of(wanted, a.rs, limit).flat
                if self.memory.load(d, extents, replace(row, shift=shift)):
                    return
            found = s.looked_up(wanted, formula.name, row.indices(extents), a.rs, limit)
        self._store(op, iteration, "d", d, extents, found)

    def _product(self, op: Op) -> None:
        operands = op.operands
        named = {name: (ref, extents) for name, ref, extents, _ in op.accesses}
        if named.keys() != {"c", "a", "w"}:
            raise Wrong("needs c, a and w")
        (c, extents), (a, left), (w, right) = named["c"], named["a"], named["w"]
        floats = MM_FORMAT[operands["fmt"]] == "float"
        kinds = (c.dtype, a.dtype in FLOATS, w.dtype in FLOATS) if floats else (c.dtype, a.dtype, w.dtype)
        if kinds != ((Dtype.F32, True, True) if floats else (Dtype.I32, Dtype.I8, Dtype.I8)):
            raise Wrong(f"multiplies {a.dtype.name.lower()} by {w.dtype.name.lower()} into {c.dtype.name.lower()}")
        cells = self.memory.cells(c)
        key = (c.offset, c.ps, c.rs, c.cs)
        first = 0
        if operands["acc"]:
            if key not in cells.sums:
                raise Wrong(f"adds to {c}, which is no sum so far")
            first = cells.sums[key]
        rows = self._rows(a, left, first)
        columns = self._columns(w, right, first, -1 if operands["wt"] else -2)
        if floats:
            rows, columns = rows * s.float_product(), columns * s.float_product()
        target = self.memory.target(c, extents)
        if operands["acc"]:
            target += rows[:, :, None]
            target += columns[:, None, :]
        else:
            np.add(rows[:, :, None], columns[:, None, :], out=target)
        cells.sums[key] = first + operands["k"]

    def _grouped(self, op: Op) -> None:
        """The parts of a sum of groups, each with its place in k."""
        operands, named = op.operands, {name: (ref, extents) for name, ref, extents, _ in op.accesses}
        rule, (w, (_, n, k)) = _grouped_rule(op, {name: ref for name, (ref, _) in named.items()}), named["w"]
        if rule.codes != "i8":
            if k % 2 or w.rs % 2:
                raise Wrong(f"reads half of a byte of {w}")
            named["w"] = replace(w, dtype=Dtype.I8, rs=w.rs // 2), (1, n, k // 2)
        c, extents = named.pop("c")
        key, first = (c.offset, c.ps, c.rs, c.cs), 0
        cells = self.memory.cells(c)
        if operands["acc"]:
            if key not in cells.sums or cells.sums[key] % rule.group:
                raise Wrong(f"adds to {c}, which is no sum of whole groups so far")
            first = cells.sums[key]
        rows, columns = np.zeros((1, 1), s.Symbol), np.zeros((1, 1), s.Symbol)
        for name, (ref, block) in named.items():
            at = first // rule.spans[name]
            if name in ("a", "sa"):
                rows = rows + self._rows(ref, block, at) * rule.factor(name)
            else:
                columns = columns + self._columns(ref, block, at, -1) * rule.factor(name)
        target = self.memory.target(c, extents)
        if operands["acc"]:
            target += rows[:, :, None]
            target += columns[:, None, :]
        else:
            np.add(rows[:, :, None], columns[:, None, :], out=target)
        cells.sums[key] = first + operands["k"]

    def _rows(self, a: Ref, extents: Extents, first: int) -> Symbols:
        cells = self.memory.cells(a)
        key = (a, extents, first)
        if key not in cells.known:
            block = self.memory.read(a, extents).symbols
            cells.known[key] = s.dot_rows(np.broadcast_to(block, (*block.shape[:2], extents[2])), first)
        return cells.known[key]

    def _columns(self, w: Ref, extents: Extents, first: int, axis: int) -> Symbols:
        cells = self.memory.cells(w)
        key = (w, extents, first, axis)
        if key not in cells.known:
            cells.known[key] = self._fresh_columns(w, extents, first, axis)
        return cells.known[key]

    def _fresh_columns(self, w: Ref, extents: Extents, first: int, axis: int) -> Symbols:
        formula = self.memory.formula(w, extents)
        if formula is None:
            block = self.memory.read(w, extents).symbols
            full = (
                block.shape[0],
                block.shape[1] if axis == -1 else extents[1],
                extents[2] if axis == -1 else block.shape[2],
            )
            return s.dot_columns(np.broadcast_to(block, full), first, axis)
        other = (formula.steps[0], formula.steps[1], 0) if axis == -1 else (formula.steps[0], 0, formula.steps[2])
        start = replace(formula, steps=other).indices(extents).squeeze(axis)
        return s.dot_given(formula.name, start, formula.steps[axis], first, extents[axis], formula.shift)

    def _compute(self, op: Op, iteration: int | None) -> None:
        rule, accesses = RULES[op.mnemonic], op.accesses
        if op.mnemonic == "vaff" and ("tap" in {name for name, *_ in accesses}) != bool(op.operands["red"]):
            raise Wrong("needs both tap and red, or neither")
        writes = [(name, ref, extents) for name, ref, extents, access in accesses if access is not Access.R]
        written = {ref.buffer: ref for _, ref, _ in writes}
        if len(written) < len(writes):
            _require_apart([(ref, extents) for _, ref, extents in writes])
        reads = {}
        for name, ref, extents, access in accesses:
            if access is not Access.W:
                value = self.memory.read(ref, extents)
                other = written.get(ref.buffer)
                if other is not None and other != ref:
                    value = Value(value.symbols.copy(), value.kind)  # read in full before anything is written
                reads[name] = value
        instruction = Executed(op.operands, {name: ref.dtype for name, ref, _, access in accesses})
        shape = next(extents for name, _, extents, _ in accesses if name == "a")
        targets = [
            (name, self.memory.target(ref, extents), self._expected(op, iteration, name, extents), extents)
            for name, ref, extents in writes
        ]
        for box in boxes(shape, rule.whole(op.operands)):
            blocks = {name: Value(part(v.symbols, box), v.kind) for name, v in reads.items()} if box else reads
            results = rule.work(instruction, blocks, block_shape(shape, box) if box else shape)
            for name, target, expected, _ in targets:
                block = part(target, box)
                block[...] = results[name]
                if expected is not None and not (block == part(expected, box)).all():
                    self._explain(op, iteration, name, target, expected, reads)

    def _store(self, op: Op, iteration: int | None, name: str, ref: Ref, extents: Extents, values: Symbols) -> None:
        target = self.memory.target(ref, extents)
        target[...] = values
        expected = self._expected(op, iteration, name, extents)
        if expected is not None and not (target == expected).all():
            self._explain(op, iteration, name, target, expected, {"a": Value(values, ref.dtype)})

    # ---- comparing

    def _expected(self, op: Op, iteration: int | None, name: str, extents: Extents) -> Symbols | None:
        """What the graph says of the block that operand `name` completes."""
        found = None
        for probe in op.probes:
            if probe.operand == name:
                flat = self._flat(probe, iteration)
                last = probe.offset + sum(
                    (n - 1) * step for n, step in zip(extents, (probe.ps, probe.rs, probe.cs), strict=True)
                )
                if probe.offset < 0 or last >= flat.size:
                    raise Wrong(f"claims element {last} of {probe.node}, which has {flat.size}")
                size = flat.itemsize
                found = np.ndarray(
                    extents, flat.dtype, flat, size * probe.offset, (size * probe.ps, size * probe.rs, size * probe.cs)
                )
        return found

    def _flat(self, probe: Probe, iteration: int | None) -> Symbols:
        name = probe.node if iteration is None else self.iterations.name(probe.node, iteration)
        try:
            found = self.graph.take(name)
        except (KeyError, NotImplementedError) as error:
            raise Wrong(f"nothing is known of how {name} is computed: {error}") from error
        if found is None:
            raise Wrong(f"there is no node {name}")
        return found

    def _compare_output(self, output: Placed) -> None:
        try:
            expected = self._flat(Probe("d", output.node, 0, 0, 0, 1), None)
        except Wrong as error:
            raise TranslationError(
                f"the tile program does not compute the graph: {error}", f"output {output.node}", OURS
            ) from error
        written = self.memory.output(output)
        if written is not None and written.shape == expected.shape and (written == expected).all():
            return
        if not expected.size:
            return
        wrong = 0 if written is None or written.shape != expected.shape else int(np.argmax(written != expected))
        holds = (
            "was never written"
            if written is None or written.shape != expected.shape
            else f"holds {self._whose(written[wrong])}"
        )
        where = list(map(int, np.unravel_index(wrong, output.shape)))
        raise TranslationError(
            f"the tile program does not compute the graph: element {where} {holds}", f"output {output.node}", OURS
        )

    def _compare_state(self, tensor: Placed) -> None:
        """State is what the graph makes of it, and nothing else has been written there."""
        expected, written = self.graph.changes.get(tensor.node), self.memory.state(tensor)
        if expected is None and written is None:
            return
        if expected is None or written is None or not (written == np.ravel(expected)).all():
            what = "is changed" if expected is None else "is not changed" if written is None else "is changed otherwise"
            raise TranslationError(
                f"the tile program does not compute the graph: it {what}", f"state {tensor.node}", OURS
            )

    def _explain(
        self, op: Op, iteration: int | None, name: str, target: Symbols, expected: Symbols, reads: Mapping[str, Value]
    ) -> None:
        """Say which element is wrong, and what every operand holds at its place."""
        place = tuple(map(int, np.argwhere(target != expected)[0]))
        probe = next(probe for probe in op.probes if probe.operand == name)
        flat = probe.offset + sum(i * step for i, step in zip(place, (probe.ps, probe.rs, probe.cs), strict=True))
        node = self.graph.nodes[probe.node if iteration is None else self.iterations.name(probe.node, iteration)]
        where = list(map(int, np.unravel_index(flat, tuple(node.meta["val"].shape)))) if node.meta["val"].ndim else []
        operands = []
        for operand, value in reads.items():
            block = aligned(value.symbols, 3)
            at = tuple(min(i, n - 1) for i, n in zip(place, block.shape, strict=True))
            operands.append(f"{operand} is {self._whose(block[at])}")
        takes = ", ".join(argument.name for argument in node.all_input_nodes)
        raise Wrong(
            f"element {where} of {node.name} (of {takes}) is {self._whose(target[place])}; " + ", ".join(operands)
        )

    def _whose(self, symbol: s.Symbol) -> str:
        """Which element of which known value has this symbol."""
        if symbol == NOTHING:
            return "never written"
        for name, values in self.graph.computed():
            found = np.argwhere(values == symbol)
            if len(found):
                return f"{name}{list(map(int, found[0]))}"
        return self._given_element(symbol) or "something else"

    def _given_element(self, symbol: s.Symbol) -> str | None:
        """An input's or a constant's element, by solving for its number."""
        raw = int(s.raw(np.full(1, symbol, s.Symbol))[0])
        for tensor in (*self.interface.inputs, *self.interface.constants):
            first, step = int(s.number("first", tensor.node)), int(s.number("step", tensor.node))
            index = (raw - first) * pow(step, -1, 1 << s.BITS) % (1 << s.BITS)
            if index < max(1, int(np.prod(tensor.shape))):
                return (
                    f"{tensor.node}{list(map(int, np.unravel_index(index, tensor.shape)))}"
                    if tensor.shape
                    else tensor.node
                )
        return None

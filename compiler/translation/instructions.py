"""What each instruction writes, in symbols: one rule per mnemonic, after docs/isa.md.

A rule is given the blocks that the instruction reads, repeated dimensions held once, and returns the blocks that it
writes as they are stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compiler.translation import symbols as s
from compiler.translation.blocks import repeated
from compiler.translation.memory import Wrong
from compiler.translation.symbols import Symbols, Value, known, rounded
from isa.architecture import FLOATS, INTS, Dtype
from isa.spec import ACT, ROUND, TAP, TIES, VOP, VQD_NORM, VRED
from isa.views import Extents

NOT_OF_INTEGERS = frozenset({"div"})
NOT_OF_FLOATS = frozenset({"and", "or", "xor"})
COMPARE = frozenset({"eq", "ne", "lt", "le"})
Reads = Mapping[str, Value]
Writes = dict[str, Symbols]


@dataclass(frozen=True, slots=True)
class Executed:
    """The operands of an instruction beside its views, and the types of what it reads and writes."""

    operands: Mapping[str, int]
    kinds: Mapping[str, Dtype]

    def store(self, name: str, value: Symbols, kind: Dtype = Dtype.F32) -> Symbols:
        return rounded(Value(value, kind), self.kinds[name])


def _vop(instruction: Executed, reads: Reads, shape: Extents) -> Writes:
    f, target, a = VOP[instruction.operands["f"]], instruction.kinds["d"], reads["a"]
    integer = all(kind in INTS for kind in (instruction.kinds.values() if f != "sel" else (target,)))
    b = reads.get("b") or Value(s.immediate(integer, instruction.operands["imm"]), Dtype.I32 if integer else Dtype.F32)
    if target in INTS and f not in COMPARE and not integer:
        raise Wrong(f"{f} cannot turn floats into integers")
    if f in (NOT_OF_INTEGERS if integer else NOT_OF_FLOATS):
        raise Wrong(f"{f} does not exist on {'integers' if integer else 'floats'}")
    match f:
        case "mov":
            return {"d": rounded(a, target)}
        case "sel":
            return {"d": s.select(a.symbols, reads["d"].symbols, rounded(b, target))}
    if f == "mul" and not integer and "b" not in reads:
        return {"d": instruction.store("d", s.scaled(a.float, instruction.operands["imm"]))}
    result = s.binary(f, a.symbols, b.symbols, True) if integer else s.binary(f, a.float, b.float)
    if f in COMPARE:
        return {"d": instruction.store("d", result, Dtype.I8)}
    return {"d": instruction.store("d", result, Dtype.I32 if integer else Dtype.F32)}


def _full(x: Symbols, shape: Extents, down: bool = False) -> Symbols:
    """Every element of a row (a column) by itself: a repeated one counts as often as it is there."""
    needed = (x.shape[0], shape[1] if down else x.shape[1], x.shape[2] if down else shape[2])
    return x if x.shape == needed else repeated(x, needed)


def _vred(instruction: Executed, reads: Reads, shape: Extents) -> Writes:
    f, down, x = VRED[instruction.operands["f"]], bool(instruction.operands["down"]), reads["a"].float
    if "sub" in reads:
        x = s.sub(x, reads["sub"].float)
    if (f == "argmax") != (instruction.kinds["d"] is Dtype.I32):
        raise Wrong(f"{f} cannot store {instruction.kinds['d'].name.lower()}")
    x = _full(x, shape, down)
    out = s.reduced(f, x.swapaxes(-1, -2) if down else x)
    return {
        "d": instruction.store("d", out.swapaxes(-1, -2) if down else out, Dtype.I32 if f == "argmax" else Dtype.F32)
    }


_ROUND = {"none": Dtype.F32, "bf16": Dtype.BF16, "f16": Dtype.F16}


def _vaff(instruction: Executed, reads: Reads, shape: Extents) -> Writes:
    between = _ROUND[ROUND[instruction.operands["rnd"]]]
    t = reads["a"] if reads["a"].kind in FLOATS else Value(reads["a"].float, Dtype.F32)
    if "sub" in reads:
        t = Value(s.sub(t.float, reads["sub"].float), Dtype.F32)
    if "rs" in reads:
        t = known(Value(s.mul(t.float, reads["rs"].float), Dtype.F32), between)
    if "cs" in reads:
        t = Value(s.mul(t.float, reads["cs"].float), Dtype.F32)
    if "bi" in reads:
        t = Value(s.add(t.float, reads["bi"].float), Dtype.F32)
    if "cs" in reads or "bi" in reads:
        t = known(t, between)
    if "res" in reads:
        t = Value(s.add(t.float, reads["res"].float), Dtype.F32)
    out = rounded(t, instruction.kinds["d"])
    if "tap" not in instruction.kinds:
        return {"d": out}
    return {"d": out, "tap": instruction.store("tap", s.reduced(TAP[instruction.operands["red"]], _full(out, shape)))}


def _vqd(instruction: Executed, reads: Reads, shape: Extents) -> Writes:
    x = reads["a"].float
    for name in ("rs", "cs"):
        if name in reads:
            x = s.mul(x, reads[name].float)
    largest = reads["am"].float if "am" in reads else s.reduced("absmax", _full(x, shape))
    norm, ties = VQD_NORM[instruction.operands["norm"]], TIES[instruction.operands["ties"]]
    if norm != VQD_NORM[0]:
        codes = s.group_codes(norm, ties, x, largest)
        return {"d": codes, "s": instruction.store("s", s.group_scale(norm, largest))}
    if ties != TIES[0]:
        raise Wrong("rounds halves away from zero")
    scale = s.scale_of(largest, instruction.kinds["s"])
    return {"d": s.quantized(x, scale), "s": scale}


def _act(instruction: Executed, reads: Reads, shape: Extents) -> Writes:
    t = s.scaled(reads["a"].float, instruction.operands["scale"])
    if "bi" in reads:
        t = (s.sub if instruction.operands["neg"] else s.add)(t, reads["bi"].float)
    y = s.function(ACT[instruction.operands["f"]], t)
    out = {"d": instruction.store("d", y)}
    if "sum" in instruction.kinds:
        out["sum"] = instruction.store("sum", s.reduced("sum", _full(y, shape)))
    return out


@dataclass(frozen=True, slots=True)
class Rule:
    """`whole` is how many of the last dimensions an instruction must see at once."""

    work: Callable[[Executed, Reads, Extents], Writes]
    whole: Callable[[Mapping[str, int]], int] = lambda _: 1


RULES: dict[str, Rule] = {
    "vop": Rule(_vop, lambda _: 0),
    "vred": Rule(_vred, lambda operands: 2 if operands["down"] else 1),
    "vaff": Rule(_vaff),
    "vqd": Rule(_vqd),
    "act": Rule(_act),
}

"""The instruction set, written once. Everything else in `isa/` is derived from `ISA`.

A program is a list of 128-bit words, one per instruction. An instruction names *views* (registers that describe a
strided block of memory) and extents; `pseudocode` says what it does and is documentation, never executed. The
emulator's handlers, the encoder, the assembler, the checkers and the manual all read this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from isa.architecture import (
    ANY,
    EXTENSION_OPCODES,
    FLOATS,
    INTS,
    NO_WAIT,
    ON_CHIP,
    QUEUES,
    WORD_BYTES,
    Dtype,
    Engine,
    Region,
    Space,
)
from isa.fields import Access, Cost, Example, Field, Instruction, Kind, When


@dataclass(frozen=True, slots=True)
class VectorOp:
    """One function of `vop`: on which types it exists, and what a checker may know of it."""

    name: str
    floats: bool = True
    integers: bool = True
    compares: bool = False  # the result is 1 or 0 in any type
    commutes: bool = False


VECTOR_OPS = (
    VectorOp("mov"),
    VectorOp("add", commutes=True),
    VectorOp("sub"),
    VectorOp("mul", commutes=True),
    VectorOp("div", integers=False),
    VectorOp("max", commutes=True),
    VectorOp("min", commutes=True),
    VectorOp("eq", compares=True, commutes=True),
    VectorOp("ne", compares=True, commutes=True),
    VectorOp("lt", compares=True),
    VectorOp("le", compares=True),
    VectorOp("and", floats=False, commutes=True),
    VectorOp("or", floats=False, commutes=True),
    VectorOp("xor", floats=False, commutes=True),
    VectorOp("sel"),
)
VOP = tuple(op.name for op in VECTOR_OPS)
VRED = ("sum", "max", "min", "absmax", "sumsq", "argmax")
ACT = ("exp", "gelu_erf", "gelu_tanh", "silu", "sigmoid", "tanh", "rsqrt", "recip", "sqrt", "erf", "relu")
SALU = ("mov", "add", "sub", "mul", "min", "max", "ceildiv", "shl", "shr", "and")
TAP = ("none", "max", "absmax", "sum")
ROUND = ("none", "bf16", "f16")
MM_FORMAT = ("i8", "float")
VQD_NORM = ("half_range", "scale", "multiplier")
TIES = ("even", "away")
NIBBLES = ("i4", "u4", "e2m1")


def _view(
    name: str,
    access: Access,
    dims: str,
    dtypes: tuple[Dtype, ...],
    spaces: tuple[Space, ...],
    doc: str,
    optional: bool = False,
) -> Field:
    planes, rows, cols = dims.split()
    return Field(name, 5, Kind.VIEW, 0 if optional else None, (), access, (planes, rows, cols), dtypes, spaces, doc)


def _in(name: str, dims: str, dtypes: tuple[Dtype, ...], doc: str, spaces: tuple[Space, ...] = ON_CHIP) -> Field:
    return _view(name, Access.R, dims, dtypes, spaces, doc)


def _opt(name: str, dims: str, dtypes: tuple[Dtype, ...], doc: str, spaces: tuple[Space, ...] = ON_CHIP) -> Field:
    return _view(name, Access.R, dims, dtypes, spaces, doc, optional=True)


def _out(
    name: str,
    dims: str,
    dtypes: tuple[Dtype, ...],
    doc: str,
    spaces: tuple[Space, ...] = ON_CHIP,
    optional: bool = False,
) -> Field:
    return _view(name, Access.W, dims, dtypes, spaces, doc, optional)


def _int(name: str, bits: int, default: int | None = None, doc: str = "") -> Field:
    return Field(name, bits, Kind.INT, default, doc=doc)


def _flag(name: str, doc: str) -> Field:
    return Field(name, 1, Kind.FLAG, 0, doc=doc)


def _choice(name: str, bits: int, choices: tuple[str, ...], default: int | None = None, doc: str = "") -> Field:
    return Field(name, bits, Kind.CHOICE, default, choices, doc=doc)


def _scalar(name: str, default: int | None = None, doc: str = "") -> Field:
    return Field(name, 4, Kind.SCALAR, default, doc=doc)


def _dyn(*extents: str) -> tuple[Field, Field]:
    """An extent may come from a scalar register instead of the instruction."""
    return (
        _choice("dyn", 2, ("none", *extents), 0, "which extent is read from `dyn_s` instead of the instruction"),
        _scalar("dyn_s", 0, "the scalar register that holds it"),
    )


_PRC = (_int("planes", 8, 1, "planes"), _int("rows", 14, None, "rows"), _int("cols", 18, None, "columns"))
_DMA = (_int("planes", 10, 1, "planes"), _int("rows", 16, None, "rows"), _int("cols", 20, None, "columns"))
_REDUCED = (_int("planes", 8, 1, "planes"), _int("rows", 20, None, "rows"), _int("cols", 24, None, "columns"))
_DYN_PRC = _dyn("planes", "rows", "cols")
_FULL = "planes rows cols"
_DRAM_ONLY = (Space.DRAM,)
_SRAM_ONLY = (Space.SRAM,)

HEADER = (
    Field("op", 8),
    *(Field(f"dep_{queue.value}", 3, default=NO_WAIT) for queue in QUEUES),
    Field("dbg", 1, Kind.FLAG, 0, doc="stop here when a debugger is attached; no architectural effect"),
    Field("rsv", 1, default=0),
)
HEADER_BITS = sum(f.bits for f in HEADER)

_ROWS: tuple[Instruction, ...] = (
    Instruction("nop", 0x00, Engine.CTL, (), "no operation", "pass", example=Example()),
    Instruction(
        "halt",
        0x01,
        Engine.CTL,
        (_int("code", 16, 0, "exit code"),),
        "wait for all engines, then stop",
        "fence(all); stop(code)",
        drains="all",
        alters=True,
        example=Example(),
    ),
    Instruction(
        "fence",
        0x02,
        Engine.CTL,
        (_int("mask", 6, 63, "bit i: queue i of ldw, lda, sto, mxu, vec, act"),),
        "stop dispatching until the masked engines are empty",
        "for each q in mask: wait(outstanding[q] == 0)",
        drains="mask",
        example=Example("mask=0x3", note="wait until ldw and lda have finished"),
    ),
    Instruction(
        "loop",
        0x04,
        Engine.CTL,
        (
            _int("level", 2, None, "loop level; levels of nested loops differ"),
            _int("len", 16, None, "instructions in the body, which follows"),
            _int("count", 24, 0, "trip count"),
            _flag("dyn", "take the trip count from `s`"),
            _scalar("s", 0, "scalar register with the trip count"),
        ),
        "repeat the next `len` instructions",
        "for i[level] in range(S[s] if dyn else count): execute the next len instructions",
        example=Example(
            "level=0, len=2, count=3", body=("salu f=add, d=s1, a=s1, bi, imm=0x1", "nop"), note="s1 becomes 3"
        ),
    ),
    Instruction(
        "salu",
        0x05,
        Engine.CTL,
        (
            _choice("f", 4, SALU, None, "operation"),
            _scalar("d", None, "destination"),
            _scalar("a", 0, "first operand"),
            _scalar("b", 0, "second operand"),
            _flag("bi", "use `imm` as the second operand"),
            _int("imm", 32, 0, "immediate"),
        ),
        "scalar integer arithmetic, 32-bit, wrapping",
        "y = imm if bi else S[b]; S[d] = y if f == mov else f(S[a], y)",
        alters=True,
        example=Example("f=ceildiv, d=s2, a=s1, bi, imm=0x10", note="s2 = ceil(s1 / 16)"),
    ),
    Instruction(
        "sld",
        0x06,
        Engine.CTL,
        (
            _scalar("d", None, "destination"),
            _view("v", Access.R, "1 1 1", (Dtype.I32,), (Space.SRAM, Space.DRAM), "where to read"),
            _int("off", 24, 0, "elements to add"),
        ),
        "load a scalar register; dispatch waits for its dependence counts",
        "S[d] = v[0, 0, off]",
        alters=True,
        example=Example("d=s1, v=v1, off=0x2", note="the third element"),
    ),
    Instruction(
        "vset",
        0x08,
        Engine.CTL,
        (
            Field("v", 5, Kind.VIEW, doc="view register to define"),
            _choice("space", 2, ("sram", "acc", "dram")),
            _choice("region", 3, tuple(r.name.lower() for r in Region), 0, "DRAM region"),
            _choice("dtype", 4, tuple(d.name.lower() for d in Dtype)),
            _int("base", 36, None, "first byte, a multiple of the element's size"),
            _int("rs", 24, 0, "row stride in elements"),
            _int("ps", 24, 0, "plane stride in elements"),
            Field("cs", 1, default=1, doc="column stride: 1, or 0 to repeat one element along the row"),
        ),
        "define a view: element (p, r, c) is at base + (p*ps + r*rs + c*cs) elements",
        "V[v] = view(space, region, dtype, base, rs, ps, cs); forget its increments",
        example=Example("v=v1, space=sram, dtype=i8, base=0x400, rs=128", note="rows of 128 bytes from 0x400 on"),
    ),
    Instruction(
        "vinc",
        0x09,
        Engine.CTL,
        (
            Field("v", 5, Kind.VIEW, doc="view register"),
            _int("level", 2, None, "loop level"),
            _int("inc", 36, None, "bytes to add per step"),
            _int("div", 8, 1, "the loop index is divided by this first"),
            _int("mod", 12, 0, "then taken modulo this; 0: not at all"),
        ),
        "make a view move with a loop, for ping-pong buffers and repeated layers",
        "while inside loop level: base(V[v]) += inc * ((i[level] // div) % mod)",
        example=Example("v=v1, level=0, inc=0x1000, mod=2", note="two buffers of 4 KiB in turns"),
    ),
    Instruction(
        "vadd",
        0x0A,
        Engine.CTL,
        (
            Field("v", 5, Kind.VIEW, doc="view register"),
            _scalar("s", None, "scalar register"),
            _int("scale", 32, 1, "bytes per unit"),
        ),
        "move a view by a run-time amount (a KV position)",
        "base(V[v]) += S[s] * scale",
        alters=True,
        example=Example("v=v1, s=s1, scale=64", note="64 bytes for each unit of s1"),
    ),
    Instruction(
        "ldw",
        0x20,
        Engine.LDW,
        (
            _out("d", _FULL, ANY, "destination", _SRAM_ONLY),
            _in("a", _FULL, ANY, "source", _DRAM_ONLY),
            *_DMA,
            *_DYN_PRC,
        ),
        "copy DRAM to SRAM on the weight queue",
        "d[p, r, c] = a[p, r, c]",
        Cost("dma"),
        example=Example("d=v1, a=v2, rows=16, cols=64", dtypes={"d": Dtype.I8, "a": Dtype.I8}),
    ),
    Instruction(
        "lda",
        0x21,
        Engine.LDA,
        (
            _out("d", _FULL, ANY, "destination", _SRAM_ONLY),
            _in("a", _FULL, ANY, "source", _DRAM_ONLY),
            *_DMA,
            *_DYN_PRC,
        ),
        "copy DRAM to SRAM on the activation queue",
        "d[p, r, c] = a[p, r, c]",
        Cost("dma"),
        example=Example("d=v1, a=v2, rows=8, cols=32", dtypes={"d": Dtype.F32, "a": Dtype.F32}),
    ),
    Instruction(
        "gather",
        0x22,
        Engine.LDA,
        (
            _out("d", "1 n cols", ANY, "destination rows", _SRAM_ONLY),
            replace(_in("a", "1 limit cols", ANY, "table", _DRAM_ONLY), partial=True),
            _in("idx", "1 n 1", (Dtype.I32,), "row numbers", _SRAM_ONLY),
            _int("n", 16, None, "rows to fetch"),
            _int("cols", 20, None, "columns"),
            _int("limit", 24, None, "rows of the table; an index outside traps"),
            *_dyn("n", "cols", "limit"),
        ),
        "fetch rows of a table by index (embedding)",
        "trap unless 0 <= idx[i] < limit; d[0, i, c] = a[0, idx[0, i, 0], c]",
        Cost("dma"),
        example=Example(
            "d=v1, a=v2, idx=v3, n=4, cols=32, limit=100",
            "lda<=0",
            {"d": Dtype.F32, "a": Dtype.F32},
            note="four rows of a table of 100",
        ),
    ),
    Instruction(
        "sto",
        0x23,
        Engine.STO,
        (
            _out("d", _FULL, ANY, "destination", _DRAM_ONLY),
            _in("a", _FULL, ANY, "source", _SRAM_ONLY),
            *_DMA,
            *_DYN_PRC,
        ),
        "copy SRAM to DRAM",
        "d[p, r, c] = a[p, r, c]",
        Cost("dma"),
        example=Example("d=v1, a=v2, rows=8, cols=32", "vec<=0", {"d": Dtype.F32, "a": Dtype.F32}),
    ),
    Instruction(
        "mm",
        0x40,
        Engine.MXU,
        (
            replace(
                _out("c", "b m n", (Dtype.I32, Dtype.F32), "result", (Space.ACC,)),
                when=(When("acc", 1, access=Access.RW),),
            ),
            _in("a", "b m k", (Dtype.I8, *FLOATS), "left operand", _SRAM_ONLY),
            replace(
                _in("w", "b k n", (Dtype.I8, Dtype.I4, *FLOATS), "weights", _SRAM_ONLY),
                when=(When("wt", 1, dims=("b", "n", "k")),),
            ),
            _int("m", 14, None, "rows of a"),
            _int("n", 16, None, "columns of the result"),
            _int("k", 16, None, "length of the dot products"),
            _int("b", 8, 1, "planes (heads)"),
            _flag("acc", "add to c instead of overwriting it"),
            _flag("wt", "w is stored transposed, as (b, n, k)"),
            _choice("fmt", 1, MM_FORMAT, 0, "arithmetic"),
            *_dyn("m", "n", "k"),
        ),
        "matrix product, exact in int32, or float32 in a fixed order",
        "i8:    c[b,m,n] (+)= sum_k a[b,m,k] * w[b,k,n]                         (int32, wrapping)\n"
        "float: for k ascending: c = c + a[b,m,k] * w[b,k,n], product and sum each rounded to float32",
        Cost("mxu", 1, {"i8_mac": 1}),
        example=Example("c=v1, a=v2, w=v3, m=8, n=16, k=32", "ldw<=0, lda<=0", note="8x32 int8 times 32x16 int8"),
    ),
    Instruction(
        "mmg",
        0x41,
        Engine.MXU,
        (
            replace(
                _out("c", "1 m n", (Dtype.F32,), "result", (Space.ACC,)),
                when=(When("acc", 1, access=Access.RW),),
            ),
            _in("a", "1 m k", (Dtype.I8,), "left operand", _SRAM_ONLY),
            _in("w", "1 n k", (Dtype.I8, Dtype.I4), "weight codes", _SRAM_ONLY),
            _in("sa", "1 m g", FLOATS, "scale of each row and group of a", _SRAM_ONLY),
            _in("sw", "1 n g", FLOATS, "scale of each row and group of w", _SRAM_ONLY),
            _opt("zw", "1 n g", FLOATS, "what each row and group of w adds per unit of a", _SRAM_ONLY),
            _opt("ss", "1 n j", (Dtype.I8,), "integer scale of each row and sub-block of w", _SRAM_ONLY),
            _opt("sm", "1 n j", (Dtype.I8,), "integer factor of zw of each row and sub-block", _SRAM_ONLY),
            _int("m", 14, None, "rows of a"),
            _int("n", 16, None, "rows of w, columns of the result"),
            _int("k", 16, None, "length of the dot products"),
            _int("glog", 2, 0, "a group g has 32 << glog elements of k"),
            _int("slog", 1, 0, "a sub-block j has 16 << slog elements of k"),
            _choice("nib", 2, NIBBLES, 0, "the codes of an i4 w: -8 to 7, 0 to 15, or twice the number that e2m1 says"),
            _flag("pre", "the scale of w multiplies first"),
            _flag("half", "sa, and the multiplier of zw, are rounded to float16 where they scale"),
            _flag("acc", "add to c instead of overwriting it"),
            *_dyn("m", "n", "k"),
        ),
        "matrix product of codes with scales per group of k: the bits of ggml's block formats",
        "without ss: for g ascending: c_g = sum_{k in g} a[m,k] * w[n,k]                             (exact int32)\n"
        "            t = (f32(c_g) * sw[n,g]) * sa[m,g] if pre else f32(c_g) * (sw[n,g] * sa[m,g])\n"
        "            t = t + zw[n,g] * h(f32(sum_{k in g} a[m,k]) * sa[m,g])                         (if zw)\n"
        "            c = c + t                    (from c if acc, else from 0)       h: to float16 if half, as sa in t\n"
        "with ss:    for g ascending: s = sw[n,g] * sa[m,g], and for lane l = 0 to 7:\n"
        "            lane[l] = lane[l] + f32(sum_{k in g, k mod 8 = l} ss[n,j(k)] * w[n,k] * a[m,k]) * s\n"
        "            low = low + f32(sum_{j in g} sm[n,j] * sum_{k in j} a[m,k]) * (zw[n,g] * sa[m,g])      (if zw)\n"
        "            c = low; for l = 0 to 7: c = c + lane[l]",
        Cost("mxu", 1, {"i8_mac": 1, "f32_mul": 1 / 16, "f32_add": 1 / 32}),
        example=Example(
            "c=v1, a=v2, w=v3, sa=v4, sw=v5, m=8, n=16, k=64, pre",
            "ldw<=0, vec<=0",
            {"w": Dtype.I4, "sa": Dtype.F16, "sw": Dtype.F16},
            note="the product of GGUF's Q4_0",
        ),
    ),
    Instruction(
        "vop",
        0x60,
        Engine.VEC,
        (
            _choice("f", 5, VOP, None, "operation"),
            replace(
                _out("d", _FULL, (*INTS, *FLOATS), "destination"), when=(When("f", VOP.index("sel"), access=Access.RW),)
            ),
            _in("a", _FULL, (*INTS, *FLOATS), "first operand"),
            _opt("b", _FULL, (*INTS, *FLOATS), "second operand; absent: `imm`"),
            *_PRC,
            Field("imm", 32, Kind.F32, 0, doc="float32 (or int32 in an integer instruction) used when `b` is absent"),
            *_DYN_PRC,
        ),
        "elementwise arithmetic; integer when every view is, else float32, rounded to the type of d",
        "y = b[p,r,c] or imm; d[p,r,c] = f(a[p,r,c], y)      mov: d = a; eq ne lt le: 1 or 0; sel: d = d if a != 0 else y",
        Cost("vec", 1, {"f32_add": 1}),
        example=Example(
            "f=mul, d=v1, a=v2, b=v3, rows=8, cols=32", "lda<=0", {"d": Dtype.F32, "a": Dtype.F32, "b": Dtype.F32}
        ),
    ),
    Instruction(
        "vred",
        0x61,
        Engine.VEC,
        (
            _choice("f", 4, VRED, None, "reduction"),
            replace(
                _out("d", "planes rows 1", (Dtype.I32, *FLOATS), "one value per row (per column with `down`)"),
                when=(When("down", 1, dims=("planes", "1", "cols")),),
            ),
            _in("a", _FULL, (*INTS, *FLOATS), "operand"),
            _opt("sub", _FULL, FLOATS, "subtracted from every element first"),
            *_REDUCED,
            _flag("down", "reduce over rows instead: d is (planes, 1, cols)"),
            *_DYN_PRC,
        ),
        "reduce rows in the fixed order of the numeric contract",
        "x = a - sub; d[p,r,0] = f over c of x[p,r,c]",
        Cost("vec", 1, {"f32_add": 1}),
        example=Example(
            "f=max, d=v1, a=v2, rows=8, cols=32",
            "lda<=0",
            {"d": Dtype.F32, "a": Dtype.F32},
            note="the largest of each row",
        ),
    ),
    Instruction(
        "vaff",
        0x62,
        Engine.VEC,
        (
            _out("d", _FULL, FLOATS, "destination"),
            _in("a", _FULL, (*INTS, *FLOATS), "operand"),
            _opt("sub", _FULL, FLOATS, "subtracted first"),
            _opt("rs", _FULL, FLOATS, "first multiplier (row scale)"),
            _opt("cs", _FULL, FLOATS, "second multiplier (column scale)"),
            _opt("bi", _FULL, FLOATS, "added then (bias, mask)"),
            _opt("res", _FULL, FLOATS, "added last (residual)"),
            _out("tap", "planes rows 1", FLOATS, "reduction of the stored values of each row", optional=True),
            *_PRC,
            _choice("red", 3, TAP, 0, "what `tap` holds"),
            _choice("rnd", 2, ROUND, 0, "type of the value between the steps"),
            *_DYN_PRC,
        ),
        "affine: dequantize, bias, residual, normalise; with a row reduction on the way out",
        "t = f32(a); t = t - sub; t = rnd(t * rs); t = rnd(t * cs + bi); t = t + res; d = t; tap = red over c of d\n"
        "each step only if its view is present, each rounded to float32; rnd also rounds to its type where shown",
        Cost("vec", 1, {"f32_add": 2, "f32_mul": 2}),
        example=Example(
            "d=v1, a=v2, rs=v3, cs=v4, bi=v5, rows=8, cols=16",
            "mxu<=0",
            {"a": Dtype.I32},
            note="dequantize: row scale, column scale, bias",
        ),
    ),
    Instruction(
        "vqd",
        0x63,
        Engine.VEC,
        (
            _out("d", _FULL, (Dtype.I8,), "quantized rows"),
            _out("s", "planes rows 1", FLOATS, "scale of each row, rounded to this view's type"),
            _in("a", _FULL, FLOATS, "operand"),
            _opt("rs", _FULL, FLOATS, "first multiplier"),
            _opt("cs", _FULL, FLOATS, "second multiplier"),
            _opt("am", "planes rows 1", FLOATS, "absmax of each row, when the producer has it already"),
            *_PRC,
            *_DYN_PRC,
            _choice("norm", 2, VQD_NORM, 0, "how the scale and the multiplier follow from the absmax"),
            _choice("ties", 1, TIES, 0, "where halves are rounded to"),
        ),
        "dynamic symmetric int8 quantization of each row",
        "x = (a * rs) * cs; m = absmax over c; d = clamp(round(x * i), -128, 127), NaN -> 0, with\n"
        "half_range: s = max(rnd(m / 127.5), 2**-23), i = 1 / s\n"
        "scale:      s = m / 127, i = 1 / s, stored as rnd(s)            i = 0 where it is not finite\n"
        "multiplier: i = 127 / m, s = 1 / i, stored as rnd(s)            the same, after s is known",
        Cost("vec", 2, {"f32_mul": 2}),
        example=Example("d=v1, s=v2, a=v3, rows=8, cols=32", "lda<=0", note="int8 rows and their scales"),
    ),
    Instruction(
        "act",
        0x80,
        Engine.ACT,
        (
            _choice("f", 4, ACT, None, "function"),
            _out("d", "1 rows cols", FLOATS, "destination"),
            _in("a", "1 rows cols", (*INTS, *FLOATS), "operand"),
            _opt("bi", "1 rows cols", FLOATS, "added after the scale (subtracted with `neg`)"),
            _out(
                "sum",
                "1 rows 1",
                FLOATS,
                "sum of the results of each row, before rounding to the type of d",
                optional=True,
            ),
            _int("rows", 14, None, "rows"),
            _int("cols", 18, None, "columns"),
            Field("scale", 32, Kind.F32, 0x3F800000, doc="float32 multiplier"),
            _flag("neg", "subtract `bi`"),
            *_dyn("rows", "cols"),
        ),
        "transcendental functions, all at the same cost, with a row sum on the way out",
        "t = a * scale; t = t + bi (or t - bi); y = f(t); d = y; sum = sum over c of y",
        Cost("act", 1, {"act": 1}),
        example=Example("f=gelu_erf, d=v1, a=v2, rows=8, cols=32", "vec<=0", {"a": Dtype.F32}),
    ),
)

ISA: dict[str, Instruction] = {row.mnemonic: row for row in _ROWS}
ALSO_CALLED: Mapping[str, str] = {  # what other machines call these instructions: for the assembler's "did you mean"
    other: mnemonic
    for mnemonic, others in {
        "vaff": "madd fma fmadd mac axpy affine muladd mla scale bias layernorm norm dequantize dequant addmul",
        "mm": "gemm matmul dot mma matrix conv linear bmm mvm mv",
        "mmg": "mul_mat group gmm wxa8 w4a8",
        "vqd": "quantize quant quant8 qnt cvt convert",
        "vred": "reduce red rowsum redsum",
        "vop f=mov": "copy",
        "vop f=sel": "select where cmov merge blend",
        "vop f=lt": "cmp compare gt ge",
        "vop f=mul": "multiply",
        "vop f=add": "plus",
        "vop f=sub": "minus",
        "vop f=div": "divide",
        "act f=gelu_erf": "gelu",
        "act f=silu": "swish",
        "act f=recip": "rcp reciprocal inv",
        "act f=exp": "expf softmax",
        "act f=tanh": "tanhf",
        "act f=sigmoid": "logistic",
        "act": "activation lut",
        "lda": "ld load dma dmain read mvin",
        "ldw": "ldweights loadw preload",
        "sto": "st store str sta dmaout write mvout save",
        "gather": "embedding embed lookup index take",
        "sld": "lds lw sload ldr",
        "salu": "alu li addi scalar movi",
        "fence": "barrier wait sync membar dmb",
        "loop": "for repeat rep do jnz bnz while",
        "halt": "stop exit ret return end hlt quit",
        "vset": "setv view setview vld def",
        "vinc": "incv step stride",
        "nop": "noop pass",
    }.items()
    for other in others.split()
}
BY_OPCODE: dict[int, Instruction] = {row.opcode: row for row in _ROWS}

assert not ALSO_CALLED.keys() & ISA.keys(), "what is an instruction itself needs no other name"
assert len(BY_OPCODE) == len(ISA) == len(_ROWS), "two instructions share a name or an opcode"
assert all(len({*f.choices}) == len(f.choices) <= 1 << f.bits for row in _ROWS for f in row.fields), (
    "choices that text cannot tell apart"
)
assert not any(row.opcode in EXTENSION_OPCODES for row in _ROWS), "an opcode that is left to extensions"
assert all(HEADER_BITS + sum(f.bits for f in row.fields) <= 8 * WORD_BYTES for row in _ROWS), "a word is too long"

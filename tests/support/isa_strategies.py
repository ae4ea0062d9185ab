"""Random legal instructions and programs, drawn from the ISA table."""

from hypothesis import strategies as st

from isa.architecture import NO_WAIT, QUEUES
from isa.asm.assemble import assemble
from isa.codec import Inst, encode
from isa.fields import Field, Instruction
from isa.image.image import Image
from isa.spec import ISA

SMALL_TEXT = """
.chip "edge"
.region const bytes=8
.hex const "0011223344556677"
.region in bytes=64
.region out bytes=64
.region state bytes=64
.region params bytes=4
.entry name="main", pc=main
.input name="x", shape=[2,8], dtype="int64", storage=i32, region=in
.output name="y", shape=[2,8], dtype="int32", storage=i32, region=out
.scalar name="length", offset=0, maximum=8
.entry name="second", pc=second
.state name="cache", shape=[4,4], dtype="float32", storage=f32, region=state
.constant name="c", shape=[2], dtype="float32", storage=f32, region=const
.meta "model"="tests", "options"={"seed":1,"ratio":0.5,"names":["a; b","c"]}
main:
  vset v=v1, space=dram, region=in, dtype=i32, base=0, rs=8
  vset v=v2, space=sram, dtype=i32, base=0, rs=8
  vset v=v3, space=dram, region=out, dtype=i32, base=0, rs=8
  lda d=v2, a=v1, rows=2, cols=8
second:
  vop f=add, d=v2, a=v2, rows=2, cols=8, imm=0x1 @ lda<=0
  sto d=v3, a=v2, rows=2, cols=8 @ vec<=0, dbg
  halt
.plan name="x", space=sram, offset=0, bytes=0x40, first=3, last=5
.node name="add", op="aten.add", shape=[2,8], dtype="int32", file="m.py", line=3, code="x + 1", origins=["add"], passes=["fuse"]
.probe pc=0x40, operand="d", nodes=[0], rs=8, steps=[{"level":0,"inc":16}]
.span first=0x40, end=0x60, nodes=[0]
"""


def small_image() -> Image:
    """An image with something in every section."""
    return assemble(SMALL_TEXT)


def _value(field: Field) -> st.SearchStrategy[int]:
    top = (len(field.choices) if field.choices else 1 << field.bits) - 1
    values = st.one_of(st.integers(0, top), st.sampled_from([0, top]))
    return values if field.default is None else st.one_of(st.just(field.default), values)


def _deps() -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(0, NO_WAIT)] * len(QUEUES))


def of_row(row: Instruction) -> st.SearchStrategy[Inst]:
    operands = st.tuples(*map(_value, row.fields))
    return st.builds(Inst, st.just(row.mnemonic), operands, _deps(), st.integers(0, 1))


insts = st.sampled_from(sorted(ISA)).flatmap(lambda mnemonic: of_row(ISA[mnemonic]))
words = st.one_of(insts.map(encode), insts.map(encode), st.binary(min_size=16, max_size=16))

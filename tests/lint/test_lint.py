"""The static verifier beyond tests/lint/test_lint_faults.py: warnings, what findings say, buffers, types that do not go
together."""

import dataclasses

import pytest

from isa.architecture import Space
from isa.asm.assemble import assemble
from isa.image.image import Image
from isa.image.records import PlanRecord
from lint.analyse import check, lint
from tools.mutation.subjects import MODELS, subject

HEAD = """
.region in bytes=64
.region out bytes=64
.entry name="main", pc=0
.input name="x", shape=[16], dtype="float32", storage=f32, region=in
.output name="y", shape=[16], dtype="float32", storage=f32, region=out
vset v=v1, space=dram, region=in, dtype=f32, base=0
vset v=v2, space=sram, dtype=f32, base=0
vset v=v3, space=dram, region=out, dtype=f32, base=0
vset v=v4, space=sram, dtype=i8, base=64
vset v=v5, space=sram, dtype=f32, base=128
vset v=v6, space=sram, dtype=i32, base=192
lda d=v2, a=v1, rows=1, cols=16
"""
SOUND = (
    HEAD + "vop f=add, d=v2, a=v2, rows=1, cols=16, imm=1.0 @ lda<=0\nsto d=v3, a=v2, rows=1, cols=16 @ vec<=0\nhalt\n"
)


def program(*lines: str) -> Image:
    return assemble(HEAD + "\n".join(lines) + "\nsto d=v3, a=v2, rows=1, cols=16 @ lda<=0, vec<=0\nhalt\n")


def warnings(image: Image) -> list[tuple[str, str]]:
    return [(finding.kind, finding.message) for finding in lint(image) if finding.severity == "warning"]


def test_a_clean_program_has_no_finding_at_all() -> None:
    """Breaks when lint warns about what is needed."""
    assert lint(assemble(SOUND)) == []


def test_a_wait_that_others_imply_is_found() -> None:
    """Breaks when transitive knowledge is not used: the store waits for VEC, which waited for the load."""
    found = warnings(assemble(SOUND.replace("@ vec<=0", "@ lda<=0, vec<=0")))
    assert [kind for kind, _ in found] == ["wait"] and "lda<=0 can never matter" in found[0][1]


def test_a_wait_for_words_that_do_not_exist_is_found() -> None:
    """Breaks when a count above the number of words dispatched is taken for a wait."""
    assert "wait" in dict(warnings(assemble(SOUND.replace("@ lda<=0", "@ lda<=0, mxu<=2"))))


def test_a_fence_that_orders_nothing_is_found() -> None:
    """Breaks when only dependence counts are questioned. Of two fences of which one is needed, one is needless, not
    both."""
    text = (
        SOUND.replace("vop f=add", "fence mask=2\nfence mask=2\nvop f=add")
        .replace(" @ lda<=0", "")
        .replace("sto d", "fence mask=3\nsto d")
    )
    found = [
        (finding.pc, finding.severity)
        for finding in lint(assemble(text))
        if "fence can never matter" in finding.message
    ]
    assert found == [(0x70, "warning"), (0xA0, "warning")]


def test_a_fence_that_orders_something_is_not() -> None:
    """Breaks when a fence is called needless although a word behind it relies on it, in one turn of a loop only
    perhaps."""
    assert lint(assemble(SOUND.replace("vop f=add", "fence mask=2\nvop f=add").replace(" @ lda<=0", ""))) == []
    turns = "loop level=0, len=3, count=3\nfence mask=16\nlda d=v2, a=v1, rows=1, cols=16 @ lda<=0\nvop f=add, d=v2, a=v2, rows=1, cols=16, imm=1.0 @ lda<=0\n"
    looped = SOUND.replace("vop f=add, d=v2, a=v2, rows=1, cols=16, imm=1.0 @ lda<=0\n", turns)
    assert not [finding for finding in lint(assemble(looped)) if "fence" in finding.message]


def test_what_halt_waits_for_need_not_be_waited_for() -> None:
    """Breaks when a count or fence before the end passes, which waits for everything in any case."""
    assert [kind for kind, _ in warnings(assemble(SOUND.replace("halt", "fence\nhalt @ sto<=0")))] == ["wait", "wait"]


def test_unreachable_words_are_found() -> None:
    """Breaks when words behind the halt go unnoticed."""
    assert dict(warnings(assemble(SOUND + "nop\nnop\nhalt\n")))["unreachable"].startswith("3 instructions")


def test_dead_stores_are_found() -> None:
    """Breaks when a result that nobody reads goes unnoticed, or one that is read later is called dead."""
    image = program("vop f=mul, d=v5, a=v2, rows=1, cols=16, imm=2.0 @ lda<=0")
    assert [kind for kind, _ in warnings(image)] == ["wait", "dead"] or [kind for kind, _ in warnings(image)] == [
        "dead",
        "wait",
    ]
    used = program("vop f=mul, d=v5, a=v2, rows=1, cols=16, imm=2.0 @ lda<=0", "vop f=mov, d=v2, a=v5, rows=1, cols=16")
    assert "dead" not in dict(warnings(used))


def test_an_optional_result_that_nobody_reads_is_found() -> None:
    """Breaks when only whole words count as dead stores."""
    image = program("act f=exp, d=v2, a=v2, sum=v5, rows=1, cols=16 @ lda<=0", "fence")
    assert "operand sum" in dict(warnings(image))["dead"]


def test_findings_name_node_and_conflicting_instruction() -> None:
    """Breaks when a finding does not say where it comes from."""
    image = assemble(
        SOUND.replace(" @ lda<=0", "") + '.node name="add", op="aten.add"\n.span first=0x70, end=0x80, nodes=[0]\n'
    )
    finding = check(image)[0]
    assert (finding.kind, finding.pc, finding.other, finding.node, finding.severity) == (
        "race",
        0x70,
        0x60,
        "add",
        "error",
    )
    assert finding.instruction.startswith("vop f=add") and finding.other_instruction.startswith("lda d=v2")
    assert "may be running" in finding.message and "of add" in str(finding)


@pytest.mark.parametrize(
    "line",
    [
        "lda d=v4, a=v1, rows=1, cols=16 @ lda<=0",
        "mm c=v2, a=v4, w=v4, m=1, n=1, k=1 @ lda<=0",
        "vop f=mov, d=v4, a=v2, rows=1, cols=16 @ lda<=0",
        "vop f=add, d=v4, a=v2, rows=1, cols=16 @ lda<=0",
        "vop f=and, d=v2, a=v2, rows=1, cols=16 @ lda<=0",
        "vred f=argmax, d=v5, a=v2, rows=1, cols=16 @ lda<=0",
        "vred f=sum, d=v6, a=v2, rows=1, cols=16 @ lda<=0",
        "vaff d=v2, a=v2, tap=v5, rows=1, cols=16 @ lda<=0",
        "vaff d=v2, a=v2, red=max, rows=1, cols=16 @ lda<=0",
    ],
)
def test_types_that_do_not_go_together_are_found(line: str) -> None:
    """Breaks when a word that traps for its types passes."""
    assert "kind" in {finding.kind for finding in check(program(line))}


def test_two_results_of_one_word_may_not_share_memory() -> None:
    """Breaks when the order of two writes of one word is left to chance."""
    assert "overlap" in {
        finding.kind for finding in check(program("act f=exp, d=v2, a=v2, sum=v2, rows=1, cols=16 @ lda<=0"))
    }


@pytest.mark.parametrize(("last", "size", "found"), [(40, 64, False), (7, 64, True), (40, 60, True)])
def test_operands_must_lie_inside_a_live_buffer(last: int, size: int, found: bool) -> None:
    """Breaks when a word may use memory that the plan has given to nobody, or not any more."""
    image = dataclasses.replace(assemble(SOUND), plan=(PlanRecord("x", Space.SRAM, 0, size, 0, last),))
    assert ("buffer" in {finding.kind for finding in check(image)}) == found


def test_operands_must_stay_inside_one_tensor_of_the_interface() -> None:
    """Breaks when a load may read beyond its input."""
    image = assemble(
        SOUND.replace(".region in bytes=64", ".region in bytes=128").replace("base=0\nvset v=v2", "base=4\nvset v=v2")
    )
    assert "buffer" in {finding.kind for finding in check(image)}


@pytest.mark.parametrize("name", MODELS)
def test_compiled_programs_have_no_finding(name: str) -> None:
    """Breaks when the compiler emits a fault or what can never matter, or lint calls sound code faulty."""
    assert lint(subject(name, inputs=1).image) == []


@pytest.mark.parametrize(("limit", "found"), [(8, False), (9, True)])
def test_a_gathered_table_ends_where_its_constant_ends(limit: int, found: bool) -> None:
    """Breaks when a gather may fetch a row behind its table, which no legal index shows: what lies there belongs to
    another constant."""
    text = f"""
.const name=table, shape=[8, 16], dtype=float32, fill=1
.const name=other, shape=[8, 16], dtype=float32, fill=2
.const name=rows, shape=[4], dtype=int32, values=[0, 7, 3, 3]
.entry name=main, pc=0
.output name=y, shape=[4, 16], dtype=float32
vset v=v1, space=dram, region=const, dtype=f32, base=table, rs=16
vset v=v2, space=dram, region=const, dtype=i32, base=rows
vset v=v3, space=sram, dtype=i32, base=0x1000, rs=1
vset v=v4, space=sram, dtype=f32, base=0, rs=16
vset v=v5, space=dram, region=out, dtype=f32, base=y, rs=16
lda d=v3, a=v2, rows=1, cols=4
gather d=v4, a=v1, idx=v3, n=4, cols=16, limit={limit} @ lda<=0
sto d=v5, a=v4, rows=4, cols=16 @ lda<=0
halt
"""
    kinds = {finding.kind for finding in check(assemble(text))}
    assert kinds == ({"buffer"} if found else set())


def test_a_plan_of_impossible_buffers_is_a_finding() -> None:
    """Breaks when a damaged plan, with a buffer larger than any memory, ends in an exception (found by the fuzzer)."""
    image = dataclasses.replace(assemble(SOUND), plan=(PlanRecord("x", Space.SRAM, 0, 2**80, 0, 40),))
    assert "plan" in {finding.kind for finding in check(image)}

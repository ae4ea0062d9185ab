"""The measure of the checkers: faults seeded into compiled programs, all caught or proved harmless."""

import dataclasses
import os
from random import Random
from unittest.mock import patch

import pytest

from isa.architecture import WORD_BYTES
from isa.asm.assemble import assemble
from isa.codec import Inst, encode
from tools.mutate import measure, table
from tools.mutation.faults import FAULTS, mutants
from tools.mutation.score import Verdict
from tools.mutation.subjects import subject
from tools.mutation.values import fingerprint

EACH = 5 if "LLMCHIP_EXAMPLES" in os.environ else 3  # faults of each kind


def hold(verdicts: list[Verdict]) -> None:
    """The targets: nothing survives; lint finds at least 99 % of races and bounds faults."""
    text = table(verdicts) + "\n" + "\n".join(v.what for v in verdicts if v.survived)
    duty = [verdict for verdict in verdicts if verdict.must_lint]
    assert not [verdict for verdict in verdicts if verdict.survived], text
    assert duty and sum(bool(verdict.lint) for verdict in duty) >= 0.99 * len(duty), text


def test_every_fault_in_a_small_program_is_caught_or_harmless() -> None:
    """Breaks when lint, the overlapped runs and the proof of harmlessness together miss a fault."""
    hold(measure(["loop", "mlp", "attention"], each=EACH, seed=3, thorough=False))


@pytest.mark.slow
def test_every_fault_in_larger_programs_is_caught_or_harmless() -> None:
    """As above, in BERTs."""
    hold(measure(["bert-1", "bert-2"], each=20, seed=4))


def test_every_kind_of_fault_finds_a_place() -> None:
    """Breaks when a kind of fault silently yields no mutants, or yields the unchanged program."""
    image, loop = subject("mlp", inputs=1).image, subject("loop", inputs=1).image
    for kind in FAULTS:
        made = list(mutants(loop if kind == "change step" else image, kind, Random(0), 5))
        assert made and all(mutant.image.code not in (image.code, loop.code) for mutant in made), kind


def test_symbols_tell_programs_apart_and_equal_ones_together() -> None:
    """Breaks when the proof of harmlessness is too weak (independent words in another order) or too strong (another
    constant)."""
    image = subject("mlp", inputs=1).image
    words = [image.inst(pc) for pc in range(0, len(image.code), WORD_BYTES)]

    def with_words(changed: dict[int, Inst]) -> bytes | None:
        return fingerprint(
            dataclasses.replace(image, code=b"".join(encode(changed.get(i, inst)) for i, inst in enumerate(words)))
        )

    plain = fingerprint(image)
    acts = [i for i, inst in enumerate(words) if inst.mnemonic == "act"]
    scaled = Inst("act", tuple({**words[acts[0]].named(), "scale": 0x40000000}.values()))
    sets = next(
        i
        for i in range(len(words))
        if words[i].mnemonic == words[i + 1].mnemonic == "vset" and words[i].operands[0] != words[i + 1].operands[0]
    )
    assert plain is not None and with_words({}) == plain
    assert with_words({sets: words[sets + 1], sets + 1: words[sets]}) == plain
    assert with_words({acts[0]: scaled}) != plain


def test_symbols_know_that_a_table_has_one_plane() -> None:
    """Breaks when the proof of harmlessness takes a stride for a change that no element is read by (a survivor of
    `make mutate`)."""
    text = """
.const name=table, shape=[8, 16], dtype=float32, fill=1
.const name=rows, shape=[4], dtype=int32, values=[0, 7, 3, 3]
.entry name=main, pc=0
.output name=y, shape=[4, 16], dtype=float32
vset v=v1, space=dram, region=const, dtype=f32, base=table, rs=16{}
vset v=v2, space=dram, region=const, dtype=i32, base=rows
vset v=v3, space=sram, dtype=i32, base=0x1000, rs=1
vset v=v4, space=sram, dtype=f32, base=0, rs=16
vset v=v5, space=dram, region=out, dtype=f32, base=y, rs=16
lda d=v3, a=v2, rows=1, cols=4
gather d=v4, a=v1, idx=v3, n=4, cols=16, limit=8 @ lda<=0
sto d=v5, a=v4, rows=4, cols=16 @ lda<=0
halt
"""
    plain, planes, base = (fingerprint(assemble(text.format(more))) for more in ("", ", ps=1", ", ps=0, cs=0"))
    assert plain is not None and planes == plain and base != plain


def test_words_without_a_rule_are_never_taken_for_equal() -> None:
    """Breaks when the proof of harmlessness passes a word that it does not know: what it reads and its operands
    count."""
    from tools.mutation import values

    text = """
.region in bytes=0x400
.region out bytes=0x400
.entry name="main", pc=0
.input name="x", shape=[{n}], dtype="float32", storage=f32, region=in
.output name="y", shape=[32], dtype="float32", storage=f32, region=out
vset v=v1, space=dram, region=in, dtype=f32, base=0
vset v=v2, space=sram, dtype=f32, base=0
vset v=v3, space=sram, dtype=f32, base=0x100
vset v=v4, space=dram, region=out, dtype=f32, base=0
lda d=v2, a=v1, rows=1, cols=32
act f={f}, d=v3, a=v2, rows=1, cols=32 @ lda<=0
sto d=v4, a=v3, rows=1, cols=32 @ act<=0
halt
"""
    known = {name: rule for name, rule in values._RULES.items() if name != "act"}
    with patch.object(values, "_RULES", known):
        found = [
            values.fingerprint(assemble(text.format(f=f, n=n))) for f, n in (("exp", 32), ("exp", 32), ("tanh", 32))
        ]
    assert found[0] == found[1] != found[2] and found[0] is not None

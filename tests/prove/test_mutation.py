"""The measure of the checkers: faults seeded into compiled programs, all caught or proved harmless."""

import dataclasses
from random import Random

import pytest

from isa.codec import Inst, encode
from isa.spec import ISA, WORD_BYTES
from tools.mutate import measure, table
from tools.mutation.faults import FAULTS, mutants
from tools.mutation.score import Verdict
from tools.mutation.subjects import subject
from tools.mutation.values import fingerprint


def hold(verdicts: list[Verdict]) -> None:
    """The targets: nothing survives; lint finds at least 99 % of races and bounds faults."""
    text = table(verdicts) + "\n" + "\n".join(v.what for v in verdicts if v.survived)
    duty = [verdict for verdict in verdicts if verdict.must_lint]
    assert not [verdict for verdict in verdicts if verdict.survived], text
    assert duty and sum(bool(verdict.lint) for verdict in duty) >= 0.99 * len(duty), text


def test_every_fault_in_a_small_program_is_caught_or_harmless() -> None:
    """Breaks when lint, the overlapped runs and the proof of harmlessness together miss a fault."""
    hold(measure(["loop", "mlp", "attention"], each=5, seed=3, thorough=False))


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
    """Breaks when the proof of harmlessness is too weak (independent words in another order) or too strong (another constant)."""
    image = subject("mlp", inputs=1).image
    words = [image.inst(pc) for pc in range(0, len(image.code), WORD_BYTES)]

    def with_words(changed: dict[int, Inst]) -> bytes | None:
        return fingerprint(dataclasses.replace(image, code=b"".join(encode(changed.get(i, inst)) for i, inst in enumerate(words))))

    plain = fingerprint(image)
    acts = [i for i, inst in enumerate(words) if inst.mnemonic == "act"]
    scaled = Inst("act", tuple({**words[acts[0]].named(), "scale": 0x40000000}.values()))
    sets = next(i for i in range(len(words)) if words[i].mnemonic == words[i + 1].mnemonic == "vset" and words[i].operands[0] != words[i + 1].operands[0])
    assert plain is not None and with_words({}) == plain
    assert with_words({sets: words[sets + 1], sets + 1: words[sets]}) == plain
    assert with_words({acts[0]: scaled}) != plain


def test_every_engine_word_has_symbols() -> None:
    """Breaks when the table gains a word that the proof of harmlessness does not know."""
    from tools.mutation.values import _RULES

    assert set(_RULES) == {name for name, row in ISA.items() if row.views and row.engine.value != "ctl"}

"""A wrong program must be caught: the comparison is of the image's own words, not of what the compiler meant."""

from dataclasses import replace

import pytest
import torch
from runtime_models import Mlp, make

import llmchip
from isa.architecture import WORD_BYTES
from isa.codec import Inst, encode
from runtime.debug.bisect import bisect
from runtime.debug.reference import of_lowered
from runtime.program import Program
from runtime.pytorch.tensors import to_array
from runtime.verify.verify import Verification, verify_image


@pytest.fixture(scope="module")
def program() -> Program:
    return llmchip.compile(make(Mlp), (torch.zeros(2, 3, 12),))


X = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(2))


def mutated(program: Program, pc: int, inst: Inst) -> Verification:
    """Verify with the word at `pc` replaced."""
    code = bytearray(program.image.code)
    code[pc : pc + WORD_BYTES] = encode(inst)
    return verify_image(replace(program.image, code=bytes(code)), program.compiled, {"x": to_array(X)})


def find(program: Program, mnemonic: str, having: str = "") -> tuple[int, Inst]:
    for pc in range(0, len(program.image.code), WORD_BYTES):
        inst = program.image.inst(pc)
        if inst.mnemonic == mnemonic and (not having or inst.named()[having]):
            return pc, inst
    raise AssertionError(f"the program has no {mnemonic}")


def changed(inst: Inst, **values: int) -> Inst:
    operands = {**inst.named(), **values}
    return Inst(inst.mnemonic, tuple(operands[f.name] for f in inst.row.fields), inst.deps, inst.dbg)


def test_swapped_operands_are_located(program: Program) -> None:
    """The first linear's epilogue adds the scale and multiplies by the bias."""
    pc, inst = find(program, "vaff", having="cs")
    named = inst.named()
    found = mutated(program, pc, changed(inst, cs=named["bi"], bi=named["cs"]))
    assert not found.bit_exact
    assert found.first_divergence is not None
    assert found.first_divergence["pc"] == pc
    assert found.first_divergence["node"] == "dequantize"
    assert "runtime_models.py" in found.first_divergence["source"]
    assert found.first_divergence["expected"] != found.first_divergence["actual"]
    assert len(found.first_divergence["index"]) == 3
    assert found.mismatched_nodes > 1


def test_first_divergence_is_the_first_element_in_execution_order(program: Program) -> None:
    pc, inst = find(program, "act")
    found = mutated(program, pc, changed(inst, f=0 if inst.named()["f"] else 1))
    assert found.first_divergence is not None
    assert found.first_divergence["pc"] == pc


def test_a_dropped_dependence_is_not_bit_exact(program: Program) -> None:
    """In program order the bits are right; on the chip they would depend on timing. Breaks if verify only looks at the
    bits."""
    code = program.image
    for pc in range(0, code.words * 16, 16):
        inst = code.inst(pc)
        if any(count != 7 for count in inst.deps) and inst.row.engine.value in ("mxu", "vec", "act", "sto"):
            found = mutated(program, pc, Inst(inst.mnemonic, inst.operands))
            assert not found.bit_exact
            assert found.findings
            assert f"{pc:#06x}" in " ".join(found.findings)
            return
    raise AssertionError("no word waits for anything")


def test_a_word_left_out_is_caught(program: Program) -> None:
    """Its memory was never written, so the reader traps."""
    pc, _ = find(program, "vqd")
    with pytest.raises(llmchip.Trap, match="never written"):
        mutated(program, pc, Inst.make("nop"))


def test_an_output_stored_only_in_part_is_caught(program: Program) -> None:
    """What is missing happens to be right here (False is 0); in a second call it would be the first one's result."""
    stores = [pc for pc in range(0, len(program.image.code), WORD_BYTES) if program.image.inst(pc).mnemonic == "sto"]
    inst = program.image.inst(stores[-1])
    with pytest.raises(llmchip.Trap, match="without writing all of output 'positive'"):
        mutated(program, stores[-1], changed(inst, cols=inst.named()["cols"] - 1))


def test_a_store_of_other_memory_is_located_by_its_output(program: Program) -> None:
    """Nothing probes a store, so only the comparison of outputs can see it."""
    pc, inst = next(
        (pc, i)
        for pc in range(0, len(program.image.code), WORD_BYTES)
        if (i := program.image.inst(pc)).mnemonic == "sto"
    )
    found = mutated(program, pc, changed(inst, a=find(program, "vred")[1].named()["a"]))
    assert found.first_divergence is not None
    assert found.first_divergence["pc"] == pc
    assert found.first_divergence["node"] == "layer_norm"


def test_an_image_of_another_model_is_refused(program: Program) -> None:
    other = llmchip.compile(make(Mlp, width=12, hidden=21), (torch.zeros(2, 3, 12),))
    with pytest.raises(llmchip.InputError, match="which the model does not have"):
        verify_image(other.image, program.compiled, {"x": to_array(X)})


def test_weights_of_another_model_are_found(program: Program) -> None:
    """Same program, one packed weight bit flipped: outputs differ and the first bad node is named."""
    weights = bytearray(program.image.weights)
    weights[0] ^= 0x40
    found = verify_image(replace(program.image, weights=bytes(weights)), program.compiled, {"x": to_array(X)})
    assert not found.bit_exact
    assert found.first_divergence is not None


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x, x * 2])


def test_an_input_without_dimensions() -> None:
    """Breaks when it reaches the reference as a vector of one element."""
    pair, x = llmchip.compile(Pair().eval(), (torch.tensor(3.0),)), torch.tensor(5.0)
    assert pair.verify(x).bit_exact
    assert bisect(pair.image, pair.compiled, {"x": x}) is None
    stacked = pair.compiled.lowered.main.graph.output_node().all_input_nodes[0].name
    assert of_lowered(pair.compiled.lowered)({"x": to_array(x)})(stacked).shape == (2,)

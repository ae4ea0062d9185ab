"""The Python API: compile, call, save, load, verify. Each test's name says what would break it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from runtime_models import Mlp, make, python, tiny_bert

import llmchip
from runtime.program import Program


@pytest.fixture(scope="module")
def program() -> Program:
    return llmchip.compile(make(Mlp), (torch.zeros(2, 3, 12),))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1))


def test_call_gives_the_models_structure_and_types(program: Program, x: torch.Tensor) -> None:
    result, expected = program(x), make(Mlp)(x)
    assert result.keys() == expected.keys()
    assert result["positive"].dtype is torch.bool
    assert (result["y"] - expected["y"]).abs().max() < 0.05
    assert torch.equal(program(x=x)["y"], result["y"])


def test_reference_is_stock_pytorch_and_gives_the_same_bits(program: Program, x: torch.Tensor) -> None:
    reference = program.reference
    assert not [n for n in reference.graph.nodes if getattr(n.target, "namespace", "") == "llmchip"]
    assert torch.equal(reference(x)["y"], program(x)["y"])


def test_verify_compares_every_node_or_says_why_not(program: Program, x: torch.Tensor) -> None:
    found = program.verify(x)
    assert found.bit_exact
    assert found.first_divergence is None
    assert found.nodes + len(found.skipped) == found.graph_nodes
    assert all(entry["reason"].split(":")[0] in ("fused", "view", "folded") for entry in found.skipped)
    assert found.float is not None
    assert found.float["cosine"] > 0.999
    assert found.as_dict()["outputs"] == found.outputs == 2


def test_another_shape_names_both(program: Program) -> None:
    with pytest.raises(llmchip.InputError, match=r"'x' has shape \[1, 3, 12\].*compiled for \[2, 3, 12\]"):
        program(torch.zeros(1, 3, 12))
    with pytest.raises(llmchip.InputError, match=r"shape \[1, 3, 12\].*compiled for \[2, 3, 12\]"):
        program.reference(torch.zeros(1, 3, 12))


def test_another_float_type_and_unknown_names_are_refused(program: Program, x: torch.Tensor) -> None:
    with pytest.raises(llmchip.InputError, match="'x' is float64, the program was compiled for float32"):
        program(x.double())
    with pytest.raises(llmchip.InputError, match="unknown input 'z'"):
        program(x, z=x)


def test_nan_comes_out_in_one_form(program: Program, x: torch.Tensor) -> None:
    """Breaks if a NaN's sign or payload becomes observable."""
    poisoned = x.clone()
    poisoned[0, 0] = torch.tensor(-0x1, dtype=torch.int32).view(torch.float32)
    bits = program(poisoned)["y"][0, 0].view(torch.int32)
    assert (bits == 0x7FC00000).all()
    assert program.verify(poisoned).bit_exact


def test_saved_image_runs_without_torch_and_gives_the_same_bits(
    program: Program, x: torch.Tensor, tmp_path: Path
) -> None:
    program.save(tmp_path / "mlp.llmchip", {"model": "tests"})
    np.save(tmp_path / "x.npy", x.numpy())
    code = """
import sys, numpy as np, llmchip
loaded = llmchip.load("mlp.llmchip")
assert [(t.name, t.shape, t.dtype) for t in loaded.inputs] == [("x", (2, 3, 12), "float32")], loaded.inputs
result = loaded(x=np.load("x.npy"))
assert list(result) == [t.name for t in loaded.outputs] == ["y", "positive"]
assert result["positive"].dtype == bool
np.save("y.npy", result["y"])
assert loaded.metadata["model"] == "tests" and len(loaded.metadata["weights_sha256"]) == 64, loaded.metadata
assert "torch" not in sys.modules, "running an image imports torch"
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "y.npy").view(np.uint32), program(x)["y"].numpy().view(np.uint32))


def test_inputs_of_a_loaded_image_are_checked_by_name(program: Program, tmp_path: Path) -> None:
    program.save(tmp_path / "mlp.llmchip")
    loaded = llmchip.load(tmp_path / "mlp.llmchip")
    with pytest.raises(llmchip.InputError, match="input 'x' is missing"):
        loaded()
    with pytest.raises(llmchip.InputError, match="float64, the program takes float32"):
        loaded(x=np.zeros((2, 3, 12)))
    with pytest.raises(llmchip.ImageError, match="not for 'server'"):
        llmchip.load(tmp_path / "mlp.llmchip", chip="server")


def test_bert_returns_its_model_output_and_token_ids_are_checked() -> None:
    model = tiny_bert()
    kwargs = {"input_ids": torch.arange(14).reshape(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    kwargs["attention_mask"][0, 4:] = 0
    program = llmchip.compile(model, kwargs)
    result = program(**kwargs)
    assert type(result) is type(model(**kwargs))
    assert (result.last_hidden_state - model(**kwargs).last_hidden_state).abs().max() < 0.05
    assert program.verify(**kwargs).bit_exact
    wrong = {**kwargs, "input_ids": kwargs["input_ids"] + 60 * (kwargs["input_ids"] == 9)}
    with pytest.raises(llmchip.Trap, match=r"input 'input_ids' holds 69 at \[1, 2\]: the table has 60 rows"):
        program(**wrong)
    with pytest.raises(llmchip.InputError, match="'input_ids' holds a value outside"):
        program(**{**kwargs, "input_ids": kwargs["input_ids"] + 2**40})


def test_bfloat16_goes_in_and_out(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.GELU()).bfloat16().eval()
    x = torch.randn(3, 8).bfloat16()
    program = llmchip.compile(model, (x,))
    result = program(x)
    assert result.dtype is torch.bfloat16
    assert program.verify(x).bit_exact
    program.save(tmp_path / "m.llmchip")
    loaded = llmchip.load(tmp_path / "m.llmchip")
    bits = next(iter(loaded(**{loaded.inputs[0].name: x.view(torch.uint16).numpy()}).values()))
    assert np.array_equal(bits, result.view(torch.uint16).numpy())


def test_exported_program_compiles_without_example_inputs(x: torch.Tensor) -> None:
    exported = torch.export.export(make(Mlp), (x,), strict=False)
    assert llmchip.compile(exported).verify(x).bit_exact


def test_unusable_arguments_say_what_to_do() -> None:
    with pytest.raises(llmchip.InputError, match=r"torch\.nn\.Module"):
        llmchip.compile("bert", ())
    with pytest.raises(llmchip.InputError, match="example inputs are missing"):
        llmchip.compile(make(Mlp))
    with pytest.raises(llmchip.CompileError, match=r"train mode.*model\.eval\(\)"):
        llmchip.compile(Mlp().train(), (torch.zeros(2, 12),))
    with pytest.raises(llmchip.CompileError, match="unknown option 'colour'"):
        llmchip.compile(make(Mlp), (torch.zeros(2, 12),), colour=1)


def test_weights_changed_after_compiling_are_not_mixed_with_the_image(x: torch.Tensor) -> None:
    model = make(Mlp)
    program = llmchip.compile(model, (x,))
    before = program(x)["y"]
    with torch.no_grad():
        model.up.weight.mul_(2)
    assert torch.equal(program(x)["y"], before)
    with pytest.raises(llmchip.CompileError, match="weights have changed"):
        program.verify(x)

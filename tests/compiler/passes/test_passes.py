"""Single passes on small graphs: the text of the result, and what is left alone."""

import io
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from models import Function
from torch import fx

from compiler.frontend.capture import capture
from compiler.graph.manager import Pass, PassManager, text
from compiler.lower import lower, pipeline
from compiler.ops import library
from compiler.options import Options
from compiler.passes.canonical_matmul import CanonicalMatmul
from compiler.passes.canonicalize import Canonicalize, ShareEqual
from compiler.passes.quantize import Quantize
from compiler.passes.recognise_activations import RecogniseActivations
from compiler.passes.recognise_attention import RecogniseAttention
from isa.errors import CompileError

X = torch.randn(2, 4, 8)


def after(passes: list[Pass], function: Callable[..., Any], *args: torch.Tensor) -> str:
    """The graph's text after these passes, without its placeholders; also checks that it still runs in PyTorch."""
    captured = capture(Function(function).eval(), args)
    gm = PassManager(passes).run(captured.gm)
    outs = gm(*args, *(captured.tensors[weight.name] for weight in captured.weights))
    assert [out.shape for out in outs] == [info.shape for info in captured.outputs]
    return "\n".join(line for line in text(gm.graph).splitlines() if not line.endswith(("= input", "= weight")))


CANONICAL: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "views merge": (
        lambda m, x: x.transpose(1, 2).transpose(1, 2).unsqueeze(0).squeeze(0).view(2, -1),
        ("view_2: f32[2,32] = aten.reshape(%args_0, [2, 32])", "return [%view_2]"),
    ),
    "copies go": (lambda m, x: x.clone().contiguous() * 1, ("return [%args_0]",)),
    "alpha is written out": (
        lambda m, x: torch.add(x, x, alpha=2),
        (
            "mul: f32[2,4,8] = aten.mul.Tensor(%args_0, 2)",
            "add_1: f32[2,4,8] = aten.add.Tensor(%args_0, %mul)",
            "return [%add_1]",
        ),
    ),
    "expand before arithmetic goes": (
        lambda m, x: x + x[:, :1].expand(2, 4, 8),
        (
            "slice_2: f32[2,1,8] = aten.slice.Tensor(%args_0, 1, 0, 1)",
            "add_1: f32[2,4,8] = aten.add.Tensor(%args_0, %slice_2)",
            "return [%add_1]",
        ),
    ),
    "one place in a list is a slice": (
        lambda m, x: x[:, [-2]],
        ("slice_1: f32[2,1,8] = aten.slice.Tensor(%args_0, 1, 2, 3)", "return [%slice_1]"),
    ),
    "a float sum with zero stays: it turns -0 into +0": (
        lambda m, x: x + 0.0,
        ("add: f32[2,4,8] = aten.add.Tensor(%args_0, 0.0)", "return [%add]"),
    ),
}


@pytest.mark.parametrize("name", CANONICAL)
def test_canonical_forms(name: str) -> None:
    """Breaks if a form changes, or a rule fires where it changes bits."""
    function, expected = CANONICAL[name]
    assert after([Canonicalize()], function, X) == "\n".join(expected)


def test_linear_is_quantized() -> None:
    """Breaks if weights are not quantized per output channel, or the bias is lost."""
    assert after([Canonicalize(), CanonicalMatmul(), Quantize()], lambda m, x: m.lin(x), X) == (
        "quantize_rows: (i8[2,4,8], f32[2,4]) = llmchip.quantize_rows(%args_0)\n"
        "part: i8[2,4,8] = getitem(%quantize_rows, 0)\n"
        "part_1: f32[2,4] = getitem(%quantize_rows, 1)\n"
        "quantize_rows_1: (i8[8,8], f32[8]) = llmchip.quantize_rows(%p_lin_weight)\n"
        "part_2: i8[8,8] = getitem(%quantize_rows_1, 0)\n"
        "part_3: f32[8] = getitem(%quantize_rows_1, 1)\n"
        "matmul_i8: i32[2,4,8] = llmchip.matmul_i8(%part, %part_2, True)\n"
        "dequantize: f32[2,4,8] = llmchip.dequantize(%matmul_i8, %part_1, %part_3, %p_lin_bias)\n"
        "return [%dequantize]"
    )


def test_equal_calls_are_shared() -> None:
    """Breaks if q, k and v quantize their common input three times, or -0.0 is taken for 0.0."""
    assert after([ShareEqual()], lambda m, x: x.exp() * x.exp(), X).count("aten.exp") == 1
    assert after([ShareEqual()], lambda m, x: (x * 0.0, x * -0.0), X).count("aten.mul") == 2


def test_attention_is_recognised() -> None:
    """Breaks if scale or mask are lost."""
    found = after(
        [Canonicalize(), RecogniseAttention()], lambda m, x: (x @ x.mT / 2 + 1e-3 * x[:, :, :4]).softmax(-1) @ x, X
    )
    assert "llmchip.attention(%args_0, %args_0, %args_0, %mul, 0.5, False)" in found


class Spelt(torch.nn.Module):
    """Attention, a step on a line."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = x @ x.mT
        scores = scores / 2
        weights = scores.softmax(-1)
        return weights @ (x + 1)


def test_steps_of_attention_keep_their_lines() -> None:
    """Breaks if scores that a model spells out cost what the line of their product with the values does."""
    graph = lower(capture(Spelt().eval(), (X,))).main.graph
    lines = {node.target: node.meta["source"].code for node in graph.nodes if node.op == "call_function"}
    products = [node.meta["source"].code for node in graph.nodes if node.target is library.matmul_i8]
    assert products == ["scores = x @ x.mT", "return weights @ (x + 1)"]
    assert lines[library.softmax] == "weights = scores.softmax(-1)"


def test_a_scale_written_as_a_tensor_is_a_number() -> None:
    """Breaks if constants of the code are taken for weights: attention would not be recognised."""
    found = after(
        [Canonicalize(), RecogniseAttention()],
        lambda m, x: (x @ x.mT / torch.sqrt(torch.tensor(4.0))).softmax(-1) @ x,
        X,
    )
    assert "llmchip.attention(%args_0, %args_0, %args_0, None, 0.5, False)" in found


def test_attention_whose_weights_are_read_is_left_alone() -> None:
    """Breaks if returned attention weights would be computed twice, differently."""

    def both(m: Any, x: torch.Tensor) -> Any:
        weights = (x @ x.mT).softmax(-1)
        return weights @ x, weights

    assert "llmchip" not in after([Canonicalize(), RecogniseAttention()], both, X)


def test_another_function_is_not_taken_for_gelu() -> None:
    """Breaks if constants are matched too loosely."""
    assert "gelu" not in after(
        [Canonicalize(), RecogniseActivations()], lambda m, x: x * 0.5 * (1 + torch.erf(x / 1.5)), X
    )
    assert "gelu" in after(
        [Canonicalize(), RecogniseActivations()], lambda m, x: x * 0.5 * (1 + torch.erf(x / 2**0.5)), X
    )


def test_manager_prints_stops_and_names_a_broken_pass() -> None:
    """Breaks if --print-after, --stop-after or the error of a broken pass lose their pass."""

    class Broken:
        name: ClassVar[str] = "broken"
        changes_bits: ClassVar[bool] = False
        gone: ClassVar[frozenset[Any]] = frozenset()

        def run(self, gm: fx.GraphModule) -> fx.GraphModule:
            raise ValueError("oh")

    captured = capture(Function(lambda m, x: m.lin(x)).eval(), (X,))
    stream = io.StringIO()
    manager = PassManager([Canonicalize(), CanonicalMatmul()], {"canonicalize"}, "canonicalize", stream=stream)
    manager.run(captured.gm)
    assert stream.getvalue().startswith("# after 00 canonicalize\n")
    assert [timing.name for timing in manager.timings] == ["canonicalize"]
    with pytest.raises(CompileError, match="pass 0 'broken' failed: oh"):
        PassManager([Broken()]).run(captured.gm)


def test_options_come_from_text() -> None:
    """Breaks if a misspelt option, value or pass is accepted."""
    assert Options.from_strings({"fallback": "no", "disable": "share-equal"}) == Options(
        fallback=False, disable=("share-equal",)
    )
    for given, message in (({"chpi": "x"}, "unknown option 'chpi'"), ({"fallback": "maybe"}, "write true or false")):
        with pytest.raises(CompileError, match=message):
            Options.from_strings(given)
    with pytest.raises(CompileError, match="no pass 'nothing'"):
        pipeline(Options(disable=("nothing",)))


def test_lowering_leaves_the_captured_graph_alone() -> None:
    """Breaks if two images of one capture influence each other."""
    captured = capture(Function(lambda m, x: m.lin(x).tanh()).eval(), (X,))
    before = text(captured.gm.graph)
    first, second = lower(captured), lower(captured)
    assert text(captured.gm.graph) == before
    assert text(first.main.graph) == text(second.main.graph)
    assert text(first.pack.graph) == text(second.pack.graph)

"""Capture: names, structure, weights, source lines and clear refusals."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import IDS, MASK, Function, cosine, lowered_of, results, same_bits, tiny_bert
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DynamicCache,
)

from compiler.frontend.capture import capture, from_exported
from compiler.frontend.dynamo import capture_dynamo, roles
from compiler.lower import lower
from isa.errors import CompileError, InputError, UnsupportedError


@pytest.mark.parametrize(
    "kind", [BertForSequenceClassification, BertForMaskedLM, BertForQuestionAnswering, BertForTokenClassification]
)
def test_heads_are_named_and_close_to_the_float_model(kind: type) -> None:
    """Breaks if outputs are misnamed, misordered or lose the model's own class."""
    model = tiny_bert(kind)
    lowered = lowered_of(model, input_ids=IDS, attention_mask=MASK)
    out = lowered.captured.unflatten(results(lowered, input_ids=IDS, attention_mask=MASK))
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=MASK)
    assert type(out) is type(expected)
    for info in lowered.outputs:
        assert cosine(out[info.name], expected[info.name]) > 0.99


def test_inputs_have_the_callers_names_and_any_order() -> None:
    """Breaks if positional and named arguments bind differently, or a missing one goes unnoticed."""
    captured = capture(tiny_bert(BertModel), (IDS,), {"attention_mask": MASK, "return_dict": True})
    assert [info.name for info in captured.inputs] == ["input_ids", "attention_mask"]
    assert captured.flatten((IDS, MASK))[1] is MASK
    assert captured.flatten((), {"attention_mask": MASK, "input_ids": IDS})[0] is IDS
    with pytest.raises(InputError, match="'attention_mask' is missing"):
        captured.flatten((IDS,))
    with pytest.raises(InputError, match="unknown input 'labels'"):
        captured.flatten((IDS, MASK), {"labels": IDS})
    with pytest.raises(InputError, match="return_dict"):
        captured.flatten((IDS, MASK), {"return_dict": False})


def test_structures_keep_their_names() -> None:
    """Breaks if tuples are not output0.., dicts not their keys, a tensor not `output`."""
    x = torch.randn(2, 8)

    def names(f: Callable[..., Any]) -> list[str]:
        return [info.name for info in capture(Function(f).eval(), (x,)).outputs]

    assert names(lambda m, x: x + 1) == ["output"]
    assert names(lambda m, x: (x + 1, x + 2)) == ["output0", "output1"]
    assert names(lambda m, x: {"a": x + 1, "b": [x + 2]}) == ["a", "b_0"]


def test_every_node_knows_the_users_line() -> None:
    """Breaks if a pass forgets metadata or reports torch's own files."""
    lowered = lowered_of(tiny_bert(BertModel), input_ids=IDS, attention_mask=MASK)
    for node in lowered.main.graph.nodes:
        if node.op == "call_function":
            assert "transformers" in node.meta["source"].file, node
            assert node.meta["source"].line > 0
            assert node.meta["origins"], node


class Named(torch.nn.Module):
    """Modules and weights with these names."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in names})
        self.weights = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.randn(4)) for name in names})
        for name in names:
            self.register_buffer(name, torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        for name, module in self.inner.items():
            x = module(x) * self.weights[name] + self.get_buffer(name)
        return x


@pytest.mark.parametrize(
    "names",
    [
        ("class", "def", "None", "lambda"),
        ('a"b', "c'd", "e\\f", "two words", "\n"),
        ("x", "output", "self_1", "ünï", "0"),
    ],
)
def test_any_name_of_a_module_or_weight(names: tuple[str, ...]) -> None:
    """Breaks when a name that Python, or the graph, cannot take as it is costs the model, or is another weight's."""
    model, x = Named(names).eval(), torch.randn(3, 4)
    captured = capture(model, (x,))
    assert {f"inner.{name}.weight" for name in names} <= {weight.name for weight in captured.weights}
    lowered = lower(captured)
    assert cosine(lowered.run((x,), lowered.pack_weights())[0], model(x)) > 0.999


def test_exported_program_file_gives_the_same_bits(tmp_path: Any) -> None:
    """Breaks if .pt2 files lose weights or names."""
    model = Function(lambda m, x: torch.tanh(m.lin(x))).eval()
    x = torch.randn(3, 8)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), buffer)
    buffer.seek(0)
    loaded = lower(from_exported(torch.export.load(buffer)))
    assert same_bits(loaded.run([x], loaded.pack_weights())[0], results(lowered_of(model, x), x)[0])


def test_dynamo_graph_gives_the_same_bits_as_export() -> None:
    """Breaks if weights are taken for inputs, inputs lose their names, or source lines are lost under torch.compile."""
    model = tiny_bert(BertModel)
    ahead = results(lowered_of(model, input_ids=IDS, attention_mask=MASK), input_ids=IDS, attention_mask=MASK)
    seen = []

    def backend(gm: torch.fx.GraphModule, examples: list[Any]) -> Any:
        known = roles(gm, examples)

        def call(*args: Any) -> Any:
            capture = capture_dynamo(gm, args, known)
            lowered = lower(capture.captured)
            seen.append(lowered)
            return lowered.run([args[i] for i in capture.inputs], lowered.pack_weights())

        return call

    torch._dynamo.reset()
    with torch.no_grad():
        compiled: Any = torch.compile(model, backend=backend)
        out = compiled(input_ids=IDS, attention_mask=MASK)
    assert [info.name for info in seen[0].inputs] == ["input_ids", "attention_mask"]
    assert all(same_bits(a, b) for a, b in zip(out.to_tuple(), ahead, strict=True))
    assert any("modeling_bert.py" in str(node.meta.get("source")) for node in seen[0].main.graph.nodes)


def _double() -> torch.nn.Module:
    return torch.nn.Linear(8, 8).double()


REFUSED: list[tuple[torch.nn.Module, Any, type[Exception], str]] = [
    (torch.nn.Linear(8, 8).train(), torch.randn(2, 8), CompileError, "train mode"),
    (_double().eval(), torch.randn(2, 8).double(), UnsupportedError, "float64"),
    (torch.nn.Identity().eval(), torch.randn(2, 8).to(torch.complex64), UnsupportedError, "complex64"),
    (torch.nn.Identity().eval(), torch.eye(3).to_sparse(), UnsupportedError, "sparse"),
    (
        Function(lambda m, x: x.kthvalue(2)[0]).eval(),
        torch.randn(2, 8),
        UnsupportedError,
        r"models.py:\d+.*aten.kthvalue",
    ),
    (Function(lambda m, x: torch.cumprod(x, 0)).eval(), torch.randn(2, 8), UnsupportedError, "aten.cumprod"),
]


@pytest.mark.parametrize(("model", "x", "error", "message"), REFUSED, ids=[case[3][-10:] for case in REFUSED])
def test_what_cannot_be_done_is_refused_by_name(
    model: torch.nn.Module, x: Any, error: type[Exception], message: str
) -> None:
    """Breaks if a refusal turns into a traceback or, worse, a result."""
    with pytest.raises(error, match=message):
        lower(capture(model, (x,)))


def test_a_weight_with_nan_is_named_when_packed() -> None:
    """Breaks if NaN weights are packed silently."""
    model = Function(lambda m, x: m.lin(x)).eval()
    lowered = lowered_of(model, torch.randn(2, 8))
    model.lin.weight.data[0, 0] = float("nan")
    with pytest.raises(CompileError, match=r"lin\.weight"):
        lowered.pack_weights()


def test_a_sequence_longer_than_the_positions_says_so() -> None:
    """Breaks when the user is told of PyTorch's shapes instead of the tokens that are too many."""
    with pytest.raises(InputError, match="the sequence has 41 tokens, the model has 40 positions"):
        capture(tiny_bert(BertModel), (), {"input_ids": torch.ones(1, 41, dtype=torch.long)})


@pytest.mark.parametrize("operation", [lambda m, x: m.lin(x), lambda m, x: x @ x.transpose(0, 1)])
def test_integers_are_not_multiplied_as_floats(operation: Any) -> None:
    """Breaks when integers given to a linear are blamed on the compiler."""
    with pytest.raises(UnsupportedError, match=r"multiplies int64 by (float32|int64): both must be floats"):
        lower(capture(Function(operation).eval(), (torch.ones(3, 8, dtype=torch.long),)))


class Returning(torch.nn.Module):
    """A model of transformers that returns its cache."""

    def forward(self, x: Tensor) -> Any:
        return DynamicCache() if x.dim() else x


class Sized(torch.nn.Module):
    """A size that a tensor holds, and a change in place of what has it."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        size = int(n)
        torch._check(size > 0)
        torch._check(size <= 4)
        y = x[:size].clone()
        y += 1
        return y


def test_what_export_cannot_have_is_said_in_the_models_words() -> None:
    """Breaks when the user must know what a pytree is, or a size that depends on data is called a fault of ours."""
    with pytest.raises(CompileError, match="returns a cache.*use_cache=False"):
        capture(Returning().eval(), (torch.randn(2),))
    with pytest.raises(CompileError, match="depends on data|not fixed"):
        lower(capture(Sized().eval(), (torch.randn(4), torch.tensor(3))))


def test_sizes_that_are_not_fixed_are_refused() -> None:
    """Breaks when a model exported with dynamic shapes is blamed on the compiler."""
    model, dim = torch.nn.Sequential(torch.nn.Linear(8, 8)).eval(), torch.export.Dim("n", min=2, max=10)
    program = torch.export.export(model, (torch.randn(4, 8),), dynamic_shapes=({0: dim},))
    with pytest.raises(UnsupportedError, match="a size that is not fixed"):
        lower(from_exported(program))

"""A program that runs in eager PyTorch runs under torch.compile, and gives eager's results: values, types, strides,
aliasing, effects."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import llmchip
from compiler import pipeline
from isa.errors import Trap
from runtime.pytorch import call, compilation, fallback
from runtime.pytorch import strides as layout
from runtime.pytorch import subgraph as part


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it: what the chip cannot do falls back."""
    monkeypatch.delenv(fallback.STRICT, raising=False)
    fallback.forget()


def compiled(function: Any, **arguments: Any) -> Any:
    return torch.compile(function, backend=llmchip.backend, **arguments)


def tensors(tree: Any) -> list[Tensor]:
    leaves = [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
    return [leaf for leaf in leaves if leaf.layout is torch.strided and not leaf.is_quantized]


def sharing(found: list[Tensor]) -> list[tuple[int, int]]:
    """For each tensor the first one with the same memory, and its distance from that one's first element in bytes."""
    places = [tensor.untyped_storage().data_ptr() for tensor in found]
    first = [places.index(place) for place in places]
    starts = [int(tensor.storage_offset()) * tensor.element_size() for tensor in found]
    return [
        (number, starts[own] - starts[number]) if found[own].numel() else (-1, 0) for own, number in enumerate(first)
    ]


def check_like_eager(function: Callable[..., Any], *args: Any, bound: float = 0.0) -> None:
    """Results and arguments as after eager: structure, type, shape, strides, what shares memory with what, and
    elements."""
    own, others = copy.deepcopy(args), copy.deepcopy(args)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want, got = copy.deepcopy(function)(*own), compiled(copy.deepcopy(function))(*others)
    assert pytree.tree_structure(want) == pytree.tree_structure(got)
    left, right = tensors((others, got)), tensors((own, want))
    for a, b in zip(left, right, strict=True):
        assert (a.shape, a.dtype, a.stride(), a.requires_grad) == (b.shape, b.dtype, b.stride(), b.requires_grad)
        assert (a.is_conj(), a.is_neg()) == (b.is_conj(), b.is_neg())
        if bound and a.is_floating_point():
            assert (a - b).abs().max() <= bound * b.abs().max()
        else:
            assert torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5))
    assert sharing(left) == sharing(right)
    for a, b in zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True):
        assert isinstance(a, Tensor) or a == b


def _across_a_graph_break(x: Tensor) -> Tensor:
    v = x[0]
    torch._dynamo.graph_break()
    v.add_(1)
    return x * 2


def _changed_through_a_view(x: Tensor) -> tuple[Tensor, Tensor]:
    x[1:].mul_(3)
    return x, x[0] + 1


def _overlapping_windows(x: Tensor) -> Tensor:
    return (x * 2).unfold(0, 2, 1)


X = torch.arange(12.0).view(3, 4)
VIEWS: dict[str, Callable[..., Any]] = {
    "views of an argument": lambda x: (x.view(-1), x.view(-1)[1:3], x * 2),
    "an argument itself": lambda x: (x, x.contiguous(), torch.nn.functional.dropout(x, 0.5, False), x + 1),
    "nothing computed": lambda x: x.t(),
    "views of a result": lambda x: (lambda y: (y[0], y, y.t()))(x * 2),
    "views whose owner is not returned": lambda x: (lambda y: (y[0], y[1:]))(x * 2),
    "the same twice": lambda x: (lambda y: (y, y, [y]))(x * 2),
    "permuted": lambda x: (x.t() * 2, (x + 1).t(), (x * 3).t()[1:]),
    "expanded": lambda x: ((x[:1] * 2).expand(5, 4), x[0].expand(3, 4)),
    "every second column": lambda x: (x * 2)[:, ::2],
    "overlapping windows": _overlapping_windows,
    "bits as integers": lambda x: (x.view(torch.int32), x * 2),
    "split and chunk": lambda x: (x * 2).split(2, 1) + tuple(x.chunk(3)),
    "one element": lambda x: (x.sum() * 0, x[0, 0], (x * 2)[1, 1]),
    "no tensor": lambda x: {"a": None, "b": (x.shape[0], 1.5), "c": x * 2},
    "changed": lambda x: (x.add_(1), x * 2),
    "changed through a view": _changed_through_a_view,
    "a graph break": _across_a_graph_break,
    "a dimension of size one": lambda x: (x * 2).view(3, 1, 1, 4).permute(2, 0, 3, 1).view(1, 3, 4),
    "strides that fake tensors do not have": lambda x: (
        x.t() // x[0, :, None],
        torch.flip(x[:0].t(), (0,)),
        torch.frexp(x.t()).mantissa,
    ),
    "such strides beside a change": lambda x: (x.add_(1), x.t() // x[0, :, None]),
    "another layout of the argument": lambda x: x.t_() * 2,
    "strides read by another operation": lambda x: torch.as_strided(
        (x * 2).t().cumsum(0).cumsum(0) * 0 + (x * 2).t(), (2, 2), (1, 3)
    ),
}


@pytest.mark.parametrize("name", VIEWS)
def test_results_share_memory_as_in_eager(name: str) -> None:
    check_like_eager(VIEWS[name], X)


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "float64": (lambda x: x * 2 + 1, (torch.ones(3, dtype=torch.float64),)),
    "a float64 that only passes": (lambda x, y: (x, y * 2), (torch.ones(3, dtype=torch.float64), torch.ones(2))),
    "float64 beside float32": (
        lambda x, y: (x.cumsum(0) * 2, y * 2),
        (torch.ones(3, dtype=torch.float64), torch.ones(2)),
    ),
    "complex": (lambda x: x * 2, (torch.ones(3, dtype=torch.complex64),)),
    "complex inside": (lambda x: torch.view_as_real(torch.view_as_complex(x * 2) * 1j), (torch.ones(3, 2),)),
    "values beyond 32 bits": (lambda x: (x > 3, x // 2), (torch.tensor([2**40, 1]),)),
    "conjugated when it is read": (lambda x: torch.fft.ifft(x, n=8, dim=0, norm="ortho"), (torch.ones(3, 2),)),
    "negated when it is read": (lambda x: torch.fft.fft(x).conj().imag, (torch.ones(3, 2),)),
    "sparse": (lambda x: x.to_dense() * 2, (torch.eye(3).to_sparse(),)),
    "quantized": (lambda x: x.dequantize() * 2, (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),)),
    "a bound that is data": (lambda x, i: torch.narrow(x, 0, i, 2) * 2, (torch.arange(8.0), torch.tensor(1))),
    "dropout that drops nothing": (lambda x: torch.nn.functional.dropout(x, 0.0, True) * 2, (torch.ones(3),)),
    "a condition": (lambda x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,)), (torch.ones(3),)),
    "a checkpoint": (lambda x: checkpoint(torch.neg, x, use_reentrant=False), (torch.ones(3),)),
    "a gradient inside": (lambda x: torch.func.grad(lambda x: (x * x).sum())(x) + 1, (torch.ones(3),)),
    "vmap inside": (lambda x: torch.vmap(lambda x: (x * 2).cumsum(0))(x), (torch.ones(3, 4),)),
    "an index outside on the chip, not in PyTorch": (lambda x, i: x[i] * 2, (torch.arange(8.0), torch.tensor([-1, 2]))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_chip_has_not_runs_in_pytorch(name: str) -> None:
    function, args = REFUSED[name]
    check_like_eager(function, *args)


@pytest.mark.parametrize(("dtype", "value"), [(torch.uint8, 200), (torch.int16, 30000)], ids=["uint8", "int16"])
def test_narrow_integers_wrap_where_eager_wraps_them(dtype: torch.dtype, value: int) -> None:
    """Breaks when a type that is kept in 32 bits computes there: 200 + 200 must be 144 before anything reads it."""
    x = torch.tensor([value, 1, 0, 7], dtype=dtype)
    check_like_eager(lambda x: (x + x, x * 3, (x + x).int(), x * 3 > x, -x - x, (x * 3).float() * 0.5), x)


def test_changed_memory_is_compared_by_address() -> None:
    """Breaks when memory that two storages share is taken for two memories: numpy's, here."""

    def changes(x: Tensor, y: Tensor) -> Tensor:
        x.add_(1)
        return y * 2

    memory = np.zeros(5, np.float32)
    with pytest.warns(UserWarning, match="whose memory another argument shows"):
        got = compiled(changes)(torch.from_numpy(memory[:4]), torch.from_numpy(memory[1:]))
    assert got.tolist() == [2, 2, 2, 0]


def test_parts_of_one_memory_that_are_apart_stay_on_the_chip() -> None:
    """Breaks when a cache whose halves are changed (one storage) runs in PyTorch, or when what really must runs there
    without a word."""
    linear = torch.nn.Linear(64, 64).requires_grad_(False)

    def adds(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        a.add_(x)
        b.add_(x)
        result: Tensor = linear(x)
        return result

    program, x, cache = compiled(adds, options={"fallback": False}), torch.randn(4, 64), torch.zeros(2, 4, 64)
    got = program(cache[0], cache[1], x)
    assert not torch.equal(got, linear(x)) and torch.equal(cache, torch.stack([x, x]))
    interleaved = torch.zeros(4, 2, 64)
    program(interleaved[:, 0], interleaved[:, 1], x)
    assert torch.equal(interleaved, torch.stack([x, x], 1))
    with pytest.raises(llmchip.UnsupportedError, match="whose memory another argument shows"):
        program(cache[0], cache.view(8, 64)[2:6], x)


def test_whether_slices_meet_is_known_exactly() -> None:
    """Breaks when columns of one tensor count as sharing memory because they lie between one another, or elements in
    common are not seen."""
    memory = torch.arange(60)
    whole = memory.view(3, 4, 5)
    slices = [
        whole[i, j:n, ::k] for i in (slice(0, 2), slice(1, 3)) for j, n in ((0, 2), (1, 4), (2, 4)) for k in (1, 2)
    ]
    slices += [whole[..., i:n] for i, n in ((0, 2), (1, 3), (2, 5))] + [
        memory.as_strided((4, 2), (5, 7), start) for start in range(9)
    ]
    for a in slices:
        for b in slices:
            shared = bool(set(a.flatten().tolist()) & set(b.flatten().tolist()))
            assert layout.meet(a, b) == shared or (a.stride() != b.stride() and not shared)


@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (0, 1), (2, 0), (1, 3)])
def test_any_strides_can_be_laid(stride: tuple[int, int]) -> None:
    """Breaks when windows that overlap, which a piece of a graph may give, come out row-major: the next piece may read
    by strides."""
    windows = torch.arange(9.0).as_strided((3, 2), stride)
    lay = layout.laying((3, 2), stride)
    assert lay is not None
    laid = lay(windows.contiguous())
    assert laid.stride() == stride and torch.equal(laid, windows)


def test_views_of_arguments_that_shared_memory_once() -> None:
    """Breaks when a result is bound to the argument that owned its memory when the graph was compiled."""

    def views(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a * 2, b.t()

    program, x, other = compiled(views), torch.arange(16.0).view(4, 4), torch.ones(2, 4)
    program(x, x[2:])
    assert program(x, other)[1].untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def test_places_counted_from_the_start_of_memory() -> None:
    """Breaks when they are taken for distances from an argument's first element, or a change there for one of the
    argument's elements."""

    def shows(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.as_strided((2,), (1,), 0), x + 1

    def changes(x: Tensor) -> Tensor:
        x.as_strided((2,), (1,), 0).add_(1)
        return x * 2

    base = torch.arange(8.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = compiled(shows)
        assert [program(base[start : start + 2])[0].tolist() for start in (2, 4)] == [[0, 1], [0, 1]]
        compiled(changes)(base[2:4])
    assert base.tolist() == [1, 2, 2, 3, 4, 5, 6, 7]


def test_numbers_that_are_equal_but_not_the_same_have_programs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when -0.0 runs the program made for 0.0, or every call with NaN makes a new one."""
    made: list[Any] = []

    def counted(*args: Any) -> Any:
        made.append(args)
        return call.compiled(*args)

    monkeypatch.setattr("runtime.pytorch.backend.compiled", counted)
    program, x = compiled(lambda x, s: x + s, dynamic=True), torch.tensor([-0.0, 1.0])
    with torch.no_grad():
        for number in (1.5, 0.0, -0.0, float("nan"), float("nan")):
            assert str(program(x, number)) == str(x + number)
    assert len(made) == 4


def test_random_numbers_that_nobody_reads_are_drawn() -> None:
    """Breaks when they are left out: those after them are others, and the generator stays behind."""

    def draws(x: Tensor) -> Tensor:
        torch.rand(3)
        return torch.rand(x.shape) * x

    def run(function: Callable[..., Tensor]) -> list[Any]:
        torch.manual_seed(0)
        return [function(X).tolist(), torch.rand(1).item()]

    with torch.no_grad(), pytest.warns(UserWarning, match="random numbers that nothing reads"):
        assert run(compiled(draws)) == run(draws)


def test_a_warning_made_an_error_is_that_warning() -> None:
    """Breaks when pytest -W error is told of a fault of llmchip instead of what falls back."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match=r"aten\.cummax is not something the chip can do \(options"):
            compiled(_highest)(torch.ones(4))
    assert not any(found.fault for found in llmchip.fallbacks())


def test_infinite_weights_are_no_broken_checkpoint() -> None:
    class Masked(torch.nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
            self.bias = torch.nn.Parameter(torch.full((4,), float("-inf")))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cumprod((x + self.mask).clamp(min=-9) + self.bias.clamp(min=-5), 0)

    check_like_eager(Masked().eval(), torch.randn(4, 4))


def test_train_mode_is_pytorchs() -> None:
    """Breaks when statistics are not counted, or random numbers are not eager's."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)).train()
    program, eager, x = compiled(copy.deepcopy(model)), model, torch.randn(6, 4)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="train mode"):
        got = program(x)
    torch.manual_seed(0)
    assert torch.equal(got, eager(x))
    got.sum().backward()
    assert torch.equal(program.get_buffer("1.running_mean"), eager.get_buffer("1.running_mean"))


def test_a_norm_that_stores_statistics_is_pytorchs_in_train_mode_only() -> None:
    """Breaks when an instance norm's statistics are not counted, or a norm that has none is called one in train mode."""
    x = torch.randn(2, 3, 4, 4)
    model = torch.nn.InstanceNorm2d(3, track_running_stats=True).train()
    eager = copy.deepcopy(model)
    with torch.no_grad(), pytest.warns(UserWarning, match="train mode"):
        assert torch.equal(compiled(model)(x), eager(x))
    assert torch.equal(model.get_buffer("running_mean"), eager.get_buffer("running_mean"))
    fallback.forget()
    for norm in (torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d):
        check_like_eager(norm(3, track_running_stats=False).eval(), x, bound=1e-5)
    assert not llmchip.fallbacks()


def test_gradients_are_the_float_models() -> None:
    model, x = torch.nn.Linear(4, 3).eval(), torch.randn(2, 4, requires_grad=True)
    program = compiled(model)
    with pytest.warns(UserWarning, match="no backward pass"):
        program(x).square().sum().backward()
    assert x.grad is not None and model.weight.grad is not None
    (want,) = torch.autograd.grad(model(x).square().sum(), x)
    assert torch.allclose(x.grad, want, rtol=0.05, atol=0.05)


def test_tangents_are_not_lost() -> None:
    model, x, v = torch.nn.Linear(3, 3).eval(), torch.randn(2, 3), torch.randn(2, 3)
    program = compiled(lambda x: torch.tanh(model(x)))
    with forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = forward_ad.unpack_dual(program(forward_ad.make_dual(x, v))).tangent
        want = forward_ad.unpack_dual(torch.tanh(model(forward_ad.make_dual(x, v)))).tangent
    assert torch.equal(got, want)


def test_assertions_hold() -> None:
    def positive(x: Tensor) -> Tensor:
        torch._assert_async((x > 0).all(), "it must be positive")  # what Dynamo makes of an assert
        return x * 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = compiled(positive)
        assert torch.equal(program(torch.ones(3)), torch.full((3,), 2.0))
        with pytest.raises(RuntimeError, match="it must be positive"):
            program(torch.tensor([1.0, -1.0, 1.0]))


def test_autocast_inside_and_around() -> None:
    linear, x = torch.nn.Linear(8, 8).eval(), torch.randn(3, 8)

    def inside(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y: Tensor = linear(x)
        return y.float() + x

    def around(x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return compiled(lambda x: (linear(x), torch.cumsum(linear(x), 0)))(x)

    check_like_eager(inside, x, bound=0.05)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert [y.dtype for y in around(x)] == [y.dtype for y in (linear(x), torch.cumsum(linear(x), 0))]


def _highest(x: Tensor) -> Tensor:
    return torch.cummax(x * 2, 0)[0] + 1


def test_each_piece_is_told_once_at_the_users_line_and_recorded() -> None:
    with torch.no_grad(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        program = compiled(_highest)
        program(torch.randn(4)), program(torch.randn(4))
    assert len(said) == 1 and said[0].filename == __file__
    assert "test_fallback.py" in str(said[0].message) and "aten.cummax" in str(said[0].message)
    [found] = llmchip.fallbacks()
    assert (
        found.operator == "aten.cummax"
        and "torch.cummax(x * 2, 0)" in found.line
        and (found.count, found.fault) == (1, False)
    )
    assert found.reason in str(said[0].message)


def test_a_module_of_torchs_own_is_told_at_the_users_line() -> None:
    """Breaks when a line of llmchip or of torch stands for that of the user, where the model has none."""
    with torch.no_grad(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        compiled(torch.nn.MaxPool2d(2, return_indices=True))(torch.randn(1, 2, 4, 4))  # this line
    assert [warning.filename for warning in said] == [__file__]
    [found] = llmchip.fallbacks()
    assert found.line.startswith(f"{__file__}:{said[0].lineno}: ") and found.line.endswith("# this line")


def test_lines_without_a_file_are_the_users() -> None:
    """Breaks when code of `python -c` or of a terminal counts as torch's."""
    code = compile("def model(x):\n    return x.cummax(0)[0]\n", "<string>", "exec")
    given: dict[str, Any] = {}
    exec(code, given)
    with torch.no_grad(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        compiled(given["model"])(torch.randn(4))
    assert [warning.filename for warning in said] == ["<string>"]
    assert [found.line for found in llmchip.fallbacks()] == ["<string>:1: "]  # of its text Dynamo knows nothing


def test_what_depends_on_data_is_no_fault() -> None:
    """Breaks when sizes that Dynamo cannot know (it hands them out with fullgraph=True) are told as a fault of
    llmchip."""
    program = compiled(lambda x: torch.unique(x, return_inverse=True), fullgraph=True)
    with torch.no_grad(), pytest.warns(UserWarning, match="depends on data"):
        assert all(map(torch.equal, program(X), torch.unique(X, return_inverse=True)))
    assert [found.fault for found in llmchip.fallbacks()] == [False]


def test_a_list_among_results_is_no_fault() -> None:
    """Breaks when an operation whose results are a tensor and a list of tensors is told as a fault of llmchip."""
    program = compiled(lambda x: torch.histogramdd(x * 2, [2, 2]))
    with torch.no_grad(), pytest.warns(UserWarning, match="histogramdd"):
        both = program(X[:, :2]), torch.histogramdd(X[:, :2] * 2, [2, 2])
    assert all(map(torch.equal, *([x.hist, *x.bin_edges] for x in both)))
    assert not any(found.fault for found in llmchip.fallbacks())


def test_faults_fall_back_and_name_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.pytorch.compilation.finish", lambda *args: [][0])
    with torch.no_grad(), pytest.warns(UserWarning, match="fault of llmchip, please report it with"):
        assert torch.equal(compiled(lambda x: x * 2)(X), X * 2)
    [found] = llmchip.fallbacks()
    assert found.fault and "IndexError" in Path(found.report).read_text()
    Path(found.report).unlink()


def test_a_fault_that_only_cuts_the_graph_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the compiler fails on a graph whose pieces it can do, and nobody learns of it."""
    finish = pipeline.finish

    def fails_on_two(lowered: Any, *rest: Any) -> Any:
        assert len([n for n in lowered.main.graph.nodes if n.op == "call_function"]) < 2, "too much"
        return finish(lowered, *rest)

    monkeypatch.setattr(compilation, "finish", fails_on_two)
    with (
        torch.no_grad(),
        pytest.warns(UserWarning, match="runs the graph in smaller pieces.*too much; this is a fault of llmchip"),
    ):
        assert torch.equal(compiled(lambda x: x * 2 + 1)(X), X * 2 + 1)
    [found] = llmchip.fallbacks()
    assert found.fault and found.operator == "the graph in smaller pieces"
    Path(found.report).unlink()


def test_a_trap_costs_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    def trap(*args: Any) -> Any:
        raise Trap("an illegal word", 3)

    program = compiled(lambda x: x * 2)
    with torch.no_grad():
        program(X)
        monkeypatch.setattr(part, "bind", trap)
        with pytest.warns(UserWarning, match="an illegal word; this is a fault of llmchip"):
            assert torch.equal(program(X), X * 2)
        monkeypatch.undo()
        assert torch.equal(program(X), X * 2)
    Path(llmchip.fallbacks()[-1].report).unlink()


def test_what_pytorch_refuses_too_is_pytorchs_error() -> None:
    table = torch.nn.Embedding(4, 3).eval()
    with torch.no_grad(), pytest.raises(IndexError):
        compiled(table)(torch.tensor([9]))
    assert not llmchip.fallbacks()
    padding = compiled(lambda x: torch.nn.functional.pad(x, (1, 1), value=1e6) * 2)
    with (
        torch.no_grad(),
        pytest.warns(UserWarning, match="fails in PyTorch, too"),
        pytest.raises(RuntimeError, match="without overflow"),
    ):
        padding(torch.ones(2, 4).half())
    assert not any(found.fault for found in llmchip.fallbacks())


@pytest.mark.parametrize("strict", [False, True])
def test_errors_instead_of_fallbacks(strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals are errors with fallback=False, and in a strict environment unless asked for; faults in both."""
    if strict:
        monkeypatch.setenv(fallback.STRICT, "1")
    options = {} if strict else {"options": {"fallback": False}}
    with torch.no_grad():
        with pytest.raises(llmchip.UnsupportedError, match=r"aten\.cummax"):
            compiled(_highest, **options)(torch.randn(4))
        monkeypatch.setattr("runtime.pytorch.compilation.finish", lambda *args: [][0])
        with pytest.raises(llmchip.InternalError, match="IndexError"):
            compiled(lambda x: x * 2, **options)(X)


def test_a_weight_that_cannot_be_packed_costs_its_operation_only() -> None:
    """Breaks when one bad weight sends a whole model to PyTorch, or ends it."""
    first, second = torch.nn.Linear(4, 4).eval(), torch.nn.Linear(4, 4).eval()
    second.weight.data[0, 0] = float("nan")
    with torch.no_grad(), pytest.warns(UserWarning, match="NaN"):
        got = compiled(torch.nn.Sequential(first, second))(torch.ones(2, 4))
    assert got[:, 0].isnan().all() and not got[:, 1:].isnan().any()
    assert len(llmchip.fallbacks()) == 1


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_what_pytorch_traces_as_something_else(reduction: str) -> None:
    """Breaks when a loss is what PyTorch's decomposition makes of it, which adds terms that eager does not have."""
    loss = torch.nn.MultiLabelMarginLoss(reduction=reduction)
    x, labels = torch.tensor([0.5, -1.0, 0.25, 2.0, 0.0]), torch.tensor([2, -1, -1, -1, 0])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = compiled(lambda x: loss(x, labels) * 2)(x)
    assert torch.equal(found, loss(x, labels) * 2)
    assert any("multilabel_margin_loss" in str(warning.message) for warning in told)

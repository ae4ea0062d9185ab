"""What an outside user met: programs that must run as in eager PyTorch, told by name or not at all."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import llmchip
from isa.errors import InputError, InternalError, interrupted
from runtime.pytorch import fallback


@pytest.fixture(autouse=True)
def _fresh() -> None:
    fallback.forget()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    found: Callable[..., Any] = torch.compile(function, backend="llmchip")
    return found


def cube(x: Tensor) -> Tensor:
    return (x * x * x).sum()


TRANSFORMS: dict[str, Callable[[Tensor], Any]] = {
    "grad": torch.func.grad(cube),
    "hessian": torch.func.hessian(cube),
    "jacfwd": torch.func.jacfwd(lambda x: x * x),
    "jacrev": torch.func.jacrev(lambda x: x * x),
    "jvp": lambda x: torch.func.jvp(cube, (x,), (x,))[1],
    "vjp": lambda x: torch.func.vjp(cube, x)[0],
    "cond in vmap": lambda x: torch.func.vmap(
        lambda r: torch.cond(x.sum() > 0, lambda r: r * 2, lambda r: r + 1, (r,))
    )(x),
    "vmap of grad": lambda x: torch.func.vmap(torch.func.grad(cube))(x[None]),
    "vmap of vmap": lambda x: torch.func.vmap(torch.func.vmap(lambda r: r * 2 + 1))(x[None]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_inside_the_frame(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a transform is traced half-way: what it entered stays entered, and eager PyTorch itself fails from
    then on."""
    monkeypatch.delenv(fallback.STRICT, raising=False)
    x, function = torch.tensor([1.0, 2.0, -3.0]), TRANSFORMS[name]
    with pytest.warns(UserWarning, match="inside the compiled function"):
        got = compiled(lambda x: function(x))(x)
    assert torch.equal(got, function(x))
    assert torch.equal(torch.func.jacfwd(lambda x: x * x)(x), torch.diag(2 * x))


def test_one_vmap_after_the_other_stays_on_the_chip() -> None:
    """Breaks when transforms are counted instead of their depth."""
    x = torch.tensor([1.0, 2.0, -3.0])

    def function(x: Tensor) -> Tensor:
        result: Tensor = torch.func.vmap(lambda r: r * 2)(x) + torch.func.vmap(lambda r: r + 1)(x)
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(function)(x), function(x))


TABLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "computed": lambda i, t: functional.embedding(i, t + 1),
    "transposed": lambda i, t: functional.embedding(i, (t + 1).T),
    "by its own column": lambda i, t: functional.embedding(i, t * t[:, :1]) + 1,
    "of one row": lambda i, t: functional.embedding(i, (t + 1)[:1].expand(4, t.shape[1])),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("shape", [(4, 5), (70, 300)])
def test_computed_tables(name: str, shape: tuple[int, int]) -> None:
    """Breaks when the translation check does not know look-ups in what the program computes."""
    indices, table = torch.tensor([[0, 3, 1, 3]]), torch.randn(shape)
    assert torch.equal(compiled(TABLES[name])(indices, table), TABLES[name](indices, table))


def test_a_given_table_that_is_transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when rows that do not lie in one piece are looked up as if they did, and not copied first."""
    monkeypatch.delenv(fallback.STRICT, raising=False)
    indices, table = torch.tensor([0, 2]), torch.randn(4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compiled(lambda i, t: functional.embedding(i, t.T))(indices, table)
    assert torch.equal(found, table.T[indices])


def test_a_view_of_the_reference_is_a_view() -> None:
    """Breaks when fake tensors are believed that (2, 1, 2) of strides (1, 1, 2) can be seen as (4,): verify fails
    then."""

    class Model(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.minimum(x.permute(1, 2, 0), y).reshape(4)

    values = torch.randn(2, 2, 1), torch.randn(())
    program = llmchip.compile(Model().eval(), values)
    assert program.verify(*values).bit_exact
    assert torch.equal(program.reference(*values), program(*values))


def test_tensors_stay_resizable() -> None:
    """Breaks when arguments, weights or results belong to numpy: `out=` and `resize_` raise where eager runs."""
    linear = torch.nn.Linear(8, 8).eval()
    x = torch.randn(2, 8)
    with torch.no_grad():
        y = compiled(lambda x: linear(x))(x)
        z = compiled(lambda x: x + 1)(x)
    for tensor in (x, y, z, linear.weight.data):
        tensor.resize_(3, 70)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that such an `out` is resized
        torch.add(torch.ones(900), 1, out=z)
    assert z.shape == (900,)


def test_strides_of_thin_results() -> None:
    """Breaks when strides of sizes 0 and 1 are fake tensors', which choose others than eager behind a permutation."""
    halved, doubled = (lambda t: t.movedim(0, -1) / 2, torch.ones(1, 4) > 0), (lambda t: t.T * 2, torch.ones(0, 4))
    normed = lambda t: functional.rms_norm(t, (1,)), torch.ones(0, 1)
    for function, x in (halved, doubled, normed, (lambda t: t.mT - 1, torch.ones(1, 4, 1))):
        with torch.no_grad():
            assert compiled(function)(x).stride() == function(x).stride()
        torch._dynamo.reset()


def test_an_error_that_is_its_own_cause_ends() -> None:
    """Breaks when an error that is met twice on its way out is followed for ever."""
    policy, error = fallback.Policy(refusals=False, faults=False), InternalError("a fault")
    for _ in range(3):
        with pytest.raises(InternalError) as met:
            policy.accept(error)
        assert met.value is error and error.__cause__ is None
    ring = ValueError("one")
    ring.__cause__ = ValueError("two")
    ring.__cause__.__cause__ = ring
    assert not interrupted(ring)


def test_ctrl_c_is_never_a_reason_to_fall_back() -> None:
    """Breaks when an interrupt that others wrapped is told as a fault, and the program goes on."""
    error = RuntimeError("Error calling __set_name__")
    error.__cause__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        fallback.Policy(refusals=True, faults=True).accept(error)


def test_a_loaded_program_takes_inputs_in_order(tmp_path: Path) -> None:
    """Breaks when what `program(x)` takes, `load(path)(x)` does not; or when one is lost or taken twice."""
    program = llmchip.compile(torch.nn.ReLU().eval(), (torch.randn(2, 3),))
    path = tmp_path / "relu.llmchip"
    program.save(path)
    loaded, x = llmchip.load(path), np.array([[1, -1, 2], [-2, 0.5, -3]], np.float32)
    (found,) = loaded(x).values()
    assert np.array_equal(found, np.maximum(x, 0))
    with pytest.raises(InputError, match="2 inputs are given"):
        loaded(x, x)
    with pytest.raises(InputError, match="given twice"):
        loaded(x, **{loaded.inputs[0].name: x})


def test_weights_written_through_numpy_need_refresh() -> None:
    """Breaks when `llmchip.refresh()` does not see what leaves no trace in a tensor."""
    linear, x = torch.nn.Linear(8, 8).eval(), torch.randn(2, 8)
    call = compiled(lambda x: linear(x))
    with torch.no_grad():
        before = call(x)
        linear.weight.numpy()[:] = 0
        linear.bias.numpy()[:] = 1
        llmchip.refresh()
        assert torch.equal(call(x), torch.ones(2, 8)) and not torch.equal(before, torch.ones(2, 8))


A = torch.ops.aten
STATISTICS: dict[str, Callable[..., Any]] = {
    "says so, counts no version": lambda x, m, v: A._batch_norm_with_update(x, v.clone(), v.clone(), m, v, 0.5, 0.6),
    "does not say so": lambda x, m, v: A.native_batch_norm(x.permute(2, 1, 0), None, None, m, v, True, 0.5, 0.6),
    "with an empty result": lambda x, m, v: (functional.batch_norm(x, m, v, training=True, momentum=0.5), x[:0]),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_updated_once(name: str) -> None:
    """Breaks when the look at a frame before it is compiled runs it on the caller's own tensors: found by PyTorch's
    operator tests."""
    channels = 5 if name == "does not say so" else 20_000  # more than is copied in any case
    x, found = torch.randn(5, channels, 5), []
    for function in (STATISTICS[name], torch.compile(STATISTICS[name], backend="llmchip", options={"fallback": True})):
        mean, variance = torch.zeros(channels), torch.ones(channels)
        with torch.no_grad():
            function(x, mean, variance)
        found.append((mean, variance))
    assert all(map(torch.equal, *found))

"""torch.compile(backend="llmchip"): weights that change, shapes that change, and what the chip cannot do."""

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_models import Cummax, Mlp, make, python
from torch import nn

import llmchip
from compiler.lower import lower
from runtime.pytorch import compilation, fallback


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    fallback.forget()
    with torch.no_grad():
        yield


def compiled(model: nn.Module, **arguments: Any) -> Any:
    return torch.compile(model, backend=llmchip.backend, **arguments)


FALLBACK = {"fallback": True}  # in so many words: the environment of the tests makes refusals errors


def ahead(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the same model gives when compiled ahead of time, with the weights it has now."""
    result: torch.Tensor = llmchip.compile(model, (x,))(x)["y"]
    return result


X = torch.randn(3, 12, generator=torch.Generator().manual_seed(3))


def test_found_by_name_in_a_fresh_process_without_importing_us(tmp_path: Path) -> None:
    code = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh()).eval()
x = torch.randn(2, 6)
assert "llmchip" in torch._dynamo.list_backends()
with torch.no_grad():
    assert (torch.compile(model, backend="llmchip")(x) - model(x)).abs().max() < 0.05
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_weights_are_never_baked_in() -> None:
    """Second instance, in-place update, replaced Parameter, load_state_dict: always the bits of the weights as they
    are."""
    first, second = make(Mlp), make(Mlp, seed=1)
    for model in (first, second, first):
        assert torch.equal(compiled(model)(X)["y"], ahead(model, X))
    program = compiled(first)
    first.up.weight.mul_(-1.5)
    assert torch.equal(program(X)["y"], ahead(first, X))
    first.down.weight = nn.Parameter(torch.randn_like(first.down.weight))
    assert torch.equal(program(X)["y"], ahead(first, X))
    first.load_state_dict(second.state_dict())
    assert torch.equal(program(X)["y"], ahead(second, X))


def test_refresh_sees_what_pytorch_does_not_count() -> None:
    model = make(Mlp)
    program = compiled(model)
    program(X)
    model.up.weight.data.mul_(2)
    llmchip.refresh()
    assert torch.equal(program(X)["y"], ahead(model, X))


def test_inference_tensors_have_no_version_and_are_watched_all_the_same() -> None:
    with torch.inference_mode():
        model = make(Mlp)
        program = compiled(model)
        before = program(X)["y"]
        model.up.weight.mul_(-1)
        after = program(X)["y"]
    changed = make(Mlp)
    changed.up.weight.mul_(-1)
    assert torch.equal(before, ahead(make(Mlp), X))
    assert torch.equal(after, ahead(changed, X))


def test_dead_weights_are_not_kept_alive() -> None:
    import gc
    import weakref

    model = make(Mlp)
    program = compiled(model)
    program(X)
    old = weakref.ref(model.up.weight)
    model.up.weight = nn.Parameter(torch.zeros_like(model.up.weight))
    program(X)
    gc.collect()
    assert old() is None


def test_results_do_not_pretend_to_be_differentiable() -> None:
    with torch.enable_grad():
        result = compiled(make(Mlp))(X)
        assert result["y"].requires_grad
        assert not result["positive"].requires_grad
        with pytest.raises(llmchip.Error, match="cannot be trained"):
            result["y"].sum().backward()


@pytest.mark.parametrize(
    "dynamic", [None, pytest.param(True, marks=pytest.mark.slow), pytest.param(False, marks=pytest.mark.slow)]
)
def test_shapes_may_change_from_call_to_call(dynamic: bool | None) -> None:
    """With dynamic=True Dynamo also passes Python floats as float64 tensors."""
    model = make(Mlp)
    program = compiled(model, dynamic=dynamic)
    for rows in (3, 5, 1, 3):
        x = torch.randn(rows, 12)
        assert torch.equal(program(x)["y"], ahead(model, x))


def test_unsupported_operation_runs_in_pytorch_between_chip_parts_and_warns_once() -> None:
    model, x = make(Cummax), torch.randn(5, 8)
    with pytest.warns(UserWarning, match=r"llmchip runs aten\.cummax in PyTorch"):
        result = compiled(model, options=FALLBACK)(x)
    assert (result - model(x)).abs().max() < 0.1
    up, down = (
        llmchip.compile(part, (example,))
        for part, example in ((nn.Sequential(model.up, nn.ReLU()).eval(), x), (model.down, x.new_zeros(5, 16)))
    )
    assert torch.equal(result, down(torch.cummax(up(x), -1)[0]))
    program = compiled(model, options=FALLBACK)
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match=r"runtime_models\.py:\d+.*aten\.cummax"):  # another program says it again
        program(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert torch.equal(program(x), result)


def test_split_graph_follows_its_weights() -> None:
    model, x = make(Cummax), torch.randn(5, 8)
    program = compiled(model, options=FALLBACK)
    with pytest.warns(UserWarning, match="aten.cummax"):
        before = program(x)
    model.down.weight.mul_(2)
    model.down.bias.mul_(2)
    assert torch.equal(program(x), before * 2)


def test_fallback_can_be_an_error() -> None:
    with pytest.raises(llmchip.UnsupportedError, match=r"runtime_models\.py:\d+.*aten\.cummax"):
        compiled(make(Cummax), options={"fallback": False})(torch.randn(5, 8))


def test_a_piece_that_fails_as_a_whole_is_halved_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a bug in the compiler: it cannot take more than three operations at once."""
    sizes = []

    def fragile(captured: Any, *rest: Any) -> Any:
        count = sum(node.op == "call_function" for node in captured.gm.graph.nodes)
        if count > 3:
            raise ValueError("too many")
        sizes.append(count)
        return lower(captured, *rest)

    monkeypatch.setattr(compilation, "lower", fragile)
    monkeypatch.delenv(fallback.STRICT)
    model = make(Mlp)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = compiled(model)(X)["y"]
    assert [("in smaller pieces" in str(w.message)) for w in said] == [True]
    assert (result - model(X)["y"]).abs().max() < 0.05
    assert sizes[-2:] == [3, 3]  # linear, gelu, linear; add, layer_norm, gt


class Counts(nn.Module):
    """Changes an input and two buffers in place; one of them is an integer, which the chip cannot add to."""

    seen: torch.Tensor
    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.linear = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        self.calls += 1
        total.mul_(2)
        result: torch.Tensor = self.linear(x) * self.seen[0] + total[0]
        return result


def test_what_is_changed_in_place_is_changed_and_the_rest_runs_on_the_chip() -> None:
    """Breaks when a change is lost or made twice, or when one changed buffer sends the whole graph to PyTorch."""
    torch.manual_seed(0)
    x, model = torch.randn(4, 16), Counts().eval()
    total, parts = torch.ones(2), []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        program = compiled(model, options=FALLBACK)
        for call in range(1, 4):
            before = total.clone()
            with torch.no_grad():
                want = model.linear(x) * call + before[0] * 2
            parts.append(program(x, total))
            assert torch.equal(model.seen, torch.full((3,), float(call))) and model.calls.item() == call
            assert torch.equal(total, before * 2)
            assert 0 < (parts[-1] - want).abs().max() < 0.2  # int8: the linear ran on the chip
    assert not any("the whole graph" in str(w.message) for w in said)


def test_changed_memory_that_another_argument_sees_is_left_to_pytorch() -> None:
    """Breaks when an argument is changed in place and a view of it still shows the old elements."""

    class Overlaps(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            a.add_(1)
            return b * 2

    program = compiled(Overlaps().eval(), options=FALLBACK)
    a, b = torch.zeros(8), torch.zeros(8)
    assert torch.equal(program(a, b), torch.zeros(8)) and torch.equal(a, torch.ones(8))
    whole = torch.zeros(16)
    with pytest.warns(UserWarning, match="whose memory another argument shows"):
        got = program(whole[:8], whole[4:12])
    assert torch.equal(got, torch.tensor([2.0] * 4 + [0.0] * 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"speed": 1}}, "unknown option 'speed'"),
        ({"mode": "max-autotune"}, "no mode 'max-autotune'"),
        ({"options": {"chip": "moon"}}, "unknown chip 'moon'"),
    ],
)
def test_bad_options_are_our_own_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(llmchip.Error, match=message):
        compiled(make(Mlp), **arguments)(X)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train(), torch.zeros(2, 4), r"train mode.*model\.eval\(\)"),
        (
            nn.Linear(4, 4).double().eval(),
            torch.zeros(2, 4, dtype=torch.float64),
            "float64, which the chip does not have",
        ),
        (nn.Identity().eval(), torch.zeros(2, 4, dtype=torch.complex64), "complex64"),
    ],
)
def test_bad_models_and_inputs_are_refused(model: nn.Module, x: torch.Tensor, message: str) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x) * 1

    wrapped = Wrapped()
    wrapped.train(model.training)
    with pytest.raises(llmchip.Error, match=message):
        compiled(wrapped)(x)


def test_options_choose_the_chip_and_no_chip_changes_a_bit() -> None:
    model = make(Mlp)
    assert torch.equal(compiled(model, options={"chip": "server"})(X)["y"], ahead(model, X))


def test_first_call_from_several_threads_at_once() -> None:
    """torch.export changes globals while it traces; other threads must not notice."""
    model, results = make(Mlp), []
    program = compiled(model)

    def work() -> None:
        try:
            with torch.no_grad():
                results.append(program(X)["y"])
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = ahead(model, X)
    assert all(isinstance(result, torch.Tensor) and torch.equal(result, expected) for result in results), results

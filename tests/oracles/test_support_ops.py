"""The oracle of `make support-ops` sees every difference that it is there for, and its table counts each pair once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.pytorch.fallback import STRICT
from runtime.pytorch.subgraph import Part
from tools.support.cases import Case
from tools.support.oracle import _repeats, _untied, compare, judge
from tools.support_ops import FINDINGS, _died, _kept, _latest, _table

X = torch.tensor([[1.0, -0.0], [float("nan"), 3.0]])
OTHERS: dict[str, tuple[Any, Any]] = {
    "structure": ([X], (X,)),
    "type": (X, X.double()),
    "size": (X, X[:1]),
    "strides": (X, X.t().contiguous().t()),
    "a bit": (X, X.nextafter(X + 1)),
    "the sign of zero": (X, X.abs()),
    "where NaN is": (X, X.nan_to_num(0.0)),
    "a complex number": (torch.complex(X, X), torch.complex(X, X + 1)),
    "a number": ((X, 1), (X, 1.0)),
    "an argument": ((X, X), (X, X + 1)),
    "what shares memory": ((X, X), (X, X.clone())),
    "which part is shared": ((X, X[0, 1:]), (X, X[0, 1:].clone())),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_difference_is_wrong(name: str) -> None:
    got, want = OTHERS[name]
    assert compare(got, want)[0] == "wrong"
    assert compare(want, want)[0] == compare(got, got)[0] == "ok"


def test_what_the_contract_leaves_open() -> None:
    assert compare(X, X.abs(), zero=True)[0] == "ok"
    assert compare(X, X * 1.01, inexact=True)[0] == "ok"
    assert compare(X, X * 2, inexact=True)[0] == "far"
    assert compare(X, X + 1, undefined=True)[0] == "ok"


def test_equal_elements_come_in_any_order() -> None:
    """Breaks when another place of an equal element counts as wrong, or one of another element, or one twice, as
    right; or a stable sort may come in any order."""
    x = torch.tensor([[3.0, 1.0, 3.0, 0.0]])
    names, want = {"topk"}, torch.topk(x, 2)
    for places, fine in (([[2, 0]], True), ([[0, 1]], False), ([[2, 2]], False), ([[2, 7]], False)):
        got = type(want)((want.values, torch.tensor(places)))
        untied = _untied(Case(torch.topk, (x, 2), {}), names, got, want)
        assert (compare(untied, want)[0] == "ok") is fine or torch.tensor(places).equal(want.indices)
    stable = Case(torch.sort, (x,), {"stable": True})
    ordered, other = torch.sort(x, stable=True), torch.tensor([[3, 1, 2, 0]])
    assert _untied(stable, {"sort"}, (ordered.values, other), ordered)[1] is other


def test_eager_is_no_oracle_where_it_does_not_agree_with_itself() -> None:
    """Breaks when a result that changes with the operands' place in memory is held against us, or one that does not is
    forgiven."""
    turns = iter(range(1000))
    steady, other = Case(torch.neg, (X,), {}), Case(lambda x: x + next(turns) // 9, (X,), {})
    assert _repeats(steady, (-X, (X,), {}, {})) and not _repeats(steady, (X, (X,), {}, {}))
    assert not _repeats(other, (X, (X,), {}, {}))


def test_a_pair_that_runs_again_replaces_its_line(tmp_path: Path) -> None:
    row = {"name": "op add", "type": "bool", "samples": 3, "chip": 3, "back": 0, **{kind: [] for kind in FINDINGS}}
    lines = [{**row, "raise": ["sample 0: an error"]}, row, {**row, "name": "train nn.Linear", "back": 1}]
    path = tmp_path / "found.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = _table(_latest(path, []))
    assert "| operators | bool | 1 | 3 | 1 | 0 | 0 | 0 |" in table
    assert "| modules in train mode | bool | 1 | 3 | 0 | 1 | 0 | 0 |" in table


def test_a_child_that_dies_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when what kills a child ends the whole run: its row had no place for faults."""
    path = tmp_path / "found.jsonl"
    _kept(_died("op add", "the process ended with -9"), path)
    assert "raise op add" in capsys.readouterr().out
    assert "| operators | the process died | 1 | 0 | 0 | 0 | 1 | 0 |" in _table(_latest(path, []))


def test_what_is_off_among_calls_compiled_together_is_found_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a group of calls hides one that is wrong, also where they make no single graph, blames its
    neighbours, or judges what eager PyTorch refuses."""
    monkeypatch.delenv(STRICT, raising=False)
    run = Part.__call__

    def broken(self: Part, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(result + (result.shape == (3,)) for result in run(self, *tensors))

    def refuses(x: Tensor) -> Tensor:
        if x.shape == (5,):
            raise ValueError
        return -x

    def breaks(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return -x

    monkeypatch.setattr(Part, "__call__", broken)
    functions: tuple[Callable[..., Tensor], ...] = (
        torch.neg,
        torch.neg,
        torch.neg,
        refuses,
        torch.neg,
        breaks,
        torch.neg,
    )
    cases = [Case(function, (torch.ones(2 + number),), {}) for number, function in enumerate(functions)]
    cases[-1] = replace(cases[-1], args=(torch.ones(3),))
    verdicts = judge(cases, together=4)
    assert [verdict and verdict.outcome for verdict in verdicts] == ["ok", "wrong", "ok", None, "ok", "ok", "wrong"]
    assert judge(cases[:1], together=4) == judge(cases[:1])

"""`llmchip.explain` and `llmcc explain`: what goes to the chip, what is folded, what falls back; as torch.compile has
it."""

import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jsonschema
import pytest
import torch
from checkout import ROOT
from cli_harness import call
from torch import Tensor, nn

import llmchip
from runtime.pytorch.fallback import STRICT, fallbacks, forget

CODE = """
import torch
from torch import nn

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(24, 40), nn.Linear(40, 8)
        self.register_buffer("scale", torch.randn(40))

    def forward(self, x):
        y = torch.cummax(self.first(x) * torch.exp(self.scale), 1).values
        z = torch.lgamma(y) + torch.lgamma(y + 1) if WITH else y
        return self.last(z).softmax(-1)

WITH = True
def mixed():
    return Mixed().eval(), {"x": torch.randn(3, 24)}
"""


class Plain(nn.Module):
    """Everything is on the chip, and one product of weights is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(16, 32)
        self.register_buffer("scale", torch.ones(32))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.lin(x) * torch.exp(self.get_buffer("scale"))
        return scaled.transpose(0, 1)


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    (tmp_path / "mixed_model.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    module: nn.Module = importlib.import_module("mixed_model").mixed()[0]
    return module


def test_a_model_that_is_all_on_the_chip() -> None:
    """Breaks when an operation is counted in two places or in none, or work, bytes or shares are of another size."""
    found = llmchip.explain(Plain().eval(), (torch.randn(5, 16),))
    assert found and "all on the chip" in repr(found)
    d = found.document
    assert d.operations == {"chip": 2, "moves": 1, "folded": 1, "pytorch": 0} and d.pieces == 1
    assert [row.operator for row in d.folded] == ["aten.exp"]
    product = next(row for row in d.on_chip if row.operator == "matmul_i8")
    assert (product.count, product.macs) == (1, 5 * 16 * 32) and product.dram_bytes >= 16 * 32
    assert sum(row.share for row in d.on_chip) == pytest.approx(1) and found.cycles == max(d.limit.values())
    assert d.weights_bytes == 4 * (16 * 32 + 32 + 32) and d.inputs_bytes == 4 * 5 * 16


def test_what_falls_back_is_what_torch_compile_tells(mixed: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when explain and torch.compile do not ask the same: an operation, a reason or a count that differs; or when
    explain warns or fills the record of what fell back."""
    monkeypatch.delenv(STRICT, raising=False)
    x = torch.randn(3, 24)
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = llmchip.explain(mixed, (x,))
    assert not fallbacks()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.compile(mixed, backend="llmchip")(x)
    told = {(f.operator, f.reason, f.count) for f in fallbacks()}
    forget()
    assert {(row.operator, row.reason, row.count) for row in found.in_pytorch} == told
    d = found.document
    assert not found and d.refusal and d.pieces == 3 and d.operations["pytorch"] == 3
    assert {row.operator for row in d.in_pytorch} == {"aten.cummax", "aten.lgamma"}
    assert all("mixed_model.py" in row.line for row in d.in_pytorch)
    assert sum(row.macs for row in d.on_chip) == 3 * 24 * 40 + 3 * 40 * 8


def test_products_that_fall_back_are_counted() -> None:
    """Breaks when the work of what runs in PyTorch is not told: a product of a type that the chip lacks."""

    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.double() @ x.double().T).float()

    found = llmchip.explain(Double().eval(), (torch.randn(4, 6),))
    assert sum(row.macs for row in found.in_pytorch) == 4 * 6 * 4


def test_the_document_fits_its_schema(mixed: nn.Module) -> None:
    """Breaks when the stored schema is old, or a notebook's table is empty."""
    found = llmchip.explain(mixed, (torch.randn(3, 24),))
    schema = json.loads((ROOT / "docs" / "schemas" / "explain.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(found.to_json()))
    assert "aten.lgamma" in found._repr_html_() and len(found.to_pandas("in_pytorch")) == len(found.in_pytorch)


def test_the_command(mixed: nn.Module) -> None:
    """Breaks when a line is wider than a narrow terminal, reasons are missing, or --top and --json do not do as they
    say."""
    result = call("explain", "mixed_model:mixed")
    assert result.code == 1
    assert "aten.lgamma: aten.lgamma is not something the chip can do" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines() if not line.startswith("    "))
    assert "count" not in call("explain", "mixed_model:mixed", "--top", 0).out
    one = call("explain", "mixed_model:mixed", "--top", 1).out
    assert "more: --top" in one
    document = call("explain", "mixed_model:mixed", "--json").document
    assert document["model"] == "mixed_model:mixed" and document["operations"]["pytorch"] == 3


@pytest.mark.slow
def test_in_a_process_of_its_own(mixed: nn.Module, tmp_path: Path) -> None:
    """Breaks when something besides the document reaches stdout, or strict mode makes a refusal an error."""
    done = subprocess.run(
        [sys.executable, "-m", "runtime.cli", "explain", "mixed_model:mixed", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), STRICT: "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and json.loads(done.stdout)["pieces"] == 3

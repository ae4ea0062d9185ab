"""Small models for the runtime's tests, and fresh Python processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from checkout import ROOT
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """Two linears, a residual and a norm; the result is a dictionary."""

    def __init__(self, width: int = 12, hidden: int = 20) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, hidden), nn.Linear(hidden, width), nn.LayerNorm(width)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        y = self.norm(self.down(functional.gelu(self.up(x))) + x)
        return {"y": y if scale is None else y * scale, "positive": y > 0}


class Cummax(nn.Module):
    """Has operations between two linears that the chip does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(torch.cummax(functional.relu(self.up(x)), -1)[0])
        return result


def make(kind: type[nn.Module], seed: int = 0, **sizes: int) -> Any:
    torch.manual_seed(seed)
    return kind(**sizes).eval()


def tiny_bert(seed: int = 0, **changes: Any) -> Any:
    """A BERT whose sizes are multiples of nothing."""
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {
        "hidden_size": 36,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 50,
        "vocab_size": 60,
    }
    torch.manual_seed(seed)
    return BertModel(BertConfig(**{**sizes, "max_position_embeddings": 20, **changes})).eval()


def python(code: str, folder: Path, *arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh Python, started in `folder`, with our checkout (after `path`) on its path."""
    paths = os.pathsep.join(str(p) for p in (path, ROOT) if p is not None)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )

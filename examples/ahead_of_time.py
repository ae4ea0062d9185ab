"""Compile ahead of time, save, and run in a process that has no PyTorch.

python examples/ahead_of_time.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import llmchip

RUN = """
import sys, numpy as np, llmchip
loaded = llmchip.load(sys.argv[1])
print(loaded)
np.save(sys.argv[3], loaded(input=np.load(sys.argv[2]))["output"])
assert "torch" not in sys.modules
"""

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 50), nn.GELU(), nn.Linear(50, 10)).eval()
x = torch.randn(4, 20)

program = llmchip.compile(model, {"input": x}, chip="edge")
print(program)
verification = program.verify(input=x)
print(f"bit-exact: {verification.bit_exact}, {verification.nodes} nodes compared")

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    program.save(folder / "mlp.llmchip")
    np.save(folder / "x.npy", x.numpy())
    subprocess.run([sys.executable, "-c", RUN, folder / "mlp.llmchip", folder / "x.npy", folder / "y.npy"], check=True)
    y = np.load(folder / "y.npy")

same = np.array_equal(y.view(np.uint32), program(input=x).numpy().view(np.uint32))
print("the other process computed the same bits:", same)
assert verification.bit_exact
assert same

"""A hand-written attention block: plain PyTorch, recognised, quantized to int8, and equal to its reference in every
bit.

python examples/attention_block.py
"""

import math

import torch
from torch import Tensor, nn

import llmchip


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, width)
        return self.norm(x + self.out(mixed))


torch.manual_seed(0)
model = Attention(48, 3).eval()
x = torch.randn(2, 13, 48)
program = llmchip.compile(model, (x,))

with torch.no_grad():
    expected = program.reference(x)  # the frozen graph in stock PyTorch operations
result = program(x)  # the binary on the emulated chip
print("differing bits:", int((expected.view(torch.int32) != result.view(torch.int32)).sum()))

report = program.verify(x)
print(f"{report.nodes} of {report.graph_nodes} graph nodes compared; distance to float: {report.float}")
assert torch.equal(expected.view(torch.int32), result.view(torch.int32))
assert report.bit_exact

"""From a line of the model to the instructions that compute it, and back.

python examples/read_the_assembly.py
"""

import torch
from torch import Tensor, nn

import llmchip
from isa.asm.disassemble import disassemble_code


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(24, 96)
        self.down = nn.Linear(96, 24)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.up(x))
        return x + self.down(hidden)


torch.manual_seed(0)
program = llmchip.compile(Mlp().eval(), (torch.randn(5, 24),))
image = program.image

for line in disassemble_code(image):
    print(line[:140])

print("\nwhere each instruction comes from:")
for pc in range(0, len(image.code), 16):
    node = image.debug.node_at(pc)
    if node is not None and image.inst(pc).row.engine.value in ("mxu", "vec", "act"):
        print(f"  {pc:#06x} {image.inst(pc).mnemonic:5} {node.name:16} {node.code}")

assert any("torch.relu(self.up(x))" in node.code for node in image.debug.nodes)

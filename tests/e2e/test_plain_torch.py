"""Plain PyTorch code made of the same operations: an MLP, attention written by hand, pooling, odd views."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import llmchip


class Mlp(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.up, self.down, self.norm = (
            nn.Linear(19, 45, dtype=dtype),
            nn.Linear(45, 7, bias=False, dtype=dtype),
            nn.LayerNorm(7, dtype=dtype),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.down(F.gelu(self.up(x), approximate="tanh")))
        return out


class Attention(nn.Module):
    """Written by hand, with another layout than transformers uses."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, s, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, s, 3, 3, 8).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(8)
        mixed = torch.softmax(scores, dim=-1) @ v
        out: torch.Tensor = x + self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Pool(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = mask.unsqueeze(-1).float()
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return F.normalize(mean, p=2, dim=1), x.amax(dim=1)


class Views(nn.Module):
    """Views and arithmetic that nothing fuses well."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b = x.split([2, 4], dim=-1)
        y = torch.cat([b, a], dim=-1).transpose(0, 1)
        z = x.clamp(-0.25, 0.5)
        return (
            y,
            z,
            x[:, 1] * 2.5 - 1.0,
            (x > 0.5).to(torch.float32),
            torch.where(x > 0, x, -x).mean(-1),
            1.0 - x,
            x.abs().sum(-1, keepdim=True),
        )


class Sums(nn.Module):
    """Reductions over everything, over rows, over columns."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.sum(), x.sum(0), x.mean(), x.sum((0, 1), keepdim=True), x[0].amax(), x[:, :1].sum(0)


class Reshapes(nn.Module):
    """Views that need real data movement."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.t().reshape(-1) * 2, x.t().contiguous().view(-1), torch.cat([x[None], x[None]], 1), x


CASES = {
    "mlp": (Mlp(), (torch.randn(5, 19),)),
    "mlp of rank 4": (Mlp(), (torch.randn(2, 3, 4, 19),)),
    "mlp of one row": (Mlp(), (torch.randn(19),)),
    "mlp in bfloat16": (Mlp(torch.bfloat16), (torch.randn(6, 19, dtype=torch.bfloat16),)),
    "attention": (Attention(), (torch.randn(2, 11, 24),)),
    "pool": (Pool(), (torch.randn(3, 9, 16), (torch.rand(3, 9) > 0.3).long())),
    "sums": (Sums(), (torch.randn(4, 5),)),
    "reshapes": (Reshapes(), (torch.randn(4, 5),)),
    "views": (Views(), (torch.randn(3, 5, 6),)),
}


@pytest.mark.parametrize("name", CASES)
def test_plain_modules_are_bit_exact(name: str) -> None:
    """Breaks if only what transformers writes is handled."""
    module, inputs = CASES[name]
    found = llmchip.compile(module.eval(), inputs).verify(*inputs)
    assert found.bit_exact, found.first_divergence
    assert found.float is not None and found.float["cosine"] > 0.97


def test_gpt2_without_a_cache_is_bit_exact() -> None:
    """Breaks if only encoders are handled: causal masks, pre-norm blocks, Conv1D weights stored transposed, a tied
    head."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=24, n_head=3, vocab_size=50, n_positions=32, bos_token_id=1, eos_token_id=1)
    ).eval()
    given = {"input_ids": torch.randint(0, 50, (2, 9)), "use_cache": False}
    found = llmchip.compile(model, given).verify(**given)
    assert found.bit_exact, found.first_divergence
    assert found.float is not None and found.float["cosine"] > 0.99


class Wide(nn.Module):
    def forward(self, i: torch.Tensor) -> torch.Tensor:
        return i * i


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(4)


@pytest.mark.parametrize(
    ("module", "value", "reason"),
    [(Wide(), torch.tensor([70000]), "64-bit integers"), (Noisy(), torch.zeros(4), "random numbers")],
)
def test_what_would_go_wrong_silently_is_refused(module: nn.Module, value: torch.Tensor, reason: str) -> None:
    """Breaks if 64-bit arithmetic wraps in 32 bits, or a random number is folded into the image."""
    with pytest.raises(llmchip.UnsupportedError, match=reason):
        llmchip.compile(module.eval(), (value,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scalars_beside_narrow_tensors_round_as_in_pytorch(dtype: torch.dtype) -> None:
    """Breaks if an immediate stays float32 where PyTorch rounds it to the tensor's type first (add, sub,
    comparisons)."""

    class Scalars(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x + 0.1, x - 0.3, 0.7 - x, x * 0.1, x / 0.3, 0.3 / x, (x > 0.1).to(dtype)

    x = torch.tensor([0.1, 0.30078125, 1.0, -2.5, 0.10009765625, 3e-3], dtype=dtype)
    program = llmchip.compile(Scalars().eval(), (x,))
    assert program.verify(x).bit_exact
    for ours, torchs in zip(program(x), Scalars()(x), strict=True):
        assert torch.equal(ours.view(torch.int16), torchs.view(torch.int16))


class Integers(nn.Module):
    """int8 products as they are, of two inputs and of an input and a weight, whose sums are scaled by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "weight", torch.arange(48 * 96).reshape(48, 96).mul(37).remainder(256).sub(128).to(torch.int8)
        )
        self.register_buffer("scale", torch.linspace(0.1, 2, 48))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch._int_mm(a, b), torch._int_mm(a, self.weight.t()).float() * self.scale


@pytest.mark.parametrize("rows", [24, 700])
def test_int8_products(rows: int) -> None:
    """Breaks if int32 sums are scaled, saturated or cut wrongly, or a right side that is no weight is staged
    wrongly."""
    a, b = (
        torch.arange(n * m).reshape(n, m).mul(101).remainder(256).sub(128).to(torch.int8)
        for n, m in ((rows, 96), (96, 72))
    )
    model = Integers().eval()
    program = llmchip.compile(model, (a, b))
    for got, wanted in zip(program(a, b), model(a, b), strict=True):
        assert got.dtype is wanted.dtype
        assert torch.equal(got, wanted)
    assert program.verify(a, b).bit_exact

"""What is remembered of PyTorch's composite operators changes no captured graph, and nothing of PyTorch itself."""

from contextlib import nullcontext

import pytest
import torch
from models import IDS, MASK, tiny_bert
from torch import nn
from torch.export import exported_program
from transformers import BertModel

from compiler.frontend import capture as capturing
from compiler.frontend import composites
from compiler.frontend.capture import capture


class Mixed(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kept = nn.functional.scaled_dot_product_attention(x, y, y).clone()
        kept.relu_().add_(1)
        return (
            nn.functional.gelu(kept),
            torch.einsum("bij,bkj->bik", x, y),
            x.std(-1),
            nn.functional.silu(y, inplace=False),
            torch.square(x).narrow(1, 0, 1),
        )


GIVEN = {
    "mixed": (Mixed(), (torch.randn(2, 3, 8), torch.randn(2, 3, 8)), {}),
    "bert": (tiny_bert(BertModel), (), {"input_ids": IDS, "attention_mask": MASK}),
}


def listing(name: str) -> list[str]:
    module, args, kwargs = GIVEN[name]
    return [
        f"{n.op} {n.name} {n.target} {n.args} {n.kwargs}" for n in capture(module.eval(), args, kwargs).gm.graph.nodes
    ]


def state() -> object:
    packets = [getattr(torch.ops.aten, name) for name in ("linear", "einsum", "silu", "gelu")]
    ops = [getattr(packet, name) for packet in packets for name in packet.overloads()]
    return (
        [dict(op.py_kernels) for op in ops],
        *(getattr(exported_program, name) for name in (composites._SEARCH, composites._OVERRIDE)),
    )


@pytest.mark.parametrize("name", GIVEN)
def test_remembered_captures_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if what is remembered leaves an operator in pieces that PyTorch keeps whole, or the other way round; or
    stays behind."""
    listing(name)
    before = state()
    found = listing(name)
    assert state() == before
    monkeypatch.setattr(capturing, "remembered", nullcontext)
    assert found == listing(name)


def test_operators_that_come_later_are_found() -> None:
    """Breaks if the search is never made again: an operator of the user's would be taken to pieces."""
    listing("mixed")
    with torch.library._scoped_library("llmchip_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
        with composites.remembered():
            assert torch.ops.llmchip_test.twice.default in getattr(exported_program, composites._SEARCH)()


def test_without_the_private_names_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks on a PyTorch that has named them otherwise."""
    monkeypatch.delattr(exported_program, "_collect_all_valid_cia_ops")
    with composites.remembered():
        assert not hasattr(exported_program, "_collect_all_valid_cia_ops")

"""Programs of one image: which constants they share."""

from typing import Any

import torch
from families import VOCABULARY, tiny
from transformers import LlamaForCausalLM

from compiler.entries import compile_entries, constant_kinds
from compiler.frontend.decoder import capture_decoder


class Scaled(LlamaForCausalLM):  # type: ignore[misc]
    """Writes a constant in its code that depends on the number of tokens, a little."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, **options: Any) -> Any:
        result = super().forward(input_ids=input_ids, position_ids=position_ids, **options)
        factors = [1.0] + [1.0 + input_ids.shape[1] / 1024] * (VOCABULARY - 1)
        result.logits = result.logits * torch.tensor(factors)
        return result


def test_constants_of_the_code_are_shared_by_content_alone() -> None:
    """Breaks when constants are taken for one because each step counts its own from 0: a step computes with another's
    values, and so does what it is compared with."""
    model = tiny("llama", num_hidden_layers=1)
    model.__class__ = Scaled
    steps = {f"t{tokens}": capture_decoder(model, 1, tokens, 8) for tokens in (1, 2)}
    one, two = (set(constant_kinds(program.lowered)) for program in compile_entries(steps).programs.values())
    shape = (VOCABULARY,)
    assert {k for k in one if k[2] == shape and not k[1][0].endswith("weight")}.isdisjoint(two)
    assert {k for k in one if k[1] and k[1][0].endswith("weight")} <= two

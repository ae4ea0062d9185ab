"""Small BERTs of any shape, and inputs for them."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from hypothesis import strategies as st
from transformers import BertConfig

CLASSES = (
    "BertModel",
    "BertForSequenceClassification",
    "BertForMaskedLM",
    "BertForQuestionAnswering",
    "BertForTokenClassification",
)
EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "2"))


@dataclass(frozen=True)
class Case:
    """One random model and its inputs, small enough to print."""

    kind: str
    heads: int
    head_size: int
    layers: int
    intermediate: int
    vocabulary: int
    activation: str
    attention: str
    bf16: bool
    batch: int
    sequence: int
    mask: str
    token_types: bool
    seed: int

    def model(self) -> torch.nn.Module:
        torch.manual_seed(self.seed)
        config = BertConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.heads * self.head_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate,
            max_position_embeddings=self.sequence + 3,
            hidden_act=self.activation,
            num_labels=2 if self.kind == "BertForQuestionAnswering" else 3,
        )
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        model: torch.nn.Module = getattr(transformers, self.kind)._from_config(
            config, attn_implementation=self.attention, dtype=dtype
        )
        return model.eval()

    def inputs(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(self.seed + 1)
        shape = (self.batch, self.sequence)
        found: dict[str, Any] = {"input_ids": torch.randint(0, self.vocabulary, shape)}
        if self.mask != "none":
            found["attention_mask"] = make_mask(self.mask, shape)
        if self.token_types:
            found["token_type_ids"] = torch.randint(0, 2, shape)
        return found


def make_mask(kind: str, shape: tuple[int, int]) -> torch.Tensor:
    """ones, right or left padding of the first row, a whole row masked, or holes."""
    mask, half = torch.ones(shape, dtype=torch.long), shape[1] // 2
    if kind == "right":
        mask[0, shape[1] - half :] = 0
    elif kind == "left":
        mask[0, :half] = 0
    elif kind == "row":
        mask[0] = 0
    elif kind == "holes":
        mask = torch.randint(0, 2, shape)
    return mask


cases = st.builds(
    Case,
    kind=st.sampled_from(CLASSES),
    heads=st.integers(1, 5),
    head_size=st.integers(1, 9),
    layers=st.integers(1, 3),
    intermediate=st.integers(1, 70),
    vocabulary=st.integers(3, 60),
    activation=st.sampled_from(("gelu", "gelu_new", "relu", "tanh")),
    attention=st.sampled_from(("sdpa", "eager")),
    bf16=st.booleans(),
    batch=st.integers(1, 4),
    sequence=st.sampled_from((1, 2, 5, 16, 33)),
    mask=st.sampled_from(("none", "ones", "right", "left", "row", "holes")),
    token_types=st.booleans(),
    seed=st.integers(0, 1 << 16),
)

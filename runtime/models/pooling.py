"""Sentence embeddings: mean pooling and normalisation as part of the model, so that the chip computes them too."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class SentenceEmbedding(nn.Module):
    """What the model returns, and `sentence_embedding`: the mean over the real tokens, scaled to length 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        result = self.model(input_ids=input_ids, attention_mask=attention_mask, **extra)
        mask = attention_mask.unsqueeze(-1).to(result.last_hidden_state.dtype)
        total = (result.last_hidden_state * mask).sum(dim=1)
        mean = total / torch.clamp(mask.sum(dim=1), min=1e-9)
        return {**result, "sentence_embedding": functional.normalize(mean, p=2.0, dim=-1)}

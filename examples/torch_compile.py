"""torch.compile with the chip as backend: no import of ours, and new weights are seen at once.

python examples/torch_compile.py
"""

import torch
from transformers import BertConfig, BertModel

torch.manual_seed(0)
config = BertConfig(
    vocab_size=1000,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=64,
)
model = BertModel(config).eval()
ids = torch.randint(0, 1000, (2, 16))
mask = torch.ones_like(ids)
mask[1, 10:] = 0  # the second sentence is shorter

on_chip = torch.compile(model, backend="llmchip")
with torch.no_grad():
    chip = on_chip(input_ids=ids, attention_mask=mask).last_hidden_state
    exact = model(input_ids=ids, attention_mask=mask).last_hidden_state
    cosine = torch.nn.functional.cosine_similarity(chip.flatten(), exact.flatten(), dim=0)
    print(f"cosine with the float model: {cosine:.4f}")  # int8 is close to float, not equal to it

    model.encoder.layer[0].output.dense.weight.mul_(
        2
    )  # an update in place: nothing is compiled again, the weights are packed again
    changed = on_chip(input_ids=ids, attention_mask=mask).last_hidden_state
    print("the update changed the result:", not torch.equal(chip, changed))
    assert cosine > 0.99
    assert not torch.equal(chip, changed)

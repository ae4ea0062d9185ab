"""Mixtures of experts as they are captured: which products, and what is left of it all."""

import pytest
import torch
from families import tiny

import llmchip
from compiler.frontend.capture import capture
from compiler.lower import lower
from compiler.ops import library as ops


def products(tokens: int) -> tuple[int, int]:
    """Products with chosen weights, and all others, of two experts of four for so many tokens."""
    model = tiny("mixtral", num_hidden_layers=1)
    ids = {"input_ids": torch.arange(5, 5 + tokens)[None], "use_cache": False}
    graph = lower(capture(model, (), ids)).main.graph
    chosen = graph.find_nodes(op="call_function", target=ops.matmul_chosen)
    assert model.config._experts_implementation == "grouped_mm"
    return len(chosen), len(graph.find_nodes(op="call_function", target=ops.matmul_i8))


def test_few_tokens_read_what_they_chose_and_many_read_all_once() -> None:
    """Breaks when a step of decoding reads experts that nobody chose, a long one reads an expert once for each token,
    or the model's own implementation is gone afterwards."""
    few, many = products(2), products(3)
    assert (few[0], many[0]) == (2, 0)
    assert many[1] == few[1] + 2


@pytest.mark.wide
def test_a_token_has_the_same_bits_in_any_company() -> None:
    """Breaks when chosen products and those of all experts are not the same arithmetic."""
    model, ids = tiny("qwen2_moe", num_hidden_layers=1), torch.arange(5, 14)[None]
    found = {
        count: llmchip.compile(model, {"input_ids": ids[:, :count]}, max_length=16).new_session().prefill(ids)
        for count in (1, 4, 9)
    }
    assert torch.equal(found[1], found[9]) and torch.equal(found[4], found[9])


def test_experts_with_biases_and_transposed_weights() -> None:
    """Breaks when weights [E, K, N] or the biases of experts are forgotten (GPT-OSS has both)."""
    pytest.importorskip("transformers.models.gpt_oss")
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    config = GptOssConfig(hidden_size=24, intermediate_size=20, num_local_experts=4, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    module = GptOssExperts(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    for tokens in (1, 2, 5):
        x = torch.randn(tokens, 24, generator=generator)
        index = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(tokens)])
        scores = torch.rand(tokens, 2, generator=generator)
        program = llmchip.compile(module, (x, index, scores))
        assert program.verify(x, index, scores).bit_exact
        with torch.no_grad():
            wanted = module(x, index, scores)
        assert (program(x, index, scores) - wanted).abs().max() < 0.05 * wanted.abs().max()

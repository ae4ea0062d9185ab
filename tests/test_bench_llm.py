"""The stored tables of `make bench-llm`, and its steps on small models."""

import json

import pytest
import torch
from decoders import decoder
from gguf_models import file_of, small

from benchmarks import bench_llm, llm_chip, llm_models
from benchmarks.llm_chip import CHIPS, Case, cases
from compiler.frontend.gguf.file import read_gguf
from compiler.frontend.gguf.model import causal_lm


def test_page_is_made_of_the_figures() -> None:
    """Breaks when llm.md is edited by hand, or a table changes and is not written again."""
    assert bench_llm.page(bench_llm.stored()) == (bench_llm.RESULTS / "llm.md").read_text()


def test_figures_are_consistent() -> None:
    """Breaks when a step beats its limit, a cycle has no cause, or figures stay of cases that are gone."""
    found = json.loads((bench_llm.RESULTS / "llm.json").read_text())
    assert set(found["chip"]) <= {case.name for case in cases()}
    assert set(found.get("text", {})) <= set(bench_llm.TEXT)
    for row in found["chip"].values():
        assert row["limit_cycles"] <= row["cycles"] == sum(row["waterfall"].values())
    for row in found.get("host", {}).values():
        assert set(row) <= set(bench_llm.HOST)


def test_names_of_cases_differ() -> None:
    """Breaks when two cases would store their figures under one name."""
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)


@pytest.mark.wide
def test_a_small_case_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a step of the measurement does, or a batch is timed at the wrong lengths."""
    monkeypatch.setattr(llm_chip, "shaped", lambda name: decoder("Llama"))
    chosen = [Case("small", "w8a8", chip, 1, 64, lengths) for chip in CHIPS for lengths in ((2, 2), (2, 60))]
    rows = dict(llm_chip.measure(chosen))
    for chip in range(2):
        short, long = (rows[case] for case in chosen[2 * chip : 2 * chip + 2])
        assert short["limit_cycles"] <= short["cycles"] < long["cycles"]


def test_a_shape_has_no_bytes() -> None:
    """Breaks when weights of a large shape are made, or its rotary factors are not."""
    model = llm_models.shaped("SmolLM2", num_hidden_layers=2)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.model.rotary_emb.inv_freq[:1], torch.ones(1))


def test_dequantized_weights_are_the_files() -> None:
    """Breaks when eager PyTorch and W8A8 start from other weights than the file's own products."""
    model = causal_lm(read_gguf(file_of("llama", small("llama"), "Q8_0")))
    plain = llm_models.dequantized(model)
    layer = model.model.layers[1].mlp.up_proj
    assert torch.equal(plain.model.layers[1].mlp.up_proj.weight, layer.values())
    assert torch.equal(
        plain.model.layers[0].self_attn.q_proj(torch.eye(64)).T, plain.model.layers[0].self_attn.q_proj.weight
    )
    assert torch.equal(plain.model.norm.weight, model.model.norm.weight)

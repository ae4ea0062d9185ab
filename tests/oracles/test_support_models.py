"""`make support`: tiny models of any type, what a process of its own finds of one, and the page of what runs."""

import signal
from pathlib import Path

import pytest
import torch
from checkout import ROOT

from tools.support import page
from tools.support.lines import Row, keep, latest
from tools.support.tiny import FIRST_TEXT_ID, tiny_config, tiny_model
from tools.support.tiny_inputs import input_sets
from tools.support_models import WAYS, _has, _judged, examine, model_types


def test_configurations_are_small_and_fit_together() -> None:
    """Breaks when a size stays as large as the default, a special token is one of the words, a token that two parts of a
    configuration name becomes two, or a kind of layer is lost."""
    bert = tiny_config("bert")
    assert (bert.hidden_size, bert.num_hidden_layers, bert.vocab_size) == (64, 2, 128)
    both = tiny_config("qwen3_next")
    assert sorted(both.layer_types) == ["full_attention", "linear_attention"] and both.num_hidden_layers == 2
    aya = tiny_config("aya_vision")
    assert aya.image_token_index < FIRST_TEXT_ID and aya.text_config.hidden_size == 64
    assert tiny_config("gpt_neo").attention_layers == ["global", "local"]
    assert len(model_types()) > 700


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("bert", {"input_ids": (2, 7), "attention_mask": (2, 7)}),
        ("vit", {"pixel_values": (2, 3, 32, 32)}),
        ("bart", {"input_ids": (2, 7), "decoder_input_ids": (2, 5), "attention_mask": (2, 7)}),
    ],
)
def test_inputs_are_of_the_modality(name: str, names: dict[str, tuple[int, ...]]) -> None:
    """Breaks when inputs are left out that a model takes, have no padding, or PyTorch does not take the first set."""
    model = tiny_model(name, tiny_config(name))
    _, inputs = next(input_sets(model))
    assert {key: tuple(value.shape) for key, value in inputs.items()} == names
    assert "attention_mask" not in inputs or inputs["attention_mask"].min() == 0
    with torch.no_grad():
        model(**inputs)


def test_how_a_process_ends_is_told_apart() -> None:
    """Breaks when a crash of ours counts as a limit or as nothing, or a model that PyTorch does not run as a fault."""
    ran = {"name": "x", "model": "X"}
    assert _judged(dict(ran), WAYS, signal.SIGSEGV)["ahead"] == "fault"
    assert _judged(dict(ran), WAYS, signal.SIGXCPU)["ahead"] == "limit"
    assert _judged({**ran, "stopped": "memory"}, WAYS, 0)["ahead"] == "limit"
    assert _judged({"name": "x", "stopped": "LookupError"}, WAYS, 0)["ahead"] == "untried"
    row = _judged({**ran, "ahead": "exact"}, WAYS, signal.SIGSEGV)
    assert (row["ahead"], row["compile"]) == ("exact", "raise")
    assert "compile" not in _judged({**ran, "ahead": "exact"}, ("ahead",), 0)


def test_a_run_is_gone_on_with(tmp_path: Path) -> None:
    """Breaks when --resume asks again what is known, takes one way for both, or an old line wins over a new one."""
    path = tmp_path / "found.jsonl"
    for ahead in ("untried", "exact"):
        keep({"name": "x", "ahead": ahead}, path)
    assert latest(path, lambda row: row["name"]) == [{"name": "x", "ahead": "exact"}]
    assert _has({"ahead": "exact"}, ("ahead",)) and not _has({"ahead": "exact"}, WAYS)
    assert _has({"ahead": "untried"}, WAYS) and not _has({}, ("ahead",))


@pytest.mark.slow
def test_a_type_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a model that runs is not found to, or what a child sets stays behind."""
    monkeypatch.setenv("LLMCHIP_CACHE", "off")
    row = examine("bert", WAYS)
    assert (row["ahead"], row["compile"], row["back"]) == ("exact", "chip", 0) and row["nodes"] > 20
    assert examine("timm_wrapper", WAYS)["ahead"] == "untried"


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when refusals of the same cause are counted apart, a type is missing, or a reason splits a row."""
    a, b = "aten.x [l.py:3: y = x]", "BertModel: torch.export cannot capture this model: size 3|4 of 'z'"
    assert (
        page.reason(a) == "aten.x" and page.reason(b).startswith("torch.export") and "size N|N of '…'" in page.reason(b)
    )
    rows: list[Row] = [
        {"name": "one", "model": "One", "inputs": "text", "ahead": "exact", "nodes": 3, "of": 9, "compile": "chip", "back": 0},
        {"name": "two", "ahead": "refused", "why": b, "compile": "falls back", "back": 2},
        {"name": "three", "ahead": "refused", "why": b.replace("3", "5")},
    ]  # fmt: skip
    text = "\n".join(page._models(rows))
    assert "| one | One | text | 0 bits differ | 3 of 9 | all on the chip |" in text
    assert "| 2 | torch.export cannot capture this model: size N\\|N of '…' | two, three |" in text
    assert "2 operations in PyTorch" in text


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "support.md").read_text() == page.document(), "run: python tools/write_docs.py"

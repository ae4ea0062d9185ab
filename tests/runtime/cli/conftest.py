"""One small model and its image for all tests of the command line."""

from pathlib import Path
from typing import Any

import pytest
from cli_harness import call, make_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels: dict[str, Any] = {
        "id2label": {0: "bad", 1: "good", 2: "dull"},
        "label2id": {"bad": 0, "good": 1, "dull": 2},
    }
    return make_bert(tmp_path_factory.mktemp("classifier"), "BertForSequenceClassification", **labels)


@pytest.fixture(scope="session")
def image(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "bert.llmchip"
    result = call("compile", bert, "--seq", 8, "--batch", 2, "--task", "embed", "-o", path, "--json")
    assert result.code == 0, result.out + result.err
    return path

"""One small model and its image for all tests of the command line."""

from pathlib import Path
from typing import Any

import pytest
from cli_harness import call, make_bert


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On one worker, so that the image below is made once."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("cli"))


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

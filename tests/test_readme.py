"""The first page: its table is made of stored figures, its pictures are there and small."""

import json
import re

from checkout import ROOT

from benchmarks import model_table
from tools import pictures

TEXT = (ROOT / "README.md").read_text()


def test_the_table_of_models_is_made_of_the_stored_figures() -> None:
    """Breaks when figures have changed and the table has not, or somebody has edited it."""
    assert model_table.readme() == TEXT, "run: python tools/write_docs.py"


def test_no_bit_differs_in_the_table() -> None:
    """Breaks when the table shows a model whose bits differ, or claims more nodes than were measured."""
    stored = json.loads((model_table.RESULTS / "models.json").read_text())
    assert set(stored) == set(model_table.MEASURED)
    assert all(row["differing"] == 0 for row in stored.values())
    assert 0.99 < stored["minilm"]["cosine"] <= 1


def test_a_changed_figure_changes_the_table() -> None:
    """Breaks when a row shows another model's figures."""
    rows = [line for line in model_table.table().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(model_table.SHOWN)
    chip = json.loads((model_table.RESULTS / "chip.json").read_text())
    assert f"{chip['bert-base 128x1 edge']['cycles']:,} cycles" in rows[2] and "BERT-base" in rows[2]


def test_pictures_are_shown_and_small() -> None:
    """Breaks when a picture is missing, is not shown, is no PNG, or makes every clone larger than it should."""
    shown = re.findall(r"!\[[^\]]{20,}\]\((docs/pictures/[\w.-]+)\)", TEXT)
    made = {f"docs/pictures/{picture.name}.png" for picture in pictures.PICTURES}
    kept = {str(path.relative_to(ROOT)) for path in pictures.FOLDER.iterdir()}
    assert set(shown) == made == kept
    for name in shown:
        data = (ROOT / name).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) <= pictures.MOST_BYTES


def test_the_first_screen_says_for_whom_it_is() -> None:
    """Breaks when a newcomer has to scroll to learn what this is, for whom, and how to begin."""
    first = "\n".join(TEXT.splitlines()[:30])
    assert all(word in first for word in ("architect", "compiler engineer", "kernel writer", "make demo", "make test"))

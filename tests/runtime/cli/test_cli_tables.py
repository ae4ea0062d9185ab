"""Tables: in any width no number is cut, in a pipe nothing is padded."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from runtime.cli.tables import LEAST, UNCUT, Cell, Column, fit, show

COLUMNS = (
    Column("name", prose=True, by_end=True),
    Column("cycles", right=True),
    Column("busy", right=True, spare=2),
    Column("code", spare=1, prose=True),
)
ROWS = [
    ("model_layer_0_output_dense", "1,234,567", "12", "hidden_states = self.dense(hidden_states)"),
    ("(3 more)", "1"),
]


def printed(
    capsys: pytest.CaptureFixture[str], columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None
) -> list[str]:
    show(columns, rows, width=width)
    return capsys.readouterr().out.splitlines()


def test_a_pipe_gets_everything_and_no_padding(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when lines end in blanks, or something is cut where there is no width."""
    assert printed(capsys, COLUMNS, ROWS, None) == [
        "name                           cycles  busy  code",
        "model_layer_0_output_dense  1,234,567    12  hidden_states = self.dense(hidden_states)",
        "(3 more)                            1",
    ]


def test_prose_is_cut_first_then_columns_of_less_interest_go(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when a number is cut, a line is longer than the terminal, or names lose the end that tells them apart."""
    assert printed(capsys, COLUMNS, ROWS, 60)[1] == "model_layer_0_output_dense  1,234,567    12  hidden_states …"
    assert printed(capsys, COLUMNS, ROWS, 30)[1] == "…yer_0_output_dense  1,234,567"


@given(
    st.integers(30, 200),
    st.lists(st.tuples(st.text("abc_", max_size=60), st.integers(0, 10**9)), min_size=1, max_size=5),
)
def test_no_number_is_ever_cut(width: int, rows: list[tuple[str, int]]) -> None:
    """Breaks when a width makes `fit` give numbers less room than they need."""
    texts = [(name, f"{number:,}", "1", name) for name, number in rows]
    kept, widths = fit(COLUMNS, texts, width)
    assert 1 in kept
    assert widths[1] >= max(len(row[1]) for row in texts)
    assert sum(widths[i] for i in kept) + 2 * (len(kept) - 1) <= max(width, LEAST + 2 + widths[1])
    assert fit(COLUMNS, texts, UNCUT)[0] == [0, 1, 2, 3]


def test_what_files_say_stays_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when a name is read as markup, or moves the cursor."""
    line = printed(capsys, (Column("a"), Column("b")), [("[/x]\x1b[2J", ("[red]y", "bold"))], None)[1]
    assert "[/x]" in line and "[red]y" in line and "\x1b[2J" not in line


def test_characters_of_two_columns_count_as_two(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when characters are counted: a name in Chinese then makes every row twice as wide as the terminal."""
    lines = printed(capsys, COLUMNS, [("模型" * 20, "1", "2", "c")], 40)
    assert [cell_len(line) <= 40 for line in lines] == [True, True] and "1" in lines[1].split()

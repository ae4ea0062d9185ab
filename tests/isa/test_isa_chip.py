"""Chip files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.chip import Chip, chip_hash, chip_names, load_chip, parameters, read_toml, to_toml
from isa.doc import chip_page
from isa.errors import ChipError
from isa.technology import sram_energy
from isa.units import UNITS, parse, written


def test_stock_chips_are_complete() -> None:
    """Breaks when a key or comment is added to isa/chip.py and the shipped files are not written again."""
    folder = Path("isa/chips")
    assert chip_names() == ("edge", "server")
    for name in chip_names():
        assert (folder / f"{name}.toml").read_text(encoding="utf-8") == to_toml(load_chip(name))
        assert load_chip(name).name == name


def test_stock_chips_differ_as_designed() -> None:
    """Breaks when a stock chip is edited by accident."""
    edge, server = load_chip("edge"), load_chip("server")
    assert (edge.mxu.rows, edge.mxu.cols, edge.mxu.weight_rows_per_cycle, edge.sram.bytes, edge.acc.bytes) == (
        128,
        128,
        4,
        8 << 20,
        2 << 20,
    )
    assert (edge.dram.bytes_per_second, server.dram.bytes_per_second, server.mxu.weight_rows_per_cycle) == (
        10**11,
        10**12,
        16,
    )
    assert chip_hash(edge) != chip_hash(server)


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    """Breaks when a partial file does not take the defaults, or 1e9 is not an integer."""
    path = tmp_path / "mine.toml"
    path.write_text("clock_hz = 1e9\n[mxu]\nrows = 64\n[energy]\nact = 3\n")
    chip = load_chip(path)
    assert (chip.clock_hz, chip.mxu.rows, chip.mxu.cols, chip.energy.act) == (1_000_000_000, 64, 128, 3.0)
    assert load_chip(str(path)) == load_chip(chip) == read_toml(to_toml(chip), "x") == chip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mxu]\nrow = 1", r"mine.toml: unknown key mxu.row \(did you mean 'rows'\?\)"),
        ("foo = 1", "unknown key foo .*keys here are: name"),
        ("[mxu]\nrows = 0", "mxu.rows: expected int >= 1"),
        ("[mxu]\nrows = -1", "mxu.rows: expected int >= 1"),
        ("[mxu]\nrows = true", "mxu.rows: expected int, got bool"),
        ("[mxu]\nrows = 1.5", "mxu.rows: expected int"),
        ("[mxu]\nrows = 'many'", "mxu.rows: expected int, got str"),
        ("[energy]\nact = nan", "energy.act is not a finite number"),
        ("clock_hz = inf", "clock_hz is not a finite number"),
        ("[sram]\nbytes = 68719476737", "sram.bytes: expected int <= 68719476736"),
        ("mxu = 3", "mxu: expected a table, got int"),
        ("rows = [", "not valid TOML"),
    ],
)
def test_bad_chip_files_name_file_and_key(text: str, message: str) -> None:
    """Breaks when a typo is accepted or the message does not lead to it."""
    with pytest.raises(ChipError, match=message):
        read_toml(text, "mine.toml")


def test_unknown_names_and_paths_list_the_chips(tmp_path: Path) -> None:
    """Breaks when a mistyped chip name ends in a traceback."""
    for chip, message in (
        ("egde", "did you mean 'edge'"),
        ("zzz", "edge, server"),
        (tmp_path / "none.toml", "does not exist"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ChipError, match=message):
            load_chip(chip)


def test_objects_are_validated_too() -> None:
    """Breaks when a Chip made in Python escapes the bounds of the file."""
    with pytest.raises(ChipError, match="clock_hz"):
        load_chip(Chip(clock_hz=0))


def test_a_chip_is_changed_by_keys_and_tables() -> None:
    """Breaks when text with a unit means another number, a value that was not named changes, or the name hides it."""
    edge = load_chip("edge")
    chip = edge.replace({"sram.bytes": "4MiB", "clock_hz": "1.5 GHz"}, mxu={"rows": 64, "split": "true"})
    assert (chip.sram.bytes, chip.clock_hz, chip.mxu.rows, chip.mxu.split) == (4 << 20, 1_500_000_000, 64, True)
    assert (chip.mxu.cols, chip.acc, chip.dram) == (edge.mxu.cols, edge.acc, edge.dram)
    assert chip.name == "edge clock_hz=1.5GHz mxu.rows=64 mxu.split=true sram.bytes=4MiB"
    assert edge.replace({"mxu.rows": 128}) == edge and edge.replace(name="mine").name == "mine"
    assert read_toml(to_toml(chip), "x") == chip == load_chip(chip)


def test_many_changes_fit_into_a_name() -> None:
    """Breaks when a chip with a long history cannot be written, because its name is too long."""
    chip = load_chip("edge").replace({key: 100 for key in parameters() if key.startswith(("queues.", "mxu.r", "vec."))})
    assert chip.name == "edge with 8 changes" and load_chip(chip) == chip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sram.byte": 1}, r"a chip has no parameter 'sram.byte' \(did you mean 'sram.bytes'"),
        ({"rows": 1}, "did you mean 'mxu.rows'"),
        ({"sram.bytes": "4MHz"}, "sram.bytes: '4MHz' is in no unit of this parameter; its units are B, kB"),
        ({"sram.bytes": 0}, "sram.bytes: 0B is not within 1B to 64GiB"),
        ({"sram.bytes": "1.5"}, "sram.bytes: 1.5B is no whole number"),
        ({"sram.bytes": "1.5.2"}, "is no number of B"),
        ({"mxu.rows": "64 B"}, "it has no unit"),
        ({"mxu.split": "maybe"}, "'maybe' is neither true nor false"),
        ({"energy.act": "nan"}, "'nan' is no number of pJ"),
        ({"clock_hz": "2THz"}, "clock_hz: 2THz is not within 1Hz to 1THz"),
        ({"name": ""}, "name: expected str of length >= 1"),
    ],
)
def test_limits_that_are_broken_are_named(changes: dict[str, object], message: str) -> None:
    """Breaks when a value that no chip can have is taken, or the line does not say which key and which limit."""
    with pytest.raises(ChipError, match=f"chip 'edge'.*{message}"):
        load_chip("edge").replace(changes)


@given(st.integers(1, 10**12), st.sampled_from(sorted(UNITS)))
def test_what_is_written_is_read_again(value: int, unit: str) -> None:
    """Breaks when a quantity is shortened to another one."""
    assert parse(written(value, unit), unit) == value


def test_the_page_of_parameters_is_current() -> None:
    """Breaks when isa/chip.py changed and docs/chip.md did not (`make docs`), or a parameter is not on it."""
    page = Path("docs/chip.md").read_text(encoding="utf-8")
    assert page == chip_page.document()
    assert all(f"| `{key}` |" in page for key in parameters())


def test_energies_follow_sizes() -> None:
    """Breaks when a figure of a stock chip changes, one that was set is overruled, or a size does not count."""
    edge, server = load_chip("edge"), load_chip("server")
    assert [edge.replace(clock_hz="2GHz").energy, server.replace(mxu={"split": True}).energy] == [
        edge.energy,
        server.energy,
    ]
    half = edge.replace({"sram.bytes": "4MiB"})
    assert 1.75 < half.energy.sram_byte < 2.6 and half.energy.acc_byte == 1.75
    assert edge.replace({"sram.bytes": "1MiB"}).energy.sram_byte == pytest.approx(1.75)  # the table's own
    assert edge.replace({"sram.bytes": "4MiB", "energy.sram_byte": 9}).energy.sram_byte == 9
    smaller = ({"mxu.rows": 64}, {"vec.lanes": 64}, {"sram.bytes": "4MiB"}, {"dram.bytes_per_second": "50GB/s"})
    for change in smaller:
        assert edge.replace(change).energy.static_watts < 0.5
        assert sum(edge.replace(change).area().values()) < sum(edge.area().values())
    assert edge.replace(mxu={"rows": 256}).area()["mxu"] == 2 * edge.area()["mxu"]


@given(st.integers(1, 1 << 36), st.integers(1, 1 << 36))
def test_larger_memories_cost_more(one: int, other: int) -> None:
    """Breaks when the curve of SRAM energy falls anywhere."""
    low, high = sorted((one, other))
    assert sram_energy(low) <= sram_energy(high) * (1 + 1e-12)

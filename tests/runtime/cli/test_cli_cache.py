"""The compile cache behind the verbs: what was compiled once, nobody compiles again, and nobody can tell the
difference."""

from pathlib import Path
from typing import Any

import pytest
from cli_harness import call

from runtime.pytorch import cache

FACTORY = "import torch\n\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 4).eval(), {'input': torch.ones(2, 4)}\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMCHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0.0)
    return tmp_path / "cache" / "images"


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("runtime.pytorch.compilation.finish", refuse)
    monkeypatch.setattr("compiler.pipeline.finish", refuse)


@pytest.mark.wide
def test_every_verb_that_compiles_takes_the_image_from_the_cache(
    bert: Path, tmp_path: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when a verb compiles what another one has compiled before, or makes another key of the same model."""
    size = ["--seq", "8"]
    first = call("compile", bert, *size, "-o", tmp_path / "first", "--json").document
    assert not first["cached"] and first["passes"] and len(list(own_folder.iterdir())) == 1
    forbid_compiling(monkeypatch)
    second = call("compile", bert, *size, "-o", tmp_path / "second", "--json").document
    assert second["cached"] and not second["passes"]
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert second["memory"] == first["memory"] and second["words"] == first["words"]
    assert call("verify", bert, *size, "--json").document["bit_exact"]
    assert call("verify", tmp_path / "second", "--json").document["bit_exact"]
    assert (
        call("profile", bert, *size, "--json").document["cycles"]
        == call("profile", tmp_path / "first", "--json").document["cycles"]
    )
    assert call("lint", bert, *size).code == 0
    script = tmp_path / "script"
    script.write_text("run\n")
    debugged = call("debug", bert, *size, "--script", script, "--json").document
    assert not debugged["failed"]
    assert call("compile", bert, *size, "--dry-run", "--json").document["estimate"]["cycles"] > 0
    assert len(list(own_folder.iterdir())) == 1


def test_passes_that_are_to_be_seen_are_run(tmp_path: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when --time-passes, --print-after or --dump-dir shows nothing because the image was in the cache. One
    linear layer has all passes."""
    (tmp_path / "seen_passes.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    compiling = ["compile", "seen_passes:make", "--dry-run"]
    assert call(*compiling).code == 0
    assert call(*compiling, "--json").document["cached"]
    timed = call(*compiling, "--time-passes")
    assert "quantize" in timed.out
    assert "# after" in call(*compiling, "--print-after", "quantize").err
    call(*compiling, "--dump-dir", tmp_path / "dump")
    assert list((tmp_path / "dump").iterdir())


@pytest.mark.wide
def test_what_changes_the_program_is_compiled(bert: Path, own_folder: Path) -> None:
    """Breaks when a verb is given the image of another shape, chip or option."""
    changes = ("--seq 8", "--seq 7", "--seq 8 --batch 2", "--seq 8 --chip server", "--seq 8 --option disable=fuse")
    for count, change in enumerate(changes, 1):
        assert not call("compile", bert, *change.split(), "--dry-run", "--json").document["cached"], change
        assert len(list(own_folder.iterdir())) == count, change

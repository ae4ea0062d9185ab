"""`import llmchip` is quick and light, and is not confused by a user's own folders."""

from pathlib import Path

import pytest
from checkout import ROOT
from runtime_models import python


def test_import_is_light(tmp_path: Path) -> None:
    code = "import sys, llmchip; llmchip.Error, llmchip.load, llmchip.Chip; assert not {'torch', 'transformers', 'lark', 'rich'} & set(sys.modules)"
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["runtime", "compiler", "isa", "emulator"])
def test_a_users_folder_that_hides_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = python("import llmchip", tmp_path, path=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path / name} hides llmchip's own package '{name}' in {ROOT / name}" in done.stderr
    assert "rename it" in done.stderr
    assert "llmchip.errors.Error" in done.stderr


def test_a_users_module_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "compiler.py").write_text("")
    done = python("import llmchip", tmp_path, path=tmp_path)
    assert f"{tmp_path / 'compiler.py'} hides" in done.stderr


def test_a_folder_without_init_does_no_harm(tmp_path: Path) -> None:
    """Python prefers our package to a plain folder, so there is nothing to complain about."""
    (tmp_path / "runtime").mkdir()
    done = python("import llmchip; llmchip.load", tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_others_do_not() -> None:
    import llmchip

    assert all(getattr(llmchip, name) is not None for name in llmchip.__all__)
    assert set(llmchip.__all__) <= set(dir(llmchip))
    assert all(
        issubclass(getattr(llmchip, name), llmchip.Error)
        for name in llmchip.__all__
        if name.endswith(("Error", "Trap"))
    )
    with pytest.raises(AttributeError, match="no attribute 'compiel'"):
        _ = llmchip.compiel

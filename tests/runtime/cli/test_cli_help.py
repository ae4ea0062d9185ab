"""The command line before any model: help, version, completion, tables. Fails when a verb drags in what it does not
need."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import call, spawn

from runtime.cli.main import VERBS

LLMCC = Path(sys.executable).with_name("llmcc")


def test_help_is_instant() -> None:
    """Breaks when main.py, or what it imports, imports something heavy. Processor time, so that a busy machine does not
    matter."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([LLMCC, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) <= 0.3


def test_help_lists_every_verb() -> None:
    result = call("--help")
    assert result.code == 0
    assert all(verb in result.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    result = call(verb, "--help")
    assert result.code == 0
    assert f"llmcc {verb} " in result.out.partition("Examples:")[2]
    assert "--json" in result.out
    assert "--traceback" in result.out


def test_version_names_program_and_isa() -> None:
    assert call("--version").out.startswith("llmcc 0.")


def test_unknown_verb_suggests_one() -> None:
    result = call("verfy")
    assert result.code == 2
    assert "did you mean verify" in result.err


def test_usage_error_as_json() -> None:
    """Breaks when click prints its own message to a script that asked for JSON."""
    result = call("compile", "--no-such-option", "--json")
    assert (result.code, result.error["kind"], result.err) == (2, "usage", "")


def test_shell_completion() -> None:
    environment = {**os.environ, "_LLMCC_COMPLETE": "bash_complete", "COMP_WORDS": "llmcc ver", "COMP_CWORD": "1"}
    done = subprocess.run([LLMCC], env=environment, capture_output=True, text=True, check=True)
    assert "verify" in done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [("run m", ["plain,minilm", "file,m"]), ("isa vaf", ["plain,vaff"]), ("chips ed", ["plain,edge", "file,ed"])],
)
def test_arguments_are_completed(words: str, offered: list[str]) -> None:
    """Breaks when the shell is told that there is nothing, so that it offers no files for a MODEL|FILE either."""
    from click.shell_completion import BashComplete

    from runtime.cli.main import cli

    verb, incomplete = words.split()
    shell = BashComplete(cli, {}, "llmcc", "_LLMCC_COMPLETE")
    assert [f"{item.type},{item.value}" for item in shell.get_completions([verb], incomplete)] == offered


def test_isa_lists_the_table_and_shows_one_instruction() -> None:
    from isa.spec import ISA

    assert [row["mnemonic"] for row in call("isa", "--json").document["instructions"]] == list(ISA)
    assert call("isa", "mm", "--json").document["engine"] == "mxu"
    assert "did you mean 'vaff'" in call("isa", "vaf").err


def test_chips_prints_toml_that_loads_again(tmp_path: Path) -> None:
    """Breaks when a key of the chip is missing from the printed TOML."""
    from isa.chip import load_chip

    path = tmp_path / "mine.toml"
    path.write_text(call("chips", "edge").out)
    assert load_chip(path) == load_chip("edge")
    assert {chip["name"] for chip in call("chips", "--json").document} >= {"edge", "server"}


def test_models_says_where_a_bundled_model_is() -> None:
    minilm = call("models", "--json").document[0]
    assert minilm["name"] == "minilm"
    assert minilm["installed"] == (minilm["folder"] is not None)


def test_reader_that_leaves_early_gets_no_traceback() -> None:
    """Breaks when a closed pipe (`| head`) ends in a BrokenPipeError."""
    done = subprocess.run(
        f"{sys.executable} -m runtime.cli isa vaff | true", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_module_can_be_run() -> None:
    assert spawn("chips").code == 0


@pytest.mark.parametrize("name", ["isa", "runtime", "compiler", "emulator"])
def test_a_folder_that_hides_our_package_is_named(name: str, tmp_path: Path) -> None:
    """Breaks when the command starts below `llmchip`, whose import checks that the packages are ours."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([LLMCC, "chips"], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"{tmp_path / name} hides llmchip's own package '{name}'" in done.stderr.splitlines()[-1]

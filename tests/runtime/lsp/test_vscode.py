"""The extension for VS Code: what it declares is what is there, and it starts the server."""

import json
import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
from checkout import ROOT

FOLDER = ROOT / "editors" / "vscode"
STARTS = """
const Module = require("module"), said = [], load = Module._load;
const fails = process.argv[1] === "fails";
class LanguageClient {
  constructor(id, name, server, client) { said.push(["server", server.command, server.args, client.documentSelector[0].language]); }
  async start() { if (fails) throw new Error("ENOENT"); said.push(["start"]); }
  async stop() { said.push(["stop"]); }
}
const vscode = {
  workspace: { getConfiguration: () => ({ get: () => ["llmcc", "lsp"] }), onDidChangeConfiguration: () => ({}) },
  window: { showErrorMessage: text => said.push(["error", text]) },
  commands: { registerCommand: name => { said.push(["command", name]); return {}; } },
};
Module._load = (name, ...rest) => name === "vscode" ? vscode : name.startsWith("vscode-languageclient") ? { LanguageClient } : load(name, ...rest);
(async () => {
  const extension = require(process.env.EXTENSION);
  await extension.activate({ subscriptions: [] });
  await extension.deactivate();
  console.log(JSON.stringify(said));
})();
"""


@pytest.fixture(scope="module")
def package() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "package.json").read_text())
    return found


def test_what_it_declares_is_there(package: dict[str, Any]) -> None:
    """Breaks when a file, the version, or what counts as assembly differs from the rest of the repository."""
    contributes = package["contributes"]
    (language,), (grammar,) = contributes["languages"], contributes["grammars"]
    for path in (package["main"], language["configuration"], grammar["path"]):
        assert (FOLDER / path).is_file(), path
    colours = json.loads((FOLDER / grammar["path"]).read_text())
    assert grammar["scopeName"] == colours["scopeName"]
    assert language["extensions"] == [f".{suffix}" for suffix in colours["fileTypes"]]
    assert package["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    word = json.loads((FOLDER / language["configuration"]).read_text())["wordPattern"]
    assert re.fullmatch(word, "loop.body_2") and re.fullmatch(word, ".equ") and not re.fullmatch(word, "a b")


def test_a_workspace_cannot_say_what_is_run(package: dict[str, Any]) -> None:
    """Breaks when opening a stranger's folder runs the stranger's command."""
    command = package["contributes"]["configuration"]["properties"]["llmchip.command"]
    assert command["scope"] == "machine"
    assert command["default"] == ["llmcc", "lsp"]


@pytest.mark.parametrize("how", ["starts", "fails"])
def test_it_starts_and_stops_the_server(how: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here")
    done = subprocess.run(
        [node, "-e", STARTS, how], capture_output=True, text=True, timeout=60, check=True,
        env={"EXTENSION": str(FOLDER / "extension.js")},
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert ["server", "llmcc", ["lsp"], "llmchip"] in said
    assert ["command", "llmchip.restart"] in said
    if how == "starts":
        assert said[-2:] == [["start"], ["stop"]]
    else:
        assert "pip install 'llmchip[lsp]'" in said[-1][1]

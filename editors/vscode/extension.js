// Starts `llmcc lsp` and leaves everything to it.
"use strict";
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function start() {
  const [command, ...args] = vscode.workspace.getConfiguration("llmchip").get("command");
  client = new LanguageClient(
    "llmchip",
    "llmchip",
    { command, args },
    { documentSelector: [{ language: "llmchip" }] },
  );
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    vscode.window.showErrorMessage(`llmchip: '${[command, ...args].join(" ")}' did not start (${error.message}); pip install 'llmchip[lsp]', or set llmchip.command`);
  }
}

async function stop() {
  const running = client;
  client = undefined;
  await running?.stop();
}

async function restart() {
  await stop();
  await start();
}

async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("llmchip.restart", restart),
    vscode.workspace.onDidChangeConfiguration((event) => event.affectsConfiguration("llmchip.command") && restart()),
  );
  await start();
}

module.exports = { activate, deactivate: stop };

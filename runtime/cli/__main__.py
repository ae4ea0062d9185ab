"""`python -m runtime.cli` is `llmcc`."""

from runtime.cli.main import run

run()

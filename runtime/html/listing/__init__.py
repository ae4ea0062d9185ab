"""The parts of the page of `llmcc disasm --html`: template, style, scripts."""

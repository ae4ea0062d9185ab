"""`llmcc doctor`: what is installed here, and whether the arithmetic that the reference relies on is what it must be."""

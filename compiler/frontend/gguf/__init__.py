"""GGUF files: what their block formats mean, and a reader that trusts nothing. Needs numpy alone."""

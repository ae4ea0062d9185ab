"""GGUF files: what their block formats mean, and a reader that trusts nothing; both need numpy alone. And their linear
layers, as PyTorch modules."""

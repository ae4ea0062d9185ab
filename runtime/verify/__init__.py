"""Is the binary right? Every node against PyTorch, bit for bit."""

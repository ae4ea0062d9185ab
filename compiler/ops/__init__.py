"""The chip's operators as PyTorch custom operators."""

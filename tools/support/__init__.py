"""PyTorch's own operator and module tests against the backend: what is called, what is compared, how it is told. See
tools/support_ops.py."""

"""torch.compile and the API's programs: captured graphs, their pieces, their weights, and what falls back."""

"""Repeated layers: found in a captured graph, lowered once, and replicated."""

"""Graph passes: from a captured graph to the frozen graph of chip operations."""

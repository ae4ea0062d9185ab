"""What changed between two programs, or two chips."""

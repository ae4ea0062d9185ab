"""Many chips, many shapes: a model is captured and lowered once, compiled and timed for every chip, and every result is
kept."""

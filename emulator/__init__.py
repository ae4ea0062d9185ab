"""Functional model of the chip in numpy: executes binary programs bit for bit. Knows only `isa`, nothing of the
compiler."""

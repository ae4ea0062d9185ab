"""Compiled kernels for the execution plan (emulator/replay/recording.py). They need numba; where it is missing nothing
here is imported."""

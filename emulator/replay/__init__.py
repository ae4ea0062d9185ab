"""Compiled kernels for recorded traces (emulator/replay/recording.py). They need numba; where it is missing nothing
here is imported."""

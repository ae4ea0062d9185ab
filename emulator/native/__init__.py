"""Compiled kernels for the execution plan (emulator/plan.py). They need numba; where it is missing nothing here is imported."""

"""Compiled kernels for the execution plan (emulator/plan.py). They need numba (the extra `fast`); without it nothing here is imported."""

"""Launches without interpreting (`replays`): programs expanded for their scalars and run by compiled kernels (`plans`).
These need numba; where it is missing nothing of it is imported, and launches repeat their trace (`recording`)."""

"""Reductions along the last axis. The sum has one architectural order, so that it never depends on lanes or tiles."""

import numpy as np

from emulator.formats import Floats

ACCUMULATORS = 64
ZERO = np.float32(0)


def ordered_sum(x: Floats) -> Floats:
    """64 accumulators start at +0.0, element i goes to accumulator i mod 64 in ascending i; then they are halved.

    Padding the tail with zeros is left out: an accumulator that started at +0.0 is never -0.0, so adding +0.0 changes
    nothing.
    """
    count = x.shape[-1]
    sums = np.zeros((*x.shape[:-1], ACCUMULATORS), np.float32)
    for start in range(0, count, ACCUMULATORS):
        part = x[..., start : start + ACCUMULATORS]
        head = sums[..., : part.shape[-1]]
        np.add(head, part, out=head)
    half = ACCUMULATORS // 2
    while half:
        sums = sums[..., :half] + sums[..., half:]
        half //= 2
    return sums[..., 0]


def largest(x: Floats) -> Floats:
    """NaN if any element is NaN; a zero is +0."""
    top: Floats = np.max(x, axis=-1)
    return top + ZERO


def smallest(x: Floats) -> Floats:
    bottom: Floats = np.min(x, axis=-1)
    return bottom + ZERO


def absmax(x: Floats) -> Floats:
    """Two passes that only read are cheaper than storing absolute values."""
    top: Floats = np.maximum(np.max(x, axis=-1), -np.min(x, axis=-1))
    return top + ZERO


def sum_of_squares(x: Floats) -> Floats:
    return ordered_sum(x * x)

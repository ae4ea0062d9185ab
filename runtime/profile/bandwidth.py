"""What the DRAM bus moves, over time."""

import numpy as np

from emulator.timing.timeline import Timeline

_BINS = 600


def bandwidth(t: Timeline) -> tuple[list[int], list[float]]:
    """GB/s in each of many equal intervals: the share of it in which the bus works, times its rate."""
    edges = np.linspace(0, t.cycles, min(_BINS, t.cycles) + 1)
    ends = t.bus[:, 1] if len(t.bus) else np.zeros(0)
    starts = t.bus[:, 0] if len(t.bus) else np.zeros(0)
    done = np.concatenate([[0], np.cumsum(ends - starts)])
    points = np.stack([starts, ends], 1).ravel()
    work = (
        np.interp(edges, points.astype(float), np.repeat(done, 2)[1:-1].astype(float))
        if len(points)
        else np.zeros_like(edges)
    )
    rates = np.diff(work) / np.diff(edges) * t.chip.dram.bytes_per_second / 1e9
    return [round(at) for at in edges[:-1].tolist()], [round(rate, 2) for rate in rates.tolist()]

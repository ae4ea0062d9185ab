"""What energy, static power and area have to do with sizes, at 7 nm: constants with their sources, and the rules.

    area(chip.sizes)["sram"]                           mm² of the scratchpad
    sram_followed(2.6, 8 << 20, 4 << 20)               pJ per byte of a scratchpad that was halved
    static_followed(0.5, old.sizes, new.sizes)         watts of a chip whose sizes were changed

A chip file states its figures at its own sizes. A rule here only says how they change with a size, so a chip as it
ships has exactly what its file says. DRAM's energy per byte does not follow bandwidth: that is the technology's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import log2

MIB = 1 << 20
UM2_PER_MM2 = 1e6


@dataclass(frozen=True, slots=True)
class Constant:
    """`margin`: the true value is this many times more or less, at worst. `assumed`: no source has it."""

    value: float
    unit: str
    margin: float
    source: str
    assumed: bool = True


CONSTANTS: Mapping[str, Constant] = {
    "cell_area": Constant(
        92.5,
        "µm²",
        1.7,
        "int8 multiply-accumulate with its weight register: ASAP7, open liberty, cells unplaced",
        False,
    ),
    "bit_area": Constant(0.027, "µm²", 1.1, "SRAM cell, Chang et al., ISSCC 2017, 12.1 (TSMC 7 nm)", False),
    "macro_fill": Constant(
        0.6, "", 2.0, "share of a macro that is cells; that paper's whole test chip, 256 Mb in 42.64 mm², has 0.17"
    ),
    "f32_cells": Constant(
        25, "cells", 2.0, "area of a float32 multiply-add in int8 cells: product of 24 bits, alignment"
    ),
    "vec_steps": Constant(
        3, "", 1.5, "float32 multiply-adds of a lane of VEC: vaff has five steps, of which two multiply"
    ),
    "act_steps": Constant(10, "", 2.0, "float32 multiply-adds of a lane of ACT, as for its energy"),
    "dram_area": Constant(0.06, "mm²/(GB/s)", 3.0, "PHY and controller, between LPDDR5 and HBM2"),
    "control_area": Constant(0.5, "mm²", 3.0, "dispatch, queues, DMA"),
    "sram_leak": Constant(0.010, "W/MiB", 3.0, "leakage of SRAM at operating temperature"),
    "cell_idle": Constant(5e-6, "W", 3.0, "leakage and clock of a cell of the array that does nothing"),
    "lane_idle": Constant(3e-4, "W", 3.0, "leakage and clock of a float32 lane that does nothing"),
}
# pJ per byte by capacity: three from Jouppi et al., ISCA 2021, table 2 (7 nm, 64-bit accesses), the last assumed.
SRAM_CURVE = ((8 << 10, 7.5 / 8), (32 << 10, 8.5 / 8), (1 << 20, 14 / 8), (8 << 20, 2.6))
ASSUMED = "good to a factor of two at best; what is assumed is marked in docs/chip.md"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a chip: what the rules look at. Memories in bytes, bandwidth in bytes per second."""

    cells: int
    vec_lanes: int
    act_lanes: int
    sram: int
    acc: int
    bandwidth: int


def _of(name: str) -> float:
    return CONSTANTS[name].value


def area(sizes: Sizes) -> dict[str, float]:
    """mm² by component."""
    cell = _of("cell_area") / UM2_PER_MM2
    byte = 8 * _of("bit_area") / _of("macro_fill") / UM2_PER_MM2
    return {
        "mxu": sizes.cells * cell,
        "vec": sizes.vec_lanes * _of("vec_steps") * _of("f32_cells") * cell,
        "act": sizes.act_lanes * _of("act_steps") * _of("f32_cells") * cell,
        "sram": sizes.sram * byte,
        "acc": sizes.acc * byte,
        "dram": sizes.bandwidth / 1e9 * _of("dram_area"),
        "control": _of("control_area"),
    }


def sram_energy(capacity: int) -> float:
    """pJ per byte of an SRAM: straight lines between the points of the curve, both scales logarithmic, and beyond its
    ends."""
    lines = list(pairwise(SRAM_CURVE))
    (x0, y0), (x1, y1) = next((line for line in lines if capacity <= line[1][0]), lines[-1])
    slope = log2(y1 / y0) / log2(x1 / x0)
    return float(y0 * 2 ** (slope * log2(capacity / x0)))


def sram_followed(figure: float, old: int, new: int) -> float:
    """The energy per byte of a memory whose capacity was changed."""
    return figure if old == new else _short(figure * sram_energy(new) / sram_energy(old))


def idle_watts(sizes: Sizes) -> float:
    """Static power of the memories, the array and the lanes, without DRAM and its interface."""
    memory = (sizes.sram + sizes.acc) / MIB * _of("sram_leak")
    lanes = (sizes.vec_lanes + sizes.act_lanes) * _of("lane_idle")
    return memory + sizes.cells * _of("cell_idle") + lanes


def static_followed(figure: float, old: Sizes, new: Sizes) -> float:
    """The static power of a chip whose sizes were changed: that of what is on chip by its size, and the rest, which is
    DRAM's, by bandwidth."""
    if old == new:
        return figure
    rest = max(figure - idle_watts(old), 0.0)
    on_chip = max(figure - rest + idle_watts(new) - idle_watts(old), 0.0)
    return _short(on_chip + rest * new.bandwidth / old.bandwidth)


def _short(value: float) -> float:
    """No more digits than mean anything, and some to tell neighbours apart."""
    return float(f"{value:.4g}")

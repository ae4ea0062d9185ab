"""The page of `llmcc sweep --html`: the front, each axis against each figure, and the profile of every point. Complete
in itself, with plotly's script inside; its own policy forbids it to load anything."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from isa.technology import ASSUMED
from runtime.html.page import inside_script
from runtime.html.plot_page import filled
from runtime.sweep.axes import CHIP
from runtime.sweep.measures import FIGURES, OBJECTIVES
from runtime.sweep.result import Sweep
from runtime.sweep.sweep import Row

_PARTS = (
    {"name": "waterfall", "title": "Cycles by cause", "unit": "", "scale": 1},
    {"name": "energy_joules", "title": "Energy", "unit": "µJ", "scale": 1e6},
    {"name": "area_mm2", "title": "Area", "unit": "mm²", "scale": 1},
    {"name": "utilisation", "title": "Busy", "unit": "%", "scale": 100, "whole": 1},
)


def page(found: Sweep, base: Sequence[str] = ()) -> str:
    """The whole file. `base` are the options that all points have in common. Raises InputError without plotly."""
    failed = sum(row.failed for row in found.rows)
    models = dict.fromkeys(row.model for row in found.rows)
    parts = {
        "TITLE": escape(f"Sweep of {', '.join(models)}"),
        "FACTS": escape(f"{len(found.rows)} points, {failed} failed. Energy, power and area: {ASSUMED}."),
        "MINIMIZED": escape(", ".join(found.minimized)),
        "DATA": inside_script(json.dumps(_data(found, base))),
    }
    return filled("runtime.sweep", "sweep.html", parts)


def _data(found: Sweep, base: Sequence[str]) -> dict[str, Any]:
    best = {id(row) for row in found.front()}
    shown = [OBJECTIVES[name] for name in OBJECTIVES]
    wanted = [OBJECTIVES[name] for name in found.minimized]
    return {
        "axes": [{"key": axis.key, "values": axis.values} for axis in found.axes],
        "figures": {name: asdict(figure) for name, figure in FIGURES.items()},
        "shown": [*shown, "of_limit"],
        "first": [*wanted, *(name for name in shown if name not in wanted)][:2],
        "parts": _PARTS,
        "rows": [_row(number, row, id(row) in best, base) for number, row in enumerate(found.rows)],
    }


def _row(number: int, row: Row, front: bool, base: Sequence[str]) -> dict[str, Any]:
    return {
        "number": number,
        "workload": " ".join([row.model, *(f"{name} {size}" for name, size in row.sizes.items())]),
        "chip": row.chip,
        "place": dict(row.place),
        "figures": {} if row.failed else row.outcome,
        "front": front,
        "error": row.reason,
        "command": command(row, base),
    }


def command(row: Row, base: Sequence[str] = ()) -> str:
    """What shows the whole profile of a point."""
    words = ["llmcc", "profile", row.model, *base]
    words += [word for name, size in row.sizes.items() for word in (f"--{name}", str(size))]
    words += ["--chip", row.place[CHIP]] if CHIP in row.place else []
    for key, value in row.place.items():
        words += [word for name in key.split("+") if key != CHIP for word in ("--set", f"{name}={value}")]
    return shlex.join([*words, "--html", "profile.html"])

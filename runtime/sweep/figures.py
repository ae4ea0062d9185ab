"""The figures of a model on a chip: compiled, timed, summed up. What a worker does for one point."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec

from compiler.codegen.image import Part, build_image
from compiler.lower import Lowered
from compiler.pipeline import finish
from compiler.tiling import Drafts
from isa.architecture import DMA_ENGINES
from isa.chip import Chip, Energy, read_toml
from isa.errors import Error, InternalError, described, interrupted
from isa.image.image import Image
from isa.timing import occupancy
from runtime.profile.profile import Profile, profile
from runtime.pytorch import cache
from runtime.sweep.frozen import FrozenModel

_ANY = "this"  # the name of a chip in what is said of its program
REREAD = 1.25  # times the bytes that the model must move: beyond it the scratchpad is what DRAM's time is spent for
Outcome = dict[str, Any]  # the figures, or {"error": ...}


def outcome(model: FrozenModel, chip: str) -> Outcome:
    """The figures for the chip of a TOML text; for what cannot be compiled or timed, the reason."""
    try:
        return figures(model, read_toml(chip, "the point's chip"))
    except Error as error:
        return {"error": described(error)}
    except Exception as error:
        if interrupted(error):
            raise
        fault = InternalError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return {"error": described(fault)}


def figures(model: FrozenModel, chip: Chip) -> Outcome:
    """Raises what compiling raises."""
    image = cache.find(cache.image_key(model.program, chip, model.weights))
    if image is None:
        plain = msgspec.structs.replace(chip, name=_ANY, description="", energy=Energy())
        image = replace(_program(model, plain), chip=chip)
    return summed_up(profile(image, _lowered(model)))


@lru_cache(maxsize=2)
def _lowered(model: FrozenModel) -> Lowered:
    """A worker gets the points of one model in a row."""
    return model.lowered()


@lru_cache(maxsize=1)
def _drafts(model: FrozenModel) -> Drafts:
    return Drafts()


@lru_cache(maxsize=4)
def _program(model: FrozenModel, chip: Chip) -> Image:
    """The program without its weights, on whose values its time does not depend. Chips that differ in figures alone
    have the same one."""
    made = finish(_lowered(model), model.options, chip, drafts=_drafts(model))
    return build_image([Part("main", made.tiled, made.placement, made.code, lambda store: None)], chip, {})


def summed_up(report: Profile) -> Outcome:
    """All figures of a run that can be compared between chips."""
    timeline, energy = report.timeline, report.activity.totals()
    joules = sum(energy.values())
    return {
        "cycles": report.cycles,
        "seconds": timeline.seconds,
        "joules": joules,
        "watts": joules / timeline.seconds,
        "mm2": sum(timeline.chip.area().values()),
        "area_mm2": timeline.chip.area(),
        "of_limit": report.limit.cycles / report.cycles,
        "limited_by": limited_by(report),
        "utilisation": report.utilisation,
        "waterfall": report.waterfall,
        "limits": dict(report.limit.by_resource),
        "energy_joules": energy,
        "dram_bytes": report.dram_bytes,
        "macs": report.macs,
        "instructions": len(timeline.instructions),
        "program_words": report.image.words,
    }


def limited_by(report: Profile) -> str:
    """What would have to be faster: the busiest of mxu, vec, act and dram; `sram` where DRAM is busiest with what a
    larger scratchpad would have kept, rather than with what bursts add to short rows; `fetch` where that resource
    stands idle for instructions longer than it works."""
    busy = {name: report.utilisation[name] for name in ("mxu", "vec", "act", "dram")}
    busiest = max(busy, key=lambda name: busy[name])
    causes = report.seen_from(busiest).waterfall
    if causes["dispatch"] > causes["compute"]:
        return "fetch"
    chip = report.timeline.chip
    least = report.limit.by_resource["dram"] * chip.dram.bytes_per_second / chip.clock_hz
    if busiest != "dram" or report.dram_bytes <= REREAD * least:
        return busiest
    asked = _asked_for(report)
    return "sram" if asked > REREAD * least and asked - least > report.dram_bytes - asked else busiest


def _asked_for(report: Profile) -> int:
    """Bytes that the program's transfers name, without those that bursts add to short rows."""
    plain = report.timeline.chip.replace({"dram.burst_bytes": 1})
    moved = (one for one in report.timeline.instructions if one.inst.row.engine in DMA_ENGINES)
    return sum(occupancy(one, plain, report.timeline.options).bytes for one in moved)

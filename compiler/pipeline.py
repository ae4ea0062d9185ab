"""The whole compiler, read top to bottom: a captured model becomes a program; weights are packed into its image.

captured → graph passes → frozen graph → kernels → tile program (checked against the graph) → placement → words → image
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from compiler.codegen.image import build_image, region_sizes
from compiler.codegen.program import Code, generate
from compiler.emit.program import Tiled
from compiler.frontend.capture import Captured
from compiler.lower import Lowered, lower
from compiler.options import Options
from compiler.packing import Bytes
from compiler.schedule.addresses import Placement
from compiler.schedule.autotune import Search, timed
from compiler.tile.kernel_graph import kernel_graph
from compiler.translation.check import Interface, check_translation
from isa.chip import Chip, load_chip
from isa.errors import InternalError
from isa.image.image import Image


@dataclass(frozen=True)
class Compiled:
    """A compiled model. The program depends on the graph alone; `image` packs weights into it, any number of times."""

    lowered: Lowered
    tiled: Tiled
    placement: Placement
    code: Code
    chip: Chip
    options: Options
    timings: Mapping[str, float] = field(default_factory=dict)

    def image(
        self,
        tensors: Mapping[str, Tensor] | None = None,
        metadata: Mapping[str, Any] | None = None,
        known: Mapping[int, Bytes] | None = None,
    ) -> Image:
        """The image with these weights (by name; default: those that were captured). `known` are constants that are
        packed already."""
        fill = partial(self.lowered.pack_into, tensors=tensors, known=known)
        return build_image(
            self.lowered.main.graph, self.tiled, self.placement, self.code, self.chip, fill, metadata or {}
        )


def compile_captured(
    captured: Captured, options: Options | None = None, chip: Chip | None = None, **printing: Any
) -> Compiled:
    """Compile a captured model. `printing` goes to `lower` (print_after, stop_after, dump_dir).

    Raises UnsupportedError for what the chip cannot do, CompileError for what does not fit.
    """
    options = options or Options()
    chip = chip or load_chip(options.chip)
    seconds: dict[str, float] = {}
    with timed(seconds, "graph passes"):
        lowered = lower(captured, options, **printing)
    return finish(lowered, options, chip, seconds)


def finish(lowered: Lowered, options: Options, chip: Chip, seconds: dict[str, float] | None = None) -> Compiled:
    """From the frozen graph to words. What goes wrong in here for another reason than the model or the chip is our
    mistake, and says so."""
    seconds = {} if seconds is None else seconds
    try:
        names_in, names_out = [i.name for i in lowered.inputs], [o.name for o in lowered.outputs]
        with timed(seconds, "kernel-graph"):
            kernels = kernel_graph(
                lowered.main.graph,
                names_in,
                names_out,
                fused="fuse" not in options.disable,
                rolled="loop" not in options.disable,
            )
        tiled, program, placement = Search(kernels, chip, lambda name: name not in options.disable, seconds).run()
        if "translation-check" not in options.disable:
            with timed(seconds, "translation check"):
                interface = Interface(tiled.inputs, tiled.constants, tiled.outputs, tiled.literals, tiled.instances)
                check_translation(lowered.main.graph, program, interface)
        with timed(seconds, "codegen"):
            code = generate(program, placement, chip, region_sizes(tiled, placement))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InternalError(
            f"the compiler failed on this graph: {type(error).__name__}: {error}", "tile passes"
        ) from error
    return Compiled(lowered, tiled, placement, code, chip, options, seconds)

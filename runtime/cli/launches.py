"""Chip and float model on many samples: what a report and a quantization look at."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from isa.image.image import Image
from runtime.cli.common import Given, Stages
from runtime.models.examples import TEXT_INPUTS

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.cli.session import Session
    from runtime.report.document import Accuracy

DRAWN = "drawn"


def measured(
    session: "Session", image: Image, given: Given, texts: Sequence[str] | None, source: str, left_out: int,
    draws: int, stage: Stages,
) -> "Accuracy":  # fmt: skip
    """Chip and float model on all texts, a launch for each batch of them; without texts, on drawn inputs."""
    from runtime.device.executable import Executable
    from runtime.report.accuracy import Meter

    entry, device = image.entry(), Executable(image)
    first = entry.inputs[0].shape if entry.inputs else ()
    batch = first[0] if first else 1
    meter = Meter(entry.outputs, batch)
    every = launches(session, given, texts, batch, draws)
    for number, (inputs, some) in enumerate(every, 1):
        stage(f"chip and float model, launch {number} of {len(every)}")
        launch = replace(session, inputs=inputs)
        meter.add(device(launch.arrays()), launch.expected(), inputs.get("attention_mask"), some)
    return meter.result(source, left_out)


def launches(
    session: "Session", given: Given, texts: Sequence[str] | None, batch: int, draws: int
) -> "Sequence[tuple[Mapping[str, Tensor], Sequence[str]]]":
    """Inputs of each launch, and its texts."""
    import torch

    from runtime.cli.session import tokenize_for
    from runtime.models.examples import draw

    built = session.built
    if texts is None:
        return [(draw(built.example, given.seed + number, built.limits), ()) for number in range(draws)]
    found = []
    names = [name for name in TEXT_INPUTS if name in session.inputs]
    for first in range(0, len(texts), batch):
        some = texts[first : first + batch]
        tokens = tokenize_for(built.recipe.argument, replace(given, texts=tuple(some), batch=batch))
        found.append(({name: torch.from_numpy(array) for name, array in tokens.inputs(names).items()}, some))
    return found

"""A saved program, without PyTorch: named numpy arrays in, named numpy arrays out."""

from os import PathLike
from typing import Any

from isa.chip import Chip
from isa.image import Image, load_image
from isa.records import TensorSpec
from runtime.arrays import Array
from runtime.executable import Executable


class Loaded:
    """An image ready to run: `loaded(input_ids=ids)["last_hidden_state"]`."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._executable = Executable(image)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and type of each input."""
        return self.image.entry().inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and type of each output."""
        return self.image.entry().outputs

    @property
    def metadata(self) -> dict[str, Any]:
        """Where the image came from: model, options, hash of the weights, versions."""
        return self.image.metadata

    def __call__(self, **arrays: Array) -> dict[str, Array]:
        """Run on the emulated chip. bfloat16 arrays are uint16 bit patterns."""
        return self._executable(arrays)

    def __repr__(self) -> str:
        return f"Loaded({_signature(self.inputs)} -> {_signature(self.outputs)})"


def _signature(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name}: {spec.dtype}{list(spec.shape)}" for spec in specs)


def load(path: str | PathLike[str], chip: Chip | str | None = None) -> Loaded:
    """Load an image file. With `chip`, one built for another chip is refused. Raises ImageError."""
    return Loaded(load_image(path, chip))

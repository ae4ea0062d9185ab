"""Numbers of a GGUF file's metadata, held against what its tensors have room for."""

from collections.abc import Mapping
from dataclasses import dataclass

from compiler.frontend.gguf.file import GgufFile, Value
from isa.errors import ModelError
from isa.shown import shown


@dataclass(frozen=True)
class Numbers:
    """Of one architecture: keys are without its name in front."""

    file: GgufFile
    architecture: str

    @property
    def metadata(self) -> Mapping[str, Value]:
        """The architecture's own."""
        start = f"{self.architecture}."
        return {k.removeprefix(start): v for k, v in self.file.metadata.items() if k.startswith(start)}

    @property
    def tensors(self) -> int:
        """How many tensors the file has."""
        return len(self.file.tensors)

    @property
    def largest(self) -> int:
        """The largest size of any tensor."""
        return max((size for info in self.file.tensors.values() for size in info.shape), default=1)

    def has(self, tensor: str) -> bool:
        """Whether there is such a tensor."""
        return tensor in self.file.tensors

    def shape(self, tensor: str, dims: int = 2) -> tuple[int, ...]:
        """Of a tensor that has elements. Raises ModelError if there is none of so many dimensions."""
        info = self.file.tensors.get(tensor)
        if info is None or len(info.shape) != dims or not all(info.shape):
            raise ModelError(f"the file has no tensor {shown(tensor)} of {dims} dimensions", self.file.where)
        return info.shape

    def check(self, holds: bool, what: str) -> None:
        """Raises ModelError, saying `what`, if it does not hold."""
        if not holds:
            raise ModelError(what, self.file.where)

    def text(self, key: str) -> str:
        """A value, fit to be shown."""
        return shown(str(self.metadata.get(key)))[:80]

    def whole(self, key: str, most: int, default: int | None = None) -> int:
        """A number from 1 to `most`. Raises ModelError for another."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ModelError(
                f"{self.architecture}.{key} is {self.text(key)}, not a number from 1 to {most}", self.file.where
            )
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A positive number of an ordinary size. Raises ModelError for another."""
        value = self.metadata.get(key, default)
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise ModelError(f"{self.architecture}.{key} is {self.text(key)}, not a positive number", self.file.where)
        return value

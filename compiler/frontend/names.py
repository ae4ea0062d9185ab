"""Names of modules and weights that Python cannot write, in the code that PyTorch makes of an exported program.

nn.ModuleDict({"class": layer})     PyTorch: self.class.weight     in here: getattr(self, 'class').weight
"""

import keyword
from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx import graph

_WRITER = "_format_target"  # private to PyTorch: where it is missing, such names are PyTorch's business


@contextmanager
def quoted() -> Iterator[None]:
    """PyTorch writes any name in here. What is written is right for every graph, so other threads may see it, too."""
    plain = getattr(graph, _WRITER, None)
    if plain is None:
        yield
        return
    setattr(graph, _WRITER, _written)
    try:
        yield
    finally:
        setattr(graph, _WRITER, plain)


def _written(base: str, target: str) -> str:
    """`target`, names with dots between them, as an attribute of the expression `base`."""
    for name in target.split("."):
        plain = name.isidentifier() and not keyword.iskeyword(name)
        base = f"{base}.{name}" if plain else f"getattr({base}, {name!r})"
    return base

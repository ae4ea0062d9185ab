"""Lower a graph of identical layers by lowering a few of them."""

from collections.abc import Callable, Mapping

from torch import fx

from compiler.passes.split import SplitGraphs
from compiler.repeat.find import find_layers, reduced
from compiler.repeat.replicate import replicate
from isa.errors import Error


def by_layers(
    gm: fx.GraphModule, lower: Callable[[fx.GraphModule], SplitGraphs], schemes: Mapping[str, str] | None = None
) -> SplitGraphs | None:
    """What `lower` makes of `gm`, from a few of the identical layers, replicated; None where layers are few, or not as
    identical as they seemed. `schemes` are operations that `lower` quantizes in a way of their own."""
    layers = find_layers(gm.graph, schemes or {})
    if layers is None:
        return None
    try:
        halves = lower(reduced(gm, layers))
    except Error:
        return None  # to be found again in the whole graph, and told by its names
    return replicate(halves, gm.graph, layers)

"""Which part of a value a block of its reader reads: the question behind fusing, cuts, strips and layouts."""

import pytest
import torch
from torch import fx

from compiler.fuse.group import fuse
from compiler.tile.access import keeps, reads
from compiler.tile.kernel_op import KernelOp, kernel_ops

aten = torch.ops.aten


def chain(sizes: tuple[int, ...], *steps: tuple[object, ...]) -> KernelOp:
    """A value of these sizes and a chain of views of it; the last one."""
    graph = fx.Graph()
    node = graph.placeholder("y")
    node.meta["val"] = torch.empty(sizes, device="meta")
    for target, *args in steps:
        source, node = node, graph.call_function(target, (node, *args))  # type: ignore[arg-type]
        node.meta["val"] = target(source.meta["val"], *args)  # type: ignore[operator]
    return kernel_ops(graph)[-1]


@pytest.mark.parametrize(
    ("sizes", "steps", "domain", "kept"),
    [
        ((5, 6), (), (5, 6), True),
        ((5, 6), ((aten.slice.Tensor, 1, 0, 1),), (5,), True),  # y[:, :1]: its own row, not its own column
        ((5, 6), ((aten.slice.Tensor, 1, 0, 1),), (5, 6), False),
        ((5, 5), ((aten.expand.default, [5, 5, 5]),), (5,), False),  # as long by chance
        ((5, 5), ((aten.permute.default, [1, 0]),), (5,), False),
        ((5, 6), ((aten.view.default, [5, 2, 3]), (aten.select.int, 1, 1)), (5,), True),
        ((4, 6), ((aten.view.default, [6, 4]), (aten.view.default, [4, 6])), (4, 6), True),
        ((4, 6), ((aten.view.default, [2, 2, 6]),), (2,), False),
        ((5, 6), ((aten.slice.Tensor, 0, 0, 1),), (5,), False),
        ((1, 6), ((aten.expand.default, [5, 6]),), (5,), False),
        ((5, 6), ((aten.slice.Tensor, 0, 0, 1), (aten.expand.default, [5, 6])), (5,), False),
        ((5, 6), ((aten.permute.default, [1, 0]),), (), True),
    ],
)
def test_views_that_keep_leading_indices(
    sizes: tuple[int, ...], steps: tuple[tuple[object, ...], ...], domain: tuple[int, ...], kept: bool
) -> None:
    """Breaks if a value read at other indices is taken for one read block by block, or the other way round."""
    assert keeps(chain(sizes, *steps), domain) is kept


def test_a_vector_is_read_whole_and_a_map_by_its_block() -> None:
    """Breaks if equal sizes are taken for equal indices: a vector of 5 belongs to the columns of a 5 x 5 map."""
    graph = fx.Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    a.meta["val"], b.meta["val"] = torch.empty(5, 5, device="meta"), torch.empty(5, device="meta")
    total = graph.call_function(aten.add.Tensor, (a, b))
    total.meta["val"] = torch.empty(5, 5, device="meta")
    assert [read.own_block((5,)) for read in reads(kernel_ops(graph)[-1])] == [True, False]


def test_a_long_chain_is_fused() -> None:
    """Breaks if fusing goes down the graph by recursion, or looks at every pair of nodes."""
    graph = fx.Graph()
    node = graph.placeholder("x")
    node.meta["val"] = torch.empty(4, 8, device="meta")
    for _ in range(3000):
        node = graph.call_function(aten.add.Tensor, (node, 0.5))
        node.meta["val"] = torch.empty(4, 8, device="meta")
    graph.output((node,))
    assert [len(kernel.nodes) for kernel in fuse(kernel_ops(graph))] == [3000]

"""Convolutions, pooling, norms of groups and padding: PyTorch's own answers, through the whole stack."""

from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Function
from torch import Tensor, nn
from torch.nn import functional

import llmchip
from compiler.frontend.capture import capture
from compiler.lower import lower


def check(model: nn.Module, *args: Tensor, exact: bool = True) -> llmchip.Program:
    program = llmchip.compile(model.eval(), args)
    assert program.verify(*args).bit_exact
    found, wanted = program(*args), model(*args)
    assert found.dtype is wanted.dtype and found.shape == wanted.shape
    if exact:
        assert torch.equal(torch.isnan(found), torch.isnan(wanted))
        assert torch.equal(found.nan_to_num(7.0), wanted.nan_to_num(7.0))
    else:
        assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-4)
    return program


def function(of: Callable[[Tensor], Tensor]) -> nn.Module:
    return Function(lambda m, x: of(x))


SHRUNK = 127 / 127.5  # the largest of a row, as int8 has it (docs/numerics.md)


def check_convolution(model: nn.Module, *sizes: int) -> None:
    """Signals and weights of two values: int8 shrinks all products by one factor, and what remains is a count."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 2, sizes, generator=draw).float()
    weight, bias, groups = model.weight, model.bias, model.groups
    assert isinstance(weight, Tensor) and isinstance(groups, int)
    apart = [1] * (weight.ndim - 2)
    with torch.no_grad():
        weight.copy_(torch.randint(0, 2, weight.shape, generator=draw))
        if model.transposed:  # [in, out / groups, …]
            weight.unflatten(0, (groups, -1)).mul_(_counted(groups * weight.shape[1]).view(groups, 1, -1, *apart))
        else:
            weight.mul_(_counted(len(weight)).view(-1, 1, *apart))
        if isinstance(bias, Tensor):
            bias.copy_(_counted(len(bias)))
        wanted = model(x)
    each = len(weight) // groups if model.transposed else weight.shape[1]
    program = llmchip.compile(model.eval(), (x,))
    assert program.verify(x).bit_exact
    shift = bias.detach().view(-1, *apart) if isinstance(bias, Tensor) else 0
    shrunk = (wanted - shift) * (1 if groups > 1 and each == 1 else SHRUNK**2) + shift
    assert torch.allclose(program(x), shrunk, rtol=1e-5, atol=1e-4)


def _counted(number: int) -> Tensor:
    """A number of its own for each channel."""
    return torch.arange(1.0, number + 1)


CONVOLUTIONS = {
    "one place": nn.Conv2d(5, 7, 1),
    "a step": nn.Conv2d(5, 7, 1, stride=2),
    "patches": nn.Conv2d(3, 8, 4, stride=4),
    "patches with a rest": nn.Conv2d(3, 8, (4, 2), stride=(4, 2), bias=False),
    "padded": nn.Conv2d(3, 6, 3, padding=1),
    "strided": nn.Conv2d(3, 6, 3, stride=2, padding=1),
    "uneven": nn.Conv2d(2, 4, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
    "same": nn.Conv2d(2, 4, 4, padding="same"),
    "reflected": nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"),
    "groups": nn.Conv2d(6, 9, 3, groups=3, padding=1),
    "by channel": nn.Conv2d(6, 6, 3, groups=6, padding=1, stride=2),
    "several of each channel": nn.Conv2d(4, 12, 3, groups=4),
    "transposed": nn.ConvTranspose2d(3, 5, 3),
    "transposed steps": nn.ConvTranspose2d(4, 6, (4, 3), stride=(2, 3), padding=1, output_padding=(0, 1)),
    "transposed groups": nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_images(name: str) -> None:
    """Breaks when a place of a window meets another's weight, or padding, steps, groups or turned weights are wrong."""
    check_convolution(CONVOLUTIONS[name], 2, CONVOLUTIONS[name].in_channels, 9, 10)


def test_convolutions_of_signals_and_volumes() -> None:
    """Breaks when one or three dimensions are walked otherwise than two."""
    check_convolution(nn.Conv1d(4, 6, 5, stride=3, padding=2), 2, 4, 20)
    check_convolution(nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), 1, 4, 7)
    check_convolution(nn.Conv3d(2, 3, (2, 3, 1), padding=(1, 0, 0)), 1, 2, 4, 5, 3)
    check_convolution(nn.Conv2d(2, 3, 3), 2, 6, 6)  # without a batch


@pytest.mark.wide
@settings(max_examples=15)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    """Breaks when a combination of sizes, steps, padding, dilation and groups reads another place."""
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(2)) for most in (3, 3, 2))
    padding = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    kind = draw(st.sampled_from([nn.Conv2d, nn.ConvTranspose2d]))
    model = kind(
        2 * groups, draw(st.integers(1, 3)) * groups, kernel, stride, padding, groups=groups, dilation=dilation
    )
    check_convolution(model, 1, 2 * groups, draw(st.integers(6, 9)), draw(st.integers(6, 9)))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_convolution_by_channel(data: st.DataObject) -> None:
    """Breaks when a tap meets another's weight, reads beyond the map, or a border has other taps: sums of small whole
    numbers are eager's bits."""
    draw = data.draw
    rank, channels, times = draw(st.integers(1, 2)), draw(st.integers(2, 5)), draw(st.integers(1, 2))
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (5, 3, 2))
    padding = tuple(draw(st.integers(0, k)) for k in kernel)
    sizes = [draw(st.integers(d * (k - 1) + 1, 12)) for k, d in zip(kernel, dilation, strict=True)]
    kind: Any = (nn.Conv1d, nn.Conv2d)[rank - 1]
    model = kind(channels, channels * times, kernel, stride, padding, dilation, channels, draw(st.booleans()))
    for value in model.parameters():
        value.data = torch.randint(-4, 5, value.shape, generator=torch.Generator().manual_seed(1)).float()
    x = torch.randint(-4, 5, (draw(st.integers(1, 2)), channels, *sizes), generator=torch.Generator().manual_seed(2))
    found = check(model, x.float())(x.float())
    assert torch.equal(found, model(x.float()))


class Padded(nn.Module):
    """A convolution behind a border that is an operation of its own, and a norm."""

    def __init__(self, groups: int, value: float = 0.0) -> None:
        super().__init__()
        self.pad, self.norm = nn.ConstantPad2d((0, 1, 2, 1), value), _used(nn.BatchNorm2d(4))
        self.convolution = nn.Conv2d(4, 4, 3, 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.relu6(self.norm(self.convolution(self.pad(x))))
        return y


@pytest.mark.parametrize("groups", [1, 4])
def test_a_border_of_zeros_is_the_convolutions(groups: int) -> None:
    """Breaks when a map is copied only to have a border, a border of anything else is taken for zeros, or a norm behind
    sums by channel is not part of their weights."""
    torch.manual_seed(3)
    x = torch.randn(2, 4, 7, 9)
    for value in (0.0, 1.5):
        model = Padded(groups, value).eval()
        verified = llmchip.compile(model, (x,)).verify(x)
        assert verified.bit_exact and verified.float and verified.float["cosine"] > 0.9995
        targets = [node.target for node in lower(capture(model, (x,))).main.graph.nodes]
        assert (torch.ops.aten.cat.default in targets) == bool(value)
        assert torch.ops.aten.mul.Tensor not in targets


def test_maps_larger_than_the_scratchpad() -> None:
    """Breaks when a convolution wants its whole map on chip, or blocks of windows read other rows than their own."""
    torch.manual_seed(4)
    chip = llmchip.chip("edge").replace(sram={"bytes": "24KiB"}, acc={"bytes": "16KiB"}, mxu={"rows": 32, "cols": 32})
    x = torch.randn(1, 16, 26, 22)
    padded = nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(16, 16, 5, groups=16))
    for model in (padded, nn.Conv2d(16, 24, 3, 2, padding=1)):
        assert llmchip.compile(model.eval(), (x,), chip=chip).verify(x).bit_exact


SPECIAL = [nan, inf, -inf, -0.0, 0.0]


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), (1, 2), dilation=(2, 1)),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d((3, 2), 2, 1, True),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d((4, 5)), nn.AdaptiveMaxPool2d((3, 4)),
    ],
    ids=str,
)  # fmt: skip
def test_pooling(pool: nn.Module) -> None:
    """Breaks when padding counts, a window is another, or NaN is lost."""
    x = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(3))
    check(pool, x, exact="Max" in str(pool))
    if "Max" in str(pool):
        x.view(-1)[::7] = torch.tensor(SPECIAL).repeat(14)[: len(x.view(-1)[::7])]
        check(pool, x)


def test_pooling_of_signals() -> None:
    """Breaks when one dimension is walked otherwise than two, or a window that is longer than the signal takes long."""
    x = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(3))
    check(nn.MaxPool1d(3, 2, 1), x)
    for pool in (nn.AvgPool1d(3, 2, 1), nn.AvgPool1d(1000, ceil_mode=True), nn.AdaptiveAvgPool1d(4)):
        check(pool, x, exact=False)
    check(nn.MaxPool3d(2, padding=1), torch.randn(1, 2, 4, 5, 3))


def test_windows_as_columns() -> None:
    """Breaks when a window's elements come in another order, or padding is forgotten."""
    x = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(3))
    check(function(lambda x: functional.unfold(x, (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1))), x)


class Computed(nn.Module):
    """Convolutions with weights that a product gives."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(3, 3)

    def forward(self, x: Tensor, given: Tensor) -> tuple[Tensor, ...]:
        weight = self.weights(given)
        return functional.conv2d(x, weight, stride=2), functional.conv_transpose2d(x, weight, stride=(1, 2))


def test_convolutions_with_computed_weights() -> None:
    """Breaks when weights that are no parameters are refused, or turned wrongly for the transposed one."""
    torch.manual_seed(2)
    model, args = Computed().eval(), (torch.randn(2, 4, 6, 5), torch.randn(4, 4, 3, 3))
    verified = llmchip.compile(model, args).verify(*args)
    assert verified.bit_exact and verified.float and verified.float["cosine"] > 0.9995


def test_where_the_largest_are_is_refused() -> None:
    """Breaks when places are answered that nobody computed."""
    model = function(lambda x: functional.max_pool2d(x, 2, return_indices=True)[1]).eval()
    with pytest.raises(llmchip.UnsupportedError, match="max_pool2d"):
        llmchip.compile(model, (torch.ones(1, 1, 4, 4),))


class Normed(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 6, 3), norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(x))
        return y


def _used(norm: nn.Module) -> nn.Module:
    """With statistics and weights of its own."""
    draw = torch.Generator().manual_seed(4)
    for value in (*norm.parameters(), *norm.buffers()):
        if value.is_floating_point():
            value.data = torch.rand(value.shape, generator=draw) + 0.5
    return norm


def test_batch_norm() -> None:
    """Breaks when a channel gets another's scale or shift; folded into weights, when the graph still scales."""
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    check(_used(nn.BatchNorm2d(3)), x, exact=False)
    check(_used(nn.BatchNorm2d(3, affine=False)), x, exact=False)
    model = Normed(_used(nn.BatchNorm2d(6))).eval()
    program = llmchip.compile(model, (x,))
    verified = program.verify(x)
    assert verified.bit_exact and verified.float and verified.float["cosine"] > 0.9995
    graph = lower(capture(model, (x,))).main.graph
    assert not any(node.target is torch.ops.aten.mul.Tensor for node in graph.nodes)


def test_norms_by_statistics_of_the_batch_or_stored_ones() -> None:
    """Breaks when a batch norm that stores nothing takes a sample's statistics for the batch's, or an instance norm that
    stores them takes its input's; and when one that would store some is not refused."""
    draw = torch.Generator().manual_seed(5)
    for kind, sizes in ((nn.BatchNorm1d, (4, 3)), (nn.BatchNorm2d, (2, 3, 5, 4)), (nn.BatchNorm3d, (2, 3, 2, 3, 4))):
        x = torch.randn(sizes, generator=draw) * torch.arange(1.0, 1 + sizes[0]).view(-1, *[1] * (len(sizes) - 1))
        check(_used(kind(3, track_running_stats=False)), x, exact=False)
        check(kind(3, affine=False, track_running_stats=False), x, exact=False)
    stored = nn.Sequential(_used(nn.InstanceNorm2d(3, affine=True, track_running_stats=True)))
    x = torch.randn(2, 3, 5, 4, generator=draw)
    check(stored, x, exact=False)
    stored[0].train()
    with pytest.raises(llmchip.UnsupportedError, match="stores statistics"):
        llmchip.compile(stored, (x,))


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_norm_is_the_products_work(bias: bool) -> None:
    """Breaks when a convolution's cost stands at the line, module or layer of the norm that is folded into it."""
    model = Normed(_used(nn.BatchNorm2d(6)))
    model.convolution = nn.Conv2d(3, 6, 3, bias=bias)
    nodes = llmchip.compile(model.eval(), (torch.randn(1, 3, 6, 6),)).image.debug.nodes
    made = [node for node in nodes if node.op.startswith("llmchip.") or (node.layer and node.op == "placeholder")]
    assert {node.module for node in made} == {node.layer for node in made} == {"convolution"}
    product = next(node for node in nodes if "matmul_i8" in node.op)
    assert product.also == ("norm",) and product.origins[0].startswith("conv")


def test_halves_are_summed_in_float32() -> None:
    """Breaks when a scale, a shift or a sum of a half type is rounded on the way: eager rounds once."""
    norm = nn.BatchNorm1d(4)
    norm.running_mean.fill_(30)  # type: ignore[union-attr]
    norm.running_var.fill_(0.1)  # type: ignore[union-attr]
    x = 30 + 0.3 * torch.randn(2, 4, 25, generator=torch.Generator().manual_seed(9))
    for kind in (torch.bfloat16, torch.float16):
        model, given = norm.to(kind).eval(), x.to(kind)
        found, wanted = llmchip.compile(model, (given,))(given), model(given)
        assert torch.allclose(found.float(), wanted.float(), rtol=0.01, atol=0.01)
    depthwise = nn.Conv1d(2, 2, 3, groups=2, bias=False).half().eval()
    depthwise.weight.data.copy_(torch.tensor([1.0, 1.0, -1.0]).expand(2, 1, 3))
    x = torch.full((1, 2, 5), 4e4).half()
    assert torch.equal(llmchip.compile(depthwise, (x,))(x), depthwise(x))


class Turned(nn.Module):
    """Channels that a product made, behind a permute that is no convolution's."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order, self.linear, self.norm = order, nn.Linear(5, 6), _used(nn.BatchNorm2d(6 if order[1] == 3 else 4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x).permute(self.order))
        return y


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 3, 2, 1), (0, 1, 2, 3), (0, 2, 3, 1)])
def test_batch_norm_behind_a_permute(order: tuple[int, ...]) -> None:
    """Breaks when a scale is folded into a product whose columns are no channels, or rows come in another order."""
    x = torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(8))
    verified = llmchip.compile(Turned(order).eval(), (x,)).verify(x)
    assert verified.bit_exact and verified.float and verified.float["cosine"] > 0.9995


def test_norms_of_groups() -> None:
    """Breaks when a group is not the channels that PyTorch takes, or a channel's weight is another's."""
    x = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(6))
    for norm in (nn.GroupNorm(3, 6), nn.GroupNorm(6, 6), nn.GroupNorm(1, 6, affine=False), nn.InstanceNorm2d(6)):
        check(_used(norm), x, exact=False)


def test_padding_and_rolling() -> None:
    """Breaks when an end is padded that is not meant, less than nothing is padded, or the end does not come first."""
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(7))
    cases: dict[str, Callable[[Tensor], Any]] = {
        "pad": lambda x: functional.pad(x, (1, 2, 0, 1), value=3.5),
        "crop": lambda x: functional.pad(x, (-1, 1, 2, -2)),
        "nothing": lambda x: functional.pad(x, (0, 0)) + 1,
        "reflect": lambda x: functional.pad(x, (1, 2, 2, 1), mode="reflect"),
        "circular": lambda x: functional.pad(x, (2, 1, 0, 1), mode="circular"),
        "replicate": lambda x: functional.pad(x, (1, 0, 2, 1), mode="replicate"),
        "roll": lambda x: torch.roll(x, (1, -2, 7), (2, 3, -1)),
        "roll all": lambda x: x.roll(5),
    }
    for of in cases.values():
        check(function(of), x)
    with pytest.raises(llmchip.UnsupportedError, match="fails in PyTorch, too"):
        llmchip.compile(function(lambda x: functional.pad(x.half(), (1, 0), value=1e6)).eval(), (x,))
    program = check(function(lambda x: functional.pad(x, (1, 0), value=-0.0)), x)
    assert torch.signbit(program(x)[..., 0]).all()


def test_large_windows_of_few_channels_are_products() -> None:
    """Breaks when a convolution by channel takes an instruction for each of 125 places in each plane."""
    conv = torch.nn.Conv3d(2, 2, 5, padding=2, groups=2).eval()
    x = torch.randn(1, 2, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    program = llmchip.compile(conv, (x,))
    assert program.verify(x).bit_exact
    assert program.disassemble().count("vop") < 2 * 6 * 125 / 4
    torch.testing.assert_close(program(x), conv(x), rtol=0, atol=0.05)

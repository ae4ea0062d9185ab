"""Names that the model and PyTorch have for nodes: modules, calls, operations."""

import pytest
import torch
from step_harness import say
from torch import Tensor, nn

import llmchip
from isa.image.image import Image
from runtime.debug.commands import Shell
from runtime.debug.session import Session


class Gate(nn.Module):
    """A module that does something itself, before another inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x * 2)
        return y


class Windows(nn.Module):
    """Everything that compiler/passes/windows.py lowers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.pool = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.MaxPool2d(2)
        self.block = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4, padding=1)])
        self.gn, self.inorm, self.alone = nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.BatchNorm2d(4)
        self.avg, self.head = nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.inorm(self.block[1](self.gn(self.block[0](x))))
        x = nn.functional.pad(self.avg(self.alone(x)), (1, 1, 1, 1), mode="circular")
        y: Tensor = self.head(x).flatten(1)
        gated: Tensor = y + self.gate(y)
        return gated


@pytest.fixture(scope="module")
def image() -> Image:
    torch.manual_seed(0)
    return llmchip.compile(Windows().eval(), (torch.randn(1, 3, 10, 10),)).image


@pytest.fixture
def shell(image: Image) -> Shell:
    return Shell(Session(image, {"x": torch.randn(1, 3, 10, 10).numpy()}))


@pytest.mark.parametrize(
    "name",
    ["conv1", "bn1", "pool", "block.0", "block.1", "gn", "inorm", "alone", "avg", "head", "conv2d", "conv2d_2", "max_pool2d",
     "avg_pool2d", "adaptive_avg_pool2d", "group_norm", "instance_norm", "pad", "relu", "aten.max_pool2d", "torch.nn.functional.group_norm",
     "nn.MaxPool2d", "InstanceNorm2d", "GroupNorm", "ReLU"],
)  # fmt: skip
def test_the_models_names_are_places_and_values(shell: Shell, name: str) -> None:
    """Breaks when a name of the model or of ATen means nothing, or its value is not whole when it is finished."""
    assert f"breakpoint 1: {name} (node " in say(shell, f"break {name}")
    assert "breakpoint 1: " in say(shell, "run")
    text = say(shell, "delete 1", f"finish {name}", f"print {name}")
    assert f"{name} is " in text and "its value" in text and " is complete" in text
    assert f"{name} = " in text and "written so far" not in text
    assert shell.failed == 0


def test_a_module_is_all_that_is_inside(shell: Shell) -> None:
    """Breaks when a module's own last step is taken for its value, which another module inside it has; or the user is
    not told why it is nowhere."""
    assert "gate (node mul" in say(shell, "break gate")
    text = say(shell, "print gate")
    assert "gate is " in text and "its value is dequantize" in text and "is fused into add" in text


def test_several_are_several(shell: Shell) -> None:
    """Breaks when one of several calls is taken for what was meant, or a breakpoint stops at one of them only."""
    assert "convolution (nodes " in say(shell, "break convolution")
    assert "means 3 things" in say(shell, "finish convolution") and "means 2 things" in say(shell, "print batch_norm")
    assert sum("breakpoint 1" in line for line in say(shell, "run", "run", "run", "run").splitlines()) == 3
    assert "block (node depthwise" in say(shell, "break block")


def test_what_is_folded_says_where_it_is(shell: Shell) -> None:
    """Breaks when the user is shown a norm's result as the convolution's alone."""
    assert "its value, together with that of bn1, is dequantize [1, 8, 8, 4]" in say(shell, "finish conv1")
    assert "its value, together with that of conv1, is dequantize" in say(shell, "finish bn1")


def test_nodes_lists_by_module_and_call(shell: Shell) -> None:
    """Breaks when what a module is made of cannot be listed."""
    assert "dequantize" in say(shell, "nodes bn1") and "reduce" in say(shell, "nodes max_pool2d")


def test_no_name_is_one_line(shell: Shell) -> None:
    """Breaks when the user's word is not told from a node, or the nearest name is not offered."""
    assert "there is no node 'conv9' (did you mean 'conv" in say(shell, "break conv9")


@pytest.mark.parametrize(
    "line",
    ["break conv1 if 1/0", "break conv1 if 1 % 0", "break conv1 if 1 << 500", "watch sram[0] if 1/0",
     "break conv1 if s5 & 1.5", "break conv1 if ~(s5 / 2)", "break conv1 if sram[0x0]:f32 | 1", "break conv1 if s5 % 0",
     "break conv1 if s5 and s6 > 1/0", "break conv1 if s5 << 500", "break conv1 if not (s5 > 1.5 ^ pc)"],
)  # fmt: skip
def test_a_condition_that_is_never_told_is_refused(shell: Shell, line: str) -> None:
    """Breaks when a breakpoint is set that can never stop."""
    assert "fault: " in say(shell, line) or "error: " in say(shell, line)
    assert not shell.session.points.points


def test_a_condition_that_may_have_a_value_is_taken(shell: Shell) -> None:
    """Breaks when an operator is refused for the value of a term, or for a type that it does not have."""
    for good in ("1 / (s5 - 1)", "7 % s5", "1 << s5", "sram[0x0]:i8 & 1", "(s5 > 1.5) & 1", "~(s5 // 2)", "1.5 - s5",
                 f"{(1 << 128) - 1} - s5", "sram[0x0]:f32 * 2 > 1"):  # fmt: skip
        assert say(shell, f"break conv1 if {good}").startswith("breakpoint"), good


def test_a_condition_that_cannot_be_told_stops(shell: Shell) -> None:
    """Breaks when it is taken for false: the user would wait for a stop that never comes."""
    text = say(shell, "break conv1 if 10 / s9 > 1", "run")
    assert text.splitlines()[1].endswith("its condition cannot be told: 10 / s9 > 1: division by zero")
    assert shell.failed == 1
    say(shell, "delete 1", "watch acc[0x0]:i32 if 1 % s9")
    assert "its condition cannot be told" in say(shell, "run")
    say(shell, "condition 2 s9 == 0", "run", "delete 2", "break 0x0 if 1 / s9")
    assert "its condition cannot be told" in say(shell, "reverse-continue")


def test_a_display_that_never_has_a_value_is_refused(shell: Shell) -> None:
    """Breaks when it is noted, and fails at each stop; what has no value yet is noted."""
    for bad in ("nothing", "1/0", "conv1[7]", "conv1[", "sram[0xfffffff0]:i32", "matmul_i8", "v3 by 2", "s9 +"):
        say(shell, f"display {bad}")
        assert not shell.displays, bad
    for good in ("conv1[0]", "s5 / s9", "v31", "dram.out[0]:f32", "sram[0x10]:f32 + 1"):
        say(shell, f"display {good}")
    assert len(shell.displays) == 5

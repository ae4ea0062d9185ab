"""A case of the graph fuzzer as text, and the model that the text describes.

    chip sram=65536 acc=8192 rows=16 cols=16 lanes=8
    seed 7
    check verify jit
    x0 = float32[2, 3, 8] normal
    w1 = float32[16, 8] normal
    v2 = F.linear(x0, w1)                        # product
    v3 = v2 * v2[..., :1]                        # exact
    return v3, x0

x is an input, w a weight, v the value of a line. The comment says what a step does to the bits (see `Effect`). Every
line can be left out or changed on its own, which is how a finding is made small; `python_of` prints the whole as a
program that needs nothing from here.
"""

import inspect
import linecache
import re
import types
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from isa.chip import Acc, Chip, Lanes, Mxu, Sram, chip_names, load_chip
from isa.errors import InputError


class Effect(StrEnum):
    """What a step does, beyond what its operands already are, to the promise that the chip's bits are eager
    PyTorch's."""

    EXACT = "exact"  # nothing: eager is the definition
    ZERO = "zero"  # the sign of zero is ours: max, min, relu
    POLE = "pole"  # exact, but shows the sign of a zero: division
    FUNCTION = "function"  # near eager: functions, and sums of floats
    PRODUCT = "product"  # near eager, int8 takes part
    JUMP = "jump"  # exact, but a small difference may become a large one: comparisons, casts to integers


@dataclass(frozen=True)
class Leaf:
    """An input (x) or a weight (w). `fill` says which values: see `data`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    fill: str

    def __str__(self) -> str:
        return f"{self.name} = {self.dtype}{list(self.shape)} {self.fill}"


@dataclass(frozen=True)
class Step:
    """One operation: a Python expression of leaves and earlier values."""

    name: str
    text: str
    effect: Effect

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(NAME.findall(self.text)))

    def __str__(self) -> str:
        return f"{self.name} = {self.text:<60} # {self.effect}"


@dataclass(frozen=True)
class Case:
    chip: str
    seed: int
    checks: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        head = [f"chip {self.chip}", f"seed {self.seed}", " ".join(("check", *self.checks))]
        return (
            "\n".join([*head, *map(str, self.leaves), *map(str, self.steps), f"return {', '.join(self.outputs)}"])
            + "\n"
        )

    @property
    def inputs(self) -> tuple[Leaf, ...]:
        return tuple(leaf for leaf in self.leaves if leaf.name.startswith("x"))

    @property
    def weights(self) -> tuple[Leaf, ...]:
        return tuple(leaf for leaf in self.leaves if leaf.name.startswith("w"))


NAME = re.compile(r"\b[xwv]\d+\b")
_LEAF = re.compile(r"([xw]\d+) = (\w+)\[([\d, ]*)\] (\S+)")
_STEP = re.compile(r"(v\d+) = (.*\S) +# (\w+)")


def parse(text: str) -> Case:
    """The case of a text. Raises InputError for what is none."""
    chip, seed = "edge", 0
    checks: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    leaves: list[Leaf] = []
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.partition(" ")
        if word == "chip":
            chip = rest
        elif word == "seed":
            seed = int(rest)
        elif word == "check":
            checks = tuple(rest.split())
        elif word == "return":
            outputs = tuple(NAME.findall(rest))
        elif match := _LEAF.fullmatch(line):
            leaves.append(Leaf(match[1], match[2], tuple(map(int, re.findall(r"\d+", match[3]))), match[4]))
        elif match := _STEP.fullmatch(line):
            steps.append(Step(match[1], match[2], Effect(match[3])))
        elif line.strip():
            raise InputError(f"this is no line of a case: '{line}'", f"line {number}")
    return Case(chip, seed, checks, tuple(leaves), tuple(steps), outputs)


def needed(case: Case) -> Case:
    """The case without steps and weights that no output needs, and inputs that no step reads."""
    wanted = set(case.outputs)
    for step in reversed(case.steps):
        if step.name in wanted:
            wanted |= set(step.operands)
    leaves = tuple(leaf for leaf in case.leaves if leaf.name in wanted)
    return Case(
        case.chip,
        case.seed,
        case.checks,
        leaves,
        tuple(step for step in case.steps if step.name in wanted),
        case.outputs,
    )


# ---- values


def data(name: str, dtype: str, shape: tuple[int, ...], fill: str, seed: int) -> torch.Tensor:
    """The values of a leaf: normal, small (integers), index:N, mask, or special (NaN, infinities, ends of types, zeros
    of both signs)."""
    kind, _, limit = fill.partition(":")
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    of = getattr(torch, dtype)
    if dtype == "bool":
        return torch.rand(shape, generator=generator) < 0.7
    if kind == "index":
        return torch.randint(0, int(limit), shape, generator=generator).to(of)
    if kind == "mask":
        return torch.where(torch.rand(shape, generator=generator) < 0.7, 0.0, torch.finfo(of).min).to(of)
    if kind == "special":
        ends = torch.finfo(of) if of.is_floating_point else torch.iinfo(torch.int8 if of is torch.int8 else torch.int32)
        odd = [ends.min, ends.max, 0, 1, -1] + (
            [float("nan"), float("inf"), -float("inf"), -0.0, 0.5] if of.is_floating_point else [2, -2]
        )
        return torch.tensor(odd, dtype=of)[torch.randint(0, len(odd), shape, generator=generator)]
    if not of.is_floating_point:
        return torch.randint(-5, 6, shape, generator=generator).to(of)
    values = torch.randn(shape, generator=generator)
    return (values / limit_of(shape) if kind == "weight" else values).to(of)


def limit_of(shape: tuple[int, ...]) -> float:
    """What keeps the results of a product about as large as its operands."""
    return max(1, shape[-1]) ** 0.5 if shape else 1.0


def values_of(case: Case) -> dict[str, Tensor]:
    return {leaf.name: data(leaf.name, leaf.dtype, leaf.shape, leaf.fill, case.seed) for leaf in case.leaves}


def execute(case: Case, leaves: dict[str, Tensor]) -> "Iterable[tuple[Step, Tensor]]":
    """Run the steps one by one; `leaves` becomes all values by name."""
    for step in case.steps:
        leaves[step.name] = evaluate(step.text, leaves)
        yield step, leaves[step.name]


def evaluate(text: str, values: dict[str, Tensor]) -> Any:
    return eval(compiled_text(text), {"torch": torch, "F": F}, values)


def compiled_text(text: str) -> types.CodeType:
    return compile(text, "<step>", "eval")


# ---- the model


def source(case: Case) -> str:
    """The model's class as Python text."""
    held = {leaf.name for leaf in case.weights}

    def inside(text: str) -> str:
        return NAME.sub(lambda name: f"self.{name[0]}" if name[0] in held else name[0], text)

    lines = ["class Model(torch.nn.Module):", "    def __init__(self):", "        super().__init__()"]
    for leaf in case.weights:
        value = f"data({leaf.name!r}, {leaf.dtype!r}, {leaf.shape!r}, {leaf.fill!r}, {case.seed})"
        floating = getattr(torch, leaf.dtype).is_floating_point
        lines.append(
            f"        self.{leaf.name} = torch.nn.Parameter({value})"
            if floating
            else f"        self.register_buffer({leaf.name!r}, {value})"
        )
    lines += ["", f"    def forward({', '.join(['self', *(leaf.name for leaf in case.inputs)])}):"]
    lines += [f"        {step.name} = {inside(step.text)}" for step in case.steps]
    lines.append(f"        return ({', '.join(map(inside, case.outputs))},)")
    return "\n".join(lines) + "\n"


def model(case: Case) -> torch.nn.Module:
    """The model; tracebacks and the debug map show its lines."""
    text = source(case)
    name = f"<graph {zlib.crc32(text.encode()):08x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    scope: dict[str, Any] = {"torch": torch, "F": F, "data": data, "__name__": "fuzz.graphs.made"}
    exec(compile(text, name, "exec"), scope)
    made: torch.nn.Module = scope["Model"]().eval()
    return made


def chip_of(case: Case) -> Chip:
    if case.chip in chip_names():
        return load_chip(case.chip)
    keys = {key: int(value) for key, _, value in (word.partition("=") for word in case.chip.split())}
    mxu = Mxu(rows=keys["rows"], cols=keys["cols"], weight_rows_per_cycle=min(4, keys["rows"]))
    lanes = Lanes(lanes=keys["lanes"])
    return Chip(name="small", mxu=mxu, vec=lanes, act=lanes, sram=Sram(bytes=keys["sram"]), acc=Acc(bytes=keys["acc"]))


def python_of(case: Case) -> str:
    """A program that shows the case, to paste and run."""
    given = ", ".join(
        f"data({leaf.name!r}, {leaf.dtype!r}, {leaf.shape!r}, {leaf.fill!r}, {case.seed})" for leaf in case.inputs
    )
    chip = (
        repr(case.chip)
        if case.chip in chip_names()
        else re.sub(r"\b(Chip|Mxu|Lanes|Sram|Acc|Dram|Queues|Energy)\(", r"chips.\1(", repr(chip_of(case)))
    )
    head = [
        "import zlib",
        "",
        "import torch",
        "from torch.nn import functional as F",
        "",
        "import llmchip",
        "import isa.chip as chips",
    ]
    helpers = [inspect.getsource(function) for function in (data, limit_of)]
    body = [
        source(case),
        f"inputs = ({given},)",
        "model = Model().eval()",
        f"program = llmchip.compile(model, inputs, chip={chip})",
    ]
    body += ["with torch.no_grad():", "    eager = model(*inputs)"]
    body += ["for got, want, near in zip(program(*inputs), program.reference(*inputs), eager):"]
    body += ["    differ = [int((got != other).sum()) for other in (want, near)]"]
    body += [
        "    print(got.dtype, list(got.shape), f'elements that differ from the reference: {differ[0]}, from eager: {differ[1]}')"
    ]
    return "\n".join([*head, "", "", *helpers, "", *body]) + "\n"

"""A smaller case with the same fault: fewer outputs and steps, values as inputs, smaller sizes, a stock chip."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from fuzz.graphs.case import NAME, Case, Leaf, evaluate, needed, parse
from isa.errors import Error

Fails = Callable[[str], bool]


def shrink(text: str, fails: Fails, seconds: float) -> str:
    """Take the first smaller case that still fails, as long as there is one and time of this process."""
    deadline = time.process_time() + seconds
    case, tried = parse(text), {text}
    found = True
    while found:
        found = False
        for smaller in _candidates(case):
            if time.process_time() > deadline:
                return str(case)
            if str(smaller) not in tried and _valid(smaller):
                tried.add(str(smaller))
                if fails(str(smaller)):
                    case, found = smaller, True
                    break
    return str(case)


def _candidates(case: Case) -> Iterator[Case]:
    """From large to small."""
    if case.checks:
        yield replace(case, checks=())
    yield from _fewer_outputs(case)
    for index in range(len(case.checks)):
        yield replace(case, checks=case.checks[:index] + case.checks[index + 1 :])
    yield from _cuts(case)
    yield from _earlier_outputs(case)
    yield from _bypasses(case)
    if case.chip != "edge":
        yield replace(case, chip="edge")
    yield from _plainer_leaves(case)
    yield from _smaller_sizes(case)


def _fewer_outputs(case: Case) -> Iterator[Case]:
    count = len(case.outputs)
    size = (count + 1) // 2
    while count > 1 and size:
        for start in range(0, count, size):
            kept = case.outputs[:start] + case.outputs[start + size :]
            if kept:
                yield needed(replace(case, outputs=kept))
        size //= 2


def _earlier_outputs(case: Case) -> Iterator[Case]:
    """One value instead of all outputs."""
    for step in reversed(case.steps):
        if step.name not in case.outputs:
            yield needed(replace(case, outputs=(step.name,)))


def _cuts(case: Case) -> Iterator[Case]:
    """The value of a step, or of all steps up to one, becomes an input; late ones first, so that much goes at once."""
    shapes = _values(case)
    for count in (len(case.steps) // 2, len(case.steps) // 4, len(case.steps) // 8, 1):
        for end in range(len(case.steps), 0, -max(count, 1)) if count else ():
            cut = case.steps[max(0, end - count) : end]
            leaves = tuple(_as_input(step.name, shapes[step.name]) for step in cut if step.name in shapes)
            steps = tuple(step for step in case.steps if step not in cut)
            text = str(replace(case, leaves=case.leaves + leaves, steps=steps))
            yield needed(parse(_renamed(text, {step.name: f"x{step.name[1:]}" for step in cut})))


def _as_input(name: str, value: torch.Tensor) -> Leaf:
    return Leaf(f"x{name[1:]}", str(value.dtype).removeprefix("torch."), tuple(value.shape), "normal")


def _renamed(text: str, names: dict[str, str]) -> str:
    return NAME.sub(lambda match: names.get(match[0], match[0]), text)


def _bypasses(case: Case) -> Iterator[Case]:
    """An operand of a step takes the place of its result."""
    shapes = _values(case)
    for step in reversed(case.steps):
        for name in step.operands:
            if shapes[name].shape == shapes[step.name].shape and shapes[name].dtype == shapes[step.name].dtype:
                rest = replace(case, steps=tuple(other for other in case.steps if other is not step))
                yield needed(parse(_renamed(str(rest), {step.name: name})))


def _plainer_leaves(case: Case) -> Iterator[Case]:
    for index, leaf in enumerate(case.leaves):
        if leaf.fill in ("special", "mask"):
            yield replace(case, leaves=(*case.leaves[:index], replace(leaf, fill="normal"), *case.leaves[index + 1 :]))


def _smaller_sizes(case: Case) -> Iterator[Case]:
    """A size, with all its multiples or alone, becomes a smaller one wherever it stands."""
    head = len(str(replace(case, leaves=(), steps=(), outputs=())).split("return")[0])
    text = str(case)
    sizes = sorted({int(n) for n in re.findall(r"(?<![\w.])\d+(?![\w.])", text[head:])} - {0, 1}, reverse=True)
    for size in sizes:
        for smaller in sorted({1, 2, 3, size // 4, size // 2, size - 1} - {0, size}):
            if smaller < size:
                for multiples in (True, False):
                    yield (
                        _try_parse(
                            text[:head]
                            + re.sub(r"(?<![\w.])\d+(?![\w.])", _scaled(size, smaller, multiples), text[head:])
                        )
                        or case
                    )


def _scaled(size: int, smaller: int, multiples: bool) -> Callable[[re.Match[str]], str]:
    def change(match: re.Match[str]) -> str:
        value = int(match[0])
        if value == size or (multiples and value and value % size == 0):
            return str(value // size * smaller)
        return match[0]

    return change


def _try_parse(text: str) -> Case | None:
    try:
        return parse(text)
    except Error:
        return None


def _valid(case: Case) -> bool:
    """Whether PyTorch takes it."""
    try:
        _values(case)
    except (RuntimeError, TypeError, IndexError, ValueError, NameError):
        return False
    return bool(case.outputs)


def _values(case: Case) -> dict[str, torch.Tensor]:
    """Shapes and types by name."""
    found = {
        leaf.name: torch.empty(leaf.shape, dtype=getattr(torch, leaf.dtype), device="meta") for leaf in case.leaves
    }
    for step in case.steps:
        found[step.name] = evaluate(step.text, found)
    for name in case.outputs:
        found[name]
    return found

"""What is checked of a case: compile, run, and compare with the reference, with eager PyTorch and with
torch.compile."""

import gc
import os
import re
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzz.graphs.case import Case, chip_of, execute, model, parse, values_of
from fuzz.graphs.trust import Trust, bounds, distance, trust_of
from fuzz.harness import Broken, is_ours
from isa.errors import CompileError, Error, InputError
from lint.analyse import check
from runtime.device.executable import Executable
from runtime.program import Program
from runtime.pytorch.tensors import bind, to_tensor
from runtime.verify.reference import LazyReference

CHECKS = ("expanded", "verify", "lint", "adversarial", "jit", "fallback")  # beside those that every case gets


def prepare() -> None:
    """What a process pays once, before its memory is limited: imports, and the first compilation of each kind."""
    os.environ["LLMCHIP_STRICT"] = "1"
    os.environ["LLMCHIP_CACHE"] = "off"
    warnings.simplefilter("ignore")  # PyTorch's, of what the graphs compute
    run(
        "chip edge\nseed 1\ncheck expanded verify lint adversarial jit\nx1 = float32[2, 8] normal\nw2 = float32[4, 8] weight\n"
        "v3 = F.linear(x1, w2) # product\nreturn v3\n"
    )
    gc.freeze()  # what is imported stays: no collection needs to look at it


def run(text: str) -> None:
    """Raises an Error where the compiler refuses the case in time, Broken or anything else where a promise does not
    hold."""
    case = parse(text)
    leaves = values_of(case)
    inputs = [leaves[leaf.name] for leaf in case.inputs]
    _run_eagerly(case, leaves)
    try:
        program = _compiled(case, inputs)
    except Error:
        if "fallback" in case.checks:
            _check_compiled(case, inputs, leaves, None, fallback=True)
        raise
    try:
        results = _check_bits(case, program, inputs)
        _near_eager(case, results, leaves, "the chip")
        for name in ("jit", "fallback"):
            if name in case.checks:
                _check_compiled(case, inputs, leaves, results, fallback=name == "fallback")
    except Error as error:
        raise Broken(f"{type(error).__name__} after compiling: {plain(str(error))}") from error


def _run_eagerly(case: Case, leaves: dict[str, Tensor]) -> None:
    """`leaves` becomes all values by name. What only PyTorch's meta tensors take is no program."""
    try:
        with torch.no_grad():
            for _ in execute(case, leaves):
                pass
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"PyTorch itself refuses: {plain(str(error))}") from error


def _compiled(case: Case, inputs: list[Tensor]) -> Program:
    from llmchip import compile

    try:
        return compile(model(case), tuple(inputs), chip=chip_of(case))
    except CompileError as error:
        if "fault of llmchip" in str(error) or "bug in llmchip" in str(error):
            raise Broken(f"fault of llmchip: {_origin(error)}") from error
        raise


def _origin(error: BaseException) -> str:
    """Type and place of what was first raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if is_ours(frame.filename)), frames[-1])
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}: {plain(str(error))}"


def plain(text: str) -> str:
    """A message without names and numbers, so that findings of one kind are alike."""
    first = (text.strip() or "?").splitlines()[0]
    first = re.sub(r"'[^']*'|\[[^\]]*\]|\([^)]*\)", "…", first)
    return re.sub(r"\b\w*\d\w*\b", "#", first)[:160]


def _check_bits(case: Case, program: Program, inputs: list[Tensor]) -> list[Tensor]:
    """The chip against the reference; returns the chip's results."""
    results, wanted = list(program(*inputs)), _reference(program, inputs)
    if not all(map(same, results, wanted)):
        raise Broken(f"bits differ from the reference's, first in {_first_difference(program, inputs)}")
    if "expanded" in case.checks and not all(map(same, program.reference(*inputs), wanted)):
        raise Broken("the reference in stock operations differs from the one in the chip's")
    if "verify" in case.checks and not (report := program.verify(*inputs)).bit_exact:
        raise Broken(f"verify finds what results do not show: {_verdict(program, report)}")
    if "lint" in case.checks and (findings := check(program.image)):
        raise Broken(f"lint: {plain(str(findings[0]))}")
    if "adversarial" in case.checks:
        _check_order(case, program, inputs, results)
    return results


def _reference(program: Program, inputs: list[Tensor]) -> list[Tensor]:
    """The frozen graph as it is, run by PyTorch: `program.reference` does the same, but each chip operator is traced
    first."""
    captured, lowered = program.captured, program.compiled.lowered
    values = LazyReference(lowered.main, (*captured.flatten(tuple(inputs)), *lowered.pack_weights())).outputs()
    return list(captured.unflatten(values))


def _first_difference(program: Program, inputs: list[Tensor]) -> str:
    report = program.verify(*inputs)
    return _verdict(program, report) if not report.bit_exact else "the results alone: every node is right"


def _verdict(program: Program, report: Any) -> str:
    if report.first_divergence is None:
        return plain(report.findings[0])
    name = report.first_divergence["node"]
    targets = (
        {node.name: str(node.target) for node in program.reference_graph.nodes}
        if hasattr(program, "reference_graph")
        else {}
    )
    return targets.get(name, re.sub(r"_?\d+", "", name))


def _check_order(case: Case, program: Program, inputs: list[Tensor], results: list[Tensor]) -> None:
    entry = program.image.entry()
    given = bind(entry.inputs, program.captured.flatten(tuple(inputs), {}))
    found = Executable(program.image, adversarial=case.seed)(given)
    again = program.captured.unflatten([to_tensor(found[spec.name], spec.dtype) for spec in entry.outputs])
    if not all(map(same, again, results)):
        raise Broken("the order of the engines shows")


def _near_eager(case: Case, results: list[Tensor], eager: dict[str, Tensor], who: str) -> None:
    trusts = trust_of(case, eager)
    near = [name for name in case.outputs if trusts[name] is Trust.NEAR and eager[name].is_floating_point()]
    limits = bounds(case, near, eager) if near else {}
    for name, got in zip(case.outputs, results, strict=True):
        want, trust = eager[name], trusts[name]
        if (got.dtype, got.shape) != (want.dtype, want.shape):
            raise Broken(f"{who} gives {_kind(got)}, eager PyTorch {_kind(want)}, in {_text(case, name)}")
        if trust <= Trust.ZERO and not same(got, want, zero=trust is Trust.ZERO):
            raise Broken(f"{who} differs from eager PyTorch where it may not, in {_text(case, name)}")
        if name in limits and distance(got, want) > limits[name]:
            raise Broken(f"{who} is far from eager PyTorch, in {_text(case, name)}")


def _kind(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} of rank {x.dim()}"


def _text(case: Case, name: str) -> str:
    return next((plain(step.text) for step in case.steps if step.name == name), "an input")


def same(a: Tensor, b: Tensor, zero: bool = False) -> bool:
    """Every bit, type and shape; any NaN is a NaN; with `zero`, zeros of both signs are alike."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return bool((a == b).all())
    integers = {2: torch.int16, 4: torch.int32}[a.element_size()]
    bits = a.contiguous().view(integers) == b.contiguous().view(integers)
    return bool((bits | (a.isnan() & b.isnan()) | ((a == 0) & (b == 0) if zero else False)).all())


def _check_compiled(
    case: Case, inputs: list[Tensor], eager: dict[str, Tensor], results: list[Tensor] | None, fallback: bool
) -> None:
    """torch.compile gives what the ahead-of-time program gives; with fallback it never raises, whatever the chip
    refuses."""
    torch._dynamo.reset()
    strict = os.environ.pop("LLMCHIP_STRICT", None) if fallback and results is None else None
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {"chip": chip_of(case), "fallback": fallback}
            compiled = torch.compile(model(case), backend="llmchip", dynamic=False, options=options)
            got = list(compiled(*inputs))
    except Exception as error:
        raise Broken(f"torch.compile{' with fallback' if fallback else ''} raises {_origin(error)}") from error
    finally:
        if strict is not None:
            os.environ["LLMCHIP_STRICT"] = strict
    if results is not None and not all(map(same, got, results)):
        raise Broken("torch.compile gives other bits than llmchip.compile")
    if results is None:
        _near_eager(case, got, eager, "torch.compile with fallback")

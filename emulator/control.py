"""CTL instructions: loops, scalars and views. They execute in the dispatcher and touch no engine."""

from collections.abc import Callable, Mapping
from typing import Final

from emulator.context import Call, Core, Loop, Step, ViewRegister, executes
from emulator.formats import int_of_bits
from emulator.memory import Fault
from isa.architecture import Dtype, Region, Space
from isa.spec import SALU
from isa.views import View


@executes("nop", "fence")
def nothing(core: Core, call: Call) -> None:
    """Instructions execute one after the other here, so there is never anything to wait for."""


@executes("halt")
def halt(core: Core, call: Call) -> None:
    core.exit = call.operands["code"]


@executes("loop")
def loop(core: Core, call: Call) -> None:
    """Raises Fault when the level is in use, or the body leaves what is around it."""
    ops = call.operands
    level, length = ops["level"], ops["len"]
    count = core.scalars[ops["s"]] if ops["dyn"] else ops["count"]
    end = core.index + length
    if any(outer.level == level for outer in core.loops):
        raise Fault(f"loop level {level} is already in use")
    if end > (core.loops[-1].end if core.loops else core.size):
        raise Fault(
            f"a loop body of {length} instructions does not end inside the {'enclosing loop' if core.loops else 'program'}"
        )
    if count <= 0 or not length:
        core.index = end
        return
    core.indices[level] = 0
    core.loops.append(Loop(level, core.index, end, count))


def next_iteration(core: Core) -> None:
    """At the end of the innermost body: go back, or leave the loop, which puts its index back to 0."""
    inner = core.loops[-1]
    core.indices[inner.level] += 1
    if core.indices[inner.level] < inner.count:
        core.index = inner.start
    else:
        core.indices[inner.level] = 0
        core.loops.pop()


def _ceildiv(a: int, b: int) -> int:
    if b == 0:
        raise Fault("division by zero in salu")
    return -(-a // b)


_SALU: Final[Mapping[str, Callable[[int, int], int]]] = {
    "mov": lambda a, b: b,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
    "ceildiv": _ceildiv,
    "shl": lambda a, b: a << (b & 31),
    "shr": lambda a, b: a >> (b & 31),
    "and": lambda a, b: a & b,
}


@executes("salu")
def salu(core: Core, call: Call) -> None:
    """Scalars are signed: ceildiv rounds up, shr keeps the sign, shift amounts count modulo 32."""
    ops = call.operands
    y = int_of_bits(ops["imm"]) if ops["bi"] else core.scalars[ops["b"]]
    core.scalars[ops["d"]] = int_of_bits(_SALU[SALU[ops["f"]]](core.scalars[ops["a"]], y))


@executes("sld")
def sld(core: Core, call: Call) -> None:
    view = call.views["v"]
    at = View(view.space, view.region, view.dtype, view.base + call.operands["off"] * view.cs * 4)
    core.scalars[call.operands["d"]] = int(core.memory.source(at, (1, 1, 1))[0, 0, 0])


@executes("vset")
def vset(core: Core, call: Call) -> None:
    """Raises Fault for v0, the absent view."""
    ops = call.operands
    if ops["v"] == 0:
        raise Fault("v0 is the absent view and cannot be set")
    view = View(
        Space(ops["space"]), Region(ops["region"]), Dtype(ops["dtype"]), ops["base"], ops["rs"], ops["ps"], ops["cs"]
    )
    core.views[ops["v"]] = ViewRegister(view)


@executes("vinc")
def vinc(core: Core, call: Call) -> None:
    """Raises Fault for a division by zero."""
    ops = call.operands
    if ops["div"] == 0:
        raise Fault("vinc divides by zero")
    core.register(ops["v"]).steps.append(Step(ops["level"], ops["inc"], ops["div"], ops["mod"]))


@executes("vadd")
def vadd(core: Core, call: Call) -> None:
    ops = call.operands
    register = core.register(ops["v"])
    old = register.view
    base = old.base + core.scalars[ops["s"]] * ops["scale"]
    register.view = View(old.space, old.region, old.dtype, base, old.rs, old.ps, old.cs)

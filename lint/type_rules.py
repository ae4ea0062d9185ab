"""Which types the operands of one instruction may have together, beyond what each may have alone.

`type_error` gives the reason why an instruction with these views would trap, or "". One rule per mnemonic; instructions
without a rule have nothing to agree on. Restates the emulator's traps on purpose (`emulator/`): a test holds the two
equal.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from isa.architecture import FLOATS, IMAGE_REGIONS, INTS, Dtype, Space
from isa.spec import MM_FORMAT, TAP, VECTOR_OPS, VRED
from isa.views import View

Views = Mapping[str, View]
Operands = Mapping[str, int]
_PRODUCTS: Final[Mapping[str, tuple[Dtype, tuple[Dtype, ...], tuple[Dtype, ...]]]] = {  # c, a, w
    "i8": (Dtype.I32, (Dtype.I8,), (Dtype.I8, Dtype.I4)),
    "float": (Dtype.F32, FLOATS, FLOATS),
}


def type_error(mnemonic: str, operands: Operands, views: Views) -> str:
    """Why these views do not go together in this instruction; "" if they do."""
    rule = _RULES.get(mnemonic)
    return next(rule(operands, views), "") if rule else ""


def _copy(operands: Operands, views: Views) -> Iterator[str]:
    source, target = views["a"].dtype, views["d"].dtype
    if source is not target:
        yield f"a copy cannot iteration {source.name.lower()} into {target.name.lower()}"


def _gather(operands: Operands, views: Views) -> Iterator[str]:
    yield from _copy(operands, views)
    if views["a"].rs * views["a"].dtype.bits % 8:
        yield "rows of a gathered table must start on a byte"


def _store(operands: Operands, views: Views) -> Iterator[str]:
    yield from _copy(operands, views)
    if views["d"].space is Space.DRAM and views["d"].region in IMAGE_REGIONS:
        yield f"region {views['d'].region.name.lower()} is read-only"


def _product(operands: Operands, views: Views) -> Iterator[str]:
    fmt = MM_FORMAT[operands["fmt"]]
    c, a, w = _PRODUCTS[fmt]
    if views["c"].dtype is not c or views["a"].dtype not in a or views["w"].dtype not in w:
        yield f"format {fmt} does not work on {', '.join(f'{name} {views[name].dtype.name.lower()}' for name in 'caw')}"


def _grouped(operands: Operands, views: Views) -> Iterator[str]:
    if "ss" in views:
        if ("sm" in views) != ("zw" in views):
            yield "with ss, sm and zw go together"
        if operands["pre"] or operands["half"] or operands["acc"]:
            yield "pre, half and acc do not go with ss"
    elif "sm" in views:
        yield "sm does not go without ss"
    if operands["nib"] and views["w"].dtype is not Dtype.I4:
        yield "nib needs a w of i4"


def _elementwise(operands: Operands, views: Views) -> Iterator[str]:
    op = VECTOR_OPS[operands["f"]]
    f, target, source = op.name, views["d"].dtype, views["a"].dtype
    integer = all(view.dtype in INTS for view in views.values())
    if f == "mov":
        if target in INTS and source not in INTS:
            yield "mov cannot iteration a float into an integer"
    elif f == "sel":
        if target in INTS and "b" in views and views["b"].dtype not in INTS:
            yield "sel cannot iteration a float into an integer"
    elif integer:
        if not op.integers:
            yield f"{f} does not exist on integers"
    elif not op.floats:
        yield f"{f} does not exist on floats"
    elif target in INTS and not op.compares:
        yield f"{f} on floats cannot store {target.name.lower()}"


def _reduction(operands: Operands, views: Views) -> Iterator[str]:
    f, target = VRED[operands["f"]], views["d"].dtype
    if (f == "argmax") != (target is Dtype.I32):
        yield f"{f} cannot store {target.name.lower()}"


def _affine(operands: Operands, views: Views) -> Iterator[str]:
    if ("tap" in views) != (TAP[operands["red"]] != "none"):
        yield "tap and red go together"


_RULES: Final[Mapping[str, Callable[[Operands, Views], Iterator[str]]]] = {
    "ldw": _copy,
    "lda": _copy,
    "sto": _store,
    "gather": _gather,
    "mm": _product,
    "mmg": _grouped,
    "vop": _elementwise,
    "vred": _reduction,
    "vaff": _affine,
}

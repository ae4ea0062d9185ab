"""Every operation that may remain in a frozen graph, written once. What is legal, its role, what it costs and more are
read here.

A new elementwise operation of PyTorch is one row, one emitter (`@emits` in compiler/emit/) and one rule of the
translation check (compiler/translation/operators.py); a new operator of the chip's own is a record in
`compiler.ops.library`. A test holds the three together.
"""

import operator
from typing import Unpack

import torch
from torch.fx.node import Target

from compiler.ops.library import OPERATORS
from compiler.ops.record import Affine, ChipOp, Domain, Facts, Limit, Role

aten = torch.ops.aten


def _rows(
    names: str,
    kinds: str,
    domain: Domain,
    role: Role = Role.ELEMENTWISE,
    limit: Limit = Limit.ELEMENTS,
    **facts: Unpack[Facts],
) -> tuple[ChipOp, ...]:
    return tuple(
        ChipOp(name, tuple(getattr(getattr(aten, name), kind) for kind in kinds.split()), role, domain, limit, **facts)
        for name in names.split()
    )


OPS: dict[str, ChipOp] = {
    op.name: op
    for op in (
        *OPERATORS,
        *_rows("add sub mul", "Tensor", Domain.NUMBERS, affine=Affine.STEP | Affine.MADE, in_place=True),
        *_rows("div", "Tensor", Domain.NUMBERS, in_place=True),
        *_rows("neg", "default", Domain.NUMBERS, affine=Affine.STEP),
        *_rows("abs", "default", Domain.NUMBERS),
        *_rows("bitwise_and bitwise_or bitwise_xor", "Tensor", Domain.BITS),
        *_rows("where", "self Scalar ScalarSelf ScalarOther", Domain.CHOICE),
        *_rows("eq ne lt le gt ge", "Tensor Scalar", Domain.COMPARISON),
        *_rows("logical_not", "default", Domain.BITS),
        *_rows("_to_copy", "default", Domain.CAST, limit=Limit.NOTHING),
        *_rows("argmax", "default", Domain.SINGLE, role=Role.ROWS, limit=Limit.OWN),
        *_rows("embedding", "default", Domain.ANY, role=Role.GATHER, limit=Limit.NOTHING),
        *_rows("cat", "default", Domain.ANY, role=Role.CAT, limit=Limit.NOTHING),
        *_rows("reshape view permute expand", "default", Domain.ANY, role=Role.VIEW, limit=Limit.NOTHING),
        *_rows("clone", "default", Domain.ANY, role=Role.VIEW, limit=Limit.NOTHING, moves=True),
        *_rows("slice", "Tensor", Domain.ANY, role=Role.VIEW, limit=Limit.NOTHING),
        *_rows("select", "int", Domain.ANY, role=Role.VIEW, limit=Limit.NOTHING),
        ChipOp("getitem", (operator.getitem,), Role.VIEW, limit=Limit.NOTHING),
    )
}
BY_TARGET: dict[Target, ChipOp] = {target: op for op in OPS.values() for target in op.targets}

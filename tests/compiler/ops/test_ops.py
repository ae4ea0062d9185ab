"""Operations have one home, and everything that works by operation covers it exactly."""

import torch

from compiler.emit import kernel
from compiler.emit.emitter import EMITTERS
from compiler.ops.library import OPERATORS
from compiler.ops.record import Domain, Limit, Role
from compiler.ops.table import BY_TARGET, OPS
from compiler.translation.operators import RULES
from runtime.profile import roofline


def test_every_operation_has_an_emitter_and_no_emitter_is_dead() -> None:
    """Breaks when an operation may remain in a graph that nobody emits, or code is written for one that cannot."""
    assert kernel.MODULES
    assert set(EMITTERS) == {op.name for op in OPS.values() if op.emitted}


def test_the_translation_check_knows_every_operation() -> None:
    """Breaks when the check would fail on a new operation, or keeps a rule for one that is gone."""
    assert set(RULES) == {op.name for op in OPS.values() if op.role is not Role.VIEW}


def test_the_limit_has_a_rule_for_those_that_need_one() -> None:
    """Breaks when a record says Limit.OWN and the roofline has no rule, which is found only when such a model is
    profiled."""
    own = {op.name for op in OPS.values() if op.limit is Limit.OWN and op.role is not Role.ATTENTION}
    assert set(roofline._RULES) == own


def test_targets_are_told_apart() -> None:
    """Breaks when two records claim one overload, or a record names an overload of another operation."""
    assert len(BY_TARGET) == sum(len(op.targets) for op in OPS.values())
    for target, op in BY_TARGET.items():
        schema = getattr(target, "_schema", None)
        assert op.name == (schema.name.split("::")[1] if schema is not None else getattr(target, "__name__", ""))


def test_own_operators_are_pytorch_operators() -> None:
    """Breaks when an operator has no reference, or its fake does not say what its reference computes."""
    assert {op.name for op in OPS.values() if op.implementation} == {op.name for op in OPERATORS}
    x, w = torch.randn(3, 5), torch.ones(3, 64, dtype=torch.int8)
    for name, args in {
        "softmax": (x, False),
        "layer_norm": (x,),
        "activation": (x, "exp"),
        "reduce": (x, "sum", -1, True),
        "clamp": (x, 0.0),
        "quantize_rows": (x,),
        "quantize_groups": (torch.randn(3, 64), 32, "scale", "away", torch.float16),
        "matmul_groups": (w, w[:2], torch.ones(3, 2), torch.ones(2, 2)),
    }.items():
        (target,) = OPS[name].targets
        assert isinstance(target, torch._ops.OpOverload)
        torch.library.opcheck(target, args, test_utils=("test_schema", "test_faketensor"))
    assert all(op.domain is Domain.ANY for op in OPERATORS)

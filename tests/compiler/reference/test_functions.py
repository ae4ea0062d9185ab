"""The elementwise functions: the vectors of docs/numerics.md, and plain Python arithmetic over random bit patterns."""

import re

import numerics_scalars as scalars
import pytest
import torch
from checkout import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics_helpers import bits, tensor
from torch import Tensor

from compiler.reference import functions as reference
from isa import constants
from isa.spec import ACT

PAGE = (ROOT / "docs" / "numerics.md").read_text()
KINDS = sorted(reference.ACTIVATIONS)
WORDS = st.integers(0, (1 << 32) - 1)
# sign and exponent chosen so that the interesting range is dense
MODERATE = st.builds(
    lambda s, e, m: s << 31 | e << 23 | m, st.integers(0, 1), st.integers(110, 134), st.integers(0, (1 << 23) - 1)
)


def _vectors(kind: str) -> list[tuple[int, int]]:
    row = re.search(rf"^\| {kind} \| (.*>>.*) \|$", PAGE, re.MULTILINE)
    assert row, f"docs/numerics.md has no vectors for {kind}"
    return [(int(a, 16), int(b, 16)) for a, b in re.findall(r"([0-9A-F]{8}) >> ([0-9A-F]{8})", row[1])]


def test_every_function_of_the_isa_has_a_reference() -> None:
    """Breaks when isa.spec.ACT gains a function that the reference or the scalar restatement lacks."""
    assert sorted(ACT) == KINDS == sorted(scalars.FUNCTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_documented_vectors(kind: str) -> None:
    """Breaks when a constant, an order of operations or a special value changes without the page."""
    vectors = _vectors(kind)
    assert len(vectors) >= 6
    assert bits(reference.ACTIVATIONS[kind](tensor(*(a for a, _ in vectors)))) == [b for _, b in vectors]
    assert [scalars.to_bits(scalars.FUNCTIONS[kind](scalars.from_bits(a))) for a, _ in vectors] == [
        b for _, b in vectors
    ]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(words=st.lists(WORDS | MODERATE, min_size=1, max_size=70))
def test_equals_plain_python(kind: str, words: list[int]) -> None:
    """Breaks when torch contracts, reorders or approximates any step, in vector bodies or tails."""
    expected = [scalars.to_bits(scalars.FUNCTIONS[kind](scalars.from_bits(word))) for word in words]
    assert bits(reference.ACTIVATIONS[kind](tensor(*words))) == expected


@pytest.mark.parametrize("name", ["EXP_P", "ERF_P", "ERF_R", "TANH_P"])
def test_page_states_the_constants(name: str) -> None:
    """Breaks when coefficients change in isa/constants.py only: the page is what others implement."""
    assert f"{name} = {' '.join(f'{word:08X}' for word in getattr(constants, name))}" in PAGE


@pytest.mark.parametrize(("kind", "first"), [("erf", 0x4079AEA3), ("tanh", 0x41102CB4)])
def test_saturation_is_exact_and_odd(kind: str, first: int) -> None:
    """Breaks when the function stops short of 1, passes it, or loses its symmetry (GELU would change sign)."""
    sparse, dense = torch.arange(0x3E000000, 0x41400000, 997), torch.arange(first - 2000, first + 2000)
    x = torch.cat([sparse, dense]).to(torch.int32).view(torch.float32)
    y = reference.ACTIVATIONS[kind](x)
    saturated = x >= float(tensor(first))
    assert bool((y[saturated] == 1.0).all())
    assert bool((y <= 1.0).all())
    assert float(reference.ACTIVATIONS[kind](tensor(first - 1))) < 1.0
    assert torch.equal(reference.ACTIVATIONS[kind](-x).view(torch.int32), (-y).view(torch.int32))


@pytest.mark.parametrize("kind", ["erf", "tanh"])
def test_tiny_inputs_survive(kind: str) -> None:
    """Breaks when subnormals are flushed or a zero loses its sign on the way through the polynomial."""
    words = [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x0D000000]
    x = tensor(*words)
    expected = x if kind == "tanh" else (x.to(torch.float64) * 1.1283791670955126).to(torch.float32)
    difference = reference.ACTIVATIONS[kind](x).view(torch.int32) - expected.view(torch.int32)
    assert int(difference.abs().max()) <= (0 if kind == "tanh" else 1)


LIMITS = {
    "exp": 1.0,
    "erf": 1.3,
    "tanh": 1.35,
    "sigmoid": 2.5,
    "silu": 2.8,
    "rsqrt": 1.5,
    "recip": 0.5001,
    "sqrt": 0.5001,
}


def _exact(kind: str, x: Tensor) -> Tensor:
    if kind in ("sigmoid", "silu"):
        return (1.0 if kind == "sigmoid" else x) / (1 + torch.exp(-x))
    if kind in ("recip", "rsqrt"):
        return 1 / (torch.sqrt(x) if kind == "rsqrt" else x)
    exact: Tensor = getattr(torch, kind)(x)
    return exact


@pytest.mark.parametrize("kind", sorted(LIMITS))
def test_error_bound(kind: str) -> None:
    """Breaks when a new coefficient or formula makes a function less accurate than the page says."""
    x = torch.arange(0x38000000, 0x42A00000, 997, dtype=torch.int32).view(torch.float32)
    x = torch.cat([x, -x]) if kind not in ("rsqrt", "sqrt") else x
    exact = _exact(kind, x.to(torch.float64))
    unit = torch.ldexp(torch.ones_like(exact), torch.clamp(torch.frexp(exact).exponent - 24, min=-149))
    assert float(((reference.ACTIVATIONS[kind](x).to(torch.float64) - exact).abs() / unit).max()) <= LIMITS[kind]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_round_once(dtype: torch.dtype) -> None:
    """Breaks when an activation computes in bf16/f16 or rounds between its steps."""
    x = torch.arange(-32768, 32768, 7, dtype=torch.int32).to(torch.int16).view(dtype)
    for kind in KINDS:
        assert bits(reference.activation(x, kind)) == bits(reference.ACTIVATIONS[kind](x.to(torch.float32)).to(dtype))


def test_functions_trace_without_data() -> None:
    """Breaks when a reference function looks at values in Python: it could no longer be part of a traced graph."""
    from torch.fx.experimental.proxy_tensor import make_fx

    for kind in KINDS:
        graph = make_fx(reference.ACTIVATIONS[kind], tracing_mode="fake")(torch.zeros(3, 5))
        x = torch.linspace(-3, 3, 15).reshape(3, 5)
        assert bits(graph(x)) == bits(reference.ACTIVATIONS[kind](x))

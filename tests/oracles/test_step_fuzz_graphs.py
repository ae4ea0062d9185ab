"""The graph fuzzer: its cases are reproducible, its checks notice what they are there to notice, and its findings
become small."""

import random

import pytest
import torch

from fuzz.fuzzers import FUZZERS
from fuzz.graphs import checks
from fuzz.graphs.case import Case, execute, parse, python_of, values_of
from fuzz.graphs.make import make
from fuzz.graphs.operators import OPERATORS
from fuzz.graphs.shrink import shrink
from fuzz.graphs.trust import Trust, bounds, distance, trust_of
from fuzz.harness import Broken, case_of, outcome
from isa.errors import Error
from runtime.device.executable import Executable

SIMPLE = """chip edge
seed 3
check
x1 = float32[3, 8] normal
w2 = float32[5, 8] weight
v3 = F.linear(x1, w2)                                             # product
v4 = v3 + v3[..., :1]                                             # exact
v5 = x1 * 2                                                       # exact
v6 = torch.tanh(x1)                                               # function
return v4, v5
"""


def _cases(count: int) -> list[Case]:
    return [make(random.Random(number)) for number in range(count)]


def test_a_case_is_its_text() -> None:
    """Breaks when something of a case is not in its text: then a saved finding is another one when it is run again."""
    for case in _cases(20):
        assert parse(str(case)) == case
    graphs = FUZZERS["graphs"]
    assert case_of(graphs, 1, 5) == case_of(graphs, 1, 5) != case_of(graphs, 1, 6)


def test_what_is_no_case_is_refused_with_its_line() -> None:
    with pytest.raises(Error, match="line 2"):
        parse("chip edge\nv1 = nonsense\n")


def test_cases_reach_every_operator_and_shape() -> None:
    """Breaks when an operator of the table is never made, because its builder always fails."""
    text = "".join(str(case) for case in _cases(150))
    missing = [
        row.name
        for row in OPERATORS
        if isinstance(row.build, str) and row.weight > 0.2 and row.build.partition("{x}")[0] not in text
    ]
    assert not missing
    for word in (
        "F.linear",
        "torch.matmul",
        "scaled_dot_product",
        "torch.where",
        "F.embedding",
        "torch.cat",
        "torch.stack",
        "chunk",
        "split",
        "expand",
    ):
        assert word in text, word


def test_trust_follows_products_functions_and_jumps() -> None:
    lines = (
        "v7 = v6 > 0 # jump\nv8 = F.relu(x1) # zero\nv9 = x1 / v8 # pole\nv10 = v8 - x1 # exact\nreturn v7, v8, v9, v10"
    )
    trusts = trust_of(parse(SIMPLE.replace("return v4, v5", lines)))
    expected = {
        "v3": Trust.NEAR,
        "v4": Trust.NEAR,
        "v5": Trust.EXACT,
        "v6": Trust.NEAR,
        "v7": Trust.LOOSE,
        "v8": Trust.ZERO,
        "v9": Trust.LOOSE,
    }
    assert {name: trusts[name] for name in expected} == expected
    assert trusts["v10"] is Trust.ZERO


def test_a_right_program_passes() -> None:
    checks.run(SIMPLE.replace("check", "check verify lint adversarial"))


def test_bounds_are_tight_enough_to_see_a_wrong_element() -> None:
    """Breaks when noise excuses everything: a product with one row taken for another must be outside."""
    case = parse(SIMPLE)
    leaves = values_of(case)
    for _ in execute(case, leaves):
        pass
    limit = bounds(case, ["v4"], leaves)["v4"]
    assert 0 < limit < 0.3
    assert distance(leaves["v4"].roll(1, 0), leaves["v4"]) > limit


@pytest.fixture
def wrong_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chip that gets the second half of each wide result wrong."""
    right = Executable.run

    def run(self: Executable, *args: object, **options: object) -> dict[str, object]:
        results = right(self, *args, **options)  # type: ignore[arg-type]
        for array in results.values():
            if array.ndim and array.shape[-1] > 3 and array.dtype == "float32":
                array[..., 3] += 1
        return dict(results)

    monkeypatch.setattr(Executable, "run", run)


@pytest.mark.usefixtures("wrong_sums")
def test_a_wrong_result_is_found_and_made_small() -> None:
    with pytest.raises(Broken, match="bits differ from the reference's"):
        checks.run(SIMPLE)
    graphs = FUZZERS["graphs"]
    problem = outcome(graphs, SIMPLE.encode())
    assert problem is not None
    small = parse(shrink(SIMPLE, lambda text: outcome(graphs, text.encode()) == problem, 5))
    assert len(small.steps) <= 1 and len(small.outputs) == 1


def test_same_is_bits() -> None:
    nan, zeros = torch.tensor([float("nan")]), torch.tensor([0.0])
    assert checks.same(nan, -nan) and not checks.same(zeros, -zeros) and checks.same(zeros, -zeros, zero=True)
    assert not checks.same(zeros, zeros.half()) and not checks.same(zeros, torch.zeros(1, 1))


def test_the_printed_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when it needs something from here."""
    exec(python_of(parse(SIMPLE)), {})
    assert capsys.readouterr().out.count("differ from the reference: 0,") == 2


@pytest.mark.parametrize("lines", [
    "v3 = x1 - x1 # exact\nv4 = x1 / v3 # pole\nv5 = torch.matmul(v4, w2) # product\nv6 = torch.where(x1 > 0, v5, x1) # exact\nreturn v6",
    "v3 = (x1 * 0 + 3000).half() # exact\nv4 = w2.half() # exact\nv5 = F.linear(v3, v4) # product\nreturn v5",
])  # fmt: skip
def test_what_overflows_is_no_promise(lines: str) -> None:
    """Breaks when infinities in products, or int8 products beyond float16, are findings: eager and chip overflow in
    other places."""
    checks.run("chip edge\nseed 3\ncheck\nx1 = float32[3, 8] normal\nw2 = float32[8, 8] weight\n" + lines + "\n")


def test_a_bias_that_cancels_a_product_leaves_its_error() -> None:
    """Breaks when noise is relative to what is left of the product."""
    checks.run(
        "chip edge\nseed 45111\ncheck\nx1 = float32[1, 1, 1] normal\nw7 = float32[1] normal\nw8 = float32[1] normal\n"
        "w10 = float32[1] normal\nw11 = float32[1, 1] weight\nv9 = F.layer_norm(x1, (1,), w7, w8, 1e-1) # function\n"
        "v12 = F.linear(v9, w11, w10) # product\nreturn v12\n"
    )

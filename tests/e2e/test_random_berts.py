"""Random BERT configurations: the emulated binary equals PyTorch in every bit of every node that it names."""

from berts import EXAMPLES, Case, cases
from hypothesis import HealthCheck, example, given, settings

import llmchip
from lint.analyse import check

BASE = Case("BertModel", 3, 5, 2, 31, 40, "gelu", "sdpa", False, 2, 7, "right", True, 0)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(cases)
@example(BASE)
@example(Case("BertForMaskedLM", 1, 1, 1, 1, 3, "gelu_new", "eager", True, 1, 1, "row", False, 1))
def test_random_configuration_is_bit_exact(case: Case) -> None:
    """Breaks if any layer, from capture to emulator, changes one bit, or if the program has a race or reads junk."""
    inputs = case.inputs()
    program = llmchip.compile(case.model(), inputs)
    found = program.verify(**inputs)
    assert found.bit_exact and found.mismatched_elements == 0, found.first_divergence
    assert found.nodes > 0 and found.nodes + len(found.skipped) == found.graph_nodes
    assert [str(f) for f in check(program.image) if getattr(f, "severity", "error") == "error"] == []

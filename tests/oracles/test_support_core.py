"""`make support-core` counts a sample as on the chip only if nothing of it fell back and the result is eager's."""

import pytest
import torch

from runtime.pytorch.fallback import STRICT
from tools.support.cases import Case
from tools.support_core import PLACELESS, Found, _has_types, core_operators, entries, examine, spread, table


@pytest.mark.slow
def test_each_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when an operator of which some samples fall back counts as one of which all run, or none."""
    monkeypatch.delenv(STRICT, raising=False)
    assert examine("neg", ["neg"], 2).verdict == "all"
    some = examine("argmax", ["argmax", "digamma"], 2)
    assert some.verdict == "some" and "digamma" in some.reasons[0] and (some.chip, some.samples) == (2, 4)
    assert examine("digamma", ["digamma"], 1).verdict == "no"


def test_the_table() -> None:
    """Breaks when an operator is missing from the page, or a reason splits a row of it."""
    rows = [Found("neg", 2, 2, ()), Found("log", 3, 1, ("a|b",)), Found("sin", 1, 0, ("no",))]
    page = table(rows)
    assert "Of 3 operators, 1 in all, 1 in some, 1 in no samples." in page
    assert "| log | some | 1 of 3 | a\\|b |" in page
    assert all(name in page for name in PLACELESS)


def test_what_is_asked() -> None:
    """Breaks when samples of types that the chip lacks are asked, an operator's entries are lost, or the last sample
    is."""
    known = entries()
    assert known["elu"] and known["_softmax"] and not known["alias"] and known.keys() == core_operators().keys()
    assert not _has_types(Case(torch.neg, (torch.ones(1),), {"dtype": torch.float64}))
    assert _has_types(Case(torch.neg, (torch.ones(1),), {}))
    assert spread(range(9), 3) == [0, 4, 8] and spread(range(3), 0) == [0, 1, 2]

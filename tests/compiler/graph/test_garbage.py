"""The collector is slowed down while something is compiled, and never left so."""

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from compiler.graph.garbage import OBJECTS, collected_seldom


@pytest.fixture
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("threshold")
@pytest.mark.parametrize(("first", "inside"), [(700, OBJECTS), (OBJECTS + 1, OBJECTS + 1), (0, 0)])
def test_thresholds_are_raised_and_given_back(first: int, inside: int) -> None:
    """Breaks if a threshold that is higher is lowered, a collector that is off is switched on, or an error or a
    compilation within another one leaves other thresholds behind."""
    gc.set_threshold(first, 11, 12)
    with suppress(ZeroDivisionError), collected_seldom():
        with collected_seldom():
            pass
        assert gc.get_threshold() == (inside, 11, 12)
        raise ZeroDivisionError
    assert gc.get_threshold() == (first, 11, 12)


@pytest.mark.usefixtures("threshold")
def test_the_last_of_two_compilations_gives_them_back() -> None:
    """Breaks if two threads that compile at once, and do not end in the order of a stack, leave it slow."""
    gc.set_threshold(700, 10, 10)
    one, other = collected_seldom(), collected_seldom()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert gc.get_threshold()[0] == OBJECTS
    other.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)

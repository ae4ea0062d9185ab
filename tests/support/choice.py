"""Which cases of a long list `make test` takes."""

from collections.abc import Iterable
from typing import Any

import pytest


def few(values: Iterable[Any], *kept: object) -> list[Any]:
    """Parameters: `make test` runs those that are `kept`, `make test-wide` the others."""
    return [value if value in kept else pytest.param(value, marks=pytest.mark.wide) for value in values]

"""SRAM and ACC for many machines: as many as launches can run side by side, not one for each program that was ever
compiled."""

import os
from functools import cache
from itertools import count
from typing import Final

from emulator.memory import Bank

BANKS: Final = min(8, os.cpu_count() or 1)
_turn = count()


def bank(sram_bytes: int, acc_bytes: int) -> Bank:
    """The next one, in turn. Whoever launches holds its lock."""
    return _bank(sram_bytes, acc_bytes, next(_turn) % BANKS)


@cache
def _bank(sram_bytes: int, acc_bytes: int, number: int) -> Bank:
    return Bank(sram_bytes, acc_bytes)

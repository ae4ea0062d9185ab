"""Quantities as people write them: `4MiB`, `1.5 GHz`, `100GB/s`, `0.9 pJ`; and back.

`kB` and `MB` are powers of ten, `KiB` and `MiB` powers of two, as the standards have them. A bare number is in the
parameter's own unit.
"""

import re
from decimal import Decimal, InvalidOperation

_TENS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_TWOS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_SMALL = {"f": Decimal("1e-15"), "p": Decimal("1e-12"), "n": Decimal("1e-9"), "m": Decimal("1e-3"), "": Decimal(1)}
_TEXT = re.compile(r"([+-]?[0-9_.]+(?:[eE][+-]?[0-9]+)?)\s*([^\s0-9]\S*)?")


def _scaled(
    unit: str, factors: "dict[str, int] | dict[str, Decimal]", base: Decimal = Decimal(1)
) -> dict[str, Decimal]:
    return {f"{prefix}{unit}": Decimal(factor) / base for prefix, factor in factors.items()}


# Of each unit that a parameter has: what may be written, and how many of the unit it is.
UNITS: dict[str, dict[str, Decimal]] = {
    "B": _scaled("B", _TENS) | _scaled("B", _TWOS) | _scaled("", _TWOS),
    "B/s": _scaled("B/s", _TENS) | _scaled("B/s", _TWOS),
    "Hz": _scaled("Hz", _TENS),
    "pJ": _scaled("J", _SMALL, _SMALL["p"]),
    "W": _scaled("W", _SMALL) | _scaled("W", _TENS),
    "cycles": {"cycles": Decimal(1), "cycle": Decimal(1)},
    "": {},
}


def parse(text: str, unit: str) -> Decimal:
    """The number of `unit`s that a text means. Raises ValueError with what may be written instead."""
    found = _TEXT.fullmatch(text.strip())
    known = UNITS[unit]
    try:
        number = Decimal(found[1].replace("_", "")) if found else None
    except InvalidOperation:
        number = None
    if found is None or number is None:
        raise ValueError(f"'{text}' is no number{f' of {unit}' if unit else ''}")
    if found[2] is None:
        return number
    if found[2] not in known:
        wanted = f"; its units are {', '.join(name for name in known if name)}" if known else "; it has no unit"
        raise ValueError(f"'{text}' is in no unit of this parameter{wanted}")
    return number * known[found[2]]


def written(value: int | float, unit: str) -> str:
    """A value as people write it, in the largest unit in which it is exact and short. A word stands by itself."""
    if unit == "cycles":
        return f"{value} cycle{'' if value == 1 else 's'}"
    number = Decimal(str(value))
    best, base = f"{value}{unit}", "J" if unit == "pJ" else unit
    for name, factor in UNITS[unit].items():
        scaled = number / factor
        text = f"{scaled.normalize():f}{name}"
        if name.endswith(base) and factor >= 1 and scaled * factor == number and scaled >= 1 and len(text) <= len(best):
            best = text
    return best

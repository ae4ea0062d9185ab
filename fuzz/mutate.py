"""Ways to damage bytes and text, all from one random generator."""

import random

INTERESTING = (
    0,
    1,
    2,
    7,
    15,
    16,
    63,
    64,
    255,
    256,
    4095,
    4096,
    65535,
    2**24 - 1,
    2**31 - 1,
    2**31,
    2**32,
    2**36,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -1,
    -(2**31),
    -(2**63),
)
TOKENS = (
    "0x",
    "-1",
    "1e999",
    "nan",
    "inf",
    "null",
    "true",
    "[]",
    "{}",
    "[[[[",
    '"',
    "'",
    "\\u0000",
    "\x00",
    "ÿ",
    "😀",
    "=",
    ",",
    "..",
    "@",
    ";",
    ":",
    "(",
    ")",
    "v32",
    "s16",
    "1/0",
    "<<",
    "~",
    "%",
    "\t",
    "\r",
)


def flip_bits(rng: random.Random, data: bytes, most: int = 8) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, most) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def pieces(rng: random.Random, data: bytes) -> bytes:
    """Cut, repeat, insert or overwrite a piece."""
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, 1000)))
    junk = rng.choice((rng.randbytes(rng.randint(0, 40)), b"\0" * rng.randint(1, 40), b"\xff" * rng.randint(1, 40)))
    front, back = data[:start], data[end:]
    return rng.choice(
        (front, front + back, data[:end] + data[start:], front + junk + data[start:], front + junk + back)
    )


def damage(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.randint(1, 3)):
        data = rng.choice((flip_bits, pieces))(rng, data)
    return data


def number(rng: random.Random) -> str:
    value = rng.choice((rng.choice(INTERESTING), rng.getrandbits(rng.randint(1, 70)), rng.randint(0, 40)))
    return rng.choice((str(value), hex(value), f"{value}.5", f"{value}e9"))


def damage_text(rng: random.Random, text: str) -> str:
    """Lines dropped, doubled, swapped; tokens replaced by numbers, other tokens or junk."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 6)):
        where = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0:
            del lines[where : where + rng.randint(1, 3)]
        elif kind == 1:
            lines.insert(where, lines[rng.randrange(len(lines))])
        elif kind == 2:
            other = rng.randrange(len(lines))
            lines[where], lines[other] = lines[other], lines[where]
        else:
            lines[where] = _damage_line(rng, lines[where])
        lines = lines or [""]
    return "\n".join(lines)


def _damage_line(rng: random.Random, line: str) -> str:
    parts = line.replace("=", " = ").replace(",", " , ").split(" ")
    where = rng.randrange(len(parts))
    kind = rng.randrange(4)
    if kind == 0:
        parts[where] = number(rng)
    elif kind == 1:
        parts[where] = rng.choice(TOKENS)
    elif kind == 2:
        parts[where] = parts[rng.randrange(len(parts))]
    else:
        text = " ".join(parts)
        at = rng.randrange(len(text) + 1)
        return (
            text[:at]
            + rng.choice((chr(rng.randrange(1, 0x250)), rng.choice(TOKENS), ""))
            + text[at + rng.randint(0, 3) :]
        )
    return " ".join(parts)

"""Groups of steps that models are made of: attention, and layers that repeat."""

import math
from itertools import pairwise

from fuzz.graphs.case import NAME, Effect, Leaf, Step
from fuzz.graphs.maker import FLOATS, Maker, NotMade
from fuzz.graphs.operators import OPERATORS

E, F, M = Effect.EXACT, Effect.FUNCTION, Effect.PRODUCT
_WEIGHTS = [operator.weight for operator in OPERATORS]


def operation(m: Maker) -> str | None:
    """One operator of the table."""
    operator = m.rng.choices(OPERATORS, _WEIGHTS)[0]
    x = m.pick(operator.types, operator.rank)
    return operator.add(m, x)


# ---- attention


def attention(m: Maker) -> str | None:
    """scaled_dot_product_attention, or the same in single steps; grouped or single key heads, masks of every kind."""
    made = None
    with m.attempt():
        q, k, v = _heads(m)
        grouped = m.shape(k)[:-2] != m.shape(q)[:-2]
        if m.rng.random() < 0.5:
            made = _sdpa(m, q, k, v, grouped)
        else:
            made = _eager(m, q, *(_repeated(m, x, q) if grouped and m.rng.random() < 0.7 else x for x in (k, v)))
        if m.rng.random() < 0.6:
            made = m.must(f"{made}.transpose(-2, -3).flatten(-2)", E)
    return made


def _heads(m: Maker) -> tuple[str, str, str]:
    """Queries [..., heads, rows, width], keys and values of as many or fewer heads, of a projection or as they come."""
    rng = m.rng
    heads = rng.choice((1, 2, 3, 4, 8))
    own = rng.choice([n for n in range(1, heads + 1) if heads % n == 0]) if rng.random() < 0.4 else heads
    width, rows = rng.choice((1, 3, 4, 8, 16, 64)), rng.choice((*m.sizes[:4], 1, 5, 40))
    keys = rows if rng.random() < 0.7 else rng.choice(m.sizes[:4])
    batch = rng.choice(((1,), (1,), (2,), (3,)))
    if not m.spend(2 * batch[0] * heads * rows * keys * width):
        raise NotMade
    if rng.random() < 0.4:
        shapes = ((*batch, heads, rows, width), (*batch, own, keys, width), (*batch, own, keys, width))
        q, k, v = (m.input(m.main, shape, "normal") for shape in shapes)
        return q, k, (k if rng.random() < 0.2 else v)
    return _projected(m, batch[0], rows, heads, own, width)


def _projected(m: Maker, batch: int, rows: int, heads: int, own: int, width: int) -> tuple[str, str, str]:
    """From one value of [batch, rows, model]: three linears, or slices of one."""
    size = m.rng.choice((*m.sizes, heads * width))
    same = [name for name in m.values if m.shape(name) == (batch, rows, size) and m.type(name) == m.main]
    x = m.rng.choice(same) if same else m.input(m.main, (batch, rows, size), "normal")
    counts = (heads, own, own)
    if not m.spend(batch * rows * size * sum(counts) * width):
        raise NotMade
    if m.rng.random() < 0.5:
        flat = [m.must(f"F.linear({x}, {m.weight((n * width, size))})", M) for n in counts]
    else:
        whole = m.must(f"F.linear({x}, {m.weight((sum(counts) * width, size))})", M)
        ends = [0, heads * width, (heads + own) * width, sum(counts) * width]
        flat = [m.must(f"{whole}[..., {a}:{b}]", E) for a, b in pairwise(ends)]
    split = [
        m.must(f"{f}.reshape({batch}, {rows}, {n}, {width}).transpose(1, 2)", E)
        for f, n in zip(flat, counts, strict=True)
    ]
    return split[0], split[1], split[2]


def _sdpa(m: Maker, q: str, k: str, v: str, grouped: bool) -> str:
    options = [", enable_gqa=True"] if grouped and m.shape(k)[-3] > 1 else []
    if m.rng.random() < 0.2 and not grouped:
        options.append(", is_causal=True")
    elif (mask := _mask(m, q, k)) is not None:
        options.append(f", attn_mask={mask}")
    if m.rng.random() < 0.2:
        options.append(", scale=0.25")
    return m.must(f"F.scaled_dot_product_attention({q}, {k}, {v}{''.join(options)})", M)


def _mask(m: Maker, q: str, k: str, boolean: bool = True) -> str | None:
    """None, or an input or constant of bools or of floats to add."""
    rows, keys, batch = m.shape(q)[-2], m.shape(k)[-2], m.shape(q)[0]
    kind = m.rng.random()
    shape = m.rng.choice(((rows, keys), (batch, 1, rows, keys), (batch, 1, 1, keys), (1, 1, rows, keys)))
    if kind < 0.4:
        return None
    if kind < 0.6 and boolean:
        return m.input("bool", shape)
    if kind < 0.7 and boolean:
        return m.must(f"torch.ones({rows}, {keys}, dtype=torch.bool).tril()", E)
    return m.input(m.main, shape, "mask")


def _repeated(m: Maker, x: str, q: str) -> str:
    times = m.shape(q)[-3] // m.shape(x)[-3]
    *batch, own, rows, width = m.shape(x)
    if m.rng.random() < 0.5:
        return m.must(f"{x}.repeat_interleave({times}, -3)", E)
    wide = ", ".join(map(str, (*batch, own, times, rows, width)))
    return m.must(
        f"{x}.unsqueeze(-3).expand({wide}).reshape({', '.join(map(str, (*batch, own * times, rows, width)))})", E
    )


def _eager(m: Maker, q: str, k: str, v: str) -> str:
    scores = m.must(f"torch.matmul({q}, {k}.transpose(-1, -2))", M)
    kind = m.rng.random()
    if kind < 0.7:
        scores = m.must(
            m.rng.choice((f"{scores} * {1 / math.sqrt(m.shape(q)[-1])}", f"{scores} / {math.sqrt(m.shape(q)[-1])}")), E
        )
    if (mask := _mask(m, q, k, boolean=False)) is not None:
        scores = m.must(f"{scores} + {mask}", E)
    elif m.rng.random() < 0.2:
        scores = m.must(f"{scores}.masked_fill({m.input('bool', m.shape(scores)[-2:])}, -1e9)", E)
    kinds = ("torch.softmax(@, -1)", f"torch.softmax(@, -1, dtype=torch.float32).to(torch.{m.main})")
    weights = m.must(m.rng.choice(kinds).replace("@", scores), F)
    return m.must(f"torch.matmul({weights}, {v})", M)


# ---- layers that repeat


def repeat(m: Maker) -> str | None:
    """A body of a few operators from a value to one of the same shape, and the same again with other weights."""
    made = None
    with m.attempt():
        carried = m.pick(FLOATS, 1)
        old = (len(m.leaves), len(m.steps))
        result = made = _body(m, carried)
        leaves, steps = m.leaves[old[0] :], m.steps[old[1] :]
        shared = m.rng.random() < 0.25
        for _ in range(m.rng.randint(1, 4)):
            made = _again(m, leaves, steps, {carried: made}, result, shared)
    return made


def _body(m: Maker, carried: str) -> str:
    """Operators of the table on the carried value and what comes of it, closed by something of the carried shape."""
    last = carried
    for _ in range(m.rng.randint(1, 6)):
        operator = m.rng.choices(OPERATORS, _WEIGHTS)[0]
        x = last if m.type(last) in operator.types and len(m.shape(last)) >= operator.rank else carried
        if m.type(x) in operator.types and len(m.shape(x)) >= operator.rank:
            last = operator.add(m, x) or last
    return _closed(m, last, carried)


def _closed(m: Maker, last: str, carried: str) -> str:
    """`last` in the carried shape and type: by a linear, by broadcasting, or the carried value is changed a little."""
    shape, dtype = m.shape(carried), m.type(carried)
    if m.type(last) != dtype:
        last = m.must(f"{last}.to(torch.{dtype})", E)
    now = m.shape(last)
    if now and now[:-1] == shape[:-1] and (now != shape or m.rng.random() < 0.5) and dtype == m.main:
        last = m.must(f"F.linear({last}, {m.weight((shape[-1], now[-1]))})", M)
    if m.shape(last) != shape or m.rng.random() < 0.3:
        joined = m.emit(m.rng.choice((f"{carried} + {last}", f"{last} * {carried}")), E)
        last = joined if joined is not None and m.shape(joined) == shape else m.must(f"torch.tanh({carried})", F)
    return last


def _again(m: Maker, leaves: list[Leaf], steps: list[Step], renamed: dict[str, str], result: str, shared: bool) -> str:
    """The same steps once more; `renamed` says what the carried value is now. Inputs stay, weights are new."""
    for leaf in leaves:
        if leaf.name.startswith("w") and not shared:
            renamed[leaf.name] = m.weight(leaf.shape, leaf.dtype, leaf.fill)
    for step in steps:
        renamed[step.name] = m.must(NAME.sub(lambda name: renamed.get(name[0], name[0]), step.text), step.effect)
    return renamed[result]

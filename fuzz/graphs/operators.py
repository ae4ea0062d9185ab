"""The table of operators: name, how often, types of the operand, effect on the bits, and the expression or what builds
it.

A builder gets the maker and an operand, and returns an expression, or None where it does not apply.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from fuzz.graphs.case import Effect
from fuzz.graphs.maker import ANY, BOOL, FLOATS, INTS, NUMBERS, Maker

Builder = Callable[[Maker, str], str | None]


@dataclass(frozen=True)
class Operator:
    name: str
    weight: float
    types: tuple[str, ...]
    effect: Effect
    build: str | Builder
    rank: int = 0  # at least

    def add(self, m: Maker, x: str) -> str | None:
        text = self.build.replace("{x}", x) if isinstance(self.build, str) else self.build(m, x)
        return None if text is None else m.emit(text, self.effect)


# ---- two operands


def binary(template: str, types: tuple[str, ...] = (), numbers: tuple[str, ...] = ()) -> Builder:
    """An elementwise operation of x and a partner (y): its own view, another value, a weight, a number, an input."""

    def build(m: Maker, x: str) -> str | None:
        other = m.rng.choice(numbers) if numbers and m.rng.random() < 0.2 else partner(m, x, types)
        if other is None:
            return None
        a, b = (x, other) if m.rng.random() < 0.7 else (other, x)
        return template.format(x=a, y=b)

    return build


def partner(m: Maker, x: str, types: tuple[str, ...] = ()) -> str | None:
    own = m.type(x)
    types = types or (
        (own,) if m.rng.random() < 0.85 else tuple(kind for kind in NUMBERS if (kind in FLOATS) == (own in FLOATS))
    )
    others = m.broadcastable(x, types)
    kind = m.rng.random()
    if kind < 0.35 and own in types:
        return own_view(m, x, types)
    if kind < 0.75 and others:
        return m.rng.choice(others[-5:] if m.rng.random() < 0.6 else others)
    dtype = own if own in types else m.rng.choice(types)
    if kind < 0.9 and dtype == m.main:
        return m.weight(m.broadcast_shape(x))
    return m.input(dtype, m.broadcast_shape(x))


_OWN_VIEWS: tuple[tuple[str, Effect], ...] = (
    ("{x}[..., :1]", Effect.EXACT),
    ("{x}[..., -1:]", Effect.EXACT),
    ("{x}[:1]", Effect.EXACT),
    ("{x}[:, :1]", Effect.EXACT),
    ("{x}[:, -1]", Effect.EXACT),
    ("{x}[0]", Effect.EXACT),
    ("{x}.transpose(-1, -2)", Effect.EXACT),
    ("{x}[..., :1].transpose(-1, -2)", Effect.EXACT),
    ("{x}.mean(-1, keepdim=True)", Effect.FUNCTION),
    ("{x}.mean(-2, keepdim=True)", Effect.FUNCTION),
    ("{x}.sum(-1, keepdim=True)", Effect.FUNCTION),
    ("{x}.sum(-1)", Effect.FUNCTION),
    ("{x}.sum(0)", Effect.FUNCTION),
    ("{x}.amax(-1, keepdim=True)", Effect.ZERO),
    ("torch.tanh({x})[..., :1]", Effect.FUNCTION),
    ("torch.tanh({x})[:, :1]", Effect.FUNCTION),
    ("torch.tanh({x})", Effect.FUNCTION),
    ("({x} * 0.5)[..., :1]", Effect.EXACT),
    ("{x}", Effect.EXACT),
)


def own_view(m: Maker, x: str, types: tuple[str, ...]) -> str | None:
    """A view or reduction of x itself, that broadcasts with x."""
    text, effect = m.rng.choice(_OWN_VIEWS)
    if text == "{x}":
        return x
    if m.type(x) not in FLOATS and effect is not Effect.EXACT:
        return None
    name = m.emit(text.replace("{x}", x), effect)
    return name if name is not None and name in m.broadcastable(x, types) else None


def where(m: Maker, x: str) -> str | None:
    conditions = m.broadcastable(x, BOOL)
    condition = (
        m.rng.choice(conditions) if conditions and m.rng.random() < 0.7 else m.input("bool", m.broadcast_shape(x))
    )
    other = (
        m.rng.choice(("0.0", "-1.0", "float('-inf')"))
        if m.type(x) in FLOATS and m.rng.random() < 0.4
        else partner(m, x)
    )
    return None if other is None else f"torch.where({condition}, {x}, {other})"


def masked_fill(m: Maker, x: str) -> str | None:
    conditions = m.broadcastable(x, BOOL)
    condition = m.rng.choice(conditions) if conditions else m.input("bool", m.broadcast_shape(x))
    return f"{x}.masked_fill({condition}, {m.rng.choice(('0', '1', '-2'))})"


# ---- one operand


def along(template: str) -> Builder:
    """`{d}` in the template is a dimension."""

    def build(m: Maker, x: str) -> str | None:
        return template.format(x=x, d=m.dim(x)) if m.shape(x) else None

    return build


def reduction(method: str, several: bool = True) -> Builder:
    def build(m: Maker, x: str) -> str | None:
        rank = len(m.shape(x))
        if not rank:
            return None
        keep = m.rng.choice((", keepdim=True", ""))
        if several and rank > 1 and m.rng.random() < 0.3:
            dims = tuple(sorted(m.rng.sample(range(rank), m.rng.randint(2, rank))))
            return f"{x}.{method}({dims}{keep})"
        return f"{x}.{method}({m.dim(x)}{keep})"

    return build


def layer_norm(m: Maker, x: str) -> str | None:
    width = m.shape(x)[-1]
    if m.type(x) == m.main and m.rng.random() < 0.6:
        return f"F.layer_norm({x}, ({width},), {m.weight((width,), fill='normal')}, {m.weight((width,), fill='normal')}, 1e-5)"
    return f"F.layer_norm({x}, ({width},))"


def rms_norm(m: Maker, x: str) -> str | None:
    width = m.shape(x)[-1]
    if m.type(x) == m.main and m.rng.random() < 0.6:
        return f"F.rms_norm({x}, ({width},), {m.weight((width,), fill='normal')}, 1e-6)"
    return f"F.rms_norm({x}, ({width},), eps=1e-6)"


def clamp(m: Maker, x: str) -> str | None:
    bounds = (
        ("-1, 1", "min=-1", "max=2", "-3, 0")
        if m.type(x) not in FLOATS
        else ("-1.0, 1.0", "min=-0.5", "max=0.75", "-2, 2", "0.0, 1.0")
    )
    return f"{x}.clamp({m.rng.choice(bounds)})"


# ---- products


def linear(m: Maker, x: str) -> str | None:
    """Narrow, as wide as other sizes of this case, and now and then so wide that its columns are cut."""
    width, rows = m.shape(x)[-1], prod(m.shape(x)[:-1])
    wide = (1 << 19) // width
    columns = m.rng.choice(m.sizes)
    if rows > 32 and wide < 3000 and m.rng.random() < 0.5:
        columns = min(3000, m.rng.choice((wide + 1, wide * 2, 2048, 3000)))
    if m.type(x) != m.main or columns * width > 3 << 20 or not m.spend(rows * width * columns):
        return None
    bias = f", {m.weight((columns,), fill='normal')}" if m.rng.random() < 0.6 else ""
    return f"F.linear({x}, {m.weight((columns, width))}{bias})"


def matmul(m: Maker, x: str) -> str | None:
    """x with another value, its own transpose, a weight or a new input."""
    shape = m.shape(x)
    others = [other for other in m.broadcastable(x, (m.type(x),)) if len(m.shape(other)) > 1]
    fitting = [
        other
        for other in m.values
        if m.type(other) == m.type(x) and len(m.shape(other)) > 1 and m.shape(other)[-2] == shape[-1]
    ]
    kind, columns = m.rng.random(), m.rng.choice(m.sizes)
    if kind < 0.25:
        other = f"{x}.transpose(-1, -2)"
        columns = shape[-2]
    elif kind < 0.5 and others:
        other = m.rng.choice(others)
        columns = m.shape(other)[-2]
        other = f"{other}.transpose(-1, -2)"
    elif kind < 0.8 and fitting:
        other = m.rng.choice(fitting)
        columns = m.shape(other)[-1]
    elif kind < 0.9 and m.type(x) == m.main:
        other = m.weight((shape[-1], columns))
    else:
        batch = tuple(m.rng.choice((size, 1)) for size in shape[:-2]) if len(shape) > 2 else ()
        other = m.input(m.type(x), (*batch, shape[-1], columns), "normal")
    if not m.spend(prod(shape) * columns):
        return None
    return f"torch.matmul({x}, {other})"


def embedding(m: Maker, x: str) -> str | None:
    """Of an input of indices, made here or before; x says only how wide."""
    old = [name for name, rows in m.rows.items() if rows]
    if old and m.rng.random() < 0.4:
        index = m.rng.choice(old)
        rows = m.rows[index]
    else:
        rows = m.rng.choice((1, 2, 10, 100, 500))
        index = m.input(m.rng.choice(("int64", "int64", "int32")), m.new_shape((0, 1, 1, 2, 2, 3)), f"index:{rows}")
    width = m.shape(x)[-1] if m.shape(x) else m.rng.choice(m.sizes)
    return f"F.embedding({index}, {m.weight((rows, width), fill='normal')})"


def index(m: Maker, x: str) -> str | None:
    """Rows by numbers that are an input."""
    rows = m.shape(x)[0] if m.shape(x) else 0
    return f"{x}[{m.input('int64', m.new_shape((0, 1, 1, 2)), f'index:{rows}')}]" if rows else None


# ---- layout


def permute(m: Maker, x: str) -> str | None:
    dims = list(range(len(m.shape(x))))
    m.rng.shuffle(dims)
    return f"{x}.permute({', '.join(map(str, dims))})"


def transpose(m: Maker, x: str) -> str | None:
    rank = len(m.shape(x))
    a, b = (-1, -2) if m.rng.random() < 0.5 else m.rng.sample(range(rank), 2)
    return f"{x}.transpose({a}, {b})"


def reshape(m: Maker, x: str) -> str | None:
    """Two dimensions as one, one as two, or all as one."""
    shape = list(m.shape(x))
    kind, at = m.rng.random(), m.rng.randrange(max(1, len(shape)))
    if kind < 0.45 and len(shape) > 1:
        at = min(at, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    elif kind < 0.9 and shape:
        factors = [n for n in range(1, min(shape[at], 64) + 1) if shape[at] % n == 0]
        factor = m.rng.choice(factors)
        shape[at : at + 1] = m.rng.choice(([factor, shape[at] // factor], [shape[at] // factor, factor]))
    else:
        shape = [prod(shape)]
    return f"{x}.reshape({', '.join(map(str, shape))})"


def unsqueeze(m: Maker, x: str) -> str | None:
    return f"{x}.unsqueeze({m.rng.randint(-len(m.shape(x)) - 1, len(m.shape(x)))})"


def expand(m: Maker, x: str) -> str | None:
    """Dimensions of size 1 grow; sometimes a new one in front."""
    sizes = [m.rng.choice((-1, m.rng.choice(m.sizes))) if size == 1 else -1 for size in m.shape(x)]
    if m.rng.random() < 0.3 or not sizes:
        sizes = [m.rng.choice((2, 3)), *sizes]
    return f"{x}.expand({', '.join(map(str, sizes))})"


def slice_(m: Maker, x: str) -> str | None:
    dim = m.rng.randrange(len(m.shape(x)))
    start, stop = m.part(x, dim)
    return f"{x}[{':, ' * dim}{start}:{stop}]"


def select(m: Maker, x: str) -> str | None:
    dim = m.rng.randrange(len(m.shape(x)))
    return f"{x}.select({dim}, {m.rng.choice((0, -1, m.rng.randrange(m.shape(x)[dim])))})"


def piece(m: Maker, x: str) -> str | None:
    """One result of a split or chunk."""
    dim = m.dim(x)
    size = m.shape(x)[dim]
    count = m.rng.choice((2, 3, 4))
    if size < count:
        return None
    if m.rng.random() < 0.5:
        return f"{x}.chunk({count}, {dim})[{m.rng.choice((0, 1, -1))}]"
    first = m.rng.randint(1, size - 1)
    return f"{x}.split([{first}, {size - first}], {dim})[{m.rng.choice((0, 1))}]"


def cat(m: Maker, x: str) -> str | None:
    dim, shape = m.rng.randrange(len(m.shape(x))), m.shape(x)
    same = [
        n
        for n in m.values
        if m.type(n) == m.type(x) and len(m.shape(n)) == len(shape) and _but(m.shape(n), dim) == _but(shape, dim)
    ]
    others = [m.rng.choice(same) for _ in range(m.rng.choice((1, 1, 2)))]
    start, stop = m.part(x, dim)
    if m.rng.random() < 0.3:
        others.append(f"{x}[{':, ' * dim}{start}:{stop}]")
    parts = [x, *others]
    m.rng.shuffle(parts)
    return f"torch.cat([{', '.join(parts)}], {dim})"


def _but(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], *shape[dim + 1 :])


def stack(m: Maker, x: str) -> str | None:
    same = [n for n in m.values if m.type(n) == m.type(x) and m.shape(n) == m.shape(x)]
    parts = [x, *(m.rng.choice(same) for _ in range(m.rng.choice((1, 1, 2))))]
    m.rng.shuffle(parts)
    return f"torch.stack([{', '.join(parts)}], {m.rng.randint(0, len(m.shape(x)))})"


def rotate_half(m: Maker, x: str) -> str | None:
    half = m.shape(x)[-1] // 2
    return f"torch.cat([-{x}[..., {half}:], {x}[..., :{half}]], -1)" if half else None


E, Z, P, F, M, J = Effect.EXACT, Effect.ZERO, Effect.POLE, Effect.FUNCTION, Effect.PRODUCT, Effect.JUMP
_N = ("2", "0.5", "-1.5", "3.0")
OPERATORS: tuple[Operator, ...] = (
    # elementwise, exact
    Operator("add", 4, NUMBERS, E, binary("{x} + {y}", numbers=("1", "2"))),
    Operator("sub", 3, NUMBERS, E, binary("{x} - {y}", numbers=("1", "3"))),
    Operator("mul", 4, NUMBERS, E, binary("{x} * {y}", numbers=("2", "3"))),
    Operator("wide add", 0.05, ("int64",), E, binary("{x} + {y}")),  # refused, as are other sums and products of int64
    Operator("scale", 1, FLOATS, E, lambda m, x: f"{x} * {m.rng.choice(_N)}"),
    Operator("shift", 1, FLOATS, E, lambda m, x: f"{x} + {m.rng.choice(_N)}"),
    Operator("rsub", 0.5, FLOATS, E, "1.0 - {x}"),
    Operator("div", 1, FLOATS, P, binary("{x} / {y}", numbers=("2.0", "3.0"))),
    Operator("neg", 1, NUMBERS, E, "-{x}"),
    Operator("abs", 1, NUMBERS, E, "{x}.abs()"),
    Operator("square", 0.5, FLOATS, E, "{x} ** 2"),
    Operator("clamp", 1, NUMBERS, Z, clamp),
    Operator("relu", 1, FLOATS, Z, "F.relu({x})"),
    Operator("maximum", 1, NUMBERS, Z, binary("torch.maximum({x}, {y})")),
    Operator("minimum", 1, NUMBERS, Z, binary("torch.minimum({x}, {y})")),
    Operator("where", 2, ANY, E, where),
    Operator("masked_fill", 1, NUMBERS, E, masked_fill),
    # comparisons and logic
    *(
        Operator(name, 0.5, ANY, J, binary(text, numbers=("0", "1")))
        for name, text in (("lt", "{x} < {y}"), ("ge", "{x} >= {y}"), ("eq", "{x} == {y}"), ("ne", "{x} != {y}"))
    ),
    Operator("and", 1, BOOL, E, binary("{x} & {y}", BOOL)),
    Operator("or", 1, BOOL, E, binary("{x} | {y}", BOOL)),
    Operator("xor", 0.7, BOOL, E, binary("{x} ^ {y}", BOOL)),
    Operator("not", 1, BOOL, E, "~{x}"),
    Operator("logical_and", 0.3, ANY, J, binary("torch.logical_and({x}, {y})")),
    Operator("logical_or", 0.3, ANY, J, binary("torch.logical_or({x}, {y})")),
    Operator("logical_not", 0.3, ANY, J, "torch.logical_not({x})"),
    Operator("bool add", 0.3, BOOL, E, binary("{x} + {y}", BOOL)),
    # casts
    Operator("to float32", 1, ANY, E, "{x}.float()"),
    Operator("to bfloat16", 0.5, FLOATS, E, "{x}.to(torch.bfloat16)"),
    Operator("to float16", 0.5, FLOATS, E, "{x}.half()"),
    Operator("to main", 1, ANY, E, lambda m, x: f"{x}.to(torch.{m.main})"),
    Operator("to bool", 0.5, ANY, J, "{x}.bool()"),
    Operator("to int32", 0.5, (*INTS, *BOOL), E, "{x}.int()"),
    Operator("to int8", 0.3, (*INTS, *BOOL), E, "{x}.to(torch.int8)"),
    Operator("to int64", 0.2, ("int32", "int8", "bool"), E, "{x}.long()"),
    # functions
    *(
        Operator(text, 0.5, FLOATS, F, text)
        for text in (
            "torch.tanh({x})",
            "torch.sigmoid({x})",
            "F.gelu({x})",
            "F.gelu({x}, approximate='tanh')",
            "F.silu({x})",
            "torch.exp({x})",
            "torch.erf({x})",
            "torch.rsqrt({x} * {x} + 0.5)",
            "torch.sqrt({x}.abs())",
        )
    ),
    Operator("softmax", 1.5, FLOATS, F, along("torch.softmax({x}, {d})")),
    Operator("layer_norm", 1.5, FLOATS, F, layer_norm, 1),
    Operator("rms_norm", 1, FLOATS, F, rms_norm, 1),
    # reductions
    Operator("sum", 1.5, FLOATS, F, reduction("sum")),
    Operator("int sum", 0.3, ("int32", "bool"), F, reduction("sum")),
    Operator("mean", 1.5, FLOATS, F, reduction("mean")),
    Operator("amax", 1, FLOATS, Z, reduction("amax")),
    Operator("amin", 0.7, FLOATS, Z, reduction("amin")),
    Operator("mean square", 0.5, FLOATS, F, "{x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-5)", 1),
    Operator("var", 0.3, FLOATS, F, reduction("var", several=False)),
    # order and places
    Operator("sort", 0.4, FLOATS, Z, along("torch.sort({x}, dim={d}, stable=True, descending=True)[0]")),
    Operator("argsort", 0.2, NUMBERS, J, along("{x}.argsort(dim={d}, stable=True)")),
    Operator("argmax", 0.3, FLOATS, J, along("{x}.argmax({d})")),
    Operator("gather", 0.3, FLOATS, J, along("torch.gather({x}, {d}, {x}.argsort(dim={d}, stable=True))")),
    Operator("index", 0.5, ANY, E, index),
    Operator("cumsum", 0.4, FLOATS, F, along("{x}.cumsum({d})")),
    Operator("int cumsum", 0.3, ("int32", "bool"), E, along("{x}.cumsum({d}, dtype=torch.int32)")),
    # products
    Operator("linear", 6, FLOATS, M, linear, 1),
    Operator("matmul", 3, FLOATS, M, matmul, 2),
    Operator("embedding", 0.7, FLOATS, E, embedding),
    # layout
    Operator("permute", 2, ANY, E, permute, 2),
    Operator("transpose", 2, ANY, E, transpose, 2),
    Operator("reshape", 2.5, ANY, E, reshape),
    Operator("unsqueeze", 1, ANY, E, unsqueeze),
    Operator("squeeze", 0.3, ANY, E, "{x}.squeeze()"),
    Operator("expand", 1, ANY, E, expand),
    Operator("slice", 2, ANY, E, slice_, 1),
    Operator("select", 1, ANY, E, select, 1),
    Operator("split", 1, ANY, E, piece, 1),
    Operator("cat", 1.5, ANY, E, cat, 1),
    Operator("stack", 1, ANY, E, stack),
    Operator("rotate half", 0.5, FLOATS, E, rotate_half, 1),
)

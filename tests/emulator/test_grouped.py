"""`vqd` and `mmg` against ggml's scalar kernels: assembled programs from float32 rows and block bytes to results."""

from typing import Any

import numpy as np
import pytest
from emulator_harness import NAN, Program, f32, same_bits
from ggml_vectors import Vectors, bits, vectors

from compiler.frontend.gguf.blocks import Weights, pack_i4
from isa.architecture import Dtype, Space
from isa.asm.assemble import assemble
from isa.asm.text import format_inst
from isa.codec import encode
from isa.spec import NIBBLES, TIES, VQD_NORM

I4, I8, F32, F16 = Dtype.I4, Dtype.I8, Dtype.F32, Dtype.F16
VECTORS = list(vectors())
Array = np.ndarray


def typed(x: Array) -> Dtype:
    return F16 if x.dtype == np.float16 else F32


def weights(p: Program, w: Weights, storage: str) -> dict[str, int]:
    """Views of the weights' parts, the codes as narrow as their type allows."""
    views = {"sw": p.source(w.scales, typed(w.scales))}
    if storage == "i8":
        views["w"] = p.source(w.codes, I8)
    else:
        views["w"] = p.view(I4, p.views[p.source(pack_i4(w.codes, storage), I8)].base, w.codes.shape[1])
        views["nib"] = NIBBLES.index(storage)
    for name, part in (("zw", w.minima), ("ss", w.sub_scales), ("sm", w.sub_minima)):
        if part is not None:
            views[name] = p.source(part, I8 if part.dtype == np.int8 else F16)
    return views


def multiply(p: Program, v: Vectors, a: int, sa: int, m: int) -> int:
    """Emit the product of m rows with the weights of v; gives the view of the result."""
    rule, decoded = v.type.product, v.type.decode(v.blocks)
    n, k = decoded.codes.shape
    c = p.target(F32, m, n, space=Space.ACC)
    flags = {"pre": int(rule.pre), "half": int(rule.half), "glog": (rule.group // 32).bit_length() - 1}
    slog = {"slog": (rule.sub // 16).bit_length() - 1} if rule.sub else {}
    p.word("mmg", c=c, a=a, sa=sa, m=m, n=n, k=k, **flags, **slog, **weights(p, decoded, rule.storage))
    return c


@pytest.mark.parametrize("v", [v for v in VECTORS if v.x is not None], ids=str)
def test_from_activations_to_results_nothing_differs_from_ggml(v: Vectors) -> None:
    """Breaks on another order of scales or groups, a wrong reciprocal or tie, a fused or missing rounding."""
    assert v.x is not None
    p, rule, (m, k) = Program(1 << 20), v.type.activations, v.x.shape
    count, kind = k // rule.group, F16 if rule.scale == "float16" else F32
    x, a, s = p.source(v.x.reshape(m, count, -1), F32), p.target(I8, m, count, rule.group), p.target(kind, m, count, 1)
    modes = {"norm": VQD_NORM.index(rule.norm), "ties": TIES.index(rule.ties)}
    p.word("vqd", d=a, s=s, a=x, planes=m, rows=count, cols=rule.group, **modes)
    flat, scales = p.view(I8, p.views[a].base, k), p.view(kind, p.views[s].base, count)
    c = multiply(p, v, flat, scales, m)
    p.run()
    assert v.quantized(p.read(a).reshape(m, k), p.read(s).reshape(m, count))
    assert np.array_equal(bits(p.read(c)), v.bits)


@pytest.mark.parametrize("v", [v for v in VECTORS if v.name == "raw"], ids=str)
def test_codes_that_no_quantizer_makes(v: Vectors) -> None:
    """Breaks on -128, on negative and subnormal scales; and when text says less than the words."""
    p = Program(1 << 20)
    c = multiply(p, v, p.source(v.codes, I8), p.source(v.scales, typed(v.scales)), len(v.codes))
    assert np.array_equal(bits(p.run().read(c)), v.bits)
    text = "".join(f"{format_inst(word)}\n" for word in p.words)
    assert assemble(text).code == b"".join(map(encode, p.words))


def grouped(a: Any, w: Any, sa: Any, sw: Any, **parts: Any) -> Array:
    """One product of int8 rows; parts that are arrays become views."""
    p, a, w = Program(), np.atleast_2d(a), np.atleast_2d(w)
    names = {name: x for name, x in parts.items() if isinstance(x, np.ndarray)}
    views = {name: p.source(np.atleast_2d(x), I8 if x.dtype == np.int8 else F32) for name, x in names.items()}
    c = p.target(F32, len(a), len(w), space=Space.ACC)
    ops = {"a": p.source(a, I8), "w": p.source(w, I8), "sa": p.source(sa, F32), "sw": p.source(sw, F32), **views}
    p.word("mmg", c=c, **ops, m=len(a), n=len(w), k=a.shape[1], **{n: x for n, x in parts.items() if n not in names})
    return p.run().read(c).ravel()


def test_a_last_group_may_be_short() -> None:
    """Breaks when a group that k cuts short reads on, or is left out."""
    a, w = np.full(40, 3), np.full(40, 2)
    assert grouped(a, w, f32(1, 2), f32(1, 10)).tolist() == [32 * 6 + 8 * 6 * 20]
    ss = np.full(3, 2, np.int8)
    assert grouped(a, w, f32(1, 2), f32(1, 10), ss=ss).tolist() == [2 * (32 * 6 + 8 * 6 * 20)]


def test_the_order_of_the_scales_shows() -> None:
    """Breaks when `pre` is taken for its opposite."""
    c, sw, sa = np.float32(127 * 127), np.float32(1.0498047), np.float32(0.30004883)  # both scales are float16
    a = np.zeros(32, np.int8)
    a[5] = 127
    found = [grouped(a, a, f32(sa), f32(sw), pre=pre)[0] for pre in (1, 0)]
    assert same_bits(found, f32((c * sw) * sa, c * (sw * sa))) and found[0] != found[1]


def test_half_rounds_where_the_scales_multiply() -> None:
    """Breaks when float16 is applied to the stored scale before the sum of a is scaled."""
    sa, a = np.float32(1 + 2.0**-12), np.full(32, 100, np.int8)
    unit = np.float32(np.float16(np.float32(3200) * sa))  # 3200.78 becomes 3200, and h(sa) = 1
    got = grouped(a, a, f32(sa), f32(1), zw=f32(0.5), half=1)
    assert same_bits(got, f32(np.float32(320000) + np.float32(0.5) * unit))
    assert grouped(a, a, f32(sa), f32(1), zw=f32(0.5))[0] != got[0]


def test_lanes_end_in_their_order_behind_the_minima() -> None:
    """Breaks on a tree of lanes, minima that come last, or one sum for all: 1 is lost beside 2^24 but not beside 0."""
    a, w = np.zeros(256, np.int8), np.zeros(256, np.int8)
    a[[0, 1, 2]] = 64, 1, 64
    w[[0, 1, 2]] = 64, 1, -64
    ss = np.full(16, 64, np.int8)
    scale = f32(64.0)  # lanes 2^24, 2^12, -2^24
    low = grouped(a, w, scale, f32(1), ss=ss, zw=f32(-(2.0**-12)), sm=np.eye(1, 16, dtype=np.int8)[0], glog=3)
    low_alone = np.float32(129) * np.float32(-(2.0**-12) * 64)
    want = ((low_alone + np.float32(2.0**24)) + np.float32(4096)) - np.float32(2.0**24)
    assert same_bits(low, f32(want))


def test_groups_that_are_nan_make_their_results_nan_and_no_others() -> None:
    """Breaks when a NaN scale is swallowed or spreads to other rows."""
    a = np.ones((2, 32), np.int8)
    got = grouped(a, a[:1], f32(NAN, 1).reshape(2, 1), f32(1))
    assert same_bits(got, f32(NAN, 32))


def test_accumulating_goes_on_where_another_word_ended() -> None:
    """Breaks when a product in two words differs from one, so that k could not be split."""
    rng = np.random.default_rng(0)
    p = Program()
    a, w = rng.integers(-128, 128, (3, 96)), rng.integers(-128, 128, (5, 96))
    sa, sw = rng.standard_normal((3, 3)), rng.standard_normal((5, 3))
    views = {"a": p.source(a, I8), "w": p.source(w, I8), "sa": p.source(sa, F32), "sw": p.source(sw, F32)}
    whole, parts = p.target(F32, 3, 5, space=Space.ACC), p.target(F32, 3, 5, space=Space.ACC)
    p.word("mmg", c=whole, **views, m=3, n=5, k=96)
    p.word("mmg", c=parts, **views, m=3, n=5, k=32)
    moved = {name: p.views[v] for name, v in views.items()}
    steps = {"a": 32, "w": 32, "sa": 4, "sw": 4}
    rest = {n: p.view(v.dtype, v.base + steps[n], v.rs, v.ps) for n, v in moved.items()}
    p.word("mmg", c=parts, **rest, m=3, n=5, k=64, acc=1)
    p.run()
    assert same_bits(p.read(whole), p.read(parts))


QUANTIZED = [  # norm, ties, row, codes, scale
    ("scale", "away", [127, 0.5, 1.5, -0.5, -2.5], [127, 1, 2, -1, -3], 1.0),
    ("scale", "even", [127, 0.5, 1.5, -0.5, -2.5], [127, 0, 2, 0, -2], 1.0),
    ("multiplier", "even", [-127, 0.5, 1.5, 2.5], [-127, 0, 2, 2], 1.0),
    ("scale", "away", [0.0, -0.0], [0, 0], 0.0),
    ("multiplier", "even", [0.0, -0.0], [0, 0], 0.0),
    ("scale", "away", [1e-38, -1e-38], [0, 0], 1e-38 / 127),  # 1 / s overflows
    ("multiplier", "even", [1e-38, 1e-37], [0, 0], 0.0),
    ("scale", "away", [1.0, NAN], [0, 0], NAN),
    ("multiplier", "even", [1.0, NAN], [0, 0], NAN),
    ("scale", "away", [1.0, float("inf")], [0, 0], float("inf")),
    ("multiplier", "even", [1.0, float("inf")], [0, 0], float("inf")),
    ("scale", "away", [127, 0.49999997], [127, 0], 1.0),  # adding a half and truncating would give 1
]


@pytest.mark.parametrize(("norm", "ties", "row", "codes", "scale"), QUANTIZED)
def test_scales_multipliers_and_ties(norm: str, ties: str, row: list[float], codes: list[int], scale: float) -> None:
    """Breaks on ties the other way, a multiplier that is not finite and still used, or a NaN that is lost."""
    p = Program()
    x, d, s = p.source(f32(*row), F32), p.target(I8, len(row)), p.target(F32, 1)
    p.word("vqd", d=d, s=s, a=x, rows=1, cols=len(row), norm=VQD_NORM.index(norm), ties=TIES.index(ties))
    p.run()
    assert p.read(d).ravel().tolist() == codes
    with np.errstate(over="ignore"):
        assert same_bits(p.read(s).ravel(), f32(scale if scale != 1e-38 / 127 else np.float32(1e-38) / np.float32(127)))

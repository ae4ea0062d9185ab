"""Tests compile for themselves: an image from the cache would hide what a patched pass does."""

import os

os.environ.setdefault("LLMCHIP_CACHE", "off")

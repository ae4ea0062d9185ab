"""Tests compile for themselves, since an image from the cache would hide what a patched pass does; and no fault hides behind a fallback."""

import os

os.environ.setdefault("LLMCHIP_CACHE", "off")
os.environ.setdefault("LLMCHIP_STRICT", "1")

"""Where this repository lies, however deep the room of a test is."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

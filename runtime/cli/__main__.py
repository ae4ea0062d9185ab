"""`python -m runtime.cli` is `llmcc`."""

import os
import sys
from pathlib import Path

# Python puts the current folder first: a torch.py beside a stranger's image would be imported in place of the real one.
if sys.path[0] in ("", os.getcwd()) and Path.cwd() != Path(__file__).resolve().parents[2]:
    del sys.path[0]

from runtime.cli.main import run

run()

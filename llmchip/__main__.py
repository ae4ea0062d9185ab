"""`python -m llmchip` and `llmcc`: the command line, entered here so that a folder of the user's that hides one of our
packages is named first."""

import os
import sys
from pathlib import Path


def main() -> int:
    """Run `llmcc`; importing `llmchip` has checked that the packages below are ours."""
    from runtime.cli.main import main as run

    return run()


if __name__ == "__main__":
    # Python puts the current folder first: a torch.py beside a stranger's image would be imported in place of the real
    # one.
    if sys.path[0] in ("", os.getcwd()) and Path.cwd() != Path(__file__).resolve().parents[1]:
        del sys.path[0]
    sys.exit(main())

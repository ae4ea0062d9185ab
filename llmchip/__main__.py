"""`python -m llmchip` and `llmcc`: the command line, entered here so that a folder of the user's that hides one of our packages is named first."""

import sys


def main() -> int:
    """Run `llmcc`; importing `llmchip` has checked that the packages below are ours."""
    from runtime.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())

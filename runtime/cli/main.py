"""Entry point of `llmcc`."""


def main() -> int:
    return 0

"""How often is a reader sent back? `python -m tools.folder_returns [--verbose]` follows one compile through compiler/.

A captured graph (a BERT of one layer) is compiled to an image under `sys.setprofile`. Of the functions of compiler/
that run, each counts once, where it is first called; lambdas and comprehensions belong to the function around them.
What runs in other threads, or compiled by numba, is not seen. In this order the folders of the functions are a path,
equal neighbours are one step, and a *return* is a step into a folder that the path has left before:

    frontend, graph, passes, graph, passes, tile   ->   2 returns

Modules of compiler/ itself are the folder `compiler`. The second number leaves out what every stage asks, because it is
vocabulary and no stage (VOCABULARY): tables, and the rooms of the two intermediate representations, FX graphs (graph/)
and tile programs (tile/). These define, print, verify and measure; what decides something about a program lies in the
rooms of the stages, and no import leads there from here (pyproject.toml).
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from transformers import BertConfig, BertModel

from compiler.frontend.capture import Captured, capture
from compiler.pipeline import compile_captured

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = ("compiler/types.py", "compiler/ops/", "compiler/graph/", "compiler/tile/")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.folder_returns", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="print the paths, one step a line")
    verbose = parser.parse_args().verbose
    assert all((ROOT / name).exists() for name in VOCABULARY)
    every = followed(tiny_bert())
    stages = [(file, name) for file, name in every if not file.startswith(VOCABULARY)]
    for title, functions in (("all folders", every), ("without vocabulary", stages)):
        path = steps(functions)
        folders = [folder for folder, _ in path]
        print(f"{title}: {returns(folders)} returns, {len(path)} steps, {len(functions)} functions")
        for at, (folder, names) in enumerate(path if verbose else ()):
            print(f"  {'again' if folder in folders[:at] else '':5} {folder}: {', '.join(names)}")


def tiny_bert() -> Captured:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=97, hidden_size=36, num_hidden_layers=1, num_attention_heads=3, intermediate_size=50,
        max_position_embeddings=40,
    )  # fmt: skip
    return capture(BertModel._from_config(config).eval(), (), {"input_ids": torch.arange(14).reshape(2, 7)})


def followed(captured: Captured) -> list[tuple[str, str]]:
    """(file, name) of the functions of compiler/ in the order of their first call, from a captured graph to the
    image."""
    seen: dict[CodeType, None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.setdefault(frame.f_code)

    sys.setprofile(note)
    try:
        compile_captured(captured).image()
    finally:
        sys.setprofile(None)
    files = [(Path(code.co_filename), code) for code in seen if _is_function(code)]
    return [
        (file.relative_to(ROOT).as_posix(), code.co_qualname)
        for file, code in files
        if file.is_relative_to(ROOT / "compiler")
    ]


def _is_function(code: CodeType) -> bool:
    """Neither the body of a module or class, nor a lambda or comprehension."""
    return bool(code.co_flags & inspect.CO_OPTIMIZED) and not code.co_name.startswith("<")


def steps(found: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """The path: each folder with the functions that are first called there, equal neighbours joined."""
    return [
        (folder, [name for _, name in group])
        for folder, group in groupby(found, lambda each: str(Path(each[0]).parent))
    ]


def returns(path: Sequence[str]) -> int:
    """How often a step enters a folder that was entered, and left, before."""
    return len(path) - len(set(path))


if __name__ == "__main__":
    main()

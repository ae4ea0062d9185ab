"""Do two commits compile to the same images? `python -m tools.same_images [OLD] [NEW]` (default: HEAD and the working
tree).

Each commit is checked out beside the other and compiles the same models for the same chips, by the public interface
alone, in a process of its own. The image files are compared byte by byte, and the cycles of the timing mode. A move or
a new name must print `same` in every row; a change that means to differ states the difference with this table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = "."  # the working tree, instead of a commit
CHILD = "--child"

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.same_images", description=__doc__)
    parser.add_argument("old", nargs="?", default="HEAD", help="a commit (default: HEAD)")
    parser.add_argument("new", nargs="?", default=HERE, help="another; '.' is the working tree (default)")
    parser.add_argument("--models", default="", help="only models whose name contains this")
    given = parser.parse_args()
    old, new = (_images(commit, given.models) for commit in (given.old, given.new))
    different = 0
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        different += before != after
        print(f"{name:28} {_difference(before, after)}")
    print(f"{len(old)} images, {different} differ")
    return int(different > 0)


def _difference(before: Row | None, after: Row | None) -> str:
    if before is None or after is None:
        return "only in one of them"
    if "error" in before or "error" in after:
        return (
            f"{before.get('error', 'compiles')} -> {after.get('error', 'compiles')}"
            if before != after
            else f"same refusal: {after['error']}"
        )
    if before == after:
        return f"same  {after['bytes']:>10,} bytes {after['cycles']:>12,} cycles"
    return f"DIFFER  {after['bytes'] - before['bytes']:+,} bytes, {after['cycles'] - before['cycles']:+,} cycles of {before['cycles']:,}"


def _images(commit: str, only: str) -> dict[str, Row]:
    with _tree(commit) as tree, tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree),
            "LLMCHIP_CACHE": "off",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, str(Path(__file__).resolve()), CHILD, only]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {
        row.pop("name"): row
        for row in map(json.loads, filter(lambda line: line.startswith("{"), done.stdout.splitlines()))
    }


@contextmanager
def _tree(commit: str) -> Iterator[Path]:
    if commit == HERE:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def compile_all(only: str) -> None:
    """The child: one line of JSON for each model and chip. Imports nothing of the project but `llmchip`, so that any
    commit can run it."""
    import hashlib

    import torch

    import llmchip

    for name, model, inputs, chip, options in _cases():
        if only not in name:
            continue
        row: Row = {"name": name}
        try:
            with torch.no_grad():
                llmchip.compile(model.eval(), inputs, chip=chip, **options).save("image.llmchip")
            command = [sys.executable, "-m", "llmchip", "profile", "image.llmchip", "--json", "--top", "0"]
            cycles = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["cycles"]
            image = Path("image.llmchip").read_bytes()
            row |= {"bytes": len(image), "cycles": cycles, "sha256": hashlib.sha256(image).hexdigest()}
        except llmchip.Error as error:
            row["error"] = str(error).splitlines()[0]
        print(json.dumps(row), flush=True)


def _cases() -> Iterator[tuple[str, Any, Any, Any, dict[str, Any]]]:
    import torch
    from torch import nn
    from transformers import (
        BertConfig,
        BertModel,
        DistilBertConfig,
        DistilBertModel,
        GPT2Config,
        GPT2Model,
        ViTConfig,
        ViTModel,
    )

    import llmchip

    def seeded(make: Any, *args: Any, **kwargs: Any) -> nn.Module:
        torch.manual_seed(0)
        model: nn.Module = make(*args, **kwargs)
        return model

    def bert(layers: int, size: int = 36, heads: int = 3, wide: int = 50, **more: Any) -> nn.Module:
        config = BertConfig(
            vocab_size=97,
            hidden_size=size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=wide,
            max_position_embeddings=520,
            **more,
        )
        return seeded(BertModel._from_config, config, attn_implementation="sdpa")

    def ids(batch: int, length: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        return {
            "input_ids": torch.randint(0, 97, (batch, length)),
            "attention_mask": torch.ones(batch, length, dtype=torch.int64),
        }

    edge, server = llmchip.load_chip("edge"), llmchip.load_chip("server")
    mlp = seeded(lambda: nn.Sequential(nn.Linear(30, 50), nn.GELU(), nn.Linear(50, 30), nn.LayerNorm(30)))
    wide = seeded(lambda: nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512), nn.Softmax(-1)))
    yield "mlp", mlp, (torch.zeros(7, 30),), edge, {}
    yield "mlp wide", wide, (torch.zeros(96, 512),), edge, {}
    for chip in (edge, server):
        yield f"bert-1 {chip.name}", bert(1), ids(1, 16), chip, {}
        yield f"bert-3 {chip.name}", bert(3), ids(2, 24), chip, {}
        yield f"bert 256x4 128 {chip.name}", bert(4, 256, 4, 1024), ids(1, 128), chip, {}
    yield "bert 256x4 128x8", bert(4, 256, 4, 1024), ids(8, 128), edge, {}
    yield "bert-3 eager relu", bert(3, hidden_act="relu"), ids(2, 24), edge, {"disable": ("search",)}
    yield "bert-base 2 layers 128", bert(2, 768, 12, 3072), ids(1, 128), edge, {}
    gpt = GPT2Config(vocab_size=97, n_embd=48, n_layer=3, n_head=4, n_positions=64, use_cache=False)
    yield (
        "gpt2",
        seeded(GPT2Model._from_config, gpt, attn_implementation="eager"),
        {"input_ids": ids(1, 20)["input_ids"]},
        edge,
        {},
    )
    distil = DistilBertConfig(vocab_size=97, dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=64)
    yield "distilbert", seeded(DistilBertModel._from_config, distil, attn_implementation="sdpa"), ids(1, 20), edge, {}
    vit = ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8
    )
    yield (
        "vit",
        seeded(ViTModel._from_config, vit, attn_implementation="sdpa"),
        {"pixel_values": torch.zeros(1, 3, 32, 32)},
        edge,
        {},
    )

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            z = torch.cat([x, y], 1).transpose(1, 2)
            return (
                (z * 2 - z.mean(-1, keepdim=True)).tanh(),
                torch.where(x > 0, x, y.amax(-1, keepdim=True)),
                (x @ y.transpose(1, 2)).softmax(-1),
            )

    yield "odd", Odd(), (torch.zeros(2, 5, 33), torch.zeros(2, 5, 33)), edge, {}


if __name__ == "__main__":
    if CHILD in sys.argv:
        compile_all(sys.argv[-1])
    else:
        sys.exit(main())

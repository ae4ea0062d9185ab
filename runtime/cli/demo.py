"""The demo behind `make demo`: a real sentence model on the emulated chip. Every figure it prints comes from this run.

python -m runtime.cli.demo
"""

import sys
import time
from collections.abc import Iterator

from isa.asm.disassemble import disassemble_code
from isa.image.image import Image
from runtime.cli.common import Given, size, stages, stdout, styled
from runtime.models.tokenize import answer

TEXTS = (
    "A cat sits on the mat.",
    "A kitten is resting on a rug.",
    "The stock market fell sharply today.",
    "Shares lost a lot of their value this afternoon.",
    "How do I bake sourdough bread?",
)
WIDTH = 150


def main() -> int:
    """Compile, run, verify, and show a piece of the program."""
    from runtime.cli.run_verb import print_similarity
    from runtime.cli.session import open_model
    from runtime.device.executable import Executable
    from runtime.verify.verify import verify_image

    console, start = stdout(), time.perf_counter()
    given = Given(texts=TEXTS)
    with stages("demo") as stage:
        session = open_model("minilm", given, stage)
        stage("compile")
        compiled = session.compile()
        stage("pack the weights")
        image = compiled.image(metadata=session.metadata())
        stage("run on the emulated chip")
        outputs = Executable(image)(session.arrays())
        stage("verify")
        result = verify_image(image, compiled, session.arrays(), session.expected())
    batch, seq = image.entry().inputs[0].shape
    head = f", {batch} sentences of up to {seq} tokens; the chip itself is emulated"
    console.print(styled((f"all-MiniLM-L6-v2 on chip '{image.chip.name}'", "bold"), head))
    console.print()
    made = (
        f"  compiled   {image.words} instructions of 16 bytes, weights {size(len(image.weights) + len(image.const))} "
    )
    console.print(styled(made, (f"({_sum(stage.seconds):.1f} s)", "dim")))
    console.print(f"  launched   {stage.seconds['run on the emulated chip']:.2f} s")
    console.print()
    print_similarity(TEXTS, answer(TEXTS, outputs, ())["similarity"])
    console.print()
    verdict = "bold green" if result.bit_exact else "bold red"
    summary = (
        f"{'bit-exact' if result.bit_exact else 'NOT bit-exact'}: {result.nodes} nodes, {_bits(result)} differing bits"
    )
    console.print(styled((summary, verdict)), end="")
    console.print(f"   the binary's results against the same graph in PyTorch, {result.outputs} outputs included")
    if result.float:
        console.print(
            f"distance to the float model, another figure: cosine {result.float['cosine']:.4f} (worst output)"
        )
        console.print()
    console.print(
        styled(
            ("a piece of the program", "bold"),
            ": a linear layer, GELU and the next quantization, with the model's lines",
        )
    )
    for line in excerpt(image):
        console.print(line[:WIDTH], style="cyan" if line.lstrip().startswith(";") else None, soft_wrap=True)
    console.print()
    console.print(f"{time.perf_counter() - start:.1f} s in all. Next: llmcc --help, docs/tutorial.md", style="dim")
    return 0 if result.bit_exact else 1


def _sum(seconds: dict[str, float]) -> float:
    return sum(seconds.get(name, 0.0) for name in ("capture", "compile", "pack the weights"))


def _bits(result: object) -> str:
    """Verification counts elements; no differing element means no differing bit."""
    count = getattr(result, "mismatched_elements", 0)
    return "0" if count == 0 else f"{count} elements with"


def excerpt(image: Image) -> Iterator[str]:
    """From the matrix product in front of the first activation function to the quantization behind it."""
    lines = [line.replace("llmchip.", "") for line in disassemble_code(image)]
    heads = [number for number, line in enumerate(lines) if line.lstrip().startswith("; ---- ")]
    position = next((i for i, number in enumerate(heads) if "; ---- activation" in lines[number]), 0)
    first = next((i for i in range(position, -1, -1) if "; ---- matmul" in lines[heads[i]]), 0)
    behind = next((i for i in range(position, len(heads)) if "; ---- quantize" in lines[heads[i]]), position)
    last = heads[behind + 1] if behind + 1 < len(heads) else len(lines)
    for line in lines[heads[first] : last] if heads else lines[:12]:
        yield _shorten(line)


def _shorten(line: str) -> str:
    """Paths from the package on; the reader knows where site-packages is."""
    before, mark, after = line.partition("site-packages/")
    head, space, _ = before.rpartition(" ")
    return f"{head}{space}{after}" if mark else line


if __name__ == "__main__":
    sys.exit(main())

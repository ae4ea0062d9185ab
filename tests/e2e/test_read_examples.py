"""The programs in examples/asm, written by hand: they run, give numpy's bits, and the checker finds nothing in them."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from read_numerics import attention, softmax

from emulator.timing.simulate import simulate
from isa.asm.assemble import assemble, assemble_file
from isa.asm.disassemble import disassemble
from isa.image.image import Image, image_bytes
from lint.analyse import lint
from runtime.cli.main import main

EXAMPLES = Path("examples/asm")
Array = NDArray[Any]


def _gemm(a: Array, b: Array) -> Array:
    return np.array(
        [[sum(int(x) * int(y) for x, y in zip(row, column, strict=True)) for column in b.T[:40]] for row in a[:4]],
        np.int32,
    )


def _inputs(image: Image, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made = {}
    for spec in image.entry().inputs:
        wide = rng.normal(size=spec.shape) * rng.choice([0.1, 1, 30], (spec.shape[0], 1))
        made[spec.name] = (
            rng.integers(-128, 128, spec.shape).astype(np.int8) if spec.dtype == "int8" else wide.astype(np.float32)
        )
    return made


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "expected"),
    [("gemm", lambda a, b: a.astype(np.int32) @ b.astype(np.int32)), ("softmax", softmax), ("attention", attention)],
)
def test_examples_give_numpys_bits_through_the_command_line(
    name: str, expected: Callable[..., Array], seed: int, tmp_path: Path
) -> None:
    """Breaks when an example, the assembler or `llmcc run prog.s` computes one bit differently from the formulas."""
    image = assemble_file(EXAMPLES / f"{name}.s")
    inputs = _inputs(image, seed)
    arguments = ["run", str(EXAMPLES / f"{name}.s")]
    for key, array in inputs.items():
        np.save(tmp_path / f"{key}.npy", array)
        arguments += ["--input", f"{key}={tmp_path / key}.npy"]
    output = image.entry().outputs[0].name
    with redirect_stdout(io.StringIO()):
        assert main([*arguments, "--output", f"{output}={tmp_path / 'result.npy'}"]) == 0
    found, wanted = np.load(tmp_path / "result.npy"), expected(**inputs)
    assert found.dtype == wanted.dtype
    assert found.tobytes() == wanted.tobytes()


def test_gemm_agrees_with_plain_integers() -> None:
    """Breaks when numpy's integer product, the other test's oracle, is not what one means by a product."""
    inputs = _inputs(assemble_file(EXAMPLES / "gemm.s"), 3)
    assert (_gemm(**inputs) == (inputs["a"].astype(np.int32) @ inputs["b"].astype(np.int32))[:4, :40]).all()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.s")), ids=lambda path: path.stem)
def test_examples_are_clean_and_round_trip(path: Path) -> None:
    """Breaks when an example has a race, reads what was never written or waits for nothing, or its text loses
    something."""
    image = assemble_file(path)
    assert lint(image) == []
    assert image_bytes(assemble(disassemble(image)[0])) == image_bytes(image)


def _without(text: str, mark: str) -> str:
    line = next(line for line in text.split("\n") if mark in line.partition("@")[2])
    pieces = [piece.strip() for piece in line.partition(";")[0].partition("@")[2].split(",") if piece.strip() != mark]
    return text.replace(line, line.partition("@")[0] + (f"@ {', '.join(pieces)}" if pieces else ""), 1)


@pytest.mark.parametrize("mark", ["mxu<=1", "ldw<=0", "lda<=0", "vec<=1", "mxu<=0", "sto<=1", "vec<=0"])
def test_every_count_of_the_gemm_is_needed(mark: str) -> None:
    """Breaks when the double buffering waits for something it need not, or the checker misses a race."""
    text = (EXAMPLES / "gemm.s").read_text()
    assert lint(assemble(text)) == []
    assert any(finding.kind == "race" for finding in lint(assemble(_without(text, mark))))


def test_double_buffering_overlaps_loads_and_products() -> None:
    """Breaks when one buffer is used for all tiles: the loads then touch what the product before reads."""
    text = (EXAMPLES / "gemm.s").read_text()
    assert lint(assemble(text.replace("inc=W_STEP, mod=2", "inc=W_STEP, mod=1")))


def test_double_buffering_is_faster() -> None:
    """Breaks when the counts of the GEMM make the engines take turns: waiting for the last word everywhere costs a
    quarter more, at least."""
    text = (EXAMPLES / "gemm.s").read_text()
    serial = text.replace("mxu<=1", "mxu<=0").replace("vec<=1", "vec<=0").replace("sto<=1", "sto<=0")
    assert simulate(assemble(serial)).cycles > 1.25 * simulate(assemble(text)).cycles

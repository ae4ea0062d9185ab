"""Cycles, tokens per second and joules per token over the length of the context; and verbs on programs that scalars
steer."""

from pathlib import Path

import pytest
from cli_harness import call
from decoders import decoder

from compiler.entries import compile_entries
from compiler.frontend.decoder import capture_decoder
from emulator.timing.simulate import simulate
from isa.errors import InputError
from isa.image.image import Image, load_image, write_image
from runtime.profile.context import lengths, over_context

pytestmark = pytest.mark.wide  # a decode step of many lengths

CAPACITY = 256


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = decoder("Llama", max_position_embeddings=CAPACITY)
    steps = {name: capture_decoder(model, 2, count, CAPACITY) for name, count in (("prefill", 5), ("decode", 1))}
    path = tmp_path_factory.mktemp("context") / "llm.llmchip"
    write_image(compile_entries(steps).image(), path)
    return path


@pytest.fixture(scope="module")
def image(path: Path) -> Image:
    return load_image(path)


def test_points_are_launches_behind_which_the_context_is_so_long(image: Image) -> None:
    """Breaks when the position, the number of new tokens or the batch is off, or the limit does not grow by the cache
    that is read: per layer keys and values of 2 heads, 16 elements and a scale each."""
    near, far = over_context(image, "decode", [1, CAPACITY])
    values = {"positions.0": CAPACITY - 1, "positions.1": CAPACITY - 1}
    assert far.cycles == simulate(image, entry="decode", values=values).cycles > near.cycles
    assert (far.new, far.batch) == (1, 2)
    assert far.tokens_per_second == pytest.approx(2 * image.chip.clock_hz / far.cycles)
    assert far.dram_bytes - near.dram_bytes == 2 * 2 * 2 * 2 * (16 + 4) * (CAPACITY - 1)
    assert 0 < near.of_limit < 1 and 0 < near.joules_per_token < far.joules_per_token
    assert over_context(image, "prefill", [5])[0].new == 5


@pytest.mark.parametrize(
    ("text", "found"),
    [("1:4:4", [1, 2, 3, 4]), ("16,200", [16, 200]), (":3:3", [1, 2, 3]), ("255:", [255, 256]), ("7", [7])],
)
def test_ranges_of_lengths(image: Image, text: str, found: list[int]) -> None:
    """Breaks when an end is left out or a default is taken for the other."""
    assert lengths(text, image, "decode") == found


@pytest.mark.parametrize(
    ("text", "what"), [("x", "no range"), ("9:3", "empty"), ("1:2:0", "empty"), ("1:2:3:4", "no range")]
)
def test_ranges_that_are_none(image: Image, text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        lengths(text, image, "decode")


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("profile", "--entry", "decode", "--tokens", "257"), "257 tokens does not exist", "from 1 to 256"),
        (("profile", "--tokens", "5", "--csv", "/dev/null"), "--tokens does not go with --csv", "--json"),
        (("profile", "--tokens", "5", "--layer", "0"), "--tokens does not go with --layer", "--json"),
        (("profile", "--tokens", "5", "--sort", "cycles"), "--tokens does not go with --sort", "--json"),
        (("profile", "--tokens", "5", "--top", "0"), "--tokens does not go with --top", "--json"),
        (("profile", "--tokens", "5", "--stalls", "0"), "--tokens does not go with --stalls", "--json"),
        (("profile", "--tokens", "3"), "3 tokens does not exist", "from 5 to 256"),
        (("profile", "--entry", "encode"), "no entry 'encode'", "prefill, decode"),
        (("debug", "--entry", "decode"), "needs scalar 'positions.0'", "0 to 255"),
        (("debug", "--scalar", "positions.0=252", "--scalar", "positions.1=1"), "cannot be '252'", "0 to 251"),
        (("debug", "--scalar", "length=1"), "no scalar 'length'", "positions.0, positions.1"),
        (("verify",), "no model to be compared with", "--model MODEL"),
        (("run",), "language model", "--prompt"),
    ],
)
def test_verbs_say_what_is_missing(path: Path, arguments: tuple[str, ...], what: str, hint: str) -> None:
    """Breaks when a verb fails on an image with several entries or with scalars without saying what to give."""
    verb, *rest = arguments
    result = call(verb, path, *rest, "--json")
    assert result.code == 2 and result.error["kind"] in ("input", "model")
    assert what in result.error["what"] and hint in result.error["hint"]


def test_verbs_on_a_program_with_entries_and_scalars(path: Path, tmp_path: Path) -> None:
    """Breaks when a verb takes the first entry for the only one, or cannot do with scalars at all."""
    points = call("profile", path, "--entry", "decode", "--tokens", "1:256:3", "--json").document["points"]
    assert [point["tokens"] for point in points] == [1, 128, 256]
    text = call("profile", path, "--entry", "decode", "--tokens", "1:256:3").out
    assert "of limit" in text and "128" in text
    assert "positions.1 = 255" in call("profile", path, "--entry", "decode", "--top", 0).err
    assert call("lint", path, "--json").document["errors"] == 0
    assert "positions.1 0 to 255" in call("info", path).out
    script = tmp_path / "commands"
    script.write_text("run\n")
    scalars = ("--scalar", "positions.0=0", "--scalar", "positions.1=0")
    assert call("debug", path, "--entry", "decode", *scalars, "--script", script).code == 0
    assert "<decode>" in call("disasm", path).out

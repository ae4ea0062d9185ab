"""The compile cache: the right image, from whoever made it, or none."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import llmchip
from compiler.frontend.capture import capture
from compiler.options import Options
from isa import extension
from isa.chip import load_chip
from isa.extension import Extension
from runtime.pytorch import cache
from runtime.pytorch.tensors import to_array


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x) + 1
        return result


class Other(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x) - 1
        return result


X = {"x": torch.linspace(-2, 2, 64).reshape(4, 16)}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMCHIP_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0.0)
    return tmp_path / "images"


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("runtime.pytorch.compilation.finish", refuse)


def test_the_same_model_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the key depends on something that differs between two runs, such as an address."""
    first = llmchip.compile(Small().eval(), X)
    want = first(**X)
    forbid_compiling(monkeypatch)
    second = llmchip.compile(Small().eval(), X)
    assert second.image == first.image and torch.equal(second(**X), want)


def test_an_extension_has_images_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a process with an extension, or with another version of it, is served what one without it has made.
    (tests/runtime/test_extension.py has the processes.)"""
    captured, keys = capture(Small().eval(), (), X), set()
    for installed in ({}, {"mine": "1" * 64}, {"mine": "2" * 64}, {"yours": "1" * 64}):
        known = {name: Extension(name, (), {}, sha256=sha256) for name, sha256 in installed.items()}
        monkeypatch.setattr(extension, "INSTALLED", known)
        keys.add(cache.key_of(captured, Options(), load_chip("edge"), "weights"))
    assert len(keys - {None}) == 4


def test_torch_compile_uses_the_cache_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the backend compiles what it, in another process, has compiled before."""
    with torch.no_grad():
        want = torch.compile(Small().eval(), backend="llmchip")(**X)
        torch._dynamo.reset()
        forbid_compiling(monkeypatch)
        assert torch.equal(torch.compile(Small().eval(), backend="llmchip")(**X), want)


@pytest.mark.parametrize("change", ["weights", "graph", "shape", "chip", "options"])
def test_whatever_changes_the_image_changes_the_key(change: str, own_folder: Path) -> None:
    """Breaks when two different images share a key: one would be run for the other."""
    llmchip.compile(Small().eval(), X)
    given: dict[str, Any] = {"model": Small().eval(), "inputs": X, "options": {}}
    changes: dict[str, dict[str, Any]] = {
        "weights": {"model": Small(1).eval()},
        "graph": {"model": Other().eval()},
        "shape": {"inputs": {"x": X["x"][:3]}},
        "chip": {"options": {"chip": "server"}},
        "options": {"options": {"disable": "schedule"}},
    }
    given |= changes[change]
    program = llmchip.compile(given["model"], given["inputs"], **given["options"])
    assert len(list(own_folder.iterdir())) == 2
    assert program.verify(**given["inputs"]).bit_exact


def test_another_version_of_the_compiler_makes_its_own_image(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    """Breaks when a mended compiler is served what its predecessor made."""
    llmchip.compile(Small().eval(), X)
    monkeypatch.setattr(cache, "_versions", lambda: "another")
    llmchip.compile(Small().eval(), X)
    assert len(list(own_folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_image_is_made_again(damage: bytes | None, own_folder: Path) -> None:
    """Breaks when a file that was cut short or changed is run, or stands in the way for ever."""
    want = llmchip.compile(Small().eval(), X)(**X)
    (path,) = own_folder.iterdir()
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data) if damage is None else damage)
    assert torch.equal(llmchip.compile(Small().eval(), X)(**X), want)
    assert cache.find(path.stem) is not None


def test_the_least_recently_used_images_go_first(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    """Breaks when the cache outgrows its bound, or drops what is in use."""
    import os

    programs = [llmchip.compile(Small(seed).eval(), X) for seed in range(3)]
    found = {entry.path: entry for entry in cache.entries()}
    for number, path in enumerate(sorted(found)):
        os.utime(path, (number, number))
    monkeypatch.setenv("LLMCHIP_CACHE_BYTES", str(sum(entry.bytes for entry in found.values())))
    oldest = sorted(found)[0]
    programs.append(llmchip.compile(Small(3).eval(), X))
    left = {entry.path for entry in cache.entries()}
    assert oldest not in left and len(left) == 3
    assert all(torch.equal(program(**X), program(**X)) for program in programs)  # an image that was removed still runs


def test_concurrent_writers_and_clearers_only_ever_see_whole_images() -> None:
    """Breaks when a file is visible before it is complete, or a vanished one is an error."""
    image = llmchip.compile(Small().eval(), X).image

    def work(number: int) -> bool:
        for turn in range(20):
            cache.keep(f"{turn % 3}", image, 9.0)
            found = cache.find(f"{(turn + number) % 3}")
            if found is not None and found.weights != image.weights:
                return False
            if turn % 5 == number:
                cache.clear()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_no_cache_no_file(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    """Breaks when LLMCHIP_CACHE=off still writes, or a folder that cannot be written stops a compile."""
    monkeypatch.setenv("LLMCHIP_CACHE", "off")
    llmchip.compile(Small().eval(), X)
    assert not own_folder.exists() and cache.entries() == []
    monkeypatch.setenv("LLMCHIP_CACHE", "/proc/nowhere")
    assert llmchip.compile(Small().eval(), X)(**X).shape == (4, 8)


def test_an_entry_is_served_for_its_own_key_only(own_folder: Path) -> None:
    """Breaks when a cache entry that was copied over another one is run in its place."""
    programs = [llmchip.compile(Small(seed).eval(), X) for seed in range(2)]
    first, second = sorted(own_folder.iterdir())
    first.write_bytes(second.read_bytes())
    assert cache.find(first.stem) is None and not first.exists()
    assert cache.find(second.stem) is not None
    for seed, program in enumerate(programs):
        assert torch.equal(llmchip.compile(Small(seed).eval(), X)(**X), program(**X))


def test_an_entry_that_is_cut_short_while_its_program_lives_harms_nobody(own_folder: Path) -> None:
    """Breaks when an image from the cache is a mapped file: reading it would end the process."""
    llmchip.compile(Small().eval(), X)
    program = llmchip.compile(Small().eval(), X)
    want = program(**X)
    (path,) = own_folder.iterdir()
    with open(path, "r+b") as file:
        file.truncate(100)
    assert torch.equal(llmchip.compile(Small().eval(), X)(**X), want) and torch.equal(program(**X), want)
    assert bytes(program.image.weights)


@pytest.mark.parametrize("kind", ["file", "device", "long", "forbidden"])
def test_a_folder_that_cannot_be_used_is_one_warning(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    """Breaks when it stops the work, is told twice, or not at all."""
    (tmp_path / "file").touch()
    places = {
        "file": tmp_path / "file",
        "device": Path("/dev/null"),
        "long": tmp_path / ("a" * 300),
        "forbidden": Path("/proc/nowhere"),
    }
    monkeypatch.setenv("LLMCHIP_CACHE", str(places[kind]))
    cache._warn.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        results = [llmchip.compile(Small().eval(), X)(**X) for _ in range(2)]
        assert cache.entries() == []
    told = [str(warning.message) for warning in said if "cache" in str(warning.message)]
    assert len(told) == 1 and "cannot use its cache" in told[0]
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5000", 5000), ("4G", 4 << 30), ("500m", 500 << 20), ("2 KiB", 2 << 10), ("1TB", 1 << 40), ("", cache.BOUND)],
)
def test_sizes_have_suffixes(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when what people write for a size ends the program."""
    monkeypatch.setenv("LLMCHIP_CACHE_BYTES", text)
    assert cache.bound() == size


def test_a_size_that_is_none_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a bad bound stops the work or is taken for another one in silence."""
    monkeypatch.setenv("LLMCHIP_CACHE_BYTES", "plenty")
    cache._warn.cache_clear()
    with pytest.warns(UserWarning, match="'plenty'"):
        assert cache.bound() == cache.BOUND


def test_interpreted_and_planned_models_agree() -> None:
    """Breaks when a compiled model gives other bits by plan than word by word."""
    from runtime.device.executable import Executable

    image = llmchip.compile(Small().eval(), X).image
    arrays = {"x": to_array(X["x"])}
    slow, fast = Executable(image, interpret=True), Executable(image)
    for _ in range(3):
        for name, want in slow(arrays).items():
            assert want.tobytes() == fast(arrays)[name].tobytes()

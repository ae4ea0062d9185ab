"""Instructions from outside: one file, named by the user, known to everything; nothing is loaded because an image names
it.

Extensions are for a process, so each of these runs in one of its own.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT

MINIMUM, ADD_RELU = (ROOT / "examples" / "extension" / name for name in ("vector_minimum.py", "add_relu.py"))
MODEL = """
import torch, llmchip
for path in {files!r}:
    llmchip.extend(path)
torch.manual_seed(0)
class Model(torch.nn.Module):
    def forward(self, x, y, i, j):
        return torch.minimum(x, y), torch.relu(x + y) * 2, torch.minimum(i, j), torch.minimum(x.bfloat16(), y.bfloat16())
x, y = torch.randn(2, 5, 33), torch.randn(2, 1, 33)
x[0, 0, :3], y[0, 0, :3] = torch.tensor([float("nan"), 0.0, -0.0]), torch.tensor([1.0, -0.0, 0.0])
i, j = torch.randint(-9, 9, (2, 33)), torch.randint(-9, 9, (2, 33))
model, args = Model().eval(), (x, y, i, j)
"""
COMPARED = """
def least(a, b):  # of two zeros the second: PyTorch gives either, by the element's place in memory
    return torch.where(a == b, b, torch.minimum(a, b))

t = x + y
wanted = least(x, y), torch.where(t <= 0, 0.0, t) * 2, least(i, j), least(x.bfloat16(), y.bfloat16())

def same(a, b):
    bits = {4: torch.int32, 2: torch.int16, 8: torch.int64}[a.element_size()]
    return a.dtype is b.dtype and torch.equal(a.isnan(), b.isnan()) and torch.equal(
        a.masked_fill(a.isnan(), 0).view(bits), b.masked_fill(b.isnan(), 0).view(bits))
"""


def python(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=_environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def llmcc(*args: object, cwd: Path, places: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmchip", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=_environment(*places),
        timeout=300,
    )


def _environment(*places: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT, *places)))
    return {**os.environ, "PYTHONPATH": path, "LLMCHIP_CACHE": "off", "LLMCHIP_STRICT": "1"}


@pytest.mark.slow
def test_bits_checks_and_tools(tmp_path: Path) -> None:
    """Breaks when a part of the tool chain has a list of instructions of its own, or the fused instruction gives other
    bits than the two."""
    files = [str(MINIMUM), str(ADD_RELU)]
    out = python(
        MODEL.format(files=files) + COMPARED + "program = llmchip.compile(model, args); program.save('a.llmchip')\n"
        "print(all(map(same, program(*args), wanted)), program.verify(*args).bit_exact)\n"
        "print([word in program.disassemble() for word in ('vmin', 'vaddr', 'f=sel')])\n"
        "print(all(map(same, torch.compile(model, backend='llmchip')(*args), wanted)), llmchip.fallbacks())\n",
        tmp_path,
    )  # fmt: skip
    assert out.splitlines() == ["True True", "[True, True, False]", "True []"]
    given = [part for path in files for part in ("--extension", path)]
    for verb, said in (
        ("info", "nodes"),
        ("lint", "no finding"),
        ("run", "output0"),
        ("profile", "add_relu"),
        ("disasm", "vaddr d="),
    ):
        done = llmcc(verb, "a.llmchip", *given, cwd=tmp_path)
        assert done.returncode == 0 and said in done.stdout, (verb, done.stdout, done.stderr)
    text = tmp_path / "a.s"
    text.write_text(llmcc("disasm", "a.llmchip", *given, "-o", "dis", cwd=tmp_path).stdout)
    assert "vmin" in llmcc("isa", "vmin", *given, cwd=tmp_path).stdout


@pytest.mark.wide
def test_an_image_is_refused_without_its_extension(tmp_path: Path) -> None:
    """Breaks when an image's record is acted on, or an image with unknown words is run."""
    python(MODEL.format(files=[str(MINIMUM)]) + "llmchip.compile(model, args).save('a.llmchip')", tmp_path)
    done = llmcc("run", "a.llmchip", cwd=tmp_path)
    assert (
        done.returncode == 2 and "the extension 'vector-minimum'" in done.stderr and "--extension FILE" in done.stderr
    )
    changed = tmp_path / "changed.py"
    changed.write_text(MINIMUM.read_text() + "# another\n")
    done = llmcc("run", "a.llmchip", "--extension", changed, cwd=tmp_path)
    assert done.returncode == 2 and "another extension 'vector-minimum'" in done.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("", "defines no EXTENSION"),
        ("1/0", "ZeroDivisionError"),
        ("from isa.extension import Extension\nfrom isa.spec import ISA\nEXTENSION = Extension('x', (ISA['mm'],), {})", "is there already"),
        (
            (
                "from dataclasses import replace\nfrom isa.extension import Extension\nfrom isa.spec import ISA\n"
                "EXTENSION = Extension('x', (replace(ISA['mm'], mnemonic='mm2'),), {'mm2': print})"
            ),
            "those of extensions are 0xc0",
        ),
        (
            (
                "from dataclasses import replace\nfrom isa.extension import Extension\nfrom isa.spec import ISA\n"
                "row = replace(ISA['mm'], mnemonic='mma', opcode=0xC0)\n"
                "EXTENSION = Extension('x', (row, replace(row, mnemonic='mmb')), {'mma': print, 'mmb': print})"
            ),
            "has the opcode of 'mma'",
        ),
        (
            "from isa.extension import Extension\nEXTENSION = Extension('x', (), {'vop': print})",
            "has handlers for vop",
        ),
        ("from isa.extension import Extension\nEXTENSION = Extension('', (), {})", "has no name of letters"),
        ("import sys\nsys.exit(0)", "SystemExit"),
    ],
)  # fmt: skip
def test_what_is_no_extension_is_one_line(tmp_path: Path, code: str, says: str) -> None:
    """Breaks when a mistake in the user's file is a traceback, or gets half of it installed."""
    (tmp_path / "x.py").write_text(code)
    done = llmcc("isa", "--extension", "x.py", cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_same_image_without_a_word_of_it(tmp_path: Path) -> None:
    """Breaks when an installed extension changes images that do not use it."""
    code = "import torch, llmchip\n{}torch.manual_seed(0)\nm = torch.nn.Linear(8, 8).eval()\nllmchip.compile(m, (torch.zeros(2, 8),)).save('{}')\n"
    python(code.format("", "plain.llmchip"), tmp_path)
    python(code.format(f"llmchip.extend({str(MINIMUM)!r})\n", "extended.llmchip"), tmp_path)
    assert (tmp_path / "plain.llmchip").read_bytes() == (tmp_path / "extended.llmchip").read_bytes()


def test_an_installed_package_offers_one_by_name(tmp_path: Path) -> None:
    """Breaks when entry points are not looked for, or an edited package passes for the one that an image was made
    with."""
    site = tmp_path / "site"
    (site / "mine-1.0.dist-info").mkdir(parents=True)
    (site / "mine.py").write_text(MINIMUM.read_text())
    (site / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (site / "mine-1.0.dist-info" / "entry_points.txt").write_text("[llmchip.extensions]\nmine = mine:EXTENSION\n")
    text = tmp_path / "a.s"
    text.write_text(
        ".entry name=main, pc=0\nvset v=v1, space=sram, dtype=f32, base=0\n"
        "vset v=v2, space=sram, dtype=f32, base=64\nvmin d=v2, a=v1, b=v1, rows=1, cols=4\nhalt\n"
    )
    assert llmcc("asm", text, "-o", "a.llmchip", "--extension", "mine", cwd=tmp_path, places=(site,)).returncode == 0
    assert llmcc("info", "a.llmchip", "--extension", "mine", cwd=tmp_path, places=(site,)).returncode == 0
    (site / "mine.py").write_text(MINIMUM.read_text() + "# edited\n")
    done = llmcc("info", "a.llmchip", "--extension", "mine", cwd=tmp_path, places=(site,))
    assert done.returncode == 2 and "another extension" in done.stderr
    done = llmcc("info", "a.llmchip", "--extension", "yours", cwd=tmp_path, places=(site,))
    assert done.returncode == 2 and "installed packages offer mine" in done.stderr


def test_words_that_no_record_names_are_refused(tmp_path: Path) -> None:
    """Breaks when an image that says nothing of extensions runs words of whichever is installed."""
    from isa.asm.assemble import assemble
    from isa.image.image import write_image

    image = assemble(".entry name=main, pc=0\nnop\nhalt\n")
    write_image(replace(image, code=b"\xc0" + image.code[1:]), tmp_path / "a.llmchip")
    done = llmcc("info", "a.llmchip", "--extension", MINIMUM, cwd=tmp_path)
    assert done.returncode == 2 and "that it does not record" in done.stderr


@pytest.mark.slow
def test_the_cache_tells_extensions_apart(tmp_path: Path) -> None:
    """Breaks when a process with an extension is served the image that one without it has made."""
    code = MODEL + (
        "import os\nos.environ['LLMCHIP_CACHE'] = 'cache'\nfrom runtime.pytorch import cache\ncache.WORTH_KEEPING = 0.0\n"
        "print('vmin' in llmchip.compile(model, args).disassemble())\n"
    )
    assert python(code.format(files=[]), tmp_path) == "False\n"
    assert list((tmp_path / "cache").rglob("*.llmchip")), "nothing was kept, so nothing could be mixed up"
    assert python(code.format(files=[str(MINIMUM)]), tmp_path) == "True\n"

"""`make pictures`: the pictures of README.md, from real runs of MiniLM: pages that llmcc writes, as a browser shows them.

    python -m tools.pictures --only front      one of them

Needs Chromium, which draws them; Pillow makes them small: a palette is enough for plots and text.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isa.files import write_atomic

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 150_000  # of a picture
MODEL = ("minilm", "--seq", "128", "--task", "model")
_WAIT = 8000  # milliseconds of the page's own time


@dataclass(frozen=True)
class Picture:
    """A page that `llmcc` writes behind --html, and how it is looked at: size, what is selected, what is clicked."""

    name: str
    command: tuple[str, ...]
    width: int
    height: int
    fragment: str = ""
    script: str = ""


PICTURES = (
    Picture("timeline", ("profile", *MODEL, "--top", "0"), 1280, 700),
    Picture(
        "front",
        (
            "sweep", *MODEL, "--set", "mxu.rows+mxu.cols=64..256", "--set", "sram.bytes=1MiB..8MiB",
            "--set", "dram.bytes_per_second=50GB/s,100GB/s,200GB/s", "--minimize", "latency,area",
        ),
        1280, 595,
        script="document.querySelectorAll('#points tr.front')[2].click()",
    ),
    Picture("disassembly", ("disasm", "minilm.llmchip", "--cycles"), 1280, 760, fragment="#node=activation"),
)  # fmt: skip


def browser() -> str:
    """The path of a browser. Raises SystemExit without one."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), "")
    if not found:
        raise SystemExit("pictures: install Chromium (the Debian package chromium)")
    return found


def llmcc(folder: Path, *arguments: str) -> None:
    """In `folder`. Raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "llmchip", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def looked_at(page: Path, picture: Picture) -> bytes:
    """The page as PNG, as the browser shows it after the click."""
    shown = page.with_name(f"clicked-{page.name}")
    click = f"<script>try {{ {picture.script} }} catch (e) {{ console.error(e) }}</script></body>"
    shown.write_text(page.read_text(encoding="utf-8").replace("</body>", click), encoding="utf-8")
    target = page.with_suffix(".png")
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--blink-settings=preferredColorScheme=1",
        f"--window-size={picture.width},{picture.height}", f"--virtual-time-budget={_WAIT}",
        f"--user-data-dir={page.parent / 'browser'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--screenshot={target}", f"{shown.as_uri()}{picture.fragment}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return target.read_bytes()


def small(png: bytes) -> bytes:
    """The same picture with a palette."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)  # rare colours count, too
        few.save(out, "PNG", optimize=True)
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Raises SystemExit for a picture that is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[picture.name for picture in PICTURES], help="one picture")
    only = parser.parse_args(arguments).only
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        llmcc(folder, "compile", *MODEL, "-o", "minilm.llmchip")
        for picture in PICTURES:
            if only in (None, picture.name):
                page = folder / f"{picture.name}.html"
                llmcc(folder, *picture.command, "--html", page.name)
                data = small(looked_at(page, picture))
                if len(data) > MOST_BYTES:
                    raise SystemExit(f"pictures: {picture.name} has {len(data):,} bytes, more than {MOST_BYTES:,}")
                FOLDER.mkdir(parents=True, exist_ok=True)
                write_atomic(FOLDER / f"{picture.name}.png", [data])
                print(f"docs/pictures/{picture.name}.png: {len(data):,} bytes")


if __name__ == "__main__":
    main()

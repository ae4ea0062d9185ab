"""Images of small compiled models, and a browser to look at pages with."""

import html
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from isa.image.image import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@cache
def mlp_image() -> Image:
    """A model of two layers."""
    import torch

    import llmchip

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.ReLU(), torch.nn.Linear(40, 8)).eval()
    return llmchip.compile(model, (torch.randn(3, 24),)).image


@cache
def bert_image(seed: int = 0, **changes: Any) -> Image:
    """A BERT with random weights."""
    import torch
    import transformers

    import llmchip

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
    } | changes
    model = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
    return llmchip.compile(model, {"input_ids": torch.randint(0, 50, (2, 8))}).image


def browser() -> str:
    """The path of a browser. Without one the test is skipped, but in CI it fails."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), "")
    if not found:
        message = "no Chromium here; install the Debian package chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


_LISTEN = """<script>
addEventListener("error", e => document.body.dataset.error = e.message);
addEventListener("unhandledrejection", e => document.body.dataset.error = String(e.reason));
for (const kind of ["error", "warn"])
  console[kind] = (...said) => document.body.dataset.error = said.join(" ") + new Error().stack;
</script>"""


def dom(page: Path, fragment: str = "", script: str = "", width: int = 1500) -> str:
    """The page's document after its script has run, and `script`, which may wait, after that. The browser cannot reach
    any network. Fails for whatever a page with a `script` throws or writes to the console."""
    if script:
        changed = page.with_name(f"scripted-{page.name}")
        guarded = f"(async () => {{ {script} }})().catch(e => {{ document.body.dataset.error = e.stack }})"
        text = page.read_text().replace("<body>", f"<body>{_LISTEN}", 1)
        changed.write_text(text.replace("</body>", f"<script>{guarded}</script></body>"))
        page = changed
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--virtual-time-budget=10000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [browser(), *flags, profile, "--dump-dom", f"{page.as_uri()}{fragment}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    failed = re.search(r'data-error="([^"]*)"', done.stdout)
    assert failed is None, failed
    return done.stdout


def day_and_night(page: Path, width: int) -> None:
    """Fails for a page that is wider than the window, or whose button does not change light for dark and back."""
    script = """
      const paper = () => getComputedStyle(document.body).backgroundColor, button = document.getElementById("theme");
      const seen = [paper()];
      for (let i = 0; i < 2; i++) { button.click(); seen.push(paper()); }
      document.body.dataset.papers = seen.join(";");
      document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth;
    """
    document = dom(page, script=script, width=width)
    first, other, again = said(document, "papers").split(";")
    assert first == again != other
    assert int(said(document, "wide")) <= 0


def said(document: str, name: str) -> str:
    """What a script left in `document.body.dataset`."""
    match = re.search(rf'<body[^>]*\bdata-{name}="([^"]*)"', document)
    assert match is not None, re.findall("<body[^>]*>", document)
    return html.unescape(match[1])

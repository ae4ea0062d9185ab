"""What mkdocs cannot do by itself: pages of docs/ link to files elsewhere in the repository, which GitHub shows. Here
each of them becomes a page of the site, `repository/<path>`: Markdown as it is, code and notebooks in fences, a folder
as a list. mkdocs calls the functions by their names."""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_BESIDE = "repository"
_ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md", "examples")  # of the navigation, whether they are linked to or not
_TITLES = {"examples": "Examples and notebooks"}
_FENCES = {".py": "python", ".s": "llmchip", ".inc": "llmchip", ".toml": "toml", ".json": "json"}


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file beside docs/ that a page links to, or a page that was added so."""
    from mkdocs.structure.files import File

    todo = [ROOT / name for name in _ALWAYS]
    todo += [path for page in files.documentation_pages() for path in _outside(ROOT / "docs" / page.src_uri)]
    done: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in done:
            continue
        done.add(path)
        if path.suffix in (".svg", ".png"):
            files.append(File.generated(config, _site_uri(path), content=path.read_bytes()))
            continue
        files.append(File.generated(config, _site_uri(path), content=_page(path)))
        todo += _entries(path) if path.is_dir() else _outside(path) if path.suffix in (".md", ".ipynb") else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files beside docs/ go to their pages."""
    uri = page.file.src_uri
    origin = ROOT / uri.removeprefix(f"{_BESIDE}/") if uri.startswith(f"{_BESIDE}/") else ROOT / "docs" / uri
    return _LINK.sub(lambda match: f"{match[1]}{_moved(match[2], uri, origin)}{match[3]}", markdown)


def _moved(target: str, uri: str, origin: Path) -> str:
    """The link of a site's page to what its source links to."""
    path = _target(target, origin)
    if path is None or not path.exists() or (uri.endswith("index.md") and path.parent == origin.parent):
        return target
    return posixpath.relpath(_site_uri(path), posixpath.dirname(uri))


def _target(target: str, origin: Path) -> Path | None:
    """The file that a relative link leads to."""
    if "://" in target or target.startswith(("#", "/", "mailto:")):
        return None
    return Path(posixpath.normpath(PurePosixPath(origin.parent, target)))


def _outside(source: Path) -> Iterator[Path]:
    """What a Markdown file or a notebook links to outside docs/."""
    for match in _LINK.finditer(source.read_text(encoding="utf-8") if source.is_file() else ""):
        path = _target(match[2], source)
        if path and path.exists() and path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs"):
            yield path


def _site_uri(path: Path) -> str:
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        return f"{_BESIDE}/{name}/index.md"
    return f"{_BESIDE}/{name}" if path.suffix in (".md", ".svg", ".png") else f"{_BESIDE}/{name}.md"


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (*_FENCES, ".ipynb"))


def _page(path: Path) -> str:
    """A page in Markdown."""
    if path.is_dir():
        return _list(path)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return "".join(_cells(json.loads(text)))
    return f"# {path.name}\n\n{_fenced(text, _FENCES.get(path.suffix, 'text'))}"


def _list(folder: Path) -> str:
    name = folder.relative_to(ROOT).as_posix()
    lines = [f"# {_TITLES.get(name, name)}\n"]
    for path in _entries(folder):
        inside = path.relative_to(folder).as_posix()
        lines.append(f"- [{inside}]({inside}.md): {_said_first(path)}")
    return "\n".join(lines) + "\n"


def _said_first(path: Path) -> str:
    """The first sentence of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"]).partition("\n")[2]
    words = " ".join(text.strip().lstrip("#;\"' ").partition("\n\n")[0].replace("\n; ", " ").split())
    return re.split(r"(?<=[.:]) ", words, maxsplit=1)[0].rstrip(":").rstrip('"')


def _cells(notebook: dict[str, Any]) -> Iterator[str]:
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        yield f"{text}\n\n" if cell["cell_type"] == "markdown" else f"{_fenced(text, _language(text))}\n"


def _language(cell: str) -> str:
    """By the first line: `%%bash`, `%%writefile kernel.s`."""
    first = cell.partition("\n")[0]
    if first.startswith("%%bash"):
        return "bash"
    return _FENCES.get(Path(first).suffix, "python") if first.startswith("%%writefile") else "python"


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````\n"

"""`llmcc info`: what an image holds."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from isa.architecture import Region
from isa.chip import chip_hash
from isa.files import read_regular
from isa.image.container import read_header, table_hash, unpack
from isa.image.image import Image, image_bytes, read_image
from isa.shown import shown
from runtime.cli import completion
from runtime.cli.common import common_options, examples, need, reply, size
from runtime.cli.tables import UNCUT, Column, show
from runtime.device.program_file import is_assembly, open_program
from runtime.models.recorded import record_of

NARROW = 64  # characters beside the titles


@click.command(
    name="info",
    epilog=examples(
        "llmcc info minilm.llmchip", "llmcc info minilm.llmchip --json", "llmcc info examples/asm/softmax.s"
    ),
)
@click.argument("file", shell_complete=completion.files)
@common_options
def command(file: str, as_json: bool, traceback: bool) -> int:
    """Show an image's sections, inputs, outputs, chip, model, options, hashes and versions. Of assembly text, those of
    its image."""
    need(Path(file).exists(), "the file does not exist", file, "name an image made by 'llmcc compile'")
    data = image_bytes(open_program(file)) if is_assembly(file) else read_regular(file)
    image = read_image(data, file)
    document = _document(file, data, image)
    reply(document, as_json, lambda: _print(document))
    return 0


def _document(file: str, data: bytes, image: Image) -> dict[str, Any]:
    header = read_header(data, file)
    _, sections = unpack(memoryview(data), file)
    entries = [
        {
            "name": entry.name,
            "pc": entry.pc,
            "inputs": [_tensor(spec) for spec in entry.inputs],
            "outputs": [_tensor(spec) for spec in entry.outputs],
            "scalars": [{"name": s.name, "minimum": s.minimum, "maximum": s.maximum} for s in entry.scalars],
        }
        for entry in image.entries
    ]
    record = record_of(image, file)
    versions = record.versions or {}
    return {
        "file": file, "bytes": len(data), "words": image.words, "chip": image.chip.name,
        "model": record.model or None, "recipe": record.recipe, "options": record.options,
        "sections": {name: len(section) for name, section in sections.items()},
        "regions": {region.name.lower(): image.size(region) for region in Region if image.size(region)},
        "entries": entries,
        "nodes": dict(Counter(node.status for node in image.debug.nodes)),
        "hashes": {
            "image": image.hash.hex(), "chip": chip_hash(image.chip).hex(), "isa": table_hash().hex(),
            "weights": record.weights_sha256,
        },
        "versions": {**versions, "isa": str(header.isa_version)},
    }  # fmt: skip


def _tensor(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype, "storage": spec.storage.name.lower()}


def _print(document: dict[str, Any]) -> None:
    rows: list[tuple[str, str]] = []
    rows.append(("file", f"{document['file']}, {size(document['bytes'])}"))
    rows.append(("model", str(document["model"] or "not recorded")))
    recipe = document["recipe"] or {}
    rows.append(
        ("", ", ".join(f"{key} {value}" for key, value in recipe.items() if value is not None and key != "argument"))
    )
    rows.append(("chip", document["chip"]))
    for entry in document["entries"]:
        rows.append(("entry", f"{entry['name']} at {entry['pc']:#06x}, {document['words']} instructions in all"))
        for way in ("inputs", "outputs"):
            for spec in entry[way]:
                rows.append((f"  {way[:-1]}", f"{spec['name']} {spec['dtype']} {spec['shape']}"))
        for scalar in entry["scalars"]:
            rows.append(("  scalar", f"{scalar['name']} {scalar['minimum']} to {scalar['maximum']}"))
    rows.append(("sections", ", ".join(f"{name} {size(count)}" for name, count in document["sections"].items())))
    rows.append(("memory", ", ".join(f"{name} {size(count)}" for name, count in document["regions"].items())))
    rows.append(("nodes", ", ".join(f"{count} {status}" for status, count in document["nodes"].items())))
    rows.append(("options", ", ".join(f"{key}={value}" for key, value in (document["options"] or {}).items())))
    for name, value in document["hashes"].items():
        rows.append((f"{name} hash", str(value or "not recorded")))
    rows.append(("versions", ", ".join(f"{key} {value}" for key, value in document["versions"].items())))
    show([Column("", style="cyan"), Column("")], [part for row in rows for part in _folded(*row)], width=UNCUT)


def _folded(title: str, text: str) -> Iterator[tuple[str, str]]:
    """A row, its list continued below where it is longer than a narrow terminal. Items are never cut."""
    lines = [""]
    for item in shown(text).split(", "):
        if lines[-1] and len(lines[-1]) + len(item) > NARROW:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{item}"
    for number, line in enumerate(lines):
        yield (title if number == 0 else ""), line + ("," if number < len(lines) - 1 else "")

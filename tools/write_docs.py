"""`make docs`: writes every generated file: the ISA manual, the editors' grammar, the pages of the command line and of
the chip's parameters, what runs, the schemas, the stock chips, README's table of models. Tests say when one is old."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    from benchmarks import model_table
    from isa.asm import lexer
    from isa.chip import chip_names, load_chip, to_toml
    from isa.doc import chip_page, manual
    from isa.files import write_atomic
    from runtime import schemas
    from tools import write_cli_doc, write_records
    from tools.support import page

    pages = {
        ROOT / "README.md": model_table.readme(),
        ROOT / "docs" / "isa.md": manual.document(),
        ROOT / lexer.PATH: lexer.textmate(),
        ROOT / "docs" / "chip.md": chip_page.document(),
        ROOT / "docs" / "support.md": page.document(),
        ROOT / "docs" / "cli.md": write_cli_doc.document(),
        ROOT / "docs" / "reference" / "records.md": write_records.document(),
        **{ROOT / "docs" / "schemas" / f"{name}.json": schemas.text(name) for name in schemas.TYPES},
        **{ROOT / "isa" / "chips" / f"{name}.toml": to_toml(load_chip(name)) for name in chip_names()},
    }
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, [text.encode()])
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

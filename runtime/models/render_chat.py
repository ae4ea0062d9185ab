"""A chat template, rendered in a process of its own: `python -I render_chat.py`, JSON in and JSON out.

Templates come with models, from strangers. The sandbox of jinja2 keeps them from the machine; limits of this process keep
one that loops or grows from going on. It imports nothing of llmchip.
"""

import contextlib
import json
import sys
from typing import Any

SECONDS, MEMORY, CHARACTERS = 3, 1 << 29, 1 << 22


def render(template: str, values: dict[str, Any]) -> str:
    """The text. Raises TemplateError for one that writes too much, and whatever else the template makes jinja2 raise."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )  # as transformers renders them
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = fail
    parts, count = [], 0
    for part in environment.from_string(template).generate(**values):
        parts.append(part)
        count += len(part)
        if count > CHARACTERS:
            raise TemplateError(f"it writes more than {CHARACTERS} characters")
    return "".join(parts)


def main() -> None:
    with contextlib.suppress(ImportError):  # not on Windows: there the parent's patience is all
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    given = json.load(sys.stdin)
    try:
        found = {"text": render(given["template"], given["values"])}
    except MemoryError:
        found = {"error": "it needs too much memory"}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
